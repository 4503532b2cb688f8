"""What RelArena hands over, written as a RelBench 3 folder.

RelArena 0.1.5 speaks RelBench 2.1: a database is data frames with keys named beside them, censored
at a cutoff; a split is a data frame of entities, seed times and (not for what is asked) labels. The
folder holds the same: ``manifest.yaml``, ``db/<table>.parquet`` and one task. It needs neither
package, only pandas, pyarrow and pyyaml, so that it also runs in RelArena's environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

_TYPES = ("binary_classification", "regression")


class TableLike(Protocol):
    """``relbench.base.Table`` of RelBench 2.1."""

    df: pd.DataFrame
    fkey_col_to_pkey_table: Mapping[str, str]
    pkey_col: str | None
    time_col: str | None


class DatabaseLike(Protocol):
    """``relbench.base.Database`` of RelBench 2.1."""

    table_dict: Mapping[str, TableLike]


class TaskLike(Protocol):
    """``relbench.base.EntityTask`` of RelBench 2.1."""

    task_type: Any
    entity_table: str
    entity_col: str
    time_col: str
    target_col: str
    timedelta: pd.Timedelta


def task_type(task: TaskLike) -> str:
    """The task's type as RelBench 3 spells it.

    Raises:
        ValueError: for types that RelArena does not ask about.
    """
    kind = str(getattr(task.task_type, "value", task.task_type))
    if kind not in _TYPES:
        raise ValueError(f"task type {kind!r}: wanted one of {', '.join(_TYPES)}")
    return kind


def write_relbench_folder(
    folder: Path,
    name: str,
    task_name: str,
    task: TaskLike,
    db: DatabaseLike,
    train: pd.DataFrame,
    val: pd.DataFrame,
    asked: pd.DataFrame,
) -> Path:
    """``folder`` as a RelBench 3 database with one task.

    Validation and test begin with the first seed times of ``val`` and ``asked``, validation at
    least a ``timedelta`` before test, as RelBench wants it: where RelArena tunes, both are the same
    rows. (To begin test later instead would show labels of validation to what is asked.) The labels
    of the test split are placeholders: whatever ``asked`` holds is left out.

    Args:
        train, val: entities, seed times and labels.
        asked: entities and seed times, each pair once.

    Raises:
        ValueError: for a split without rows, a primary key that does not count the rows, columns
            that parquet cannot hold, and types of tasks that RelArena does not ask about.
    """
    for split, frame in (("training", train), ("validation", val), ("asked", asked)):
        if frame.empty:
            raise ValueError(f"{task_name}: there are no {split} rows")
    tables = {str(table): spec for table, spec in db.table_dict.items()}
    sizes = {table: len(spec.df) for table, spec in tables.items()}
    (folder / "db").mkdir(parents=True, exist_ok=True)
    described = {}
    for table, spec in tables.items():
        if not sizes[table]:
            continue  # nothing is there by the cutoff, and nothing can point at it
        frame = _checked(table, spec, sizes)
        _write(frame, folder / "db" / f"{table}.parquet")
        described[table] = {
            "pkey": spec.pkey_col,
            "time_col": spec.time_col,
            "fkeys": {c: p for c, p in spec.fkey_col_to_pkey_table.items() if sizes.get(p)},
        }
    begin, test = (pd.Timestamp(frame[task.time_col].min()) for frame in (val, asked))
    manifest = {
        "name": name,
        "manifest_version": 1,
        "val_timestamp": str(min(begin, test - pd.Timedelta(task.timedelta))),
        "test_timestamp": str(test),
        "tables": described,
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    _write_task(folder / "tasks" / task_name, task_name, task, train, val, asked)
    return folder


def _checked(name: str, table: TableLike, sizes: Mapping[str, int]) -> pd.DataFrame:
    """The rows of a table, with foreign keys that point at no row made null: censoring leaves such
    behind."""
    frame = table.df.reset_index(drop=True)
    if table.pkey_col is not None:
        key = frame[table.pkey_col].to_numpy()
        if not np.array_equal(key, np.arange(len(frame))):
            raise ValueError(
                f"{name}.{table.pkey_col}: the primary key must count the rows from 0, as RelBench "
                "has it (Database.reindex_pkeys_and_fkeys)"
            )
    for column, parent in table.fkey_col_to_pkey_table.items():
        values = pd.to_numeric(frame[column]).astype("Int64")
        frame[column] = values.where((values >= 0) & (values < sizes.get(parent, 0)))
    return frame


def _write(frame: pd.DataFrame, path: Path) -> None:
    """A parquet file; columns of mixed objects as text."""
    frame = frame.rename(columns=str)
    for column in frame.columns:
        try:
            pa.array(frame[column], from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            values = frame[column]
            frame[column] = values.astype(str).where(values.notna(), None)
    try:
        frame.to_parquet(path, index=False)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(f"{path.stem}: parquet cannot hold this table: {error}") from error


def _write_task(
    folder: Path,
    name: str,
    task: TaskLike,
    train: pd.DataFrame,
    val: pd.DataFrame,
    asked: pd.DataFrame,
) -> None:
    folder.mkdir(parents=True)
    manifest = {
        "name": name,
        "kind": "external",
        "task_type": task_type(task),
        "manifest_version": 1,
        "entity_table": task.entity_table,
        "entity_col": task.entity_col,
        "target_col": task.target_col,
        "time_col": task.time_col,
        "timedelta": f"{int(pd.Timedelta(task.timedelta).total_seconds())} seconds",
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    keys = [task.time_col, task.entity_col]
    for split, frame in (("train", train), ("val", val)):
        _write(frame[[*keys, task.target_col]].reset_index(drop=True), folder / f"{split}.parquet")
    questions = asked[keys].reset_index(drop=True)
    _write(questions.assign(**{task.target_col: _placeholders(task, train, len(questions))}),
           folder / "test.parquet")  # fmt: skip


def _placeholders(task: TaskLike, train: pd.DataFrame, rows: int) -> Any:
    """Test labels that mean nothing, of the right type: 0 and 1 in turn, or one number."""
    if task_type(task) == "binary_classification":
        return np.arange(rows) % 2
    return np.full(rows, float(train[task.target_col].median()))
