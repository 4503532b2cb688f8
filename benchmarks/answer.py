"""What a baseline answers: predictions of both splits and how it came to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfm.data.task_rows import TaskSplit
from rfm.eval.predictions import Predictions

ASKED: tuple[TaskSplit, ...] = ("val", "test")
"""The splits that are answered."""


@dataclass(frozen=True)
class Answer:
    """validation, test: one prediction for each row of the split. config: the settings, and what
    was chosen on validation. curve: (step, validation score), empty where nothing is trained."""

    validation: Predictions
    test: Predictions
    config: Mapping[str, Any]
    curve: tuple[tuple[int, float], ...] = ()
