"""What past labels alone say of a question: smoothed means over those that are known by its cutoff.

The labels come as neighbours, too, but among hundreds of cells a network finds their mean only with
many examples; the rules that rank by it are hard to beat. So the head is told. It is told how far
an entity's mean is from the mean of all, which drifts in the course of years.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from rfm.data.attach import AttachedTask
from rfm.data.task_rows import SPLITS, Ints

Floats = npt.NDArray[np.float64]
_LAST = (3, 10)  # of the latest labels; and all
_PRIOR = 2.0  # labels' worth of the mean of all


@dataclass(frozen=True)
class Order:
    """Labelled rows sorted by (key, known): mark [m] sorts them; before, upto [m, C]: sums of the
    labels of the same key before each and with it (never of another key: rounding would carry its
    later labels over); known [m]; keys: of all rows of the table, -1 for null."""

    mark: Ints
    before: Floats
    upto: Floats
    known: Ints
    keys: Ints


class PastLabels:
    """Means over the labels of the rows that share a parent, by foreign key of the attached table.

    Labels are vectors [C]: 0 or 1 for each class or label, or a standardised number.
    """

    def __init__(self, attached: AttachedTask, center: float, scale: float) -> None:
        """
        Args:
            center, scale: of a regression's training labels.
        """
        task = attached.task
        rows = [task.rows(split) for split in SPLITS]
        label = np.concatenate([r.label for r in rows])
        if task.task_type == "multiclass_classification":
            label = _one_hot(label[:, 0], task.outputs)
        elif task.task_type == "regression":
            label = (label - center) / scale
        self.timedelta = task.timedelta
        known = np.concatenate([r.time for r in rows]) + task.timedelta
        there = ~np.isnan(label).any(axis=1)
        self.times, rank = np.unique(known, return_inverse=True)
        table = attached.database.tables[attached.table]
        read = pq.read_table(table.path, columns=list(table.foreign_keys))
        self.orders = []
        for column in table.foreign_keys:
            key = read.column(column).fill_null(-1).to_numpy().astype(np.int64)
            self.orders.append(self._order(key, rank, known, label, there & (key >= 0)))
        # all rows share a parent of their own: the mean of all
        self.whole = self._order(np.zeros(len(label), np.int64), rank, known, label, there)
        self.outputs = int(label.shape[1])

    def _order(
        self, key: Ints, rank: Ints, known: Ints, label: Floats, there: npt.NDArray[np.bool_]
    ) -> Order:
        at = np.flatnonzero(there)
        mark = self._mark(key[at], rank[at])
        order = np.argsort(mark, kind="stable")
        at = at[order]
        upto = pd.DataFrame(label[at]).groupby(key[at]).cumsum().to_numpy(dtype=np.float64)
        before = np.concatenate([np.zeros((1, label.shape[1])), upto])[:-1]
        before[np.diff(key[at], prepend=-1) != 0] = 0
        return Order(mark[order], before, upto, known[at], key)

    def _mark(self, key: Ints, rank: Ints) -> Ints:
        return np.asarray(key * (self.times.size + 1) + rank + 1, dtype=np.int64)

    @property
    def width(self) -> int:
        """Numbers per question, H."""
        of_each = (len(_LAST) + 1) * self.outputs + 2
        return len(self.orders) * of_each

    def features(self, row: Ints, now: Ints, cutoff: Ints) -> npt.NDArray[np.float32]:
        """[n, H] of rows [n] of the attached table, asked at ``now`` with labels known by
        ``cutoff`` [n], unix seconds.

        For each foreign key: the means of the latest labels and of all, less the mean of all rows'
        labels; log(1 + how many there are), log(1 + age of the latest, in timedeltas).
        """
        rank = np.searchsorted(self.times, cutoff, side="right") - 1
        zero = np.zeros(row.size, dtype=np.int64)
        low, high = self._span(self.whole, zero, rank)
        total = _mean(self.whole, low, high, np.zeros((row.size, self.outputs)))
        parts = []
        for order in self.orders:
            key = order.keys[row]
            low, high = self._span(order, key, rank)
            for last in (*_LAST, np.iinfo(np.int64).max):
                parts.append(_mean(order, np.maximum(low, high - last), high, total) - total)
            latest = order.known[np.maximum(high - 1, 0)] if order.known.size else now
            age = np.where(high > low, (now - latest) / self.timedelta, 0).clip(min=0)
            parts += [np.log1p(high - low)[:, None], np.log1p(age)[:, None]]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def _span(self, order: Order, key: Ints, rank: Ints) -> tuple[Ints, Ints]:
        """Where the labels of each key [n] that are known begin and end; nowhere for -1."""
        low = np.searchsorted(order.mark, self._mark(key, np.full(key.size, -1)), side="left")
        high = np.searchsorted(order.mark, self._mark(key, rank), side="right")
        high = np.where(key < 0, low, high)
        return low, np.maximum(low, high)


def _mean(order: Order, low: Ints, high: Ints, prior: Floats) -> Floats:
    total: Floats = _PRIOR * prior
    some = high > low
    total[some] += order.upto[high[some] - 1] - order.before[low[some]]
    return np.asarray(total / (high - low + _PRIOR)[:, None], dtype=np.float64)


def _one_hot(number: Floats, classes: int) -> Floats:
    out: Floats = (number[:, None] == np.arange(classes)).astype(np.float64)
    out[np.isnan(number)] = np.nan
    return out
