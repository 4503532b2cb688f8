"""Ways along foreign keys from an entity, up to two hops: to one row, or to many.

Upwards (foreign key -> parent) there is one row; its columns are the entity's as they are. Any
other way leads to many rows, whose columns are aggregated as of a cutoff.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.columns import BEGINNING, NumberTable
from rfm.data.task_rows import Ints


@dataclass(frozen=True, eq=False)
class OneRow:
    """row [N]: the row of ``table`` that belongs to each row of the entity table, -1 for none.
    time [N]: when it can be seen."""

    name: str
    table: str
    row: Ints
    time: Ints


@dataclass(frozen=True, eq=False)
class ManyRows:
    """Rows [m] of ``table`` that belong to anchors: entities, or their parents.

    anchor [N]: of each row of the entity table, -1 for none; known from since [N] on. key [m]: the
    anchor that each row belongs to. row [m], time [m]: which row, and when it can be seen, by which
    they are sorted.
    """

    name: str
    table: str
    anchor: Ints
    since: Ints
    key: Ints
    row: Ints
    time: Ints

    @property
    def is_static(self) -> bool:
        return bool((self.time == BEGINNING).all())


def single_rows(
    tables: Mapping[str, NumberTable], entity: str, given: bool = False
) -> Iterator[OneRow]:
    """The entity itself, its parents and their parents.

    Args:
        given: the entity is the row that is asked about: known whenever it is asked.
    """
    time = _times(tables, entity, given)
    start = OneRow(entity, entity, np.arange(time.size), time)
    yield start
    for up in _upwards(tables, start):
        yield up
        yield from _upwards(tables, up)


def _upwards(tables: Mapping[str, NumberTable], at: OneRow) -> Iterator[OneRow]:
    """The parents of one row; to be seen, both rows must be there."""
    here = tables[at.table]
    for key, parent in here.table.foreign_keys.items():
        if key in here.parents:
            row = _step(here.parents[key], at.row)
            time = np.maximum(at.time, tables[parent].time[row])
            yield OneRow(f"{at.name} > {key}", parent, row, time)


def _times(tables: Mapping[str, NumberTable], entity: str, given: bool) -> Ints:
    """When each row of the entity table is known [N]."""
    time = tables[entity].time
    return np.full_like(time, BEGINNING) if given else time


def many_rows(
    tables: Mapping[str, NumberTable], entity: str, given: bool = False
) -> Iterator[ManyRows]:
    """Children, their other parents, their children; and the children of the entity's parents, by
    its own foreign keys, which are known once it is there.

    Args:
        given: see ``single_rows``.
    """
    own = np.arange(tables[entity].time.size)
    since = _times(tables, entity, given)
    itself = (own, np.full(own.size, BEGINNING))
    for child, key in _keys_to(tables, entity):
        way = f"{child}({key})"
        here = tables[child]
        rows = np.arange(here.time.size)
        yield _sorted(way, child, itself, here.parents[key], rows, here.time)
        for other, parent in here.table.foreign_keys.items():
            if other != key and other in here.parents:
                row = here.parents[other]
                time = np.maximum(here.time, tables[parent].time[row])
                yield _sorted(f"{way} > {other}", parent, itself, here.parents[key], row, time)
        for grandchild, second in _keys_to(tables, child):
            there = tables[grandchild]
            through = there.parents[second]
            time = np.maximum(there.time, here.time[through])
            anchor = _step(here.parents[key], through)
            rows = np.arange(there.time.size)
            yield _sorted(f"{way} < {grandchild}({second})", grandchild, itself, anchor, rows, time)
    for key, parent in tables[entity].table.foreign_keys.items():
        if key not in tables[entity].parents:
            continue
        for child, second in _keys_to(tables, parent):
            here = tables[child]
            rows = np.arange(here.time.size)
            name = f"{key} < {child}({second})"
            anchor = tables[entity].parents[key]
            yield _sorted(name, child, (anchor, since), here.parents[second], rows, here.time)


def _keys_to(tables: Mapping[str, NumberTable], parent: str) -> Iterator[tuple[str, str]]:
    """(child table, foreign key) of every key that points at a table."""
    for name, table in tables.items():
        for key, target in table.table.foreign_keys.items():
            if target == parent and key in table.parents:
                yield name, key


def _step(parents: Ints, row: Ints) -> Ints:
    """The parent of each row, -1 where there is no row."""
    return np.where(row >= 0, parents[row], -1)


def _sorted(
    name: str, table: str, anchor: tuple[Ints, Ints], key: Ints, row: Ints, time: Ints
) -> ManyRows:
    there = np.flatnonzero((key >= 0) & (row >= 0))
    order = there[np.lexsort((row[there], time[there], key[there]))]
    return ManyRows(name, table, *anchor, key[order], row[order], time[order])
