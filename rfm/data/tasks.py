"""A task of a database: whom it asks about, when, and what a model may see for an answer.

A task is just another table. Attached to its database (``rfm.data.attach``), a row of it becomes
visible when its label is known, at seed time + ``timedelta``; a question is one of its rows with
the label masked. So the past labels of an entity come as ordinary neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import pandas as pd
import yaml

from rfm.data.database import Database, Table
from rfm.data.schema import shown_time, suggest
from rfm.data.task_rows import (
    SPLITS,
    Columns,
    Ints,
    TaskRows,
    TaskSplit,
    TaskType,
    class_names,
    read_frame,
    read_rows,
)
from rfm.files import content_hash, file_hash

if TYPE_CHECKING:
    from relbench.manifest import TaskManifest

Regime: TypeAlias = Literal["frozen", "rolling"]
_AUTOCOMPLETE_DELTA = pd.Timedelta(seconds=1)  # as RelBench has it: known right after its row
_EXTERNAL_DELTA = pd.Timedelta(days=1)  # the same, where the manifest says nothing
_log = logging.getLogger("rfm")


@dataclass(frozen=True, eq=False)
class Task:
    """One RelBench task of a database, from its manifest.

    ``entity_column`` holds rows of ``entity_table``; in a recommendation ``target`` holds lists of
    rows of ``destination_table`` ("" in other tasks), of which ``top_k`` are wanted. ``timedelta``
    in seconds. ``hidden``: (table, column) pairs of the database that it must not see. Its rows and
    classes are read from its folder, unless they are given (``given_rows`` of every split,
    ``given_classes``).
    """

    name: str
    folder: Path
    database: Database
    task_type: TaskType
    kind: Literal["forecast", "autocomplete", "external"]
    entity_table: str
    entity_column: str
    target: str
    time_column: str
    timedelta: int
    hidden: tuple[tuple[str, str], ...]
    destination_table: str = ""
    top_k: int = 0
    given_rows: Mapping[TaskSplit, TaskRows] = field(default_factory=dict)
    given_classes: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{self.database.name}/{self.name}"

    def path(self, split: TaskSplit) -> Path:
        return self.folder / f"{split}.parquet"

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the content of its files."""
        paths = [self.folder / "manifest.yaml", *(self.path(split) for split in SPLITS)]
        return content_hash([file_hash(path) if path.is_file() else "" for path in paths])

    def rows(self, split: TaskSplit) -> TaskRows:
        """The rows of a split, read once.

        Raises:
            ValueError: see ``read_rows``; and for training rows that hold a single class.
        """
        if split in self.given_rows:
            return self.given_rows[split]
        if split not in self._read:
            self._read[split] = read_rows(self.path(split), self._columns)
            if split == "train":
                self._check_training(self._read[split])
            elif self.task_type == "multilabel_classification":
                self._check_width(split)
        return self._read[split]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Of a multiclass task, those that training rows have; of others none."""
        if self.task_type != "multiclass_classification" or self.given_classes:
            return self.given_classes
        values = read_frame(self.path("train"), [self.target])[self.target]
        try:
            return class_names(values)
        except TypeError as error:
            raise ValueError(
                f"{self.path('train')}: {self.target} is of type {values.dtype} (e.g. "
                f"{values.dropna().iloc[0]!r}), wanted one class per row, all of one type: {error}"
            ) from None

    @property
    def outputs(self) -> int:
        """Numbers that answer a question: logits of the classes or labels, or 1; 0 where rows are
        recommended."""
        if self.task_type == "multiclass_classification":
            return len(self.classes)
        return int(self.rows("train").label.shape[1])

    def cutoffs(self, split: TaskSplit, regime: Regime) -> Ints:
        """Until when each row [n] of a split sees the database and its labels, unix seconds.

        Rolling: up to its own seed time. Frozen: never beyond the timestamp that begins the split,
        which for test rows is what RelBench's ``task.get_db()`` holds. Training rows see all up to
        their own seed time in both.
        """
        time = self.rows(split).time
        if regime == "rolling" or split == "train":
            return time
        database = self.database
        end = database.val_timestamp if split == "val" else database.test_timestamp
        return np.minimum(time, end)

    def staleness(self) -> Ints:
        """How long before their seed times validation rows stop to see anything in the frozen
        regime [n], in seconds: what training rows may be given too."""
        return self.rows("val").time - self.cutoffs("val", "frozen")

    @cached_property
    def _read(self) -> dict[TaskSplit, TaskRows]:
        """Splits that were read from their files."""
        return {}

    @cached_property
    def _columns(self) -> Columns:
        size = {name: table.num_rows for name, table in self.database.tables.items()}
        return Columns(
            self.task_type,
            self.time_column,
            self.entity_column,
            self.target,
            (self.entity_table, size[self.entity_table]),
            (self.destination_table, size.get(self.destination_table, 0)),
            self.classes,
        )

    def _check_width(self, split: TaskSplit) -> None:
        width, wanted = self._read[split].label.shape[1], self.outputs
        if width != wanted:
            raise ValueError(
                f"{self.path(split)}: {self.target} holds lists of {width}, but those of training "
                f"rows hold {wanted}: every split needs the same labels"
            )

    def _check_training(self, rows: TaskRows) -> None:
        where = self.path("train")
        if self.task_type in ("binary_classification", "multiclass_classification"):
            known = np.unique(rows.label[rows.labelled])
            if known.size < 2:
                raise ValueError(
                    f"{where}: every label of {self.target} is {known[0]:g}: nothing can be learnt "
                    "from a single class"
                )
        missing = int((~rows.labelled).sum())
        if missing:
            _log.warning("%s: %d of %d rows have no label", where, missing, len(rows))


def list_tasks(database: Database) -> list[str]:
    """The names of the tasks in a database's folder, sorted."""
    return sorted(path.parent.name for path in database.folder.glob("tasks/*/manifest.yaml"))


def open_task(database: Database, name: str) -> Task:
    """A task of a database, by its name.

    Raises:
        ValueError: no such task (with those there are), or a manifest that does not fit.
    """
    from relbench.manifest import TaskManifest

    folder = database.folder / "tasks" / name
    path = folder / "manifest.yaml"
    if not name or not path.is_file():
        names = list_tasks(database)
        there = f"its tasks are: {suggest(name, names)}" if names else "it has no tasks"
        raise ValueError(f"database {database.name} has no task {name!r}; {there}")
    try:
        manifest = TaskManifest.load(path)
        manifest.validate()
    except (OSError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as a RelBench task: {error}") from None
    if manifest.kind == "autocomplete":
        return _autocomplete(manifest, database, path)
    links = manifest.task_type == "recommendation"
    entity = manifest.src_entity_table if links else manifest.entity_table
    asked = manifest.src_entity_col if links else manifest.entity_col
    target = manifest.dst_entity_col if links else manifest.target_col
    if not (asked and target and manifest.time_col):
        raise ValueError(
            f"{path}: a {manifest.kind} task needs the columns of entity, time and target, got "
            f"{asked}, {manifest.time_col} and {target}"
        )
    if links:
        _find(database, manifest.dst_entity_table, path)
    return Task(
        name=name,
        folder=folder,
        database=database,
        task_type=manifest.task_type,
        kind=manifest.kind,
        entity_table=_find(database, entity, path).name,
        entity_column=str(asked),
        target=str(target),
        time_column=str(manifest.time_col),
        timedelta=_seconds(manifest.timedelta or _EXTERNAL_DELTA, path),
        hidden=_hidden(manifest.remove_columns, database, path),
        destination_table=manifest.dst_entity_table if links else "",
        top_k=int(manifest.eval_k or 10) if links else 0,
    )


def _autocomplete(manifest: TaskManifest, database: Database, path: Path) -> Task:
    table = _find(database, manifest.entity_table, path)
    if table.time_column is None or table.primary_key is None:
        raise ValueError(
            f"{path}: an autocomplete task needs a primary key and a time column, table "
            f"{table.name} has {table.primary_key} and {table.time_column}"
        )
    hidden = [*manifest.remove_columns, (table.name, manifest.target_col)]
    return Task(
        name=path.parent.name,
        folder=path.parent,
        database=database,
        task_type=manifest.task_type,
        kind="autocomplete",
        entity_table=table.name,
        entity_column=table.primary_key,
        target=manifest.target_col,
        time_column=table.time_column,
        timedelta=_seconds(_AUTOCOMPLETE_DELTA, path),
        hidden=_hidden(hidden, database, path),
    )


def _find(database: Database, name: str | None, path: Path) -> Table:
    if name not in database.tables:
        hint = suggest(str(name), database.tables)
        raise ValueError(f"{path}: table {name!r} is no table of {database.name}; {hint}")
    return database.tables[name]


def _hidden(
    pairs: list[tuple[str, str]], database: Database, path: Path
) -> tuple[tuple[str, str], ...]:
    found = tuple((str(table), str(column)) for table, column in pairs)
    for name, column in found:
        table = _find(database, name, path)
        if column not in table.columns:
            raise ValueError(
                f"{path}: column {name}.{column} is to be hidden, but there is none; "
                f"{suggest(column, table.columns)}"
            )
        if column in (table.primary_key, table.time_column):
            raise ValueError(
                f"{path}: {name}.{column} is a key or time column, it cannot be hidden"
            )
    return tuple(dict.fromkeys(found))


def _seconds(delta: str | pd.Timedelta, path: Path) -> int:
    """A label that is known when it is asked for would answer itself."""
    try:
        seconds = int(pd.Timedelta(delta).total_seconds())
    except ValueError:
        seconds = 0
    if seconds < 1:
        raise ValueError(f"{path}: timedelta is {delta!r}, wanted such as '30 days'")
    return seconds


def check_seed_times(task: Task) -> None:
    """Say how many rows of each split are asked before the first row of the database.

    Raises:
        ValueError: if all rows of a split are.
    """
    first_time = task.database.first_time
    for split in SPLITS:
        rows = task.rows(split)
        before = int((rows.time < first_time).sum())
        start = shown_time(first_time)
        if before and before == len(rows):
            raise ValueError(
                f"{task.path(split)}: every seed time is before {start}, the first row of "
                f"{task.database.name}: nothing can be seen by then"
            )
        if before:
            _log.warning(
                "%s: %d of %d seed times are before the first row of the database, %s: only tables "
                "without a time column can be seen by then",
                task.path(split), before, len(rows), start,
            )  # fmt: skip
