"""Tasks made from a schema: labels against references, and what counts as degenerate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rfm.data.autocompletes import AutocompleteMaker
from rfm.data.batch import MAX_CLASSES
from rfm.data.forecasts import Condition, ForecastMaker, draw_condition, paths, rounded
from rfm.data.generated import MIN_ROWS, GeneratedTask, Labelled, is_degenerate
from rfm.data.store import RowStore
from tests.busy_shop import Busy

N = 400


def drawn(store: RowStore, number: int = 300) -> list[GeneratedTask]:
    """Tasks of both kinds."""
    until, rng = store.val_timestamp, np.random.default_rng(0)
    makers = ForecastMaker(store, until), AutocompleteMaker(store, until, "train")
    tasks = [maker.draw(rng) for _ in range(number) for maker in makers]
    return [task for task in tasks if task is not None]


def table_number(store: RowStore, name: str) -> int:
    return [table.name for table in store.tables].index(name)


def a_task(store: RowStore, label: np.ndarray, classes: int, column: int = -1) -> GeneratedTask:
    """About orders, in the order of time."""
    start = store.graph.rows_of("orders").start
    rows = np.arange(label.size)
    return GeneratedTask(
        "a task", "orders", "x", "", table_number(store, "orders"), classes, 1,
        Labelled(rows, np.asarray(store.graph.row_time[start + rows]), label), column,
    )  # fmt: skip


def test_paths_lead_to_events_over_one_or_two_keys(busy: Busy) -> None:
    store, keys = busy.store, busy.store.graph.foreign_keys
    names = {tuple(keys[f].column for f in path) for path in paths(store, store.val_timestamp)}
    assert names == {("person",), ("person", "order"), ("order",)}
    assert not list(paths(store, store.first_time))


def test_labels_are_known_within_the_time_that_they_may_tell_of(busy: Busy) -> None:
    kinds = set()
    for task in drawn(busy.store):
        rows = task.rows
        assert (np.diff(rows.time) >= 0).all()
        assert rows.time.max() + (task.timedelta if task.key else 0) <= busy.store.val_timestamp
        assert not np.isnan(rows.label).any()
        if task.classes:
            assert set(np.unique(rows.label)) <= set(range(task.classes))
            assert 2 <= task.classes <= MAX_CLASSES
        kinds.add((bool(task.key), min(task.classes, 3)))
    assert kinds == {(True, 0), (True, 2), (False, 0), (False, 2), (False, 3)}


def test_forecasts_say_what_happens_within_the_window(busy: Busy) -> None:
    """Counted by hand, of orders by person without a condition."""
    orders = busy.tables["orders"]
    at = orders["at"].astype("datetime64[s]").astype("int64").to_numpy()
    checked = 0
    for task in drawn(busy.store):
        if task.key != "person" or task.target != "count orders" or "Condition" in task.name:
            continue
        rows = task.rows
        count = [
            ((orders["person"] == e) & (at > t) & (at <= t + task.timedelta)).sum()
            for e, t in zip(rows.entity, rows.time, strict=True)
        ]
        checked += 1
        if task.classes == 0:
            assert rows.label.tolist() == count
        else:  # above a threshold
            below = [c for c, y in zip(count, rows.label, strict=True) if not y]
            above = [c for c, y in zip(count, rows.label, strict=True) if y]
            assert max(below) < min(above)
    assert checked >= 5


def test_only_entities_that_were_active_are_asked_about(busy: Busy) -> None:
    store = busy.store
    maker = ForecastMaker(store, store.val_timestamp)
    rng = np.random.default_rng(1)
    for _ in range(100):
        task = maker.draw(rng)
        if task is None or task.key != "person":
            continue
        events = next(e for p, e in maker._events.items() if len(p) == 1)
        first = {e: events.time[events.owner == e].min() for e in np.unique(task.rows.entity)}
        for entity, time in zip(task.rows.entity, task.rows.time, strict=True):
            assert first[entity] <= time


@pytest.mark.parametrize("seed", range(20))
def test_conditions_hold_for_some_rows_and_not_for_others(busy: Busy, seed: int) -> None:
    table = busy.store.tables[table_number(busy.store, "orders")]
    rows = np.arange(table.num_rows)
    found = draw_condition(table, rows, np.random.default_rng(seed))
    assert found is not None
    assert 0 < found.holds(table, rows).sum() < rows.size


def test_a_condition_does_not_hold_for_null(busy: Busy) -> None:
    table = busy.store.tables[table_number(busy.store, "orders")]
    column = [c.name for c in table.columns].index("amount")
    null = busy.tables["orders"]["amount"].isna().to_numpy()
    holds = Condition(column).holds(table, np.arange(table.num_rows))
    assert np.array_equal(holds, ~null)


def test_classes_are_the_cells_and_numbers_are_their_order(busy: Busy) -> None:
    store, found = busy.store, set()
    for task in drawn(store):
        if task.key:
            continue
        cells = busy.tables[task.table][task.target].to_numpy()[task.rows.entity]
        if task.classes == 0:
            same_order = np.argsort(np.argsort(cells)) == np.argsort(np.argsort(task.rows.label))
            assert task.target == "amount" or same_order.mean() > 0
            assert np.corrcoef(cells, task.rows.label)[0, 1] > 0.99
        elif cells.dtype == object or cells.dtype == bool:
            names = {label: set(cells[task.rows.label == label]) for label in range(task.classes)}
            assert all(len(own) == 1 for own in names.values())
        else:
            assert cells[task.rows.label == 0].max() <= cells[task.rows.label == 1].min()
        found.add(task.target)
    assert found >= {"amount", "paid", "way", "stars"}


def test_what_is_degenerate(busy: Busy) -> None:
    store, rng = busy.store, np.random.default_rng(0)
    column = {c.name: i for i, c in enumerate(store.tables[table_number(store, "orders")].columns)}
    coin = (rng.random(N) < 0.4).astype(np.float64)
    assert not is_degenerate(store, a_task(store, coin, 2))
    assert not is_degenerate(store, a_task(store, rng.normal(size=N), 0))
    assert is_degenerate(store, a_task(store, np.ones(N), 2))
    assert is_degenerate(store, a_task(store, np.zeros(N), 0))
    assert is_degenerate(store, a_task(store, coin[: MIN_ROWS - 1], 2))
    rare = np.zeros(N)
    rare[:7] = 1  # under 2%
    assert is_degenerate(store, a_task(store, rare, 2))
    assert is_degenerate(store, a_task(store, rare, 0))
    paid = busy.tables["orders"]["paid"].to_numpy()[:N].astype(np.float64)
    assert is_degenerate(store, a_task(store, paid, 2))  # a visible cell tells it
    assert is_degenerate(store, a_task(store, 5 - 3 * paid, 0))
    assert not is_degenerate(store, a_task(store, paid, 2, column["paid"]))  # which is masked
    noisy = np.where(rng.random(N) < 0.2, 1 - paid, paid)
    assert not is_degenerate(store, a_task(store, noisy, 2))


def test_relabelling_renames_classes_and_turns_numbers_round(busy: Busy) -> None:
    label = np.arange(N) % 3.0
    task, rng = a_task(busy.store, label, 3), np.random.default_rng(0)
    seen = {tuple(task.relabelled(rng).rows.label[:3]) for _ in range(100)}
    assert len(seen) == 6
    number = replace(task, classes=0)
    signs = [number.relabelled(rng).rows.label[1] for _ in range(200)]
    assert set(signs) == {-1.0, 1.0}
    assert 60 < signs.count(1.0) < 140
    two = replace(task, classes=2, rows=replace(task.rows, label=np.arange(N) % 2.0))
    flips = [two.relabelled(rng).rows.label[1] for _ in range(200)]
    assert 60 < flips.count(1.0) < 140


def test_the_same_generator_draws_the_same(busy: Busy) -> None:
    a, b = drawn(busy.store, 20), drawn(busy.store, 20)
    assert [t.name for t in a] == [t.name for t in b]
    assert all(np.array_equal(x.rows.label, y.rows.label) for x, y in zip(a, b, strict=True))


def test_numbers_are_rounded_to_six_digits() -> None:
    number = np.array([0.0, -0.0, 1.0, 3.0, -123456.7, 1e308, 99.9999974, 0.0499999993, np.nan])
    wanted = [0.0, 0.0, 1.0, 3.0, -123457.0, 1e308, 100.0, 0.05, np.nan]
    np.testing.assert_array_equal(rounded(number), wanted)
    assert rounded(np.array([np.inf]))[0] == np.inf
    sums = np.array([0.1 + 0.2, 0.3, 1e-300, 123456789.0])
    assert rounded(sums)[0] == rounded(sums)[1]
    assert rounded(sums)[3] == 123457000.0


def test_a_cell_of_a_parent_tells_too(busy: Busy) -> None:
    """The price of the good that was ordered."""
    store, orders = busy.store, busy.tables["orders"]
    price = busy.tables["goods"]["price"].to_numpy()[orders["good"].to_numpy()[:N]]
    label = (price > np.median(price)).astype(np.float64)
    assert is_degenerate(store, a_task(store, label, 2))
    assert is_degenerate(store, a_task(store, price, 0))
