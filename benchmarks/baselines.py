"""Baselines on tasks, in the same harness as ours: one result file per task, regime, method, seed.

    python -m benchmarks.baselines tasks=[rel-f1/driver-dnf,...] data.root=<folder>
        results=<folder> [regimes=[frozen,rolling]] [methods=[entity mean,...]] [seeds=5]

A cell that is already there is not run again. Methods without chance have one cell, of seed 0,
however many seeds are asked for. Whatever a method chooses, it chooses on validation rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

from benchmarks import popularity, rules
from benchmarks.answer import Answer
from benchmarks.boosting import BoostingConfig, lightgbm_aggregates, lightgbm_entity
from benchmarks.cells import Cell, cell_path, read_cell, write_cell
from benchmarks.graphsage_scratch import graphsage
from benchmarks.graphsage_train import GraphSAGESettings
from benchmarks.intervals import interval
from benchmarks.language_model import LanguageModelSettings, language_model
from benchmarks.summary import Summary, grouped
from rfm.config import run_command, setting
from rfm.data.database import Database, SourceConfig, open_source
from rfm.data.schema import suggest
from rfm.data.task_rows import TASK_TYPES, TaskType
from rfm.data.tasks import Regime, Task, check_seed_times, open_task
from rfm.eval.predictions import METRICS, score
from rfm.train.process import quieten
from rfm.train.run_dir import versions

LINK_TYPES: tuple[TaskType, ...] = ("recommendation",)
ENTITY_TYPES = tuple(kind for kind in TASK_TYPES if kind not in LINK_TYPES)
LANGUAGE_TYPES: tuple[TaskType, ...] = (
    "binary_classification",
    "multiclass_classification",
    "regression",
)
_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class BaselinesConfig:
    """Which baselines on which tasks."""

    tasks: tuple[str, ...] = setting(help="database/task, the database as a name or a folder")
    results: Path = setting(help="folder of result files; those there are kept")
    regimes: tuple[Regime, ...] = setting(("frozen",), help="frozen, rolling or both")
    methods: tuple[str, ...] = setting((), help="by name; empty: all that fit the task")
    seeds: int = setting(1, ge=1, help="0, 1, ... of methods that leave something to chance")
    resamples: int = setting(1000, ge=10, help="of the 95% interval of a test score")
    data: SourceConfig = setting(factory=SourceConfig)
    boosting: BoostingConfig = setting(factory=BoostingConfig)
    graphsage: GraphSAGESettings = setting(factory=GraphSAGESettings)
    prompt: LanguageModelSettings = setting(factory=LanguageModelSettings)


@dataclass(frozen=True)
class Method:
    """answer: (task, regime, seed) -> predictions, chosen on validation. types: of the tasks that
    it answers. by_chance: seeds differ."""

    answer: Callable[[Task, Regime, int], Answer]
    types: tuple[TaskType, ...] = ENTITY_TYPES
    by_chance: bool = False

    def fits(self, task: Task) -> bool:
        return task.task_type in self.types


Job: TypeAlias = tuple[Task, Regime, str, int]


def all_methods(config: BaselinesConfig) -> dict[str, Method]:
    """Every baseline by its name, which also names its folder of results."""
    unseen = partial(rules.last_labels_or_unseen_rate, count=20)
    entity = partial(lightgbm_entity, config=config.boosting)
    aggregates = partial(lightgbm_aggregates, config=config.boosting)
    network = partial(graphsage, settings=config.graphsage)
    methods = {
        "global constant": Method(rules.global_constant),
        "entity mean": Method(rules.entity_mean),
        "last 10 labels": Method(partial(rules.last_labels, count=10)),
        "last 20 labels or rate of the unseen": Method(unseen),
        "lightgbm entity": Method(entity, by_chance=True),
        "lightgbm aggregates": Method(aggregates, by_chance=True),
        "graphsage from scratch": Method(network, TASK_TYPES, by_chance=True),
        "popularity": Method(popularity.popularity, LINK_TYPES),
        "past destinations": Method(popularity.own_destinations, LINK_TYPES),
    }
    if config.prompt.language_model:
        ask = partial(language_model, settings=config.prompt)
        methods["language model"] = Method(ask, LANGUAGE_TYPES)
    return methods


def run_baselines(config: BaselinesConfig) -> dict[str, Any]:
    """Run what is missing, show all that was asked for.

    Raises:
        ValueError: for unknown tasks and methods, methods of which none fits any task, and tasks
            that cannot be read or scored.
    """
    quieten()
    methods = chosen_methods(config)
    tasks = open_tasks(config)
    jobs = list(wanted_jobs(config, tasks, methods))
    if not jobs:
        raise ValueError(
            f"methods={list(config.methods)}: none of them fits a task of {list(config.tasks)}; "
            "recommendation tasks want methods that recommend, others the others. "
            f"{suggest(config.methods[0], all_methods(config))}"
        )
    missing = [job for job in jobs if not job_path(config, job).is_file()]
    for number, job in enumerate(missing, start=1):
        cell = run_job(config, methods[job[2]], job)
        _log.info(
            "[%d/%d] %s %s, %s, seed %d: validation %.4f, test %.4f (%.1f s)", number,
            len(missing), cell.task, cell.regime, cell.method, cell.seed, cell.validation,
            cell.test, cell.seconds,
        )  # fmt: skip
    summaries = grouped(config.results, [read_cell(job_path(config, job)) for job in jobs])
    show(summaries)
    return {
        "results": config.results,
        "cells": len(jobs),
        "run": len(missing),
        "scores": [described(summary) for summary in summaries],
    }


def chosen_methods(config: BaselinesConfig) -> dict[str, Method]:
    """
    Raises:
        ValueError: for an unknown name, with those there are.
    """
    known = all_methods(config)
    for name in config.methods:
        if name not in known:
            raise ValueError(f"methods: there is no method {name!r}; {suggest(name, known)}")
    return {name: known[name] for name in dict.fromkeys(config.methods or known)}


def open_tasks(config: BaselinesConfig) -> list[Task]:
    """All tasks, before any work is done on one.

    Raises:
        ValueError: see ``open_database`` and ``open_task``; for a task without its database.
    """
    if not config.tasks:
        raise ValueError("tasks: none given, wanted such as tasks=[rel-f1/driver-dnf]")
    databases: dict[str, Database] = {}
    tasks = []
    for full_name in dict.fromkeys(config.tasks):
        spec, slash, name = full_name.rpartition("/")
        if not (slash and spec and name):
            raise ValueError(f"tasks: {full_name!r} is no task, wanted database/task")
        if spec not in databases:
            databases[spec] = open_source(spec, config.data.root, config.data.kinds)
        task = open_task(databases[spec], name)
        check_seed_times(task)
        tasks.append(task)
    return tasks


def wanted_jobs(
    config: BaselinesConfig, tasks: Sequence[Task], methods: Mapping[str, Method]
) -> Iterator[Job]:
    """Every (task, regime, method, seed), ordered so that what seeds share is made once."""
    for task in tasks:
        for regime in dict.fromkeys(config.regimes):
            for name, method in methods.items():
                if method.fits(task):
                    for seed in range(config.seeds if method.by_chance else 1):
                        yield task, regime, name, seed


def job_path(config: BaselinesConfig, job: Job) -> Path:
    task, regime, name, seed = job
    return cell_path(config.results, task.full_name, regime, name, seed)


def run_job(config: BaselinesConfig, method: Method, job: Job) -> Cell:
    """Answer, score, and write the cell."""
    task, regime, name, seed = job
    start = time.perf_counter()
    answer = method.answer(task, regime, seed)
    seconds = time.perf_counter() - start
    low, high = interval(task, "test", answer.test, config.resamples)
    cell = Cell(
        task=task.full_name,
        regime=regime,
        method=name,
        seed=seed,
        metric=METRICS[task.task_type],
        validation=score(task, "val", answer.validation),
        test=score(task, "test", answer.test),
        low=low,
        high=high,
        seconds=seconds,
        curve=answer.curve,
        config=answer.config,
        versions=versions(),
    )
    write_cell(config.results, cell, task, answer.test)
    return cell


def described(summary: Summary) -> dict[str, Any]:
    first = summary.first
    return {
        "task": first.task,
        "regime": first.regime,
        "method": first.method,
        "metric": first.metric,
        "validation": summary.validation,
        "test": summary.mean,
        "std": summary.std,
        "interval": summary.interval,
        "seeds": len(summary.cells),
        "seconds": summary.seconds,
    }


def show(summaries: Sequence[Summary]) -> None:
    """The scores as a table on standard error."""
    table = Table(title="Baselines (test: mean ± standard deviation over seeds, 95% interval)")
    for column in ("task", "regime", "method", "metric"):
        table.add_column(column)
    for column in ("validation", "test", "interval", "seeds", "seconds"):
        table.add_column(column, justify="right")
    previous = None
    for one in summaries:
        first = one.first
        if previous not in (None, (first.task, first.regime)):
            table.add_section()
        previous = (first.task, first.regime)
        spread = "" if one.std is None else f" ± {one.std:.4f}"
        ends = "" if one.interval is None else f"{one.interval[0]:.4f} .. {one.interval[1]:.4f}"
        table.add_row(
            first.task, first.regime, first.method, first.metric, f"{one.validation:.4f}",
            f"{one.mean:.4f}{spread}", ends, str(len(one.cells)), f"{one.seconds:.1f}",
        )  # fmt: skip
    Console(stderr=True, width=150).print(table)


if __name__ == "__main__":
    run_command(BaselinesConfig, run_baselines, prog="python -m benchmarks.baselines", doc=__doc__)
