"""Events and what they come to, against references that look at every row."""

from __future__ import annotations

import numpy as np
import pytest

from rfm.data.events import Aggregate, Events, aggregate, events_of
from rfm.data.graph import EntityGraph
from tests.busy_shop import Busy

FUNCTIONS = {"sum": np.sum, "avg": np.mean, "min": np.min, "max": np.max}


def path_of(graph: EntityGraph, *columns: str) -> tuple[int, ...]:
    names = [f"{graph.tables[k.child]}.{k.column}" for k in graph.foreign_keys]
    return tuple(names.index(column) for column in columns)


def test_one_hop_is_the_rows_that_point_at_the_entity(busy: Busy) -> None:
    found = events_of(busy.store, path_of(busy.store.graph, "orders.person"))
    orders = busy.tables["orders"]
    wanted = orders.sort_values(["person", "at"], kind="stable")
    assert found.owner.tolist() == wanted["person"].tolist()
    assert found.row.tolist() == wanted.index.tolist()
    assert found.time.tolist() == wanted["at"].astype("datetime64[s]").astype("int64").tolist()


def test_two_hops_are_there_when_the_whole_path_is(busy: Busy) -> None:
    path = path_of(busy.store.graph, "orders.person", "notes.order")
    found = events_of(busy.store, path)
    notes = busy.tables["notes"].join(busy.tables["orders"], on="order")
    time = notes[["written", "at"]].max(axis=1).astype("datetime64[s]").astype("int64")
    wanted = sorted(zip(notes["person"], time, notes.index, strict=True))
    assert sorted(zip(found.owner, found.time, found.row, strict=True)) == wanted
    order = np.lexsort((found.time, found.owner))
    assert np.array_equal(order, np.arange(order.size))


@pytest.mark.parametrize("kind", ["count", "exists", "sum", "avg", "min", "max"])
def test_aggregates_of_windows(kind: Aggregate) -> None:
    rng = np.random.default_rng(0)
    owner = np.sort(rng.integers(0, 6, 200))
    time = rng.integers(0, 100, 200)
    order = np.lexsort((time, owner))
    events = Events(owner[order], time[order], np.arange(200))
    value = np.where(rng.random(200) < 0.3, np.nan, rng.normal(size=200))
    who, after = rng.integers(0, 8, 300), rng.integers(-5, 110, 300)
    until = after + rng.integers(0, 30, 300)
    out = aggregate(kind, value, *events.within(who, after, until))
    for i in range(300):
        inside = (events.owner == who[i]) & (events.time > after[i]) & (events.time <= until[i])
        known = value[inside & ~np.isnan(value)]
        if kind == "count":
            assert out[i] == known.size
        elif kind == "exists":
            assert out[i] == float(known.size > 0)
        elif known.size:
            assert out[i] == pytest.approx(FUNCTIONS[kind](known))
        else:
            assert out[i] == 0 if kind == "sum" else np.isnan(out[i])


def test_no_events_and_no_windows() -> None:
    none = Events(*(np.zeros(0, np.int64) for _ in range(3)))
    who, time = np.arange(3), np.arange(3)
    assert aggregate("count", np.zeros(0), *none.within(who, time, time + 5)).tolist() == [0, 0, 0]
    assert np.isnan(aggregate("max", np.zeros(0), *none.within(who, time, time + 5))).all()
    assert aggregate("sum", np.zeros(0), *none.within(who[:0], time[:0], time[:0])).size == 0
