"""What is known of an entity and a destination together, before any model: how often and how lately
they met in past labels and in the database around the entity, and how popular the destination is.

All of it as of a cutoff. Windows of labels end with the latest label that is known, which may be
much older than the cutoff: a destination without recent labels must not look abandoned only because
nobody has labels of that time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.attach import AttachedTask
from rfm.data.batch import NUM_SEEN_FEATURES
from rfm.data.degrees import count_children
from rfm.data.label_history import link_history
from rfm.data.sampler import Seeds, fan_outs, sample
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints

Floats = npt.NDArray[np.float32]
_WINDOWS = (1, 3)  # of the task's timedelta; and all that is past
_NEAR = 32  # children of the entity that are looked through, per foreign key
_DAY = 86_400.0
_NONE = np.zeros(0, dtype=np.int64)

assert 2 * (len(_WINDOWS) + 1) + 4 == NUM_SEEN_FEATURES


@dataclass(frozen=True)
class Pairs:
    """Of Q questions: (question [m], destination [m], value [m]) that are not 0, by feature; and
    the same of destinations alone, [destinations, features]."""

    number: int
    found: tuple[tuple[Ints, Ints, Floats], ...]
    alone: Floats

    def features(self, destination: Ints) -> Floats:
        """[Q, P, NUM_SEEN_FEATURES] of destinations [P]."""
        place = np.full(self.alone.shape[0], -1, dtype=np.int64)
        place[destination] = np.arange(destination.size)
        pairs = np.zeros((self.number, destination.size, len(self.found)), dtype=np.float32)
        for i, (question, to, value) in enumerate(self.found):
            here = place[to] >= 0
            pairs[question[here], place[to[here]], i] = value[here]
        shape = (self.number, destination.size, self.alone.shape[1])
        alone = np.broadcast_to(self.alone[destination], shape)
        return np.concatenate([pairs, alone], axis=2)


class SeenBefore:
    """Looks up pairs of a recommendation's questions and destinations."""

    def __init__(self, attached: AttachedTask, store: RowStore, labels: bool = True) -> None:
        """
        Args:
            labels: whether past labels may be seen.
        """
        task, graph = attached.task, store.graph
        history = link_history(task) if labels else (_NONE, _NONE, _NONE)
        self.entity, self.known, self.destination = history
        self.timedelta, self.graph = task.timedelta, graph
        self.destinations = graph.rows_of(task.destination_table)
        self.size = len(self.destinations)
        own, parent = (graph.tables.index(t) for t in (attached.table, task.destination_table))
        self.keys = [
            f
            for f, key in enumerate(graph.foreign_keys)
            if key.parent == parent and key.child != own
        ]
        # question -> entity -> its latest children -> their parents -> parents of these
        nothing = {
            f"{attached.table}.{k.column}": (0,) * 4 for k in graph.foreign_keys if k.child == own
        }
        self.fan_out = fan_outs(graph, (0, _NEAR, 0, 0), nothing)

    def pairs(self, queries: Seeds, entity: Ints, now: int) -> Pairs:
        """Of one or more questions [Q], as seeds whose destination is cut, and their entities [Q].

        Args:
            now: the moment that ages are counted back from, unix seconds.
        """
        cutoff = int(queries.time[0])  # the same for all
        found, alone = self._labels(entity, cutoff)
        found += self._near(queries, now)
        alone += self._children(cutoff)
        return Pairs(entity.size, tuple(found), np.stack(alone, axis=1))

    def _labels(
        self, entity: Ints, cutoff: int
    ) -> tuple[list[tuple[Ints, Ints, Floats]], list[Floats]]:
        """Per window of past labels: log(1 + times together); and the destination's share of all
        labels, as the logarithm of how many times the mean it is."""
        end = int(np.searchsorted(self.known, cutoff, side="right"))
        latest = int(self.known[end - 1]) if end else cutoff
        begin = [latest - window * self.timedelta for window in _WINDOWS]
        found, alone = [], []
        for start in [*np.searchsorted(self.known, begin, side="right").tolist(), 0]:
            to, by = self.destination[start:end], self.entity[start:end]
            count = np.bincount(to, minlength=self.size)
            alone.append(np.log((count + 0.5) / (to.size / self.size + 0.5)).astype(np.float32))
            mine = np.flatnonzero(np.isin(by, entity))
            pair, times = np.unique(by[mine] * self.size + to[mine], return_counts=True)
            question, which = _match(entity, pair // self.size)
            value = np.log1p(times[which]).astype(np.float32)
            found.append((question, pair[which] % self.size, value))
        return found, alone

    def _near(self, queries: Seeds, now: int) -> list[tuple[Ints, Ints, Floats]]:
        """Destinations in the component of the question: log(1 + rows there that point at it), and
        how lately the latest of these was."""
        near = sample(self.graph, queries, self.fan_out)
        source, asker = near.edge_index
        at = near.row[source] - self.destinations.start
        up = (near.edge_type % 2 == 1) & (at >= 0) & (at < self.size)
        question, to = near.seed[asker[up]].astype(np.int64), at[up]
        days = (now - np.asarray(self.graph.row_time[near.row[asker[up]]])) / _DAY
        lately = (1 / (1 + np.clip(days, 0, 1e6) / (self.timedelta / _DAY))).astype(np.float32)
        pair, back, times = np.unique(
            question * self.size + to, return_inverse=True, return_counts=True
        )
        best = np.zeros(pair.size, dtype=np.float32)
        np.maximum.at(best, back, lately)
        which = (pair // self.size, pair % self.size)
        return [(*which, np.log1p(times).astype(np.float32)), (*which, best)]

    def _children(self, cutoff: int) -> list[Floats]:
        """Children of each destination in the database: log(1 + those of the last timedelta), and
        of all."""
        rows = np.asarray(self.destinations)
        total = np.zeros((2, self.size), dtype=np.float32)
        for i, time in enumerate((cutoff, cutoff - self.timedelta)):
            seeds = Seeds.at(rows[:1], time)
            component = np.zeros(self.size, dtype=np.int64)
            for key in self.keys:
                total[i] += count_children(
                    self.graph, seeds, component, rows, np.full(self.size, key)
                )
        return [np.log1p(total[0] - total[1]), np.log1p(total[0])]


def _match(entity: Ints, by: Ints) -> tuple[Ints, Ints]:
    """All (index into entity, index into by) of equal values; ``by`` is sorted."""
    low, high = np.searchsorted(by, entity), np.searchsorted(by, entity, side="right")
    question = np.repeat(np.arange(entity.size), high - low)
    before = np.repeat(np.cumsum(high - low) - (high - low), high - low)
    return question, np.arange(question.size) - before + np.repeat(low, high - low)
