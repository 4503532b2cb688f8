"""Rows that questions are kept from seeing, as if they were not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rfm.data.label_history import LabelHistory
from rfm.data.sampler import Seeds
from rfm.data.task_rows import Ints


@dataclass(frozen=True, eq=False)
class Hidden:
    """Of n questions. row: global rows, sorted within each; those of question i are
    row[ptr[i]:ptr[i + 1]]."""

    ptr: Ints
    row: Ints

    @classmethod
    def of(cls, rows: Sequence[Ints]) -> Hidden:
        """Global rows, in any order, by question."""
        each = [np.unique(np.asarray(own, dtype=np.int64)) for own in rows]
        ptr = np.concatenate([[0], np.cumsum([own.size for own in each])]).astype(np.int64)
        return cls(ptr, np.concatenate([np.zeros(0, np.int64), *each]))

    @property
    def _keys(self) -> Ints:
        """Question and row in one number each."""
        return np.repeat(np.arange(self.ptr.size - 1), np.diff(self.ptr)) << 32 | self.row

    @property
    def most(self) -> int:
        """How many rows are hidden from one question, at most."""
        return int(np.diff(self.ptr).max(initial=0))

    def has(self, row: Ints) -> npt.NDArray[np.bool_]:
        """Of global rows [n, ...], whether they are hidden from question n."""
        if not self.row.size:
            return np.zeros(row.shape, dtype=np.bool_)
        question = np.arange(len(row)).reshape(-1, *(1,) * (row.ndim - 1))
        return self.among(question, row) & (row >= 0)

    def among(self, question: npt.NDArray[np.integer], row: Ints) -> npt.NDArray[np.bool_]:
        """Of global rows [n], whether they are hidden from questions [n], by number."""
        return np.isin(question.astype(np.int64) << 32 | row, self._keys)

    def blind(self, seeds: Seeds) -> Seeds:
        """Seeds [n] that do not see these rows, nor what they did not see before."""
        if not self.row.size:
            return seeds
        before = np.split(seeds.hidden, seeds.hidden_ptr[1:-1])
        own = np.split(self.row, self.ptr[1:-1])
        both = [np.concatenate(parts) for parts in zip(own, before, strict=True)]
        kept = Hidden.of([rows[rows != seed] for rows, seed in zip(both, seeds.row, strict=True)])
        return replace(seeds, hidden_ptr=kept.ptr, hidden=kept.row)

    def history(
        self, history: LabelHistory, row: Ints, group: Ints, cutoff: Ints
    ) -> tuple[LabelHistory, Ints]:
        """The labels of the groups [n] of questions, as of their cutoffs [n], less those hidden;
        and the group of each question among these.

        Args:
            row: the global row of each label of ``history``.
        """
        if not self.row.size:
            return history, group
        start, end = history.visible(group, cutoff)
        count = end - start
        owner = np.repeat(np.arange(group.size), count)
        at = np.arange(owner.size) - np.repeat(np.cumsum(count) - count, count) + start[owner]
        kept = ~self.among(owner, row[at])
        at, owner = at[kept], owner[kept]
        own = LabelHistory(owner, history.known[at], history.asked[at], history.outcome[at])
        return own, np.where(group >= 0, np.arange(group.size), -1)


NOTHING = Hidden(np.zeros(1, np.int64), np.zeros(0, np.int64))
"""From any number of questions."""
