"""Earlier validation and test windows of a database's tasks, to decide on without its test split.

    python -m benchmarks.backtests database=rel-f1 tasks=[driver-dnf] data.root=<folder> \\
        test=[1990-01-01,1995-01-01,2000-01-01] out=<folder>

Where validation rows are few and of one short time, they rank what is tried by chance: on rel-f1's
driver-dnf their standard error is 0.023. Each window is a RelBench folder of its own, named by the
day that its test rows begin, with the database's files linked and its train and validation rows
split anew; rows of the test split go nowhere. Windows are databases of their own name: kinds of
columns go by it, and no warning says that a checkpoint was pretrained on the database itself, which
makes its scores here worthless.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from rfm.config import run_command, setting
from rfm.data.database import Database, SourceConfig, open_source
from rfm.data.task_rows import SPLITS, TaskSplit
from rfm.data.tasks import Task, open_task
from rfm.files import publish

_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class BacktestConfig:
    """Which windows."""

    database: str = setting(help="a RelBench folder, a name under data.root, or on the Hub")
    tasks: tuple[str, ...] = setting(help="forecasts of the database")
    test: tuple[str, ...] = setting(help="days on which the test rows of a window begin")
    out: Path = setting(help="folder of the windows, each a RelBench folder")
    gap: str = setting(
        "", help="from a window's validation timestamp to its test timestamp, such as 1825d; "
        "empty: as in the database"
    )  # fmt: skip
    length: str = setting(
        "", help="how long rows of a split are taken from its timestamp on; empty: as the task's "
        "validation rows"
    )  # fmt: skip
    data: SourceConfig = setting(factory=SourceConfig)

    def __post_init__(self) -> None:
        if not self.tasks or not self.test:
            raise ValueError("tasks and test: wanted one or more of each")
        for key in ("gap", "length"):
            text = getattr(self, key)
            try:
                wrong = bool(text) and not pd.Timedelta(text) > pd.Timedelta(0)
            except ValueError:
                wrong = True
            if wrong:
                raise ValueError(f"{key}={text}: wanted a time such as 1825d")


def backtests(config: BacktestConfig) -> dict[str, Any]:
    """Write the windows.

    Raises:
        ValueError: for days that are none, or too late; for tasks that are no forecasts; for
            windows in which a split has no rows.
    """
    database = open_source(config.database, config.data.root, config.data.kinds)
    tasks = [open_task(database, name) for name in config.tasks]
    for task in tasks:
        if task.kind != "forecast":
            raise ValueError(f"{task.full_name} is of kind {task.kind}, wanted a forecast")
    folders = []
    for day in config.test:
        test = _day(day, database)
        folder = config.out / f"{database.name}-{test.date()}"
        if folder.exists():
            raise ValueError(f"{folder} is there already: delete it, or give another out")
        with publish(folder) as temporary:
            _write(temporary, database, tasks, test, config)
        folders.append(str(folder))
    return {"folders": folders}


def _day(text: str, database: Database) -> pd.Timestamp:
    try:
        day = pd.Timestamp(text).tz_localize(None).normalize()
    except ValueError:
        raise ValueError(f"test={text}: wanted a day such as 1995-01-01") from None
    last = pd.Timestamp(database.test_timestamp, unit="s")
    if not day < last:
        raise ValueError(f"test={text}: wanted a day before the test split begins, {last.date()}")
    return day


def _write(
    folder: Path, database: Database, tasks: list[Task], test: pd.Timestamp, config: BacktestConfig
) -> None:
    manifest = yaml.safe_load((database.folder / "manifest.yaml").read_text())
    gap = pd.Timedelta(database.test_timestamp - database.val_timestamp, unit="s")
    val = test - (pd.Timedelta(config.gap) if config.gap else gap)
    times = {"val_timestamp": str(val), "test_timestamp": str(test)}
    folder.mkdir(parents=True)
    (folder / "manifest.yaml").write_text(
        yaml.safe_dump({**manifest, "name": f"{database.name}-{test.date()}", **times})
    )
    (folder / "db").symlink_to((database.folder / "db").resolve())
    for task in tasks:
        own = folder / "tasks" / task.name
        own.mkdir(parents=True)
        shutil.copyfile(task.folder / "manifest.yaml", own / "manifest.yaml")
        for split, rows in _split(task, val, test, config.length).items():
            if rows.empty:
                raise ValueError(
                    f"{task.full_name}: no {split} rows for a test from {test.date()}: choose "
                    "another day, or a greater length"
                )
            _log.info("%s from %s: %d %s rows", task.full_name, test.date(), len(rows), split)
            rows.to_parquet(own / f"{split}.parquet", index=False)


def _split(
    task: Task, val: pd.Timestamp, test: pd.Timestamp, length: str
) -> dict[TaskSplit, pd.DataFrame]:
    """Labels of training rows are known by ``val``, those of validation rows by ``test``."""
    parts = [pd.read_parquet(task.path(split)) for split in SPLITS if split != "test"]
    rows = pd.concat(parts, ignore_index=True)
    time = pd.to_datetime(rows[task.time_column])
    began = pd.Timestamp(task.database.val_timestamp, unit="s")
    lasted = pd.to_datetime(parts[-1][task.time_column]).max() - began
    long = pd.Timedelta(length) if length else lasted
    known = time + pd.Timedelta(task.timedelta, unit="s")
    return {
        "train": rows[known <= val],
        "val": rows[(time >= val) & (time <= val + long) & (known <= test)],
        "test": rows[(time >= test) & (time <= test + long)],
    }


if __name__ == "__main__":
    run_command(BacktestConfig, backtests, prog="benchmarks.backtests", doc=__doc__)
