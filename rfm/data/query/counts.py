"""How many examples a query has, how many were dropped and why, and what they are like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rfm.data.task_rows import Ints, TaskType, class_name

QUARTILES = {"lower quartile": 0.25, "median": 0.5, "upper quartile": 0.75}
_NAMED = 5  # classes


@dataclass(frozen=True)
class Counts:
    """Of each anchor time [t] (static targets: the last alone), how many entities there were.

    there: existed by then. asked: of these, fulfilled WHERE. unassumed: of these, did not fulfil
    ASSUMING. empty: of the rest, had no label (an empty window, a missing value). labelled: the
    rest. positive: of these, the label is 1 (binary targets; else none).

    balance: what all labels are like, see ``balance_of``.
    """

    time: Ints
    there: Ints
    asked: Ints
    unassumed: Ints
    empty: Ints
    labelled: Ints
    positive: Ints
    task_type: TaskType
    balance: Mapping[str, float]

    def words(self) -> str:
        """All in one line."""
        there, asked, unassumed, empty, labelled = (
            int(getattr(self, name).sum())
            for name in ("there", "asked", "unassumed", "empty", "labelled")
        )
        dropped = [
            f"{there - asked} not by WHERE" * (there > asked),
            f"{unassumed} not by ASSUMING" * (unassumed > 0),
            f"{empty} without a value" * (empty > 0),
        ]
        said = ", ".join(part for part in dropped if part)
        like = f" ({self._balance_words(labelled)})" if labelled else ""
        return (
            f"{labelled} labelled{like} at {self.time.size} anchor "
            f"time{'s' * (self.time.size != 1)}, {there - labelled} dropped"
            + (f" ({said})" if said else "")
        )

    def _balance_words(self, labelled: int) -> str:
        if self.task_type == "binary_classification":
            positive = int(self.balance["positive"])
            return f"{positive} positive, {positive / labelled:.1%}"
        if self.task_type in ("regression", "recommendation"):
            low, median, high = (_plain(self.balance[name]) for name in QUARTILES)
            each = " in a list" * (self.task_type == "recommendation")
            return f"median {median}{each}, quartiles {low} and {high}"
        named = [f"{name!r} {int(n)}" for name, n in self.balance.items()][:_NAMED]
        most = ", most often" * (len(self.balance) > _NAMED)
        return f"{len(self.balance)} classes{most}: {', '.join(named)}"


def balance_of(label: pa.Array, task_type: TaskType, classes: Sequence[str]) -> dict[str, float]:
    """What labels [n] are like: how many are ``positive`` (binary); how many are of each class, or
    list it, the most frequent first; the quartiles (``QUARTILES``) of numbers, or of the lengths of
    lists (recommendation)."""
    if not len(label):
        return {}
    if task_type == "binary_classification":
        return {"positive": int(label.to_numpy(zero_copy_only=False).sum())}
    if task_type == "multiclass_classification":
        found = label.value_counts().to_pylist()
        return _by_frequency({class_name(one["values"]): int(one["counts"]) for one in found})
    if task_type == "multilabel_classification":
        listed = np.array(label.to_pylist(), dtype=np.int64).sum(0).tolist()
        return _by_frequency(dict(zip(classes, listed, strict=True)))
    numbers = label.value_lengths() if task_type == "recommendation" else label
    quartiles = np.quantile(numbers.to_numpy(zero_copy_only=False), list(QUARTILES.values()))
    return dict(zip(QUARTILES, quartiles.tolist(), strict=True))


def _by_frequency(counted: Mapping[str, int]) -> dict[str, float]:
    return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))


def _plain(number: float) -> str:
    """To four digits, without an exponent where that can be read."""
    return f"{float(f'{number:.4g}'):,}".removesuffix(".0")
