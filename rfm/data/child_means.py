"""What the numbers in an entity's latest children come to: their means, as of a cutoff.

The children come as neighbours, too, but only a few of them, and a network needs many examples to
find the mean of one column of one table among hundreds of cells; boosted trees on such means are
hard to beat. So the head is told.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rfm.data.attach import AttachedTask
from rfm.data.degrees import count_children
from rfm.data.graph import STATIC
from rfm.data.hidden import NOTHING, Hidden
from rfm.data.sampler import Seeds
from rfm.data.serialise import value_ranks
from rfm.data.store import RowStore, TableStore
from rfm.data.task_rows import Ints

_LAST = (4, 16, 64)  # of the latest children
Floats = npt.NDArray[np.float32]


class ChildMeans:
    """Means over the latest children of entities, by foreign key and column of numbers."""

    def __init__(
        self,
        store: RowStore,
        entity: int,
        timedelta: int,
        but: int = -1,
        asked: tuple[int, int] = (-1, -1),
    ) -> None:
        """
        Args:
            entity: the number of the entity table. timedelta: seconds that ages are counted in.
            but: the number of a table whose rows do not count. asked: a table and a column of it
                that is not told of, as it is asked for.
        """
        graph = store.graph
        self.store, self.graph, self.timedelta = store, graph, timedelta
        self.first_entity, self.asked = int(graph.table_start[entity]), asked
        self.tables = {
            f: store.tables[key.child]
            for f, key in enumerate(graph.foreign_keys)
            if key.parent == entity and key.child != but
        }

    @classmethod
    def of(cls, attached: AttachedTask, store: RowStore) -> ChildMeans:
        """Of a task's entities, whose questions and past labels do not count."""
        entity, own = (
            store.graph.tables.index(t) for t in (attached.task.entity_table, attached.table)
        )
        return cls(store, entity, attached.task.timedelta, but=own)

    @property
    def width(self) -> int:
        """Numbers per question, H."""
        return len(self.kinds)

    @property
    def kinds(self) -> list[int]:
        """What each number is, see ``features``: 0 a count, 1 an age, 2 and more means, by how many
        children they are of."""
        kinds = list[int]()
        for key in self.tables:
            columns = self.columns(self.graph.foreign_keys[key].child)
            kinds += [0, 1, *(2 + i for i in range(len(_LAST)) for _ in columns)]
        return kinds

    @property
    def subjects(self) -> list[tuple[tuple[int, ...], int]]:
        """What each number is about, see ``Told.subjects``."""
        found = list[tuple[tuple[int, ...], int]]()
        for key in self.tables:
            columns = self.columns(self.graph.foreign_keys[key].child).tolist()
            found += [((2 * key,), column) for column in [-1, -1, *columns * len(_LAST)]]
        return found

    def columns(self, table: int) -> Ints:
        """Those of a table that means are told of."""
        columns = number_columns(self.store.tables[table])
        return columns[columns != self.asked[1]] if table == self.asked[0] else columns

    def features(self, entity: Ints, now: Ints, cutoff: Ints, hidden: Hidden = NOTHING) -> Floats:
        """[n, H] of questions about entities [n], asked at ``now`` of what is there by ``cutoff``
        [n], unix seconds.

        For each foreign key: log(1 + how many children there are), log(1 + age of the latest, in
        timedeltas); the mean rank of each column's numbers, from -1 to 1, over the latest children.
        All is 0 of an entity that is not there yet, whose children the graph does not reach either.

        Args:
            hidden: rows that the questions must not see; by default none.
        """
        parts = [np.zeros((entity.size, 0), dtype=np.float32)]
        for key in self.tables:
            parts += self._of_key(key, entity, (now, cutoff), hidden)
        out = np.concatenate(parts, axis=1).astype(np.float32)
        out[~self.is_there(entity, cutoff, hidden)] = 0
        return out

    def is_there(self, entity: Ints, cutoff: Ints, hidden: Hidden) -> npt.NDArray[np.bool_]:
        """[n]: whether the rows of entities [n] are there by their cutoffs [n]."""
        row = self.first_entity + entity
        return np.asarray(self.graph.row_time[row] <= cutoff) & ~hidden.has(row)

    def _of_key(
        self, key: int, entity: Ints, when: tuple[Ints, Ints], hidden: Hidden
    ) -> list[Floats]:
        (now, cutoff), graph, table = when, self.graph, self.tables[key]
        child, count = self.latest(key, entity, cutoff, hidden)
        there = child >= 0
        time = np.asarray(graph.row_time[np.where(there[:, 0], child[:, 0], 0)])
        age = np.where(there[:, 0] & (time != STATIC), now - time, 0) / self.timedelta
        first = int(graph.table_start[graph.foreign_keys[key].child])
        columns = self.columns(graph.foreign_keys[key].child)
        rank = np.full((*child.shape, columns.size), np.nan, dtype=np.float32)
        rank[there] = number_ranks(table, child[there] - first, columns)
        known = ~np.isnan(rank)
        total, number = np.cumsum(np.where(known, rank, 0), axis=1), np.cumsum(known, axis=1)
        means = [total[:, n - 1] / np.maximum(number[:, n - 1], 1) for n in _LAST]
        return [np.log1p(count)[:, None], np.log1p(age.clip(min=0))[:, None], *means]

    def latest(self, key: int, entity: Ints, cutoff: Ints, hidden: Hidden) -> tuple[Ints, Ints]:
        """Global rows [n, most] of the latest children, the latest first, -1 where there are no
        more; and how many [n] there are in all."""
        graph, rows = self.graph, self.first_entity + entity
        number, keys = np.arange(entity.size), np.full(entity.size, key)
        count = count_children(graph, Seeds.at(rows, cutoff), number, rows, keys).astype(np.int64)
        start = np.asarray(graph.child_ptr[graph.child_ptr_start[key] + entity])
        back = np.arange(1, max(_LAST) + hidden.most + 1)
        place = (start + count)[:, None] - back
        child = np.full(place.shape, -1, dtype=np.int64)
        there = back <= count[:, None]
        child[there] = graph.child[place[there]]
        if hidden.row.size:
            child[hidden.has(child)] = -1
            child = np.take_along_axis(child, np.argsort(child < 0, axis=1, kind="stable"), axis=1)
            seeds = hidden.blind(Seeds.at(rows, cutoff))
            count = count_children(graph, seeds, number, rows, keys).astype(np.int64)
        return child[:, : max(_LAST)], count


def number_columns(table: TableStore) -> Ints:
    """The columns [V] of numbers and booleans; not of dates, which only ever grow."""
    return np.flatnonzero(table.is_value & ~table.is_datetime)


def number_ranks(table: TableStore, rows: Ints, columns: Ints) -> Floats:
    """Ranks [n, V] from -1 to 1 of the numbers of local rows [n] in columns [V], NaN where they are
    null."""
    out = np.empty((rows.size, columns.size), dtype=np.float32)
    for i, column in enumerate(columns):
        z = table.values(rows, int(column))
        rank = value_ranks(table, np.nan_to_num(z), np.full(z.size, column))
        out[:, i] = np.where(np.isnan(z), np.nan, 2 * rank - 1)
    return out
