"""Labels of a task as they become known: which of them a question may see, and their means.

The label of a row of any split is known at its seed time + ``timedelta``; a question sees those
known by its cutoff.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.task_rows import SPLITS, Ints, TaskRows
from rfm.data.tasks import Task

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelHistory:
    """Known labels, sorted by group and then by when they were known.

    group [n]: what they are labels of, such as the entity. known [n], asked [n]: unix seconds, when
    the label was known and the seed time. outcome [n, C]: see ``outcomes``.
    """

    group: Ints
    known: Ints
    asked: Ints
    outcome: Floats

    def visible(self, group: Ints, cutoff: Ints) -> tuple[Ints, Ints]:
        """The range start [m], end [m] of the labels that questions about groups [m] may see by
        their cutoffs [m]; empty for group -1."""
        return found_until(self.group, self.known, group, cutoff)

    def mean(self, start: Ints, end: Ints) -> Floats:
        """Mean outcome [m, C] of ranges [m] of labels, NaN where they are empty."""
        count = end - start
        with np.errstate(invalid="ignore"):
            return np.asarray(self._sum(start, end) / np.where(count > 0, count, np.nan)[:, None])

    def median(self, start: Ints, end: Ints) -> Floats:
        """Median outcome [m, C] of ranges [m] of labels, NaN where they are empty."""
        out = np.full((start.size, self.outcome.shape[1]), np.nan)
        for i in np.flatnonzero(end > start):
            out[i] = np.median(self.outcome[start[i] : end[i]], axis=0)
        return out

    def _sum(self, start: Ints, end: Ints) -> Floats:
        """Each range summed by itself: running totals would let later labels change last digits."""
        padded = np.concatenate([self.outcome, np.zeros((1, self.outcome.shape[1]))])
        bounds = np.stack([start, end], axis=1).ravel()
        total = np.add.reduceat(padded, bounds, axis=0)[::2] if bounds.size else padded[:0]
        return np.asarray(np.where((end > start)[:, None], total, 0.0))


def found_until(group: Ints, moment: Ints, asked: Ints, until: Ints) -> tuple[Ints, Ints]:
    """Of rows [n] sorted by group and then moment (unix seconds), the range start [m], end [m] that
    belongs to each asked group [m] up to its moment ``until`` [m]; empty for group -1."""
    if not group.size:
        return np.zeros(asked.size, np.int64), np.zeros(asked.size, np.int64)
    first, last = int(moment.min()), int(moment.max())
    span = last - first + 2
    key = group * span + (moment - first)
    start = np.searchsorted(key, asked * span)
    end = np.searchsorted(key, asked * span + np.clip(until, first - 1, last) - first, side="right")
    return start, np.maximum(start, end)


def outcomes(task: Task, rows: TaskRows) -> Floats:
    """What a mean is taken of [n, C]: the label, or of a multiclass task 1 for its class (none for
    a class that no training row has); NaN where the label is not known."""
    if task.task_type != "multiclass_classification":
        return rows.label
    one_hot = np.equal(rows.label, np.arange(len(task.classes))).astype(np.float64)
    one_hot[~rows.labelled] = np.nan
    return np.asarray(one_hot)


def label_history(task: Task, group: Ints | None = None) -> LabelHistory:
    """The labels of all splits.

    Args:
        group: of each row of the entity table what its labels count for, -1 for nothing;
            by default the entity itself.
    """
    rows = [task.rows(split) for split in SPLITS]
    entity = np.concatenate([r.entity for r in rows])
    asked = np.concatenate([r.time for r in rows])
    outcome = np.concatenate([outcomes(task, r) for r in rows])
    owner = entity if group is None else group[entity]
    keep = ~np.isnan(outcome).any(axis=1) & (owner >= 0)
    order = np.flatnonzero(keep)[np.lexsort((asked[keep], owner[keep]))]
    return LabelHistory(owner[order], asked[order] + task.timedelta, asked[order], outcome[order])


def link_history(task: Task) -> tuple[Ints, Ints, Ints]:
    """The labels of all splits of a recommendation, in the order of when they were known: entity
    [n], known [n] in unix seconds, destination [n]."""
    rows = [task.rows(split) for split in SPLITS]
    count = [np.diff(r.start) for r in rows]
    entity = np.concatenate([np.repeat(r.entity, c) for r, c in zip(rows, count, strict=True)])
    asked = np.concatenate([np.repeat(r.time, c) for r, c in zip(rows, count, strict=True)])
    destination = np.concatenate([r.destination for r in rows])
    order = np.lexsort((destination, entity, asked))
    return entity[order], asked[order] + task.timedelta, destination[order]
