"""What an explanation holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

OUTCOMES, OUTCOME = "past outcomes", "outcome"
"""What stands as the table, and the column, of a question's labels at earlier times."""


@dataclass(frozen=True)
class Signal:
    """What moved one answer.

    path: the foreign keys walked from the entity to the table, "" where it is the entity itself.
    table: of the database, or ``OUTCOMES``: what was asked for, as it turned out at earlier times.
    column: "" where it is about the rows as such: how many they are, how old, what they are taken
    whole. rows: numbers of rows within the table (of outcomes: among the task's rows in the order
    of time), the latest first, at most 64 of them. weight: its share of all that moved the answer,
    from -1 to 1, more than 0 where it raised the answer.
    occluded: by how much the answer changes when these rows are deleted, or, of a column, when its
    cells are null in all rows at the end of the path, in the answer's unit; 0 where that was not
    checked. words: what is the case, and which way that moved the answer, compared with the
    examples' mean ("than usual"); they say so where ``occluded`` contradicts ``weight``. It is the
    model that is explained: nothing is said of what causes what in the world.
    """

    path: str
    table: str
    column: str
    rows: tuple[int, ...]
    weight: float
    occluded: float
    checked: bool
    words: str


@dataclass(frozen=True)
class Explanation:
    """Of the answer to a question about an entity (a row of the entity table) at a time (unix
    seconds).

    answer: the chance of the class ``chosen`` (of no and yes: of yes), or a number, the
    mean of its distribution, in the task's unit; of a recommendation the score of the row
    ``chosen``. baseline: the same of the examples' mean question at that time; of a recommendation
    the mean score of other rows.
    signals: the strongest first, but after all others those that their check contradicts. note: why
    there is none, "" where there are some.
    """

    entity: int
    time: int
    answer: float
    baseline: float
    chosen: str
    signals: tuple[Signal, ...]
    note: str = ""

    @property
    def top_signal(self) -> str:
        """The strongest signal in words, else why there is none."""
        return self.signals[0].words if self.signals else self.note

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no number for an answer that is not known."""
        found = {**asdict(self), "top_signal": self.top_signal}
        known = np.isfinite([self.answer, self.baseline]).all()
        return found if known else {**found, "answer": None, "baseline": None}
