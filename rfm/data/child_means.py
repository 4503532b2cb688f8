"""What the numbers in an entity's latest children come to: their means, as of a cutoff.

The children come as neighbours, too, but only a few of them, and a network needs many examples to
find the mean of one column of one table among hundreds of cells; boosted trees on such means are
hard to beat. So the head is told.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rfm.data.attach import AttachedTask
from rfm.data.graph import STATIC, EntityGraph
from rfm.data.serialise import value_ranks
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints

_LAST = (4, 16, 64)  # of the latest children
_AT_ONCE = 4096  # questions
Floats = npt.NDArray[np.float32]


class ChildMeans:
    """Means over the latest children of entities, by foreign key and column of numbers."""

    def __init__(self, attached: AttachedTask, store: RowStore) -> None:
        graph = store.graph
        entity, own = (graph.tables.index(t) for t in (attached.task.entity_table, attached.table))
        self.graph, self.timedelta = graph, attached.task.timedelta
        self.ranks = {
            f: _ranks(store, key.child)
            for f, key in enumerate(graph.foreign_keys)
            if key.parent == entity and key.child != own
        }

    @property
    def width(self) -> int:
        """Numbers per question, H."""
        return sum(2 + len(_LAST) * rank.shape[1] for rank in self.ranks.values())

    def features(self, entity: Ints, now: Ints, cutoff: Ints) -> Floats:
        """[n, H] of questions about entities [n], asked at ``now`` of what is there by ``cutoff``
        [n], unix seconds.

        For each foreign key: log(1 + how many children there are), log(1 + age of the latest, in
        timedeltas); the mean rank of each column's numbers, from -1 to 1, over the latest children.
        """
        out = np.zeros((entity.size, self.width), dtype=np.float32)
        for start in range(0, entity.size, _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            parts = [np.zeros((entity[some].size, 0), dtype=np.float32)]
            for key in self.ranks:
                parts += self._of_key(key, entity[some], now[some], cutoff[some])
            out[some] = np.concatenate(parts, axis=1)
        return out

    def _of_key(self, key: int, entity: Ints, now: Ints, cutoff: Ints) -> list[Floats]:
        graph = self.graph
        child, count = latest_children(graph, key, entity, cutoff, max(_LAST))
        there = child >= 0
        time = np.asarray(graph.row_time[np.where(there[:, 0], child[:, 0], 0)])
        age = np.where(there[:, 0] & (time != STATIC), now - time, 0) / self.timedelta
        first = graph.table_start[graph.foreign_keys[key].child]
        rank = self.ranks[key][np.where(there, child - first, 0)]
        known = there[:, :, None] & ~np.isnan(rank)
        total, number = np.cumsum(np.where(known, rank, 0), axis=1), np.cumsum(known, axis=1)
        means = [total[:, n - 1] / np.maximum(number[:, n - 1], 1) for n in _LAST]
        return [np.log1p(count)[:, None], np.log1p(age.clip(min=0))[:, None], *means]


def latest_children(
    graph: EntityGraph, key: int, parent: Ints, cutoff: Ints, most: int
) -> tuple[Ints, Ints]:
    """The latest children of local rows [n] by a foreign key, as of cutoffs [n]: global rows [n,
    most], the latest first, -1 where there are no more; and how many [n] there are in all."""
    child = np.full((parent.size, most), -1, dtype=np.int64)
    count = np.zeros(parent.size, dtype=np.int64)
    at = int(graph.child_ptr_start[key]) + parent
    start, stop = np.asarray(graph.child_ptr[at]), np.asarray(graph.child_ptr[at + 1])
    for i in range(parent.size):
        rows = graph.child[start[i] : stop[i]]
        count[i] = end = int(np.searchsorted(graph.row_time[rows], cutoff[i], side="right"))
        some = rows[max(0, end - most) : end][::-1]
        child[i, : some.size] = some
    return child, count


def _ranks(store: RowStore, table: int) -> Floats:
    """Ranks [rows, V] of a table's numbers and booleans, NaN where they are null; never without a
    row. Dates are left out: they only ever grow."""
    cells = store.tables[table]
    columns = np.flatnonzero(cells.is_value & ~cells.is_datetime)
    out = np.full((max(1, cells.num_rows), columns.size), np.nan, dtype=np.float32)
    for i, column in enumerate(columns):
        z = cells.values(np.arange(cells.num_rows), int(column))
        rank = value_ranks(cells, np.nan_to_num(z), np.full(z.size, column))
        out[: z.size, i] = np.where(np.isnan(z), np.nan, 2 * rank - 1)
    return out
