"""All features of a task's questions: what its database and its past labels say by a cutoff."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.aggregates import (
    DAY,
    Features,
    Questions,
    Window,
    affordable,
    aggregated,
    joined,
    own_columns,
)
from benchmarks.columns import BEGINNING, NumberTable, number_tables
from benchmarks.paths import ManyRows, OneRow, many_rows, single_rows
from rfm.data.label_history import Floats, LabelHistory, found_until, label_history
from rfm.data.task_rows import Ints
from rfm.data.tasks import Task

PERIODS = (1, 3, 12)
"""Windows, in the task's ``timedelta``; and one without limit."""
LAST = (1, 3, 10)
_SPANS = 200  # windows of an autocomplete task, which has no timedelta: this part of the past


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Where a task's features come from.

    many: the ways to many rows, with the windows they are aggregated over, ``threads`` of them at
    a time. labels: (name, group [N] of each row of the entity table, past labels by that group).
    """

    task: Task
    tables: dict[str, NumberTable]
    single: tuple[OneRow, ...]
    many: tuple[tuple[ManyRows, tuple[Window, ...]], ...]
    labels: tuple[tuple[str, Ints, LabelHistory], ...]
    windows: tuple[Window, ...]
    threads: int

    def features(self, asked: Questions) -> Features:
        """Of questions [n]."""
        parts = [
            own_columns(way, self.tables[way.table], asked, _is_asked_row(self.task, way))
            for way in self.single
        ]
        with ThreadPoolExecutor(self.threads) as pool:
            parts += pool.map(lambda one: self._aggregated(*one, asked), self.many)
        parts += [_label_features(name, group, of, asked) for name, group, of in self.labels]
        if self.labels:
            parts.append(_moment(asked))
            parts.append(_recent_rates(self.labels[0][2], asked, self.windows))
        return joined(parts)

    def _aggregated(self, way: ManyRows, windows: tuple[Window, ...], asked: Questions) -> Features:
        return aggregated(way, self.tables[way.table], asked, windows)


def entity_source(task: Task) -> FeatureSource:
    """The entity's own columns and nothing else."""
    tables = number_tables(task)
    own = next(single_rows(tables, task.entity_table))
    return FeatureSource(task, tables, (own,), (), (), (), 1)


def database_source(task: Task, asked: Questions, budget: int, threads: int) -> FeatureSource:
    """Everything up to two hops, and past labels.

    Args:
        asked: training questions; what would join more than ``budget`` rows with them is left out.
    """
    tables = number_tables(task)
    windows, given = _windows(task, tables), task.kind == "autocomplete"
    many = [
        (way, affordable(way, asked, windows, budget))
        for way in many_rows(tables, task.entity_table, given)
    ]
    labels = [("labels", np.arange(tables[task.entity_table].time.size), label_history(task))]
    if task.kind == "autocomplete":  # of one row there is one label, of its parents there are more
        labels += [
            (f"{key} labels", group, label_history(task, group))
            for key, group in tables[task.entity_table].parents.items()
        ]
    return FeatureSource(
        task,
        tables,
        tuple(single_rows(tables, task.entity_table, given)),
        tuple((way, some) for way, some in many if some),
        tuple(labels),
        windows,
        threads,
    )


def _windows(task: Task, tables: dict[str, NumberTable]) -> tuple[Window, ...]:
    unit = task.timedelta
    if task.kind == "autocomplete":
        first = [
            t.time[t.time > BEGINNING].min() for t in tables.values() if t.time.max() > BEGINNING
        ]
        unit = max(DAY, int(task.database.val_timestamp - min(first)) // _SPANS)
    periods = [Window(f"{unit * n / DAY:g} days", unit * n) for n in PERIODS]
    return (*periods, Window("all", 0))


def _is_asked_row(task: Task, way: OneRow) -> bool:
    """Whether a way's row is the very row whose cell is asked for."""
    return task.kind == "autocomplete" and way.name == task.entity_table


def _moment(asked: Questions) -> Features:
    """The season, and how late the question comes."""
    month = pd.to_datetime(asked.time, unit="s").month.to_numpy()
    stale = (asked.time - asked.cutoff) / DAY
    values = np.stack([month, stale], axis=1).astype(np.float32)
    return Features(values, ("month", "days of staleness"))


def _label_features(name: str, group: Ints, labels: LabelHistory, asked: Questions) -> Features:
    """Count, age of the last, means of the last few and of all labels [n] seen by each question."""
    start, end = labels.visible(group[asked.entity], asked.cutoff)
    known = np.concatenate([labels.known, [0]])[np.maximum(end - 1, 0)]
    age = np.where(end > start, (asked.time - known) / DAY, np.nan)
    values = [(end - start).astype(np.float64)[:, None], age[:, None]]
    names = [f"{name}: count", f"{name}: days since"]
    for count in (*LAST, 0):
        mean = labels.mean(np.maximum(start, end - count) if count else start, end)
        values.append(mean)
        names += [
            f"{name}: mean of {f'last {count}' if count else 'all'} [{c}]"
            for c in range(mean.shape[1])
        ]
    return Features(np.concatenate(values, axis=1).astype(np.float32), tuple(names))


def _recent_rates(labels: LabelHistory, asked: Questions, windows: tuple[Window, ...]) -> Features:
    """Mean label [n] of all entities, known within each window before the cutoff."""
    order = np.argsort(labels.known, kind="stable")
    known, nobody = labels.known[order], np.zeros(order.size, np.int64)
    total = np.concatenate(
        [np.zeros((1, labels.outcome.shape[1])), labels.outcome[order].cumsum(0)]
    )
    everybody = np.zeros(asked.entity.size, np.int64)
    _, end = found_until(nobody, known, everybody, asked.cutoff)
    values: list[Floats] = []
    names: list[str] = []
    for window in windows:
        since = asked.cutoff - window.seconds if window.seconds else everybody + BEGINNING
        _, start = found_until(nobody, known, everybody, since)
        count = np.where(end > start, end - start, np.nan)[:, None]
        values.append((total[end] - total[start]) / count)
        names += [f"all labels, {window.name}: mean [{c}]" for c in range(total.shape[1])]
    return Features(np.concatenate(values, axis=1).astype(np.float32), tuple(names))
