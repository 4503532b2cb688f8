"""Predictions in the order of a split's rows, and the choice between some on validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Task
from rfm.eval.predictions import METRICS, Predictions, higher_is_better, score


def predicted(task: Task, split: TaskSplit, value: npt.NDArray[np.float64]) -> Predictions:
    """Values [n, C] in the order of a split's rows, keyed as predictions are."""
    rows = task.rows(split)
    return Predictions(rows.entity, rows.time, value)


def best_on_validation(
    task: Task, candidates: Mapping[str, npt.NDArray[np.float64]]
) -> tuple[str, dict[str, float]]:
    """The candidate (values [n, C] of the validation rows) with the best score, the first of
    equals; and the score of each."""
    scores = {name: score(task, "val", predicted(task, "val", v)) for name, v in candidates.items()}
    sign = 1.0 if higher_is_better(METRICS[task.task_type]) else -1.0
    return max(scores, key=lambda name: sign * scores[name]), scores
