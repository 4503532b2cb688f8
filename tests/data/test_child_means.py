"""Means of the numbers in an entity's children, against a reference that loops over rows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rfm.data import child_means
from rfm.data.child_means import ChildMeans
from rfm.data.graph import STATIC
from rfm.data.questions import NUM_CALENDAR
from rfm.data.serialise import value_ranks
from tests.asked import Asker, ask

Moment = tuple[int, int]
LAST = (1, 3, 9)  # few have more children


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_means, "_LAST", LAST)


class Reference:
    """Loops over all rows."""

    def __init__(self, asker: Asker) -> None:
        self.graph, self.store, self.task = asker.store.graph, asker.store, asker.task
        own = self.graph.tables.index(asker.attached.table)
        keys = enumerate(self.graph.foreign_keys)
        self.keys = [(f, key) for f, key in keys if key.child != own]

    def children(self, f: int, parent: int, cutoff: int) -> list[tuple[int, int]]:
        """(time, local row) of those of a local row, the latest first."""
        graph, key = self.graph, self.graph.foreign_keys[f]
        rows, start = graph.rows_of(graph.tables[key.child]), int(graph.parent_start[f])
        wanted = graph.rows_of(graph.tables[key.parent])[parent]
        times = [
            (int(graph.row_time[row]), i)
            for i, row in enumerate(rows)
            if graph.parent[start + i] == wanted and graph.row_time[row] <= cutoff
        ]
        return sorted(times, reverse=True)

    def expected(self, entity: int, moment: Moment) -> list[float]:
        """All 0 of an entity that is not there yet."""
        now, cutoff = moment
        own = self.graph.rows_of(self.task.entity_table)[entity]
        is_there = self.graph.row_time[own] <= cutoff
        table, out = self.graph.tables.index(self.task.entity_table), list[float]()
        for f, key in self.keys:
            if key.parent != table:
                continue
            mine = self.children(f, entity, cutoff)
            time = mine[0][0] if mine else STATIC
            age = max(0, now - time) / self.task.timedelta if time != STATIC else 0.0
            out += [math.log1p(len(mine)), math.log1p(age)]
            cells = self.store.tables[key.child]
            for last in LAST:
                latest = np.array([i for _, i in mine[:last]], dtype=np.int64)
                for c, column in enumerate(cells.columns):
                    if column.is_value and column.kind != "datetime":
                        z = cells.values(latest, c)
                        rank = 2 * value_ranks(cells, z, np.full(z.size, c)) - 1
                        known = rank[~np.isnan(z)]
                        out.append(float(known.mean()) if known.size else 0.0)
        return [is_there * x for x in out]


def test_some_have_more_children_than_are_looked_at(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache)
    asked, found = asker.asked("test", "rolling"), 0
    for f, key in Reference(asker).keys:
        if asker.store.graph.tables[key.parent] == asker.task.entity_table:
            some = zip(asked.entity[::5], asked.cutoff[::5], strict=True)
            found += sum(
                len(Reference(asker).children(f, int(e), int(c))) > LAST[-1] for e, c in some
            )
    assert found > 0


@pytest.mark.parametrize("name", ["buys", "spend", "status"])
def test_means_are_those_of_the_reference(task_shop: Path, task_cache: Path, name: str) -> None:
    asker, told = ask(task_shop, name, task_cache), 0
    reference = Reference(asker)
    means = ChildMeans.of(asker.attached, asker.store)
    for split in ("train", "test"):
        asked = asker.asked(split, "frozen")
        found = means.features(asked.entity, asked.now, asked.cutoff)
        assert found.shape == (len(asked), means.width)
        for i in range(0, len(asked), 7):
            moment = int(asked.now[i]), int(asked.cutoff[i])
            wanted = reference.expected(int(asked.entity[i]), moment)
            np.testing.assert_allclose(found[i], wanted, rtol=2e-5, atol=2e-6)
            told += any(wanted)
    assert told > 3


def test_the_head_is_told_or_not(task_shop: Path, task_cache: Path) -> None:
    widths = {}
    for name, words in {
        "all": {},
        "no means": {"means": False},
        "no graph": {"graph": False},
        "nothing": {"told": False},
    }.items():
        asker = ask(task_shop, "buys", task_cache, **words)
        widths[name] = asker.batches(asker.asked("val", "rolling"))[0].told.shape[1]
    assert widths["all"] > widths["no means"] == widths["no graph"] > NUM_CALENDAR
    assert widths["nothing"] == 0


def test_before_the_first_row(task_shop: Path, task_cache: Path) -> None:
    """Nothing is told but what rows without a time say."""
    asker = ask(task_shop, "buys", task_cache)
    means, long_ago = ChildMeans.of(asker.attached, asker.store), -(2**40)
    entity, past = np.arange(5), np.full(5, long_ago)
    found = means.features(entity, past, past)
    wanted = [Reference(asker).expected(int(e), (long_ago, long_ago)) for e in entity]
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-6)
    assert (found == 0).all(axis=0).sum() > means.width / 2
    assert means.features(entity[:0], past[:0], past[:0]).shape == (0, means.width)
