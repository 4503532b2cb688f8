"""What the questions of an episode are told beside the rows that they see: numbers, as many as
there are columns and foreign keys to tell of, each of a kind.

All of it is in the rows, too, but among hundreds of cells a network finds the mean of one column of
one table only with many examples, and an episode has few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.batch import TOLD_KINDS
from rfm.data.child_means import ChildMeans, number_columns, number_ranks
from rfm.data.generated import GeneratedTask
from rfm.data.hidden import NOTHING, Hidden
from rfm.data.label_history import Floats, LabelHistory
from rfm.data.lately import Lately
from rfm.data.past_labels import PRIOR, past_means
from rfm.data.questions import calendar
from rfm.data.store import RowStore
from rfm.data.support import parents_of
from rfm.data.task_rows import Ints

_FAR = 5.0  # standard deviations
_CALENDAR = (0, 0, 1, 1, 2)
_LAGS = 4  # labels that are told one by one
_CELL, _AGE, _OWN, _LAST, _PARENT, _CHILD, _LATELY = (
    TOLD_KINDS.index(kind)
    for kind in (
        "cell", "age", "last 3 labels", "last label", "last 3 labels of the parent", "child count",
        "children of a timedelta",
    )
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Group:
    """Labels by a group of entities: group [entities], -1 for none; the number of the task's row
    that each label is of; of which kind; the edges walked to them, see ``Told.subjects``."""

    group: Ints
    history: LabelHistory
    number: Ints
    kind: int
    path: tuple[int, ...]


class Told:
    """Tells the questions of one task of a prepared store.

    The means of past labels are of 0 and 1 for each class, or of numbers as they are.
    """

    def __init__(self, store: RowStore, task: GeneratedTask, labels: bool = True) -> None:
        """
        Args:
            labels: tell of past labels, too.
        """
        self.store, self.task = store, task
        graph, rows = store.graph, task.rows
        first, end = graph.table_start[task.entity_table : task.entity_table + 2]
        self.entity_time = np.asarray(graph.row_time[first:end])
        asked = (task.entity_table, task.column)  # other rows may be the entity itself
        self.children = ChildMeans(store, task.entity_table, task.timedelta, asked=asked)
        self.lately = Lately(self.children)
        table = store.tables[task.entity_table]
        self.cells = np.setdiff1d(number_columns(table), [task.column])
        known = np.flatnonzero(~np.isnan(rows.label))
        self.known = task.known[known]
        outcome = _outcomes(rows.label[known], task.classes)
        self.sums = np.cumsum(np.pad(outcome, ((1, 0), (0, 0))), axis=0)
        own = 2 * len(graph.foreign_keys)  # the edge to the task's own rows, see ``overlay``
        keys = [f for f, key in enumerate(graph.foreign_keys) if key.child == task.entity_table]
        parents = zip(parents_of(store, task.entity_table), keys, strict=True)
        groups: list[tuple[Ints, int, tuple[int, ...]]] = []
        if task.key:
            groups.append((np.arange(end - first), _OWN, (own,)))
        groups += [(parent, _PARENT, (2 * f + 1, 2 * f, own)) for parent, f in parents]
        self.groups = [self._group(*one, known, outcome) for one in groups if labels]
        self.kinds = np.array(self._kinds(), dtype=np.int64)

    def _group(
        self, group: Ints, kind: int, path: tuple[int, ...], known: Ints, outcome: Floats
    ) -> _Group:
        rows = self.task.rows
        owner = group[rows.entity[known]]
        kept = np.flatnonzero(owner >= 0)
        order = kept[np.lexsort((self.known[kept], owner[kept]))]
        asked = rows.time[known][order]
        history = LabelHistory(owner[order], self.known[order], asked, outcome[order])
        return _Group(group, history, known[order], kind, path)

    def _kinds(self) -> list[int]:
        kinds = [*_CALENDAR, *(_CELL for _ in self.cells), *([_AGE] if self._has_age else [])]
        outputs = self.sums.shape[1]
        for one in self.groups:
            kinds += [one.kind + i for i in range(3) for _ in range(outputs)]
            kinds += [one.kind + 3, one.kind + 4]
            if one.kind == _OWN:
                kinds += [_LAST + i for i in range(_LAGS) for _ in range(outputs)]
        kinds += [_CHILD + kind for kind in self.children.kinds]
        return kinds + [_LATELY + kind for kind in self.lately.kinds]

    @property
    def subjects(self) -> list[tuple[tuple[int, ...], int]]:
        """What each number is about: the types of the edges walked from the entity, those of the
        store with the task laid over it, and the column of the table that they lead to, -1 for its
        rows as such: how many, how old. (Time is about the question: the edge -1.)"""
        found: list[tuple[tuple[int, ...], int]] = [((-1,), -1) for _ in _CALENDAR]
        found += [((), column) for column in self.cells.tolist()]
        found += [((), -1)] if self._has_age else []
        outputs = self.sums.shape[1]
        for one in self.groups:
            lags = _LAGS if one.kind == _OWN else 0
            columns = [*[1] * (3 * outputs), -1, -1, *[1] * (lags * outputs)]
            found += [(one.path, column) for column in columns]
        return found + self.children.subjects + self.lately.subjects

    def labels(self, path: tuple[int, ...], entity: int, cutoff: int) -> Ints:
        """Numbers of the task's rows whose labels an entity is told of at the end of a path as of
        a cutoff, in the order in which they became known."""
        one = next(one for one in self.groups if one.path == path)
        start, end = one.history.visible(one.group[[entity]], np.array([cutoff]))
        return one.number[int(start[0]) : int(end[0])]

    @property
    def _has_age(self) -> bool:
        return not self.task.given and not self.store.is_static[self.task.entity_table]

    def __call__(
        self, number: Ints, cutoff: Ints, hidden: Hidden = NOTHING
    ) -> npt.NDArray[np.float32]:
        """[S, F] of rows [S] of the task, by number, as of their cutoffs [S]; F as ``kinds``.

        When is asked, and how stale it is; the ranks of the numbers in the entity's own cells, and
        its age; of past labels, the entity's own and those that share a parent with it, the means
        less the mean of all, how many and how old, and the latest of its own one by one; of its
        children, see ``ChildMeans`` and ``Lately``.

        Args:
            hidden: rows that the questions must not see, of the store with the task laid over it;
                by default none. (They still count in the mean of all labels.)
        """
        task = self.task
        first = int(self.store.graph.table_start[task.entity_table])
        now, entity = task.rows.time[number], task.rows.entity[number]
        there = (self.entity_time[entity] <= cutoff) | task.given
        there &= ~hidden.has(first + entity)
        cell = number_ranks(self.store.tables[task.entity_table], entity, self.cells)
        parts = [
            calendar(now, cutoff, task.timedelta),
            np.where(there[:, None], np.nan_to_num(cell), 0),
        ]
        if self._has_age:
            age = np.where(there, now - self.entity_time[entity], 0) / task.timedelta
            parts.append(np.log1p(age.clip(min=0))[:, None])
        seen = np.searchsorted(self.known, cutoff, side="right")
        total = self.sums[seen] / (seen + PRIOR)[:, None]
        for one in self.groups:
            group = one.group[entity]
            if one.kind == _PARENT:  # whose child a row will be nobody knows before it is there
                group = np.where(there, group, -1)
            row = self.store.num_rows + one.number
            history, group = hidden.history(one.history, row, group, cutoff)
            parts += past_means(history, group, (now, cutoff), total, task.timedelta)
            if one.kind == _OWN:
                parts += _one_by_one(history, group, cutoff, total)
        parts += [one.features(entity, now, cutoff, hidden) for one in (self.children, self.lately)]
        out = np.concatenate(parts, axis=1).astype(np.float32)
        assert out.shape[1] == self.kinds.size
        return out


def _one_by_one(history: LabelHistory, group: Ints, cutoff: Ints, total: Floats) -> list[Floats]:
    """The latest labels [n, C] that are known by the cutoffs [n], less ``total`` [n, C]; 0 where
    there is none."""
    start, end = history.visible(group, cutoff)
    parts = []
    for back in range(1, _LAGS + 1):
        at = end - back
        label = history.outcome[np.maximum(at, 0)] if len(history.outcome) else np.zeros_like(total)
        parts.append(np.where((at >= start)[:, None], label - total, 0))
    return parts


def _outcomes(label: Floats, classes: int) -> Floats:
    """[n, C]: 0 or 1 for each of several classes; of two classes the second; a number."""
    if classes > 2:
        return np.asarray(label[:, None] == np.arange(classes), dtype=np.float64)
    return label[:, None] if classes else label[:, None].clip(-_FAR, _FAR)
