"""Episodes: what they hold, and that index and seed alone decide it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rfm.data.batch import NUM_TOLD, EpisodeBatch
from rfm.data.episodes import (
    EpisodeConfig,
    Episodes,
    EpisodeSource,
    choose,
    count_usable,
    draw_support,
    standardised,
    told_numbers,
)
from rfm.data.generated import Labelled
from tests.batches import differing
from tests.busy_shop import Busy

CONFIG = EpisodeConfig(per_batch=2, support=16, queries=8, children=3, history=4, max_rows=20)
DAY = 86_400


def episodes(
    busy: Busy, config: EpisodeConfig = CONFIG, seed: int = 0, split: str = "train"
) -> Episodes:
    source = EpisodeSource(busy.store, 0, busy.tokenizer, 2, config, split=split)
    return Episodes([source], config, seed, {})


def drawn(busy: Busy, number: int = 12, config: EpisodeConfig = CONFIG) -> list[EpisodeBatch]:
    data = episodes(busy, config)
    return [episode for i in range(number) for episode in data[i]]


def monthly(entities: int = 10, months: int = 30) -> Labelled:
    time = np.repeat(np.arange(months) * 30 * DAY, entities)
    entity = np.tile(np.arange(entities), months)
    return Labelled(entity, time, (np.arange(time.size) % 7 < 3).astype(np.float64))


def test_an_episode_is_examples_and_queries_of_one_task(busy: Busy) -> None:
    classes = set()
    for batch in drawn(busy, 30):
        size = batch.num_seeds
        assert batch.label.shape == (size, 1)
        assert batch.told.shape == (size, NUM_TOLD)
        assert batch.mask_node.tolist() == list(range(size))
        assert 8 <= batch.num_support <= 16
        assert 1 <= size - batch.num_support <= 8
        assert not batch.label.isnan().any()
        assert batch.label[: batch.num_support].unique().numel() >= 2
        if batch.classes:
            assert batch.label.max() < batch.classes
        classes.add(min(batch.classes, 3))
    assert classes == {0, 2, 3}


def test_index_and_seed_decide(busy: Busy) -> None:
    a, b, other = episodes(busy), episodes(busy), episodes(busy, seed=1)
    b[3], b[0]  # in any order
    for i in range(4):
        assert differing(a[i], b[i]) == []
        assert differing(a[i], other[i]) != []
    assert differing(a[0], a[1]) != []


def test_no_episodes_are_none(busy: Busy) -> None:
    assert episodes(busy, replace(CONFIG, per_batch=0))[5] == ()


def test_nothing_to_ask_about_is_said(busy: Busy) -> None:
    early = replace(busy.store, val_timestamp=busy.store.first_time - 1)
    source = EpisodeSource(early, 0, busy.tokenizer, 2, CONFIG)
    object.__setattr__(source.autocompletes, "columns", [])
    with pytest.raises(ValueError, match=r"busy.*nothing to make tasks of.*episodes\.per_batch=0"):
        Episodes([source], CONFIG, 0, {})
    source = EpisodeSource(early, 0, busy.tokenizer, 2, CONFIG)
    with pytest.raises(ValueError, match=r"were all degenerate"):
        Episodes([source], CONFIG, 0, {})[0]


@pytest.mark.parametrize("stale", [0.0, 1.0])
def test_labels_of_examples_are_known_by_the_anchor(stale: float) -> None:
    rows, delta = monthly(), 30 * DAY
    config = replace(CONFIG, stale=stale)
    for seed in range(50):
        found = choose(rows, delta, config, None, np.random.default_rng(seed))
        if found is None:
            continue
        number, cutoff, support = found
        time = rows.time[number]
        anchor = cutoff[support:].min()
        assert (time[:support] + delta <= anchor).all()
        assert (cutoff <= time).all()
        if stale:
            assert (cutoff[support:] == anchor).all()
            behind = set(time[support:] - anchor)
            assert set(time[:support] - cutoff[:support]) <= behind
        else:
            assert (cutoff == time).all()
        assert np.unique(number).size == number.size


def test_validation_anchors_are_later(busy: Busy) -> None:
    rows = monthly()
    after = int(rows.time[200])
    for seed in range(20):
        found = choose(rows, 30 * DAY, CONFIG, after, np.random.default_rng(seed))
        if found is not None:
            assert rows.time[found[0][found[2] :]].min() > after


def test_half_of_the_examples_are_recent() -> None:
    rows, known = monthly(), np.arange(300)
    support = draw_support(rows, known, 20, np.random.default_rng(0))
    assert np.unique(support).size == 20
    assert (support >= 300 - 80).sum() >= 10
    assert (support < 300 - 80).sum() >= 3
    assert draw_support(rows, known[:9], 20, np.random.default_rng(0)).size == 9


@pytest.mark.parametrize("classes", [2, 0, 3])
def test_what_is_told_of_past_labels(classes: int) -> None:
    """Against a loop over all rows."""
    rng, delta, rows = np.random.default_rng(0), 30 * DAY, monthly()
    label = rng.integers(0, 3, len(rows)).astype(np.float64) if classes == 3 else rows.label
    rows = replace(rows, label=label if classes else rng.normal(size=len(rows)))
    number = rng.choice(len(rows), 40, replace=False)
    cutoff = rows.time[number] - rng.integers(0, 5, 40) * 10 * DAY
    told = told_numbers(rows, delta, classes, number, cutoff, 10)
    value = np.zeros(len(rows)) if classes == 3 else rows.label
    if classes == 0:
        examples = rows.label[number[:10]]
        value = ((rows.label - np.median(examples)) / examples.std()).clip(-5, 5)
    for i, (at, until) in enumerate(zip(number, cutoff, strict=True)):
        known = rows.time + delta <= until
        own = np.flatnonzero(known & (rows.entity == rows.entity[at]))
        everyone = value[known].sum() / (known.sum() + 2)
        for j, last in enumerate((3, 10, 10_000)):
            past = value[own[-last:]]
            wanted = past.size * (past.mean() - everyone) / (past.size + 2) if past.size else 0.0
            assert told[i, 5 + j] == pytest.approx(wanted, abs=1e-5)
        assert told[i, 8] == pytest.approx(np.log1p(own.size))
        age = (rows.time[at] - rows.time[own[-1]] - delta) / delta if own.size else 0.0
        assert told[i, 9] == pytest.approx(np.log1p(max(age, 0.0)))
        assert told[i, 4] == pytest.approx(np.log1p((rows.time[at] - until) / delta))


def test_labels_of_queries_are_masked_and_past_ones_shown(busy: Busy) -> None:
    """A forecast's label is nowhere among the tokens of its own row; those of past rows are."""
    config = replace(CONFIG, autocomplete=0.0, relabel=False)
    shown = 0
    for batch in drawn(busy, 20, config):
        masked = batch.buckets[0]
        assert masked.mask_at.numel() == batch.num_seeds == masked.token.shape[0]
        assert masked.value_at.numel() == 0  # a forecast's row holds nothing else
        shown += sum(bucket.value_at.numel() for bucket in batch.buckets[1:])
    assert shown > 1000
    assert torch.is_tensor(batch.label)


def test_usable_tasks_are_counted(busy: Busy) -> None:
    source = episodes(busy).sources[0]
    counted = count_usable([source], 40, 0)
    assert list(counted) == ["busy"]
    assert 5 < counted["busy"] < 40
    assert count_usable([source], 40, 0) == counted


def test_validation_asks_one_database_and_fills_up(busy: Busy) -> None:
    """As many episodes in every batch, whatever there is to ask; those in place do not count."""
    data = episodes(busy, split="val")
    for number, counts in ((0, True), (1, False), (7, False)):
        drawn = data.of(number, 5)
        assert [e.database >= 0 for e in drawn] == [counts] * CONFIG.per_batch
        assert differing(drawn, data.of(number, 5)) == []
    data.sources[0].forecasts.paths = ()
    data.sources[0].autocompletes.columns = []
    with pytest.raises(ValueError, match="all degenerate"):
        data.of(0, 5)


def test_weights_of_databases_count(busy: Busy) -> None:
    sources = [EpisodeSource(busy.store, n, busy.tokenizer, 2, CONFIG) for n in (0, 1)]
    other = replace(busy.store, name="other")
    sources[1] = EpisodeSource(other, 1, busy.tokenizer, 2, CONFIG)
    data = Episodes(sources, CONFIG, 0, {"other": 3.0})
    assert data.weights.tolist() == pytest.approx([0.25, 0.75])


def test_numbers_are_standardised_however_large_they_are() -> None:
    rng = np.random.default_rng(0)
    number = rng.normal(size=50)
    for factor in (1.0, 1e-300, 1e300):
        out = standardised(number * factor, number[:20] * factor)
        np.testing.assert_allclose(out, standardised(number, number[:20]), rtol=1e-6)
        assert np.median(out[:20]) == pytest.approx(0, abs=1e-9)
        assert out[:20].std() == pytest.approx(1)
    assert standardised(np.array([5.0, 6.0]), np.array([5.0, 5.0])).tolist() == [
        0.0,
        pytest.approx(0.2),
    ]
    assert np.abs(standardised(np.array([1e300]), number[:20])).max() == 1e4


def test_a_cell_that_has_no_place_is_said(busy: Busy) -> None:
    source = episodes(busy, replace(CONFIG, max_tokens=8)).sources[0]
    rng = np.random.default_rng(0)
    tasks = (source.forecasts.draw(rng) for _ in range(50))
    task = next(task for task in tasks if task is not None)
    rows = np.arange(8)
    with pytest.raises(ValueError, match=r"episodes\.max_tokens=8 leaves no place for the cell"):
        source.batch(task, rows, task.rows.time[rows], 6, 1)
