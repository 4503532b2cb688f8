"""Attach a task to its database: hidden columns go, its rows come as a child of the entity table.

The attached table has the time at which the label is known for its time column, a foreign key to
the entity, and the label. The column of the label is called ``label <target>`` whatever the task:
by this word a model tells labels from other cells, of tasks that it has never seen. In a
recommendation each destination makes a row of its own, with a foreign key ``label <target>``.

A row of an autocomplete task stands for the row whose cell is asked for: it takes that row's other
cells and foreign keys along, because that row itself may be out of sight (frozen) and has no label
beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from rfm.data.database import Database, Table
from rfm.data.parquet import take_rows
from rfm.data.schema import Kind
from rfm.data.task_rows import SPLITS, Ints, TaskRows, TaskSplit, TaskType
from rfm.data.tasks import Task
from rfm.files import content_hash, publish

LABEL, KNOWN = "label", "known"
_FORMAT = 1
_KINDS: dict[TaskType, Kind] = {
    "binary_classification": "boolean",
    "multiclass_classification": "category",
    "multilabel_classification": "text",
    "regression": "number",
}


@dataclass(frozen=True, eq=False)
class AttachedTask:
    """``database`` with ``task`` as its table ``table``, whose column ``label`` holds what is asked
    for: a cell, or, in a recommendation, a foreign key. questions: the row of the table that asks
    each row [n] of a split."""

    task: Task
    database: Database
    table: str
    label: str
    questions: dict[TaskSplit, Ints]


def attach_task(task: Task, cache: Path, entity_cells: bool = False) -> AttachedTask:
    """The task attached to its database, all splits in one table.

    Args:
        cache: where the table is written, named by its content.
        entity_cells: copy the entity's cells into each row, for models without a graph.

    Raises:
        ValueError: see ``Task.rows``.
    """
    database = visible_database(task)
    tables = dict(database.tables)
    entity = tables[task.entity_table]
    rows = [task.rows(split) for split in SPLITS]
    owner = [_owners(r) for r in rows]
    starts = np.concatenate([[0], np.cumsum([o.size for o in owner])]).astype(np.int64)
    label = f"{LABEL} {task.target}"
    columns = _columns(task, rows, owner, label)
    kinds: dict[str, Kind] = {}
    if task.task_type != "recommendation":
        kinds[label] = _KINDS[task.task_type]
    keys = {task.entity_column: task.entity_table}
    if task.kind == "autocomplete" or entity_cells:
        copied = _entity_columns(
            entity, columns, np.asarray(columns[task.entity_column]), task.kind == "autocomplete"
        )
        if task.kind != "autocomplete":
            asked = np.concatenate([r.time[o] for r, o in zip(rows, owner, strict=True)])
            late = database.times(entity.name)[np.asarray(columns[task.entity_column])] > asked
            copied = {c: pc.if_else(pa.array(late), None, cells) for c, cells in copied.items()}
        columns |= copied
        keys |= {c: parent for c, parent in entity.foreign_keys.items() if c in copied}
        kinds |= {c: task.database.kinds[entity.name][c] for c in copied if c not in keys}
    if task.task_type == "recommendation":
        keys[label] = task.destination_table
    name = task.name if task.name not in tables else f"{task.name} {LABEL}s"
    tables[name] = Table(
        name=name,
        path=_write(columns, cache / "tasks", f"{database.name}-{task.name}"),
        num_rows=int(starts[-1]),
        columns=tuple(columns),
        primary_key=None,
        time_column=KNOWN,
        foreign_keys=keys,
    )
    attached = replace(database, tables=tables, overrides={**database.overrides, name: kinds})
    questions = {
        split: start + np.searchsorted(o, np.arange(len(r)))
        for split, start, o, r in zip(SPLITS, starts[:-1], owner, rows, strict=True)
    }
    return AttachedTask(task, attached, name, label, questions)


def visible_database(task: Task) -> Database:
    """The task's database without the columns that it must not see, nothing attached."""
    database = task.database
    tables = {name: _without(table, task.hidden) for name, table in database.tables.items()}
    overrides = {
        table: {c: k for c, k in given.items() if (table, c) not in task.hidden}
        for table, given in database.overrides.items()
    }
    return replace(database, tables=tables, overrides=overrides)


def _without(table: Table, hidden: Sequence[tuple[str, str]]) -> Table:
    """The table without its hidden columns, be they keys or not."""
    gone = {column for name, column in hidden if name == table.name}
    keys = {c: parent for c, parent in table.foreign_keys.items() if c not in gone}
    columns = tuple(c for c in table.columns if c not in gone)
    return replace(table, columns=columns, foreign_keys=keys)


def _owners(rows: TaskRows) -> Ints:
    """Which row of the split each row of the attached table belongs to, in order: one each, or one
    for every destination."""
    return np.repeat(np.arange(len(rows)), np.maximum(1, np.diff(rows.start)))


def _columns(
    task: Task, rows: Sequence[TaskRows], owner: Sequence[Ints], label: str
) -> dict[str, pa.Array]:
    """Of the attached table: when each label is known, the entity, the label."""
    known = [r.time[o] + task.timedelta for r, o in zip(rows, owner, strict=True)]
    entity = [r.entity[o] for r, o in zip(rows, owner, strict=True)]
    time = np.concatenate(known).astype("datetime64[s]")
    return {
        KNOWN: pa.array(time),
        task.entity_column: pa.array(np.concatenate(entity)),
        label: pa.concat_arrays([_labels(task, r) for r in rows]),
    }


def _labels(task: Task, rows: TaskRows) -> pa.Array:
    values = rows.label[:, 0] if rows.label.shape[1] else np.zeros(0)
    if task.task_type == "recommendation":
        spans = zip(rows.start[:-1], rows.start[1:], strict=True)
        lists = [rows.destination[start:stop].tolist() or [None] for start, stop in spans]
        return pa.array([d for own in lists for d in own], pa.int64())
    if task.task_type == "multilabel_classification":
        spelled = [" ".join(map(str, np.flatnonzero(one))) or "none" for one in rows.label]
        return pa.array(spelled, pa.string(), mask=~rows.labelled)
    if task.task_type == "multiclass_classification":
        names = [task.classes[int(v)] if v >= 0 else None for v in values]  # NaN is not
        return pa.array(names, pa.string())
    if task.task_type == "binary_classification":
        return pa.array(values == 1, pa.bool_(), mask=np.isnan(values))
    return pa.array(values, pa.float64(), from_pandas=True)


def _entity_columns(
    entity: Table, columns: dict[str, pa.Array], rows: Ints, keep_keys: bool
) -> dict[str, pa.Array]:
    """The cells, and perhaps the foreign keys, of each row's entity [n]."""
    names = [
        c
        for c in entity.columns
        if c not in columns and c != entity.primary_key and (keep_keys or c not in entity.keys)
    ]
    distinct, back = np.unique(rows, return_inverse=True)
    taken = take_rows(entity.path, distinct).select(names).take(pa.array(back))
    return {name: taken.column(name).combine_chunks() for name in names}


def _write(columns: dict[str, pa.Array], folder: Path, name: str) -> Path:
    """The table as a parquet file named by its content."""
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    digest = xxhash.xxh3_128_hexdigest(memoryview(sink.getvalue()))
    path = folder / f"{name}-{content_hash([_FORMAT, digest])}.parquet"
    if not path.is_file():
        with publish(path) as temporary:
            pq.write_table(table, temporary)
    return path
