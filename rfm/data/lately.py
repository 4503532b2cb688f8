"""What has happened to an entity lately, and what it has to do with: counts of its children over
the last timedeltas, and the numbers of the other parents of its latest children, as of a cutoff."""

from __future__ import annotations

import numpy as np

from rfm.data.child_means import ChildMeans, Floats, number_ranks
from rfm.data.degrees import count_children
from rfm.data.graph import STATIC
from rfm.data.hidden import NOTHING, Hidden
from rfm.data.sampler import Seeds
from rfm.data.task_rows import Ints

_SPANS = (1, 4)  # timedeltas
_LAST = 16  # children whose parents are looked at


class Lately:
    """Beside ``ChildMeans``, of the same entities and children."""

    def __init__(self, children: ChildMeans) -> None:
        graph = children.graph
        self.children, self.graph = children, graph
        self.others = {
            f: [
                g
                for g, other in enumerate(graph.foreign_keys)
                if g != f and other.child == graph.foreign_keys[f].child
            ]
            for f in children.tables
        }

    @property
    def kinds(self) -> list[int]:
        """What each number is, see ``features``: 0 and 1 counts, 2 how lately, 3 means."""
        kinds = list[int]()
        for key, others in self.others.items():
            dated = [0, 1, 2] if self._is_dated(key) else []
            means = sum(self._numbers(g).size for g in others)
            kinds += [*dated, *(3 for _ in range(means))]
        return kinds

    @property
    def subjects(self) -> list[tuple[tuple[int, ...], int]]:
        """What each number is about, see ``Told.subjects``."""
        found = list[tuple[tuple[int, ...], int]]()
        for key, others in self.others.items():
            found += [((2 * key,), -1)] * (3 if self._is_dated(key) else 0)
            for g in others:
                found += [((2 * key, 2 * g + 1), column) for column in self._numbers(g).tolist()]
        return found

    def features(self, entity: Ints, now: Ints, cutoff: Ints, hidden: Hidden = NOTHING) -> Floats:
        """[n, F] of questions about entities [n], asked at ``now`` of what is there by ``cutoff``
        [n], unix seconds.

        For each foreign key: log(1 + how many children there are of the last timedelta, of the last
        four); 1 / (1 + age of the latest, in timedeltas), 0 without any; and, of its latest
        children, the mean rank of the numbers of each other parent. All is 0 of an entity that is
        not there yet.

        Args:
            hidden: rows that the questions must not see; by default none.
        """
        parts = [np.zeros((entity.size, 0), dtype=np.float32)]
        for key, others in self.others.items():
            child, count = self.children.latest(key, entity, cutoff, hidden)
            if self._is_dated(key):
                parts += self._dated(key, entity, (now, cutoff), (child, count), hidden)
            parts += [self._means(g, child[:, :_LAST], cutoff, hidden) for g in others]
        out = np.concatenate(parts, axis=1).astype(np.float32)
        return np.where(self.children.is_there(entity, cutoff, hidden)[:, None], out, 0)

    def _is_dated(self, key: int) -> bool:
        return not self.children.store.is_static[self.graph.foreign_keys[key].child]

    def _rows(self, table: int) -> tuple[int, int]:
        first, end = self.graph.table_start[table : table + 2]
        return int(first), int(end)

    def _numbers(self, key: int) -> Ints:
        return self.children.columns(self.graph.foreign_keys[key].parent)

    def _dated(
        self,
        key: int,
        entity: Ints,
        when: tuple[Ints, Ints],
        children: tuple[Ints, Ints],
        hidden: Hidden,
    ) -> list[Floats]:
        (now, cutoff), (child, count) = when, children
        rows, number = self.children.first_entity + entity, np.arange(entity.size)
        delta, keys, parts = self.children.timedelta, np.full(entity.size, key), []
        for span in _SPANS:
            seeds = hidden.blind(Seeds.at(rows, cutoff - span * delta))
            before = count_children(self.graph, seeds, number, rows, keys)
            parts.append(np.log1p(count - before)[:, None])
        latest = np.asarray(self.graph.row_time[np.maximum(child[:, 0], 0)])
        known = (child[:, 0] >= 0) & (latest != STATIC)
        age = np.where(known, now - latest, 0).clip(min=0) / delta
        return [*parts, np.where(known, 1 / (1 + age), 0)[:, None]]

    def _means(self, key: int, child: Ints, cutoff: Ints, hidden: Hidden) -> Floats:
        """[n, V] of the parents that children [n, m] have through another foreign key."""
        link, columns = self.graph.foreign_keys[key], self._numbers(key)
        table = self.children.store.tables[link.parent]
        local = np.maximum(child, self._rows(link.child)[0]) - self._rows(link.child)[0]
        parent = np.asarray(self.graph.parent[self.graph.parent_start[key] + local])
        parent = np.where(child >= 0, parent, -1).astype(np.int64)
        time = np.asarray(self.graph.row_time[np.maximum(parent, 0)])
        there = (parent >= 0) & (time <= cutoff[:, None]) & ~hidden.has(parent)
        rank = np.full((*child.shape, columns.size), np.nan, dtype=np.float32)
        rank[there] = number_ranks(table, parent[there] - self._rows(link.parent)[0], columns)
        known = ~np.isnan(rank)
        mean: Floats = np.where(known, rank, 0).sum(1) / np.maximum(known.sum(1), 1)
        return mean
