"""What a generated task is, and which ones are worth nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rfm.data.label_history import Floats
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints

Ints32 = npt.NDArray[np.int32]
MIN_ROWS = 200
MOST_ROWS = 6_000
_MINORITY = 0.02  # of the labels, at least, is not the most frequent one
_SMALLEST = 10  # rows of each class
_UNDETERMINED = 0.05  # of what the most frequent label leaves open, at least, a cell does, too
_GROUPS = 0.5  # of the rows: values of a column that are as many say which row it is, nothing else


@dataclass(frozen=True, eq=False)
class Labelled:
    """Rows of a task, earliest first.

    entity [n]: rows of the entity table. time [n]: seed times, unix seconds. label [n] float64: the
    number of the class, or a number; NaN where it is not known, and never will be.
    """

    entity: Ints
    time: Ints
    label: Floats

    def __len__(self) -> int:
        return int(self.entity.size)

    def take(self, at: Ints) -> Labelled:
        return Labelled(self.entity[at], self.time[at], self.label[at])


@dataclass(frozen=True, eq=False)
class GeneratedTask:
    """A task that was made from a schema.

    name: what is asked for, the same for the same question. table, target, key: how its table, the
    column of its labels and the foreign key to the entity are called; the key is "" where the rows
    are the entities themselves, and ``column`` is the cell that is asked for (autocomplete).
    given: an entity's own cells are part of the question, whenever it is asked. names: of several
    classes; none where they have no names. named: labels are what the target's name says. timeless:
    its rows have no times: any of them may be examples for the others.
    entity_table: its number. classes: 2 or more; 0 where the label is a number. timedelta: seconds
    from the seed time until the label is known.
    """

    name: str
    table: str
    target: str
    key: str
    entity_table: int
    classes: int
    timedelta: int
    rows: Labelled
    column: int = -1
    given: bool = False
    names: tuple[str, ...] = ()
    named: bool = True
    timeless: bool = False

    @property
    def known(self) -> Ints:
        """[n] unix seconds from which on each label is known."""
        never = np.iinfo(np.int64).max // 4
        return np.where(np.isnan(self.rows.label), never, self.rows.time + self.timedelta)

    def relabelled(self, rng: np.random.Generator) -> GeneratedTask:
        """The same task with its classes renamed at random, or its numbers counted downwards half
        of the time: so that labels mean what the examples say they mean."""
        label = self.rows.label
        if self.classes:
            label = rng.permutation(self.classes)[label.astype(np.int64)].astype(np.float64)
        elif rng.random() < 0.5:
            label = -label
        named = self.named and np.array_equal(label, self.rows.label)
        return replace(self.relabelled_as(label), named=named)

    def relabelled_as(self, label: Floats) -> GeneratedTask:
        """The same task with other labels [n]."""
        return replace(self, rows=replace(self.rows, label=label))


def by_frequency(cell: Ints32) -> tuple[Ints32, Ints]:
    """The different ones among cells [n], the most frequent first, of equally frequent ones the
    first to come; and how many there are of each. (Their numbers depend on other rows.)"""
    value, first, count = np.unique(cell, return_index=True, return_counts=True)
    order = np.lexsort((first, -count))
    return value[order], count[order]


def draw_threshold(number: Floats, rng: np.random.Generator) -> float:
    """One of numbers [n] that some, but not all, are above; there must be two different ones."""
    distinct = np.unique(number)
    return min(float(np.quantile(number, rng.uniform(0.1, 0.9))), float(distinct[-2]))


def is_degenerate(store: RowStore, task: GeneratedTask) -> bool:
    """Whether there is too little to learn: few rows, nearly always the same label, or a label that
    a visible cell of the entity tells."""
    label = task.rows.label
    if label.size < MIN_ROWS:
        return True
    counts = np.unique(label, return_counts=True)[1]
    if counts.size < 2 or label.size - counts.max() < max(_MINORITY * label.size, _SMALLEST):
        return True
    if task.classes and counts.min() < _SMALLEST:
        return True
    return _is_told(store, task)


def _is_told(store: RowStore, task: GeneratedTask) -> bool:
    """Whether any one visible cell of the entity, or of a parent of it, determines the label."""
    table, rows = store.tables[task.entity_table], task.rows
    if task.key:  # not by an entity that is not there yet
        first = int(store.graph.table_start[task.entity_table])
        there = np.asarray(store.graph.row_time[first + rows.entity]) <= rows.time
        if there.sum() < MIN_ROWS:
            return False
        rows = rows.take(np.flatnonzero(there))
    own = [c for c in range(len(table.columns)) if c != task.column]
    if any(_tells(table.cells[rows.entity, c], rows, task.classes) for c in own):
        return True
    graph = store.graph
    for f, key in enumerate(graph.foreign_keys):
        if key.child != task.entity_table:
            continue
        parent = np.asarray(graph.parent[graph.parent_start[f] + rows.entity])
        known = np.flatnonzero(parent >= 0)
        if known.size < MIN_ROWS:
            continue
        cells = store.tables[key.parent].cells[parent[known] - graph.table_start[key.parent]]
        some = rows.take(known)
        if any(_tells(cells[:, c], some, task.classes) for c in range(cells.shape[1])):
            return True
    return False


def _tells(cell: Ints32, rows: Labelled, classes: int) -> bool:
    """Whether cells [n] leave hardly anything open of the labels."""
    value, group = np.unique(cell, return_inverse=True)
    if value.size < 2 or value.size > _GROUPS * len(rows):
        return False
    if classes:
        count = np.zeros((value.size, classes))
        np.add.at(count, (group, rows.label.astype(np.int64)), 1)
        left, alone = len(rows) - count.max(1).sum(), len(rows) - count.sum(0).max()
    else:
        size = np.bincount(group)
        mean = np.bincount(group, rows.label) / size
        left = ((rows.label - mean[group]) ** 2).sum()
        alone = ((rows.label - rows.label.mean()) ** 2).sum()
    return bool(left < _UNDETERMINED * alone)
