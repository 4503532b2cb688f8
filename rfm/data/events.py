"""What happens to the entities of a database: the rows at the end of a path of foreign keys, by
entity and in order of time, and what they come to over windows of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rfm.data.graph import STATIC
from rfm.data.label_history import Floats, found_until
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints

Aggregate: TypeAlias = Literal["count", "exists", "sum", "avg", "min", "max"]


@dataclass(frozen=True, eq=False)
class Events:
    """Rows of a table, each with the entity that it belongs to, sorted by entity and time.

    owner [n]: rows of the entity table. time [n]: unix seconds. row [n]: local rows of the table.
    """

    owner: Ints
    time: Ints
    row: Ints

    def take(self, kept: npt.NDArray[np.bool_]) -> Events:
        """Some of them, in the same order."""
        return Events(self.owner[kept], self.time[kept], self.row[kept])

    def until(self, owner: Ints, time: Ints) -> Ints:
        """[m]: the end of the events of owners [m] up to and including times [m]."""
        return found_until(self.owner, self.time, owner, time)[1]

    def within(self, owner: Ints, after: Ints, until: Ints) -> tuple[Ints, Ints]:
        """The range start [m], end [m] of the events of owners [m] in the windows (after, until]
        [m]."""
        return self.until(owner, after), self.until(owner, until)


def events_of(store: RowStore, path: Sequence[int]) -> Events:
    """The events at the end of a path.

    Args:
        path: foreign keys of the graph, from the one that points at the entity table on: each
            points at the table that holds the one before it.
    """
    graph = store.graph
    last = graph.foreign_keys[path[-1]].child
    row = np.arange(graph.table_start[last + 1] - graph.table_start[last])
    at, time = row.copy(), np.full(row.size, STATIC, dtype=np.int64)
    there = np.ones(row.size, dtype=np.bool_)
    for f in reversed(path):
        key = graph.foreign_keys[f]
        times = np.asarray(graph.row_time[graph.table_start[key.child] + at])
        time = np.maximum(time, times)  # it is there when all of its path is
        parent = np.asarray(graph.parent[graph.parent_start[f] + at]).astype(np.int64)
        there &= parent >= 0
        at = np.where(parent >= 0, parent - graph.table_start[key.parent], 0)
    kept = np.flatnonzero(there & (time != STATIC))
    order = kept[np.lexsort((time[kept], at[kept]))]
    return Events(at[order], time[order], row[order])


def aggregate(kind: Aggregate, value: Floats, start: Ints, end: Ints) -> Floats:
    """What the values [n] of events come to in ranges [m] of them; NaN is null and does not count.

    ``count`` and ``sum`` of nothing are 0; ``avg``, ``min`` and ``max`` of nothing are NaN.
    """
    known = ~np.isnan(value)
    count = _reduce(np.add, known.astype(np.float64), start, end, 0.0)
    if kind == "count":
        return count
    if kind == "exists":
        return np.asarray((count > 0).astype(np.float64))
    if kind in ("sum", "avg"):
        total = _reduce(np.add, np.where(known, value, 0.0), start, end, 0.0)
        if kind == "sum":
            return total
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    worst = np.inf if kind == "min" else -np.inf
    reduce = np.minimum if kind == "min" else np.maximum
    out = _reduce(reduce, np.where(known, value, worst), start, end, worst)
    return np.asarray(np.where(count > 0, out, np.nan))


def _reduce(by: np.ufunc, value: Floats, start: Ints, end: Ints, empty: float) -> Floats:
    if not start.size:
        return np.zeros(0)
    padded = np.concatenate([value, [empty]])
    out = by.reduceat(padded, np.stack([start, end], axis=1).ravel())[::2]
    return np.asarray(np.where(end > start, out, empty))
