"""The choice between several predictions, on validation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from rfm.data.tasks import Task
from rfm.eval.predictions import METRICS, Predictions, higher_is_better, score


def best_on_validation(
    task: Task, candidates: Mapping[str, npt.NDArray[np.float64]]
) -> tuple[str, dict[str, float]]:
    """The candidate (values [n, C] of the validation rows) with the best score, the first of
    equals; and the score of each."""
    answers = {name: Predictions.of(task, "val", value) for name, value in candidates.items()}
    scores = {name: score(task, "val", answer) for name, answer in answers.items()}
    sign = 1.0 if higher_is_better(METRICS[task.task_type]) else -1.0
    return max(scores, key=lambda name: sign * scores[name]), scores
