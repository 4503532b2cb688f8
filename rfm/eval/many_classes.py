"""More classes than a model tells apart at once: the most frequent ones, and all others together as
one more. To tell the others apart in turn, from the few examples that there are of them, was tried:
it made no answer better (nationalities of rel-f1's drivers, countries of northwind's orders).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rfm.data.batch import MAX_CLASSES
from rfm.data.task_rows import Ints
from rfm.data.tasks import Task

OTHERS = "any other"
_ALONE = MAX_CLASSES - 1


@dataclass(frozen=True, eq=False)
class Merged:
    """task: of the classes ``alone`` [k], numbers of the whole task's, and of ``others`` [m] as the
    last one. frequency [C]: of all classes, among the labels that are known."""

    task: Task
    alone: Ints
    others: Ints
    frequency: npt.NDArray[np.float64]

    def spread(self, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """[n, C] probabilities of all classes, from those of the task [n, k + 1]: the others share
        theirs by how frequent they are."""
        out = np.zeros((len(value), self.frequency.size))
        out[:, self.alone], out[:, self.others] = value[:, :-1], value[:, -1:] * self._share
        return out

    @property
    def worth(self) -> tuple[float, ...]:
        """Of the task's classes [k + 1], what share of the chance the likeliest of them has."""
        return (*(1.0 for _ in self.alone), float(self._share.max()))

    @property
    def _share(self) -> npt.NDArray[np.float64]:
        rare = self.frequency[self.others]
        return np.asarray(rare / rare.sum())

    def words(self) -> str:
        return (
            f"{self.frequency.size} classes: the {self.alone.size} most frequent are told apart, "
            f"the {self.others.size} others as one; its probability is theirs by how frequent they "
            "are"
        )


def merged(task: Task) -> Merged:
    """A task with more than ``MAX_CLASSES`` classes as one with as many."""
    train = task.rows("train")
    label = train.label[:, 0].astype(np.int64)
    frequency = np.bincount(label, minlength=len(task.classes)).astype(np.float64)
    order = np.argsort(-frequency, kind="stable")
    alone, others = order[:_ALONE], order[_ALONE:]
    place = np.full(order.size, _ALONE)
    place[alone] = np.arange(_ALONE)
    rows = replace(train, label=place[label].astype(np.float64)[:, None])
    names = (*(task.classes[c] for c in alone), OTHERS)
    given = {**task.given_rows, "train": rows}
    few = replace(task, given_rows=given, given_classes=names)
    return Merged(few, alone, others, frequency)


def check_examples_wanted(task: Task, context: int) -> None:
    """
    Raises:
        ValueError: if many classes are to be told apart without examples.
    """
    if not context:
        raise ValueError(
            f"context=0: without examples at most {MAX_CLASSES} classes are told apart, "
            f"{task.target} has {len(task.classes)}; give context=16 or more"
        )
