"""The tables of a database as numbers, without what a task must not see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from rfm.data.cells import as_floats, as_texts
from rfm.data.database import Database, Table
from rfm.data.graph import STATIC
from rfm.data.schema import Kind
from rfm.data.task_rows import Ints
from rfm.data.tasks import Task

BEGINNING = -(2**36)
"""The time of rows without one: before any other, and far from the limits of 64 bits."""
MAX_CATEGORIES = 1000


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """A column as floats [n], NaN for null: numbers; 0 and 1; days since 1970; the place of a
    category by how often training-period rows have it; characters of a text."""

    name: str
    kind: Kind
    values: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NumberTable:
    """time [n]: unix seconds, ``BEGINNING`` without a time column. parents: by foreign key the row
    [n] of its parent table, -1 for null."""

    table: Table
    time: Ints
    columns: tuple[NumberColumn, ...]
    parents: dict[str, Ints]


def number_tables(task: Task) -> dict[str, NumberTable]:
    """All tables of a task's database without its hidden columns and foreign keys.

    Raises:
        ValueError: see ``Database.times``, ``Database.parents`` and ``Database.kinds``.
    """
    return {name: _number_table(task, table) for name, table in task.database.tables.items()}


def _number_table(task: Task, table: Table) -> NumberTable:
    database = task.database
    time = database.times(table.name)
    hidden = {column for name, column in task.hidden if name == table.name}
    kinds = database.kinds[table.name]
    columns = [
        _number_column(database, table, column, kinds[column], time <= database.val_timestamp)
        for column in table.columns
        if column not in hidden and column not in table.keys and column != table.time_column
    ]
    parents = {
        column: database.parents(table.name, column).astype(np.int64)
        for column in table.foreign_keys
        if column not in hidden
    }
    early = np.where(time == STATIC, BEGINNING, time)
    return NumberTable(table, early, tuple(c for c in columns if c is not None), parents)


def _number_column(
    database: Database, table: Table, column: str, kind: Kind, training: npt.NDArray[np.bool_]
) -> NumberColumn | None:
    """The column, or none of one whose cells are lists and the like."""
    parts: list[npt.NDArray[np.float64]] = []
    texts: list[pa.Array] = []
    for batch in database.batches(table.name, [column]):
        array = batch.column(0)
        if pa.types.is_nested(array.type):
            return None
        if kind == "category":
            texts.append(as_texts(array, kind))
        elif kind == "text":
            length = pc.utf8_length(as_texts(array, kind)).cast(pa.float64())
            parts.append(length.to_numpy(zero_copy_only=False))
        else:
            values = as_floats(array, kind)
            parts.append(np.where(np.isfinite(values), values, np.nan))
    name = f"{table.name}.{column}"
    if kind == "category":
        return NumberColumn(name, kind, _places(pa.chunked_array(texts).to_pandas(), training))
    return NumberColumn(name, kind, np.concatenate(parts))


def _places(texts: pd.Series, training: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Each category's place [n], the commonest of the training period first; NaN for others."""
    counts = texts[training].value_counts().rename_axis("text").reset_index(name="count")
    counts = counts.sort_values(["count", "text"], ascending=[False, True])
    place = pd.Index(counts["text"].iloc[:MAX_CATEGORIES]).get_indexer(pd.Index(texts))
    return np.asarray(np.where((place >= 0) & texts.notna(), place, np.nan), dtype=np.float64)
