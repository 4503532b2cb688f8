"""Average ranks over tasks, fair to methods that were run on some of the tasks only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

HOW = (
    "on each task of its column, methods are ranked among those that have a score on all of "
    "the column's tasks (1 is best; scores that are equal as shown share the mean of their ranks); "
    "shown is the mean over these tasks. A method that lacks one of them has no rank there, so "
    "that none gains from having skipped a task: compare within a column only."
)


@dataclass(frozen=True)
class Ranking:
    """tasks: those that all of its methods have. ranks: method -> mean rank over them."""

    tasks: tuple[str, ...]
    ranks: Mapping[str, float]


def rankings(
    scores: Mapping[str, Mapping[str, float]], higher: Mapping[str, bool]
) -> list[Ranking]:
    """One ranking for each set of at least two tasks that is all that some method has, among all
    methods that have these tasks; rankings with one method are left out. Most tasks first.

    Args:
        scores: method -> task -> score, rounded as it is shown.
        higher: task -> whether a higher score is better.
    """
    found = []
    for tasks in {tuple(sorted(of)) for of in scores.values() if len(of) > 1}:
        methods = [name for name, of in scores.items() if {*tasks} <= {*of}]
        if len(methods) < 2:
            continue
        ranks = [_ranks({m: scores[m][task] for m in methods}, higher[task]) for task in tasks]
        found.append(Ranking(tasks, {m: fmean(of[m] for of in ranks) for m in methods}))
    return sorted(found, key=lambda one: (-len(one.tasks), one.tasks))


def _ranks(scores: Mapping[str, float], higher: bool) -> dict[str, float]:
    """1 for the best; the mean of the places that equal scores take together."""
    sign = -1 if higher else 1
    places = sorted(sign * score for score in scores.values())
    return {
        method: 1 + places.index(sign * score) + (places.count(sign * score) - 1) / 2
        for method, score in scores.items()
    }
