"""GraphSAGE from scratch: what it sees, what it learns, what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.graphsage_data import Sampling
from benchmarks.graphsage_links import choices, loss
from benchmarks.graphsage_scratch import graphsage
from benchmarks.graphsage_train import GraphSAGESettings, build_network, open_sampling
from rfm.data.tasks import Task
from rfm.eval.predictions import align, score
from tests.benchmarks.shop_tasks import MONTHS, shop_task, with_changed_future, write_shop
from tests.shop import TEST, TEST_SECONDS, VAL


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop"))


def small(cache: Path, **changes: Any) -> GraphSAGESettings:
    given: dict[str, Any] = {
        "fan_out": (4, 3), "width": 16, "column_width": 8, "blocks": 1, "batch": 64, "epochs": 3,
        "vocab_size": 400,
    }  # fmt: skip
    return GraphSAGESettings(cache=cache, **{**given, **changes})


def moments(task: Task, sampling: Sampling) -> tuple[np.ndarray, ...]:
    rows = task.rows("test")
    first = int(sampling.store.graph.table_start[sampling.store.graph.tables.index("customers")])
    return rows.entity + first, task.cutoffs("test", "frozen"), rows.time


def test_it_learns_what_the_latest_order_tells(shop: Path, cache: Path) -> None:
    task = shop_task(shop, "binary")
    settings = small(cache, epochs=25, patience=25, lr=0.01, dropout=0.0)
    answer = graphsage(task, "rolling", 0, settings)
    assert score(task, "val", answer.validation) > 0.85
    assert score(task, "val", answer.validation) == max(value for _, value in answer.curve)
    assert [step for step, _ in answer.curve] == sorted({step for step, _ in answer.curve})


@pytest.mark.parametrize(
    ("name", "outputs"),
    [("binary", 1), ("multiclass", 3), ("multilabel", 2), ("regression", 1), ("autocomplete", 1)],
)
def test_every_type_of_entity_task_is_answered(
    shop: Path, cache: Path, name: str, outputs: int
) -> None:
    task = shop_task(shop, name)
    answer = graphsage(task, "frozen", 1, small(cache, epochs=1))
    for split, predictions in (("val", answer.validation), ("test", answer.test)):
        value = align(task, split, predictions)  # type: ignore[arg-type]
        assert value.shape == (len(task.rows(split)), outputs)  # type: ignore[arg-type]
    if name == "multiclass":
        np.testing.assert_allclose(answer.test.value.sum(axis=1), 1)
    if name == "regression":
        label = task.rows("train").label
        assert label.min() <= answer.test.value.min() <= answer.test.value.max() <= label.max()


def test_the_same_seed_gives_the_same_answer_and_leaves_randomness_alone(
    shop: Path, cache: Path
) -> None:
    task = shop_task(shop, "binary")
    before = torch.get_rng_state()
    answers = [graphsage(task, "frozen", seed, small(cache)).test.value for seed in (3, 3, 4)]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert (answers[0] != answers[2]).any()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("name", ["binary", "links", "autocomplete"])
def test_a_frozen_answer_does_not_depend_on_what_comes_after_the_cutoff(
    shop: Path, cache: Path, tmp_path: Path, name: str
) -> None:
    settings = small(cache, epochs=1)
    changed = write_shop(tmp_path, with_changed_future(TEST))
    for split in ("val", "test"):
        path = shop / "tasks" / name / f"{split}.parquet"
        (changed / "tasks" / name / f"{split}.parquet").write_bytes(path.read_bytes())
    answers = [graphsage(shop_task(f, name), "frozen", 0, settings) for f in (shop, changed)]
    np.testing.assert_array_equal(answers[0].validation.value, answers[1].validation.value)
    if name == "autocomplete":  # the row that is asked about is given, and it has changed
        assert (answers[0].test.value != answers[1].test.value).any()
    else:
        np.testing.assert_array_equal(answers[0].test.value, answers[1].test.value)
    earlier = write_shop(tmp_path / "earlier", with_changed_future(VAL))
    other = graphsage(shop_task(earlier, name), "frozen", 0, settings)
    if name != "autocomplete":
        np.testing.assert_array_equal(answers[0].validation.value, other.validation.value)
        assert (answers[0].test.value != other.test.value).any()


def test_a_rolling_answer_depends_on_what_came_after_the_test_timestamp_but_nothing_later(
    shop: Path, cache: Path, tmp_path: Path
) -> None:
    last = str(MONTHS["test"][-1])
    folders = [shop, write_shop(tmp_path / "later", with_changed_future(last))]
    folders.append(write_shop(tmp_path / "earlier", with_changed_future(TEST)))
    settings = small(cache, epochs=1)
    first, later, earlier = (
        graphsage(shop_task(folder, "binary"), "rolling", 0, settings).test for folder in folders
    )
    np.testing.assert_array_equal(first.value, later.value)
    changed = (first.value != earlier.value).any(axis=1)
    assert changed[first.time > TEST_SECONDS].any()
    assert not changed[first.time <= TEST_SECONDS].any()


def test_hidden_columns_are_not_read(shop: Path, cache: Path, tmp_path: Path) -> None:
    tables = {name: pd.read_parquet(path) for name, path in paths(shop).items()}
    orders = tables["orders"]
    orders["amount"] = orders["amount"].sample(frac=1, random_state=0).to_numpy()
    orders["best_review"] = orders["best_review"].sample(frac=1, random_state=1).to_numpy()
    changed = write_shop(tmp_path, tables)
    given = [graphsage(shop_task(f, "blind"), "rolling", 0, small(cache)) for f in (shop, changed)]
    np.testing.assert_array_equal(given[0].test.value, given[1].test.value)
    open_eyes = [
        graphsage(shop_task(f, "binary"), "rolling", 0, small(cache)) for f in (shop, changed)
    ]
    assert (open_eyes[0].test.value != open_eyes[1].test.value).any()


def paths(shop: Path) -> dict[str, Path]:
    return {path.stem: path for path in (shop / "db").glob("*.parquet")}


def test_states_that_no_seed_reads_may_be_left_out(shop: Path, cache: Path) -> None:
    task = shop_task(shop, "binary")
    settings = small(cache)
    sampling = open_sampling(task, settings)
    network = build_network(sampling, settings).eval()
    batch = sampling.batch(*moments(task, sampling), 0)
    everything = {name: [len(t.node)] * 3 for name, t in batch.tables.items()}
    edges = {key: [edge.shape[1]] * 2 for key, edge in batch.edges.items()}
    whole = type(batch)(batch.tables, batch.edges, everything, edges)
    name = f"t{sampling.store.graph.tables.index('customers')}"
    with torch.no_grad():
        trimmed, full = network(batch, name), network(whole, name)
    assert trimmed.shape[0] == len(task.rows("test")) < full.shape[0] + 1
    torch.testing.assert_close(trimmed, full[: trimmed.shape[0]])


def test_ages_count_from_the_seed_time_and_rows_end_at_the_cutoff(shop: Path, cache: Path) -> None:
    task = shop_task(shop, "binary")
    sampling = open_sampling(task, small(cache))
    rows, cutoff, time = moments(task, sampling)
    batch = sampling.batch(rows, cutoff, time, 0)
    orders = batch.tables[f"t{sampling.store.graph.tables.index('orders')}"]
    assert orders.node.numel()
    assert (orders.timed == 1).all()
    stale = (time.max() - TEST_SECONDS) / 86_400
    assert orders.age.min() >= 0
    assert orders.age.max() >= stale
    late = Sampling(sampling.store, sampling.fan_out, "last")
    number = sampling.store.graph.tables.index("orders")
    first = int(sampling.store.graph.table_start[number])
    order_time = np.asarray(sampling.store.graph.row_time)[first : first + 90]
    unborn = first + np.flatnonzero(order_time > TEST_SECONDS)
    at = np.full(unborn.size, TEST_SECONDS)
    alone = late.batch(unborn, at, at, 0)
    table = alone.tables[f"t{number}"]
    assert (table.node[: unborn.size] == table.given.shape[0] - 1).all()
    assert not table.given[-1].any()
    assert not table.category[-1].any()
    assert all(edge.numel() == 0 for edge in alone.edges.values())
    given = Sampling(sampling.store, sampling.fan_out, "last", seeds_are_given=True)
    assert any(edge.numel() for edge in given.batch(unborn, at, at, 0).edges.values())


def test_recommendations_are_distinct_and_there_by_the_cutoff(shop: Path, cache: Path) -> None:
    task = shop_task(shop, "links")
    answer = graphsage(task, "frozen", 0, small(cache, destinations=4))
    listed = pd.read_parquet(shop / "db" / "products.parquet")["listed"]
    for split, predictions in (("val", answer.validation), ("test", answer.test)):
        there = set(np.flatnonzero(listed <= pd.Timestamp(VAL if split == "val" else TEST)))
        for row in predictions.value.astype(int):
            assert len(set(row)) == 5
            assert set(row[: min(5, len(there))]) <= there
    assert 0 <= score(task, "test", answer.test) <= 1


def test_it_learns_that_the_dearest_products_are_bought(shop: Path, cache: Path) -> None:
    settings = small(cache, epochs=10, patience=10, link_lr=0.01, dropout=0.0)
    curve = graphsage(shop_task(shop, "links"), "rolling", 0, settings).curve
    assert max(value for _, value in curve) > 0.8


def test_choices_hold_the_right_ones_and_the_loss_prefers_them(shop: Path) -> None:
    rows = shop_task(shop, "links").rows("train")
    at = np.arange(4)
    asked, positive = choices(rows, at, 15, 6, np.random.default_rng(0))
    assert (np.diff(asked) > 0).all()
    assert 6 <= asked.size <= 15
    for i in at:
        own = rows.destination[rows.start[i] : rows.start[i + 1]]
        assert set(asked[positive[i]]) == set(own)
    right = torch.from_numpy(positive)
    assert loss(right * 5.0, right) < loss(right * 0.0, right) < loss(right * -5.0, right)


def test_settings_that_sample_nothing_are_refused(cache: Path) -> None:
    with pytest.raises(ValueError, match="fan_out"):
        GraphSAGESettings(cache=cache, fan_out=())


@pytest.mark.slow
@pytest.mark.realdata
def test_it_learns_on_rel_f1(real_data: Path, cache: Path) -> None:
    task = shop_task(real_data / "rel-f1", "driver-top3")
    answer = graphsage(task, "rolling", 0, GraphSAGESettings(cache=cache, fan_out=(16, 4)))
    assert score(task, "val", answer.validation) > 0.6
