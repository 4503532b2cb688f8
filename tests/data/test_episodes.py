"""Episodes: what they hold, and that index and seed alone decide it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rfm.data.batch import ROLE_NAME, EpisodeBatch
from rfm.data.database import open_database
from rfm.data.episode_config import EpisodeConfig
from rfm.data.episodes import Episodes, EpisodeSource, choose, count_usable, standardised
from rfm.data.generated import GeneratedTask, Labelled
from rfm.data.ready_made import own_tasks
from rfm.data.tasks import list_tasks
from tests.batches import differing
from tests.benchmarks.task_folders import write_tasks
from tests.busy_shop import Busy

CONFIG = EpisodeConfig(
    per_batch=2, support=16, fewest=8, queries=8, children=3, history=4, max_rows=20
)
DAY = 86_400


def episodes(
    busy: Busy, config: EpisodeConfig = CONFIG, seed: int = 0, split: str = "train"
) -> Episodes:
    source = EpisodeSource(busy.store, 0, busy.tokenizer, 2, config, split=split)
    return Episodes([source], config, seed, {})


def drawn(busy: Busy, number: int = 12, config: EpisodeConfig = CONFIG) -> list[EpisodeBatch]:
    data = episodes(busy, config)
    return [episode for i in range(number) for episode in data[i]]


def monthly(entities: int = 10, months: int = 30) -> GeneratedTask:
    time = np.repeat(np.arange(months) * 30 * DAY, entities)
    entity = np.tile(np.arange(entities), months)
    rows = Labelled(entity, time, (np.arange(time.size) % 7 < 3).astype(np.float64))
    return GeneratedTask("monthly", "monthly", "late", "person", 0, 2, 30 * DAY, rows)


def test_an_episode_is_examples_and_queries_of_one_task(busy: Busy) -> None:
    classes = set()
    for batch in drawn(busy, 30):
        size = batch.num_seeds
        assert batch.label.shape == (size, 1)
        assert batch.told.shape == (size, batch.kind.numel())
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
def test_labels_of_examples_are_known_by_the_anchor(busy: Busy, stale: float) -> None:
    task, later = monthly(), 0
    config = replace(CONFIG, stale=stale)
    for seed in range(50):
        found = choose(task, busy.store, config, None, np.random.default_rng(seed))
        if found is None:
            continue
        number, cutoff, support = found
        time = task.rows.time[number]
        anchor = cutoff[support:].min()
        assert (task.known[number[:support]] <= anchor).all()
        assert (cutoff <= time).all()
        if stale:
            assert (cutoff[support:] == anchor).all()
            behind = set(time[support:] - anchor)
            assert set(time[:support] - cutoff[:support]) <= behind
        else:
            assert (cutoff == time).all()
            later += int(time[support:].max() > anchor)
        assert np.unique(number).size == number.size
    assert stale or later > 5  # in the rolling regime, too, queries come after the anchor


def test_validation_anchors_are_later(busy: Busy) -> None:
    task = monthly()
    after = int(task.rows.time[200])
    for seed in range(20):
        found = choose(task, busy.store, CONFIG, after, np.random.default_rng(seed))
        if found is not None:
            assert task.rows.time[found[0][found[2] :]].min() > after


def test_the_number_of_examples_varies(busy: Busy) -> None:
    task = monthly()
    config = replace(CONFIG, support=64, fewest=8)
    drawn = (np.random.default_rng(seed) for seed in range(60))
    found = [choose(task, busy.store, config, None, rng) for rng in drawn]
    sizes = {one[2] for one in found if one is not None}
    assert min(sizes) < 12
    assert max(sizes) > 50


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


def test_labels_are_foretold_without_examples_where_they_are_what_their_name_says(
    busy: Busy,
) -> None:
    """Forecasts as they are: not those with other labels, nor cells of the database."""
    config = replace(CONFIG, autocomplete=0.0, relabel=False, rename=0.0)
    for batch in drawn(busy, 10, config):
        assert batch.expectable.all()
        order = batch.label[:, 0].argsort()
        assert (batch.rank[order].diff() >= 0).all()
        assert ((batch.rank >= 0) & (batch.rank <= 1)).all()
        assert batch.rank.unique().numel() == batch.label.unique().numel()
        assert (batch.marginal.diff() >= 0).all()
        cells = batch.cells()
        assert cells.mask.tolist() == cells.node.tolist() == list(range(batch.num_seeds))
    turned = [batch.named for batch in drawn(busy, 20, replace(config, relabel=True))]
    assert 0.2 < np.mean(turned) < 0.8
    assert not any(batch.named for batch in drawn(busy, 5, replace(config, autocomplete=1.0)))


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
    with pytest.raises(ValueError, match="max_tokens=8 leaves no place for the cell"):
        source.lay(task, source.store.val_timestamp).batch(rows, task.rows.time[rows], 6, 1)


def test_names_are_changed_in_a_share_of_the_episodes(busy: Busy) -> None:
    """Nothing but names, and those of all columns and foreign keys."""
    always, never = (replace(CONFIG, rename=share, autocomplete=0.0) for share in (1.0, 0.0))
    a, b = drawn(busy, 1, always)[0], drawn(busy, 1, never)[0]  # later ones draw other tasks
    parts = differing(a, b)
    assert ".relation" in parts
    assert not a.named
    named = {".relation", ".named"}  # whether labels are what their name says
    assert all(part in named or part.endswith(".token") for part in parts)
    for x, y in zip(a.buckets, b.buckets, strict=True):
        changed = x.token != y.token
        assert (x.role[changed] == ROLE_NAME).all()
        assert changed[x.role == ROLE_NAME].float().mean() > 0.9


def test_own_tasks_are_asked_and_no_later_label_is_read(
    tmp_path: Path, busy: Busy, caplog: pytest.LogCaptureFixture
) -> None:
    """Test labels may all be null; what cannot be read is left out."""
    assert own_tasks(open_database(write_tasks(tmp_path / "hides")), 2**40, ("train",)) == []
    folder = write_tasks(tmp_path / "busy", hidden=())
    database = open_database(folder)
    for name in list_tasks(database):
        path = folder / "tasks" / name / "test.parquet"
        frame = pd.read_parquet(path)
        frame[frame.columns[-1]] = None  # of no row
        frame.to_parquet(path)
    until = busy.store.val_timestamp
    tasks = own_tasks(database, until, ("train",))
    assert len(tasks) >= 2
    for task in tasks:
        assert (task.known <= until).all()
    config = replace(CONFIG, own=1.0)
    source = EpisodeSource(busy.store, 0, busy.tokenizer, 2, config, database=database)
    names = {task.name for task in source.own}
    rng = np.random.default_rng(0)
    assert {task.name for _ in range(20) if (task := source.task(rng))} == names
    assert Episodes([source], config, 0, {})[0][0].num_support >= 8
    left = tasks[0].name.split("/")[1]
    (folder / "tasks" / left / "train.parquet").unlink()
    rest = {task.name for task in own_tasks(open_database(folder), until, ("train",))}
    assert rest == names - {tasks[0].name}
    assert f"busy/{left} is left out" in caplog.text
