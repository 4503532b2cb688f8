"""Recommending without learning: what is popular, and what the entity has had before.

Both are taken from the labels known by a row's cutoff; over which period, and in which order, is
chosen on the validation rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, TypeAlias, get_args

import numpy as np

from benchmarks.answer import ASKED, Answer
from benchmarks.choosing import best_on_validation
from rfm.data.label_history import Floats, link_history
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.predictions import Predictions

PERIODS = (1, 3, 12, 0)
"""Popular over so many ``timedelta`` before the last label known by the cutoff (before the cutoff
itself there may be years without any); 0: ever since."""
Order: TypeAlias = Literal["frequent", "recent"]
ORDERS: tuple[Order, ...] = get_args(Order)
Rule: TypeAlias = Callable[[int, int], Ints]
"""(entity, cutoff) -> destinations [m], best first, none twice."""


@dataclass(frozen=True, eq=False)
class PastDestinations:
    """Destinations of all splits' rows [n]: whose, when they were known (unix seconds, in order),
    which. entities: rows of the entity table. timedelta: in seconds."""

    entity: Ints
    known: Ints
    destination: Ints
    entities: int
    timedelta: int

    def popular(self, period: int, entity: int, cutoff: int) -> Ints:
        """Destinations by how often they come in the last ``period`` times timedelta of labels."""
        if (period, cutoff) not in self._popular:
            high = int(np.searchsorted(self.known, cutoff, side="right"))
            low = 0
            if period and high:
                since = self.known[high - 1] - period * self.timedelta
                low = int(np.searchsorted(self.known, since, side="right"))
            seen = _ranked("frequent", self.destination[low:high], self.known[low:high])
            self._popular[period, cutoff] = seen
        return self._popular[period, cutoff]

    def own(self, order: Order, entity: int, cutoff: int) -> Ints:
        """The entity's own: the ``frequent`` or the ``recent`` first, the other decides ties."""
        rows = self._of[self._start[entity] : self._start[entity + 1]]
        rows = rows[: np.searchsorted(self.known[rows], cutoff, side="right")]
        return _ranked(order, self.destination[rows], self.known[rows])

    @cached_property
    def _popular(self) -> dict[tuple[int, int], Ints]:
        return {}

    @cached_property
    def _of(self) -> Ints:
        return np.argsort(self.entity, kind="stable")

    @cached_property
    def _start(self) -> Ints:
        return np.searchsorted(self.entity[self._of], np.arange(self.entities + 1))


def popularity(task: Task, regime: Regime, seed: int) -> Answer:
    """The destinations that come most often in known labels, of all entities."""
    past = past_destinations(task)
    return _best(task, regime, {f"{p} periods": _popular(past, p) for p in PERIODS})


def own_destinations(task: Task, regime: Regime, seed: int) -> Answer:
    """The entity's own past destinations, filled up with popular ones."""
    past = past_destinations(task)
    candidates: dict[str, Sequence[Rule]] = {
        f"{order} first, then {p} periods": [partial(past.own, order), *_popular(past, p)]
        for order in ORDERS
        for p in PERIODS
    }
    return _best(task, regime, candidates)


def _popular(past: PastDestinations, period: int) -> list[Rule]:
    """Of a period, and where that has too few, ever since."""
    return [partial(past.popular, period), partial(past.popular, 0)]


def past_destinations(task: Task) -> PastDestinations:
    """Of the rows of all splits."""
    entities = task.database.tables[task.entity_table].num_rows
    return PastDestinations(*link_history(task), entities, task.timedelta)


def _best(task: Task, regime: Regime, candidates: dict[str, Sequence[Rule]]) -> Answer:
    val = {name: recommend(task, "val", regime, rules) for name, rules in candidates.items()}
    best, scores = best_on_validation(task, val)
    test = recommend(task, "test", regime, candidates[best])
    values = {"val": val[best], "test": test}
    answers = (Predictions.of(task, split, values[split]) for split in ASKED)
    return Answer(*answers, {"chosen": best, "validation": scores})


def recommend(task: Task, split: TaskSplit, regime: Regime, rules: Sequence[Rule]) -> Floats:
    """The first ``top_k`` destinations [n, k] that the rules name, one rule after the other, and
    where they name too few, the first rows of the destination table.

    Raises:
        ValueError: if the destination table has fewer rows than are wanted.
    """
    table = task.database.tables[task.destination_table]
    if table.num_rows < task.top_k:
        raise ValueError(
            f"{task.full_name} wants {task.top_k} destinations, {table.name} has only "
            f"{table.num_rows} rows: lower eval_k in its manifest.yaml"
        )
    rest = np.arange(2 * task.top_k) % table.num_rows
    answer = np.empty((len(task.rows(split)), task.top_k))
    asked = zip(task.rows(split).entity, task.cutoffs(split, regime), strict=True)
    for i, (entity, cutoff) in enumerate(asked):
        named = [rule(int(entity), int(cutoff))[: 2 * task.top_k] for rule in rules]
        ranked = np.concatenate([*named, rest])
        first = np.sort(np.unique(ranked, return_index=True)[1])
        answer[i] = ranked[first][: task.top_k]
    return answer


def _ranked(order: Order, destination: Ints, known: Ints) -> Ints:
    """Distinct destinations by how often they come, or by when last; the other decides ties."""
    distinct, back = np.unique(destination, return_inverse=True)
    last = np.full(distinct.size, np.iinfo(np.int64).min)
    np.maximum.at(last, back, known)
    count = np.bincount(back, minlength=distinct.size)
    first, second = (count, last) if order == "frequent" else (last, count)
    return np.asarray(distinct[np.lexsort((-second, -first))])
