"""Answers from examples: of every type of task, and what is said of bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch

from rfm.data.database import open_database
from rfm.data.tasks import Regime, Task, open_task
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.predict import predict
from rfm.eval.predictions import score
from rfm.eval.verbalise import verbalise
from rfm.eval.zero_shot import (
    ContextConfig,
    Reader,
    ZeroShotAnswer,
    ZeroShotRecommendation,
    check_askable,
    check_examples,
    in_context,
    open_zero_shot,
)
from rfm.eval.zero_shot_links import Choices, fit_choices
from rfm.nn.backbone import BackboneConfig
from rfm.nn.in_context import Examined
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating
from rfm.train.build import build_model, with_random_backbone

CONFIG = ContextConfig(children=4, history=6, max_rows=40, size=16)
LABELLED = ("buys", "spend", "tier", "status", "rating")


@pytest.fixture(scope="module")
def model(task_shop: Path, task_cache: Path) -> RelationalModel:
    tokenizer = mixture_tokenizer([open_database(task_shop)], 400, task_cache)
    torch.manual_seed(0)
    made = build_model(BackboneConfig(), tokenizer, 40)
    made.about = {"databases": {}, "serialisation": "compact", "episodes": 1}
    with torch.no_grad():  # as if it had learnt something
        for layer in (made.in_context.out_classes, made.in_context.out_bins):
            layer.weight.normal_(std=0.1)
        changes = made.masked_row.quantiles[-1].weight
        changes[changes.shape[0] // 2 :].normal_(std=0.1)  # what weighs the quantiles
    return made.eval()


def task_of(shop: Path, name: str) -> Task:
    return open_task(open_database(shop), name)


def logits(model: RelationalModel) -> Reader:
    """What answers are made of: medians of numbers that are mostly 0 are all the same."""

    def read(both: Examined) -> torch.Tensor:
        out: torch.Tensor = model.in_context(both)
        return out if both.classes else out[:, :1]

    return read


def answered(
    model: RelationalModel,
    task: Task,
    cache: Path,
    context: int = 24,
    seed: int = 0,
    regime: Regime = "rolling",
    config: ContextConfig = CONFIG,
    cached: bool = False,
    reader: Callable[[RelationalModel], Reader] = in_context,
) -> ZeroShotAnswer:
    asker = open_zero_shot(model, task, cache, config, cached)
    return asker.ask("test", regime, context, seed, {"own": reader(model)})["own"]


@pytest.mark.parametrize("regime", ["frozen", "rolling"])
@pytest.mark.parametrize("name", [*LABELLED, "next"])
@pytest.mark.parametrize("context", [0, 24])
def test_every_type_is_answered(
    model: RelationalModel,
    task_shop: Path,
    task_cache: Path,
    name: str,
    regime: Regime,
    context: int,
) -> None:
    task = task_of(task_shop, name)
    found = answered(model, task, task_cache, context, regime=regime)
    value = found.predictions.value
    assert value.shape == (len(task.rows("test")), task.top_k or task.outputs)
    assert np.isfinite(score(task, "test", found.predictions))
    assert found.examples == context
    if task.task_type == "multiclass_classification":
        np.testing.assert_allclose(value.sum(1), 1, atol=1e-5)
    if task.task_type == "binary_classification":
        assert ((value >= 0) & (value <= 1)).all()
    if context and name != "next":
        assert answered(model, task, task_cache, reader=logits).predictions.value.std(0).max() > 0


@pytest.mark.parametrize("name", ["buys", "spend"])
def test_chance_batches_and_the_cache_do_not_matter_but_the_draw_does(
    model: RelationalModel, task_shop: Path, task_cache: Path, name: str
) -> None:
    task = task_of(task_shop, name)

    def value(seed: int = 0, cached: bool = False, **changes: int) -> np.ndarray:
        config = replace(CONFIG, **changes)
        found = answered(
            model, task, task_cache, seed=seed, config=config, cached=cached, reader=logits
        )
        return found.predictions.value

    first = value()
    scale = np.abs(first).max()
    for size in (16, 7):
        np.testing.assert_allclose(value(size=size), first, atol=1e-3 * scale)
    np.testing.assert_allclose(value(cached=True), first, atol=2e-2 * scale)  # half floats
    assert np.abs(value(seed=1) - first).max() > 1e-3 * scale
    assert np.abs(value(draws=2) - first).max() > 1e-3 * scale


def test_a_recommendation_averages_what_draws_of_examples_say(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    task, used = task_of(task_shop, "next"), dict[int, list[np.ndarray]]()
    for draws in (1, 2):
        config = replace(CONFIG, draws=draws)
        asker = open_zero_shot(model, task, task_cache, config, False)
        assert isinstance(asker, ZeroShotRecommendation)
        weight, fitted = asker.links.head.seen.weight, list[np.ndarray]()

        def fit(found: list[Choices], first: np.ndarray, fitted: Any = fitted) -> np.ndarray:
            fitted.append(fit_choices(found, first))
            return fitted[-1]

        def ask(*args: Any, weight: Any = weight, draws: int = draws) -> Any:
            used.setdefault(draws, []).append(weight.detach().numpy()[0].copy())
            return predict(*args)

        with (
            mock.patch("rfm.eval.zero_shot_links.fit_choices", fit),
            mock.patch("rfm.eval.zero_shot_links.predict", ask),
        ):
            asker.ask("test", "rolling", 8, 0, {"own": in_context(model)})
        assert len(fitted) == draws
        np.testing.assert_allclose(used[draws][0], np.mean(fitted, axis=0)[:-1], atol=1e-6)
    assert np.abs(used[1][0] - used[2][0]).max() > 1e-4


def test_contexts_and_readers_share_what_was_encoded(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = open_zero_shot(model, task_of(task_shop, "buys"), task_cache, CONFIG, False)
    readers = {"one": in_context(model), "two": in_context(model)}
    with mock.patch.object(asker, "examine", wraps=asker.examine) as examine:
        first = asker.ask("val", "rolling", 16, 0, readers)
        asker.ask("test", "rolling", 16, 0, readers)
        asker.ask("val", "rolling", 8, 1, readers)
        asker.ask("test", "rolling", 8, 1, readers)
    assert examine.call_count == 2 + 4  # questions of each split, examples of each call
    np.testing.assert_array_equal(first["one"].predictions.value, first["two"].predictions.value)
    asker.ask("test", "frozen", 8, 0, readers)
    again = asker.ask("val", "rolling", 16, 0, readers)
    np.testing.assert_array_equal(first["one"].predictions.value, again["one"].predictions.value)


def test_examples_are_known_by_the_time_that_the_split_begins(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    task = task_of(task_shop, "buys")
    asker = open_zero_shot(model, task, task_cache, CONFIG, False)
    for split, end in (
        ("val", task.database.val_timestamp),
        ("test", task.database.test_timestamp),
    ):
        known = asker.known(split)
        assert 0 < known.size < len(asker.rows)
        assert (asker.rows.time[known] + task.timedelta <= end).all()


def test_fewer_labels_than_wanted_are_said(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    found = answered(model, task_of(task_shop, "buys"), task_cache, 100_000)
    assert 0 < found.examples < 100_000
    assert "fewer than context=100000" in found.warnings[0]


def test_without_any_label_the_masked_cell_is_asked(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    """The test split begins before any label is known; numbers have no scale then."""
    task = task_of(task_shop, "buys")
    begun = task.database.first_time + 1
    early = replace(task.database, val_timestamp=begun, test_timestamp=begun)
    found = answered(model, replace(task, database=early), task_cache, regime="frozen")
    assert found.examples == 0
    assert "no label is known by the anchor" in found.warnings[0]
    assert found.predictions.value.shape == (len(task.rows("test")), 1)
    assert list(asked(model, replace(task, database=early), task_cache)) == ["own"]
    spend = replace(task_of(task_shop, "spend"), database=early)
    with pytest.raises(ValueError, match=r"no number is known .* give labelled rows"):
        answered(model, spend, task_cache, regime="frozen")


def asked(model: RelationalModel, task: Task, cache: Path) -> dict[str, ZeroShotAnswer]:
    readers = {"own": in_context(model), "other": in_context(model)}
    return open_zero_shot(model, task, cache, CONFIG, False).ask("test", "frozen", 9, 0, readers)


def test_questions_asked_before_their_split_begins_are_no_examples(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    """As external tasks may have them."""
    task = task_of(task_shop, "buys")
    last = int(task.rows("test").time.max()) + 10**6
    late = replace(task, database=replace(task.database, test_timestamp=last))
    asker = open_zero_shot(model, late, task_cache, CONFIG, False)
    assert not np.isin(asker.known("test"), asker.number("test")).any()
    assert asker.anchor("test") == task.rows("test").time.min()


@pytest.mark.parametrize("value", [1e200, 7.0])
def test_huge_numbers_and_equal_ones_are_answered(
    model: RelationalModel, task_shop: Path, task_cache: Path, value: float
) -> None:
    task = task_of(task_shop, "rating")
    asker = open_zero_shot(model, task, task_cache, CONFIG, False)
    label = asker.rows.label * value if value > 7 else np.full(len(asker.rows), value)
    asker.rows = replace(asker.rows, label=label)
    asker.asked = asker.asked.relabelled_as(label)
    for context in (0, 20):
        found = asker.ask("test", "rolling", context, 0, {"own": in_context(model)})["own"]
        out = found.predictions.value
        assert np.isfinite(out).all()
        assert label.min() <= out.min() <= out.max() <= label.max() * (1 + 1e-6)


def test_two_classes_of_several_are_answered_by_both(
    model: RelationalModel, task_shop: Path, task_cache: Path, tmp_path: Path
) -> None:
    shop = Path(shutil.copytree(task_shop, tmp_path / "shop"))
    for split in ("train", "val", "test"):
        path = shop / "tasks" / "tier" / f"{split}.parquet"
        frame = pd.read_parquet(path)
        frame["tier"] = np.where(frame["tier"] == "gold", "gold", "silver")
        frame.to_parquet(path)
    task = task_of(shop, "tier")
    assert task.classes == ("gold", "silver")
    for context in (0, 24):
        found = answered(model, task, task_cache, context)
        assert np.isfinite(score(task, "test", found.predictions))


def test_one_class_and_balance_are_said(task_shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = task_of(task_shop, "buys")
    with caplog.at_level("INFO", logger="rfm"):
        assert check_examples(task, np.array([0.0, 1.0, 1.0]), 3) == []
    assert "3 examples, by class 0: 1, 1: 2" in caplog.text
    (warning,) = check_examples(task, np.ones(4), 4)
    assert "all 4 examples have the label 1" in warning
    assert "answers say little" in warning


def test_what_cannot_be_asked_is_refused(model: RelationalModel, task_shop: Path) -> None:
    with pytest.raises(ValueError, match="never trained for lists of labels"):
        check_askable(model, task_of(task_shop, "tags"), 40)
    many = task_of(task_shop, "tier")
    object.__setattr__(many, "classes", tuple(f"class {i}" for i in range(11)))
    with pytest.raises(ValueError, match="has 11 classes, wanted at most 10"):
        check_askable(model, many, 40)
    other = with_random_backbone(model, 0)
    other.about = {"databases": {}}
    with pytest.raises(
        ValueError, match=r"never trained to answer from examples.*in_context\.yaml"
    ):
        check_askable(other, task_of(task_shop, "buys"), 40)
    check_askable(other, task_of(task_shop, "next"), 40)


def test_rows_longer_than_the_checkpoint_reads_are_refused(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    with pytest.raises(ValueError, match=r"max_tokens=999, but the checkpoint reads at most 256"):
        answered(
            model, task_of(task_shop, "buys"), task_cache, config=ContextConfig(max_tokens=999)
        )


def test_a_random_backbone_keeps_the_head(model: RelationalModel) -> None:
    other = with_random_backbone(model, 3)
    for name, weight in model.state_dict().items():
        same = torch.equal(weight, other.state_dict()[name])
        assert same or not name.startswith("in_context."), name
    assert not torch.equal(model.backbone.enter[1].weight, other.backbone.enter[1].weight)
    again = with_random_backbone(model, 3).backbone.enter[1].weight
    assert torch.equal(other.backbone.enter[1].weight, again)


def test_what_is_expected_is_what_is_answered_without_examples(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    """And no label of a question has a part in it."""
    asker = open_zero_shot(model, task_of(task_shop, "buys"), task_cache, CONFIG, False)
    laid, number = asker.lay("test"), asker.number("test")
    batch = laid.batch(number, asker.rows.time[number], 0, 0)
    with torch.no_grad(), evaluating(model):
        states = model.backbone(batch)
        expected = model.examine(batch, states).expected
        nowhere = replace(batch, rank=batch.rank * torch.nan, label=batch.label * torch.nan)
        torch.testing.assert_close(model.examine(nowhere, states).expected, expected)
        assert (model.examine(replace(batch, named=False), states).expected == 0).all()
        answer = verbalise(model, laid, batch)[:, 1]
    assert expected.std() > 1e-4
    assert torch.corrcoef(torch.stack([expected, answer]))[0, 1] > 0.999


@pytest.mark.parametrize("context", [0, 24])
def test_numbers_are_told_with_what_they_are_below(
    model: RelationalModel, task_shop: Path, task_cache: Path, context: int
) -> None:
    task = task_of(task_shop, "spend")
    asker = open_zero_shot(model, task, task_cache, CONFIG, cached=False)
    shares = (0.5, 0.1, 0.9)
    reader = {"own": in_context(model, shares)}
    median, low, high = asker.ask("test", "rolling", context, 0, reader, shares)[
        "own"
    ].predictions.value.T
    alone = answered(model, task, task_cache, context).predictions.value[:, 0]
    np.testing.assert_allclose(median, alone)
    assert (low <= median).all()
    assert (median <= high).all()
    assert (low < high).mean() > 0.9
