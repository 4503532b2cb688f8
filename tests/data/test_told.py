"""What questions are told, against loops over all rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rfm.data.batch import TOLD_KINDS
from rfm.data.forecasts import ForecastMaker
from rfm.data.generated import GeneratedTask
from rfm.data.label_history import Floats
from rfm.data.serialise import value_ranks
from rfm.data.support import parents_of
from rfm.data.task_rows import Ints
from rfm.data.told import Told
from tests.busy_shop import Busy

DAY = 86_400


def drawn(busy: Busy, classes: int, seed: int = 0) -> GeneratedTask:
    """A forecast, whose labels are of so many classes, and not known of some."""
    maker, rng = ForecastMaker(busy.store, busy.store.val_timestamp), np.random.default_rng(seed)
    while (task := maker.draw(rng)) is None or task.entity_table != 2:
        pass
    size = len(task.rows)
    label = rng.normal(size=size) * 3 if classes == 0 else rng.integers(0, classes, size) * 1.0
    label[rng.random(size) < 0.1] = np.nan
    return replace(task.relabelled_as(label), classes=classes)


def at_random(task: GeneratedTask, count: int = 30) -> tuple[Ints, Ints]:
    rng = np.random.default_rng(1)
    number = rng.choice(len(task.rows), count, replace=False)
    return number, task.rows.time[number] - rng.integers(0, 5, count) * 10 * DAY


def outcomes(task: GeneratedTask) -> Floats:
    label = task.rows.label
    if task.classes > 2:
        return np.stack([(label == c) * 1.0 for c in range(task.classes)], axis=1)
    return (label if task.classes else label.clip(-5, 5))[:, None]


@pytest.mark.parametrize("classes", [2, 0, 3])
def test_past_labels_of_the_entity_and_of_its_parents(busy: Busy, classes: int) -> None:
    task = drawn(busy, classes)
    told, (number, cutoff), rows = Told(busy.store, task), at_random(task), task.rows
    found, kinds = told(number, cutoff), [TOLD_KINDS[kind] for kind in told.kinds]
    value, labelled = outcomes(task), ~np.isnan(rows.label)
    parents = parents_of(busy.store, task.entity_table)
    column = kinds.index("last 3 labels")
    width, seen = max(classes, 1) if classes != 2 else 1, 0
    first = int(busy.store.graph.table_start[task.entity_table])
    born = np.asarray(busy.store.graph.row_time[first + rows.entity[number]]) <= cutoff
    everybody = np.arange(len(busy.store.tables[task.entity_table].cells))
    for own in [everybody, *parents]:
        for i, (at, until) in enumerate(zip(number, cutoff, strict=True)):
            known = labelled & (rows.time + task.timedelta <= until)
            mine = np.flatnonzero(known & (own[rows.entity] == own[rows.entity[at]]))
            if own is not everybody and not (born[i] and own[rows.entity[at]] >= 0):
                mine = mine[:0]  # whose child it will be nobody knows
            everyone = value[known].sum(0) / (known.sum() + 2)
            for j, last in enumerate((3, 10, 10_000)):
                past = value[mine[-last:]]
                n = len(past)
                wanted = n * (past.mean(0) - everyone) / (n + 2) if n else np.zeros(width)
                got = found[i, column + j * width : column + (j + 1) * width]
                np.testing.assert_allclose(got, wanted, atol=1e-5)
            assert found[i, column + 3 * width] == pytest.approx(np.log1p(mine.size))
            seen += mine.size
        column += 3 * width + 2
        if column == kinds.index("last label"):
            column += 4 * width
    assert seen > 100
    names = ["last 3 labels"] + ["last 3 labels of the parent"] * len(parents)
    assert [k for k in kinds if k.startswith("last 3")] == [n for n in names for _ in range(width)]


@pytest.mark.parametrize("classes", [2, 0, 3])
def test_the_latest_labels_one_by_one(busy: Busy, classes: int) -> None:
    task = drawn(busy, classes)
    told, (number, cutoff), rows = Told(busy.store, task), at_random(task), task.rows
    found, kinds = told(number, cutoff), [TOLD_KINDS[kind] for kind in told.kinds]
    value, labelled, seen = outcomes(task), ~np.isnan(rows.label), 0
    for i, (at, until) in enumerate(zip(number, cutoff, strict=True)):
        known = labelled & (rows.time + task.timedelta <= until)
        mine = np.flatnonzero(known & (rows.entity == rows.entity[at]))[::-1]
        everyone = value[known].sum(0) / (known.sum() + 2)
        for j, name in enumerate(("last", "2nd last", "3rd last", "4th last")):
            column = kinds.index(f"{name} label")
            wanted = value[mine[j]] - everyone if j < mine.size else 0 * everyone
            got = found[i, column : column + wanted.size]
            np.testing.assert_allclose(got, wanted, atol=1e-5)
            seen += int(j < mine.size)
    assert seen > 20


def test_the_entitys_own_cells_and_age(busy: Busy) -> None:
    task = drawn(busy, 2)
    told, (number, cutoff) = Told(busy.store, task), at_random(task)
    cutoff[:5] = 0  # before there was anyone
    found, kinds = told(number, cutoff), np.array([TOLD_KINDS[kind] for kind in told.kinds])
    store, t = busy.store, task.entity_table
    table, first = store.tables[t], int(store.graph.table_start[t])
    entity = task.rows.entity[number]
    there = np.asarray(store.graph.row_time[first + entity]) <= cutoff
    assert 0 < there.sum() < there.size
    own = [c for c in range(len(table.columns)) if table.is_value[c] and not table.is_datetime[c]]
    assert (kinds == "cell").sum() == len(own) > 0
    for place, column in zip(np.flatnonzero(kinds == "cell"), own, strict=True):
        z = table.values(entity, column)
        rank = 2 * value_ranks(table, np.nan_to_num(z), np.full(z.size, column)) - 1
        np.testing.assert_allclose(found[:, place], np.where(there & ~np.isnan(z), rank, 0))
    age = (
        task.rows.time[number] - np.asarray(store.graph.row_time[first + entity])
    ) / task.timedelta
    wanted = np.where(there, np.log1p(age.clip(min=0)), 0)
    np.testing.assert_allclose(found[:, kinds == "age"][:, 0], wanted, rtol=1e-5)
    stale = (task.rows.time[number] - cutoff) / task.timedelta
    np.testing.assert_allclose(found[:, kinds == "staleness"][:, 0], np.log1p(stale), rtol=1e-5)


def test_numbers_come_as_their_kinds_say(busy: Busy) -> None:
    task = drawn(busy, 2)
    told = Told(busy.store, task)
    assert told(*at_random(task)).shape == (30, told.kinds.size)
    assert set(told.kinds.tolist()) <= set(range(len(TOLD_KINDS)))
    kinds = [TOLD_KINDS[kind] for kind in told.kinds]
    assert kinds[:5] == ["time of year"] * 2 + ["time of week"] * 2 + ["staleness"]
    assert {"child count", "child age", "last 64 children"} <= set(kinds)
