"""A RelBench folder with a task of which all that is later than a moment is replaced by noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rfm.data.database import open_database
from rfm.data.task_rows import SPLITS, TaskSplit
from rfm.data.tasks import Task, open_task
from tests.noise import replace_rows_after

Bools = npt.NDArray[np.bool_]


def noisy_task(
    folder: Path, out: Path, name: str, moment: int, asked: Callable[[TaskSplit, Any], Bools]
) -> int:
    """Copy a database and replace what is later than ``moment`` (unix seconds): rows of the
    database, and labels of the task that are known later, of all splits.

    Args:
        asked: of a split and its seed times [n], the rows that keep their keys (and, where a column
            is completed, their other cells): those that are asked. Others get new entities.

    Returns how many labels were replaced.
    """
    task = open_task(open_database(folder), name)
    replace_rows_after(folder, out, str(np.datetime64(moment, "s")))
    (out / "tasks" / name).mkdir(parents=True)
    shutil.copy(folder / "tasks" / name / "manifest.yaml", out / "tasks" / name)
    keep = {split: asked(split, task.rows(split).time) for split in SPLITS}
    if task.kind == "autocomplete":
        kept = np.concatenate([task.rows(split).entity[keep[split]] for split in SPLITS])
        _restore(folder, out, task.entity_table, kept)
    rng, replaced = np.random.default_rng(1), 0
    for split in SPLITS:
        rows, path = task.rows(split), task.path(split)
        late = rows.time + task.timedelta > moment
        frame = pd.read_parquet(path)
        frame = replace_labels(frame, task, late, rng)
        if task.kind != "autocomplete":
            size = task.database.tables[task.entity_table].num_rows
            other = late & ~keep[split]
            frame.loc[other, task.entity_column] = rng.integers(0, size, int(other.sum()))
        frame.to_parquet(out / "tasks" / name / path.name, index=False)
        replaced += int(late.sum())
    return replaced


def _restore(folder: Path, out: Path, table: str, rows: npt.NDArray[np.int64]) -> None:
    """Put rows of a table back as they were, but for their times."""
    path = out / "db" / f"{table}.parquet"
    old, new = pq.read_table(folder / "db" / path.name), pq.read_table(path)
    back = pa.array(np.isin(np.arange(len(old)), rows))
    columns = {
        name: pc.if_else(back, old.column(name).combine_chunks(), new.column(name).combine_chunks())
        for name in old.column_names
    }
    pq.write_table(pa.table(columns), path)


def replace_labels(
    frame: pd.DataFrame, task: Task, at: Bools, rng: np.random.Generator
) -> pd.DataFrame:
    """The rows of a split with some labels replaced, each by another."""
    old = frame[task.target].tolist()
    new = [
        _another(value, task, rng) if here else value for value, here in zip(old, at, strict=True)
    ]
    return frame.assign(**{task.target: pd.Series(new, index=frame.index)})


def _another(value: Any, task: Task, rng: np.random.Generator) -> Any:
    if task.task_type == "binary_classification":
        return 1 - int(value)
    if task.task_type == "regression":
        return float(rng.choice([np.nan, 1e9, -1e9, rng.normal(0, 1e6)], p=[0.1, 0.1, 0.1, 0.7]))
    if task.task_type == "multilabel_classification":
        return [1 - int(v) for v in value]
    if task.task_type == "recommendation":
        size = task.database.tables[task.destination_table].num_rows
        others = np.setdiff1d(np.arange(size), value)
        return sorted(rng.choice(others, rng.integers(1, 4), replace=False).tolist())
    return str(rng.choice([c for c in (*task.classes, "a class of the future") if c != value]))
