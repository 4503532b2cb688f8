"""Find the task that a command asks for."""

from __future__ import annotations

from dataclasses import replace

from finetune.config import TaskData
from rfm.data.database import open_database
from rfm.data.schema import read_kinds, read_overrides
from rfm.data.tasks import Task, open_task


def find_task(database: str, task: str, data: TaskData) -> Task:
    """A task of a database, which is opened with the kinds that were asked for.

    Raises:
        ValueError: for what cannot be found; lists what there is.
    """
    opened = open_database(database, data.root)
    kinds = read_kinds(data.kinds).get(opened.name)
    return open_task(replace(opened, overrides=read_overrides(kinds)), task)
