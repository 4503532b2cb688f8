"""What past labels alone say of a question: smoothed means over those that are known by its cutoff.

The labels come as neighbours, too, but among hundreds of cells a network finds their mean only with
many examples; the rules that rank by it are hard to beat. So the head is told. It is told how far
an entity's mean is from the mean of all, which drifts in the course of years.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from rfm.data.attach import AttachedTask
from rfm.data.label_history import Floats, LabelHistory, label_history
from rfm.data.task_rows import Ints

_LAST = (3, 10)  # of the latest labels; and all
PRIOR = 2.0  # labels' worth of the mean of all


class PastLabels:
    """Means over the labels of the rows that share a parent, by foreign key of the attached table.

    Labels are vectors [C]: 0 or 1 for each class or label, or a standardised number.
    """

    def __init__(self, attached: AttachedTask, center: float, scale: float) -> None:
        """
        Args:
            center, scale: of a regression's training labels; of other types they mean nothing.
        """
        task, database = attached.task, attached.database
        regression = task.task_type == "regression"
        self.center, self.scale = (center, scale) if regression else (0.0, 1.0)
        self.timedelta = task.timedelta
        everyone = np.arange(database.tables[task.entity_table].num_rows)
        self.groups = [
            everyone
            if column == task.entity_column
            else database.parents(task.entity_table, column).astype(np.int64)
            for column in database.tables[attached.table].foreign_keys
        ]
        self.histories = [label_history(task, group) for group in self.groups]
        whole = label_history(task, np.zeros_like(everyone))
        self.known = whole.known
        self.sums = np.cumsum(np.pad(self._standardise(whole.outcome), ((1, 0), (0, 0))), axis=0)
        self.outputs = int(whole.outcome.shape[1])

    def _standardise(self, outcome: Floats) -> Floats:
        return (outcome - self.center) / self.scale

    @property
    def width(self) -> int:
        """Numbers per question, H."""
        return len(self.groups) * ((len(_LAST) + 1) * self.outputs + 2)

    def features(self, entity: Ints, now: Ints, cutoff: Ints) -> npt.NDArray[np.float32]:
        """[n, H] of questions about entities [n], asked at ``now`` with labels known by ``cutoff``
        [n], unix seconds.

        For each foreign key: the means of the latest labels and of all, less the mean of all rows'
        labels; log(1 + how many there are), log(1 + age of the latest, in timedeltas).
        """
        seen = np.searchsorted(self.known, cutoff, side="right")
        total = self.sums[seen] / (seen + PRIOR)[:, None]
        parts = []
        for group, history in zip(self.groups, self.histories, strict=True):
            parts += past_means(
                history, group[entity], (now, cutoff), total, self.timedelta, self._standardise
            )
        return np.concatenate(parts, axis=1).astype(np.float32)


def past_means(
    history: LabelHistory,
    group: Ints,
    when: tuple[Ints, Ints],
    total: Floats,
    timedelta: int,
    standardise: Callable[[Floats], Floats] = lambda outcome: outcome,
) -> list[Floats]:
    """Of the labels of each question's group [n]: the smoothed means [n, C] of the latest and of
    all, less ``total`` [n, C]; log(1 + how many there are) [n, 1]; log(1 + age of the latest, in
    timedeltas) [n, 1].

    Args:
        when: when the questions are asked, and their cutoffs [n], unix seconds.
        standardise: mean outcomes.
    """
    now, cutoff = when
    parts = []
    start, end = history.visible(group, cutoff)
    for last in (*_LAST, np.iinfo(np.int64).max):
        first = np.maximum(start, end - last)
        mean = standardise(np.nan_to_num(history.mean(first, end)))
        count = (end - first)[:, None]
        parts.append(np.where(count > 0, count * (mean - total) / (count + PRIOR), 0))
    latest = history.known[np.maximum(end - 1, 0)] if history.known.size else now
    age = np.where(end > start, (now - latest) / timedelta, 0).clip(min=0)
    return [*parts, np.log1p(end - start)[:, None], np.log1p(age)[:, None]]
