"""A database's own tasks, in the form of generated ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rfm.data.attach import LABEL
from rfm.data.batch import MAX_CLASSES
from rfm.data.database import Database
from rfm.data.generated import MIN_ROWS, GeneratedTask, Labelled
from rfm.data.task_rows import SPLITS, TaskSplit
from rfm.data.tasks import Task, list_tasks, open_task

_SINGLE = ("binary_classification", "multiclass_classification", "regression")
_log = logging.getLogger("rfm")


def as_generated(task: Task, splits: Sequence[TaskSplit] = SPLITS) -> GeneratedTask:
    """A task with a single label per row: the rows of some splits, earliest first; NaN where a
    label is null, or of a class that no training row has."""
    rows = [task.rows(split) for split in splits]
    entity, time = (np.concatenate([getattr(r, n) for r in rows]) for n in ("entity", "time"))
    label = np.concatenate([r.label[:, 0] for r in rows])
    label[(label < 0) & (task.task_type == "multiclass_classification")] = np.nan
    order = np.argsort(time, kind="stable")
    tables = list(task.database.tables)
    classes = {"regression": 0, "binary_classification": 2}
    return GeneratedTask(
        name=task.full_name,
        table=task.name if task.name not in tables else f"{task.name} {LABEL}s",
        target=task.target,
        key=task.entity_column,
        entity_table=tables.index(task.entity_table),
        classes=classes.get(task.task_type, len(task.classes)),
        timedelta=task.timedelta,
        rows=Labelled(entity[order], time[order], label[order]),
        given=task.kind == "autocomplete",
        names=task.classes,
    )


def own_tasks(database: Database, until: int, splits: Sequence[TaskSplit]) -> list[GeneratedTask]:
    """Those of a database's tasks that can be asked in episodes: with a single label, of few
    classes, and nothing of the database to be hidden. What cannot be read is left out, and said.

    Args:
        until: unix seconds; no label that is known later is among them.
        splits: those that are read; never test.
    """
    assert "test" not in splits
    found = []
    for name in list_tasks(database):
        try:
            task = open_task(database, name)
            if task.task_type not in _SINGLE or task.hidden or len(task.classes) > MAX_CLASSES:
                continue
            made = as_generated(task, splits)
        except ValueError as error:
            _log.warning("%s/%s is left out: %s", database.name, name, error)
            continue
        known = made.known <= until
        if known.sum() >= MIN_ROWS:
            found.append(replace(made, rows=made.rows.take(np.flatnonzero(known))))
    return found
