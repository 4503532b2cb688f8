"""The rows of a task's splits: who is asked about, when, and the label; checked when read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

TaskType: TypeAlias = Literal[
    "binary_classification",
    "multiclass_classification",
    "multilabel_classification",
    "regression",
    "recommendation",
]
TaskSplit: TypeAlias = Literal["train", "val", "test"]
TASK_TYPES: tuple[TaskType, ...] = get_args(TaskType)
SPLITS: tuple[TaskSplit, ...] = get_args(TaskSplit)
Ints: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TaskRows:
    """Rows of one split, in the order of its file.

    entity [n]: row of the entity table. time [n]: unix seconds. label [n, C] float64, NaN where it
    is null: C is 1 (multiclass: the number of the class, -1 for one that no training row has), the
    number of labels (multilabel) or 0 (recommendation). destination [m]: rows of the destination
    table, those of row i at start[i]:start[i + 1] (recommendation; else none).
    """

    entity: Ints
    time: Ints
    label: npt.NDArray[np.float64]
    start: Ints
    destination: Ints

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """[n]: rows whose label is known."""
        if self.label.shape[1] == 0:
            return np.asarray(np.diff(self.start) > 0)
        return np.asarray(~np.isnan(self.label).any(axis=1))

    def __len__(self) -> int:
        return int(self.entity.size)


@dataclass(frozen=True)
class Columns:
    """Where a split's file says what, and what that may be.

    entities and destinations: the sizes of their tables. classes: of a multiclass task, in order
    (empty while they are still to be found).
    """

    task_type: TaskType
    time: str
    entity: str
    target: str
    entities: tuple[str, int]
    destinations: tuple[str, int]
    classes: tuple[str, ...] = ()


def read_rows(path: Path, columns: Columns) -> TaskRows:
    """One split of a task.

    Raises:
        ValueError: for a file that is missing or has no rows, entities that the database does not
            have, null times, and labels that do not fit the task's type.
    """
    frame = read_frame(path, [columns.time, columns.entity, columns.target])
    if frame.empty:
        raise ValueError(f"{path}: has no rows; every split needs some")
    entity = _row_numbers(frame[columns.entity], columns.entities, f"{path}: {columns.entity}")
    times = pd.to_datetime(frame[columns.time], utc=True, errors="coerce").dt.tz_localize(None)
    if times.isna().any():
        row = int(times.isna().argmax())
        raise ValueError(f"{path}: {columns.time} of row {row} is null or not a time")
    time = times.to_numpy().astype("datetime64[s]").astype("int64")
    where = f"{path}: {columns.target}"
    if columns.task_type == "recommendation":
        start, destination = _destinations(frame[columns.target], columns.destinations, where)
        return TaskRows(entity, time, np.zeros((entity.size, 0)), start, destination)
    label = _labels(frame[columns.target], columns, where)
    return TaskRows(entity, time, label, np.zeros(entity.size + 1, np.int64), np.zeros(0, np.int64))


def read_frame(path: Path, wanted: Sequence[str]) -> pd.DataFrame:
    """Columns of a split's file.

    Raises:
        ValueError: if there is no such file, or it lacks one of them.
    """
    try:
        return pd.read_parquet(path, columns=list(dict.fromkeys(wanted)))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise ValueError(
            f"{path}: cannot be read, wanted a parquet file with the columns {list(wanted)}: "
            f"{error}"
        ) from None


def class_names(values: pd.Series[Any]) -> tuple[str, ...]:
    """The classes of a multiclass task: its training labels, sorted, numbers as numbers."""
    return tuple(class_name(value) for value in sorted(values.dropna().unique()))


def class_name(value: Any) -> str:
    """How a class is called; whole numbers without a fraction."""
    whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value) if whole else value)


def _row_numbers(values: pd.Series[Any], table: tuple[str, int], where: str) -> Ints:
    name, size = table
    if values.isna().any() or not pd.api.types.is_numeric_dtype(values.dtype):
        raise ValueError(
            f"{where} is of type {values.dtype} with {int(values.isna().sum())} nulls, wanted row "
            f"numbers of {name}"
        )
    rows = values.to_numpy("int64")
    wrong = np.flatnonzero((rows < 0) | (rows >= size))
    if wrong.size:
        raise ValueError(
            f"{where} {rows[wrong[0]]} in row {wrong[0]} is no row of {name}, which has rows "
            f"0..{size - 1}: is this a task of another database?"
        )
    return rows


def _labels(values: pd.Series[Any], columns: Columns, where: str) -> npt.NDArray[np.float64]:
    if columns.task_type == "multilabel_classification":
        return _multilabels(values, where)
    if values.isna().all():
        raise ValueError(f"{where} is null in every row; a split needs labels")
    if columns.task_type == "multiclass_classification":
        number = {name: float(i) for i, name in enumerate(columns.classes)}
        names = [np.nan if pd.isna(v) else number.get(class_name(v), -1.0) for v in values]
        return np.array(names, dtype=np.float64)[:, None]
    try:
        if values.dtype.kind in "mM":
            raise TypeError(values.dtype)
        label = pd.to_numeric(values).to_numpy("float64", na_value=np.nan)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where} is of type {values.dtype} (e.g. {values.dropna().iloc[0]!r}), wanted "
            f"numbers for {columns.task_type}"
        ) from None
    known = label[~np.isnan(label)]
    if not np.isfinite(known).all():
        raise ValueError(f"{where} holds infinite values")
    if columns.task_type == "binary_classification" and not np.isin(known, (0, 1)).all():
        odd = known[~np.isin(known, (0, 1))][0]
        raise ValueError(f"{where} holds {odd:g}, wanted 0 and 1 for binary_classification")
    return np.asarray(label[:, None], dtype=np.float64)


def _multilabels(values: pd.Series[Any], where: str) -> npt.NDArray[np.float64]:
    there = [i for i, v in enumerate(values) if isinstance(v, list | tuple | np.ndarray)]
    widths = {len(values.iloc[i]) for i in there}
    if len(widths) != 1 or len(there) + int(values.isna().sum()) < len(values):
        raise ValueError(
            f"{where}: wanted a list of 0 and 1 in every row, all equally long, for "
            f"multilabel_classification; got {sorted(widths)} of them and {values.iloc[0]!r}"
        )
    label = np.full((len(values), widths.pop()), np.nan)
    label[there] = np.stack([np.asarray(values.iloc[i], dtype=np.float64) for i in there])
    if not np.isin(label[there], (0, 1)).all():
        raise ValueError(f"{where}: wanted lists of 0 and 1 for multilabel_classification")
    return label


def _destinations(values: pd.Series[Any], table: tuple[str, int], where: str) -> tuple[Ints, Ints]:
    lists = [v if isinstance(v, list | tuple | np.ndarray) else [] for v in values]
    if not any(len(v) for v in lists):
        raise ValueError(
            f"{where}: wanted lists of rows of {table[0]} for recommendation, got "
            f"{values.iloc[0]!r} and no list with anything in it"
        )
    start = np.concatenate([[0], np.cumsum([len(v) for v in lists])]).astype(np.int64)
    flat = pd.Series(np.concatenate([np.asarray(v) for v in lists if len(v)]))
    return start, _row_numbers(flat, table, where)
