"""Predictions: keyed by entity and time, never by row order; scored by RelBench's own evaluator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rfm.data.schema import shown_time
from rfm.data.task_rows import Ints, TaskSplit, TaskType
from rfm.data.tasks import Task
from rfm.files import publish

ANCHOR, PREDICTION, LOW, HIGH, PROBABILITY, LABEL = (
    "anchor_time", "prediction", "low", "high", "probability", "label",
)  # fmt: skip
METRICS: dict[TaskType, str] = {
    "binary_classification": "roc_auc",
    "multiclass_classification": "accuracy",
    "multilabel_classification": "auprc_macro",
    "regression": "nmae",
    "recommendation": "map",
}
"""RelBench's one metric of each type; where it has none, the usual one. nmae: mean absolute error /
standard deviation (ddof=1) of the training labels."""
LEADERBOARDS: tuple[TaskType, ...] = ("binary_classification", "regression", "recommendation")
"""Types of tasks of which RelBench has one."""


@dataclass(frozen=True)
class Predictions:
    """entity [n]: rows of the entity table. time [n]: seed times, unix seconds. value [n, C]: the
    probability of 1 (binary, C = 1), of each class or label, the number (regression, C = 1), or the
    best C rows of the destination table, best first (recommendation)."""

    entity: Ints
    time: Ints
    value: npt.NDArray[np.float64]

    @classmethod
    def of(cls, task: Task, split: TaskSplit, value: npt.NDArray[np.float64]) -> Predictions:
        """Values [n, C] in the order of a split's rows, with their keys."""
        rows = task.rows(split)
        assert len(value) == len(rows)
        return cls(rows.entity, rows.time, value)


def higher_is_better(metric: str) -> bool:
    return metric != "nmae"


def write_predictions(task: Task, predictions: Predictions, path: Path) -> None:
    """A parquet file of the task's key columns and ``prediction`` (a list, where there are more
    than one)."""
    value = predictions.value
    if task.task_type == "recommendation":
        value = value.astype(np.int64)
    single = value.shape[1] == 1 and task.task_type != "recommendation"
    frame = pd.DataFrame(
        {
            task.entity_column: predictions.entity,
            task.time_column: predictions.time.astype("datetime64[s]"),
            PREDICTION: value[:, 0] if single else list(value),
        }
    )
    with publish(path) as temporary:
        frame.to_parquet(temporary, index=False)


def read_predictions(task: Task, path: Path) -> Predictions:
    """What ``write_predictions`` wrote.

    Raises:
        ValueError: if the file cannot be read or lacks a column.
    """
    wanted = [task.entity_column, task.time_column, PREDICTION]
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a parquet file: {error}") from None
    missing = [column for column in wanted if column not in frame.columns]
    if missing:
        raise ValueError(f"{path}: lacks {missing}, wanted {wanted} of {task.full_name}")
    keys = frame[[task.entity_column, task.time_column]]
    if keys.isna().any(axis=None):
        raise ValueError(
            f"{path}: {int(keys.isna().any(axis=1).sum())} rows lack a key: fill it in"
        )
    try:
        value = np.array(frame[PREDICTION].tolist(), dtype=np.float64).reshape(len(frame), -1)
    except ValueError as error:
        raise ValueError(
            f"{path}: {PREDICTION} must hold numbers, or lists of as many in every row: {error}"
        ) from None
    time = frame[task.time_column].to_numpy().astype("datetime64[s]").astype("int64")
    return Predictions(frame[task.entity_column].to_numpy("int64"), time, value.astype(np.float64))


def align(task: Task, split: TaskSplit, predictions: Predictions) -> npt.NDArray[np.float64]:
    """Values [n, C] in the order of a split's rows, found by entity and time.

    Raises:
        ValueError: for rows that have no prediction, predictions that belong to no row, keys that
            come twice, and values that are not finite.
    """
    rows = task.rows(split)
    outputs = task.top_k or task.outputs
    if predictions.value.ndim != 2 or predictions.value.shape[1] != outputs:
        raise ValueError(
            f"{split} predictions of {task.full_name}: got {predictions.value.shape[1:]} numbers a "
            f"row, wanted {outputs}"
        )
    wanted = pd.MultiIndex.from_arrays([rows.entity, rows.time])
    given = pd.MultiIndex.from_arrays([predictions.entity, predictions.time])
    where = f"{split} predictions of {task.full_name}"
    for name, index in (("the task's rows", wanted), (where, given)):
        if index.has_duplicates:
            key = index[index.duplicated()][0]
            raise ValueError(f"{name}: {_show(task, key)} comes more than once, wanted it once")
    place = given.get_indexer(wanted)
    missing, extra = np.flatnonzero(place < 0), given.difference(wanted)
    if missing.size or len(extra):
        example = wanted[missing[0]] if missing.size else extra[0]
        raise ValueError(
            f"{where}: {missing.size} of {len(rows)} rows have none and {len(extra)} belong to no "
            f"row, e.g. {_show(task, example)}: wanted one for each row of {task.path(split)}"
        )
    value: npt.NDArray[np.float64] = predictions.value[place]
    if not np.isfinite(value).all():
        raise ValueError(f"{where}: {int((~np.isfinite(value)).sum())} values are not finite")
    return value


def _show(task: Task, key: Any) -> str:
    return f"({task.entity_column} {key[0]}, {task.time_column} {shown_time(key[1])})"


def score(task: Task, split: TaskSplit, predictions: Predictions) -> float:
    """The task's metric (``METRICS``) over the labelled rows of a split.

    Raises:
        ValueError: see ``align``; and where the metric is not defined (AUROC of one class).
    """
    return score_rows(
        task, split, np.arange(len(task.rows(split))), align(task, split, predictions)
    )


def score_rows(task: Task, split: TaskSplit, at: Ints, value: npt.NDArray[np.float64]) -> float:
    """The same of some rows [n] of a split alone, with their values [n, C]."""
    from sklearn import metrics  # slow import, which answers do without

    rows = task.rows(split)
    labelled = rows.labelled[at]
    at, value = at[labelled], value[labelled]
    label = rows.label[at]
    if task.task_type == "multiclass_classification":
        return float(metrics.accuracy_score(label[:, 0], value.argmax(axis=1)))
    if task.task_type == "multilabel_classification":
        return float(metrics.average_precision_score(label, value, average="macro"))
    if task.task_type == "binary_classification" and np.unique(label).size < 2:
        raise ValueError(_single_class(task, split, label[0, 0]))
    relbench = relbench_task(task.database.folder, task.name)
    table = relbench.get_table(split, mask_input_cols=False)
    table.df = table.df.iloc[at]
    answer = value.astype(np.int64) if task.top_k else value[:, 0]
    metric = METRICS[task.task_type]
    return float(relbench.evaluate(answer, table)[metric])


def check_scorable(task: Task) -> None:
    """Whether predictions for validation and test rows can be scored: before hours of training.

    Raises:
        ValueError: for a binary task whose split holds a single class; see also ``Task.rows``.
    """
    for split in ("val", "test"):
        rows = task.rows(split)
        known = np.unique(rows.label[rows.labelled])
        if task.task_type == "binary_classification" and known.size < 2:
            raise ValueError(_single_class(task, split, known[0]))


def _single_class(task: Task, split: TaskSplit, label: float) -> str:
    return f"{task.path(split)}: every label is {label:g}, so that AUROC is not defined"


@lru_cache(maxsize=8)
def relbench_task(folder: Path, name: str) -> Any:
    """RelBench's own object for a task of a database folder."""
    import relbench

    return relbench.load_dataset(folder).load_task(name)


def write_leaderboard(task: Task, predictions: Predictions, folder: Path) -> Path:
    """Test predictions as RelBench's leaderboard takes them: ``<database>__<task>.csv``, for
    ``python -m relbench.submit <folder>``.

    Raises:
        ValueError: see ``align``; and for types of tasks that have no leaderboard.
    """
    from relbench.submit import write_prediction_table

    if task.task_type not in LEADERBOARDS:
        raise ValueError(f"RelBench has no leaderboard for {task.task_type}")
    value = align(task, "test", predictions)
    answer = value.astype(np.int64) if task.top_k else value[:, 0]
    path = folder / f"{task.database.name}__{task.name}.csv"
    with publish(path) as temporary:
        write_prediction_table(relbench_task(task.database.folder, task.name), answer, temporary)
    return path
