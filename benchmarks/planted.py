"""What a checkpoint reads off examples: zero-shot on databases whose labels follow a planted rule.

    python -m benchmarks.planted checkpoint=<folder> [count=20] [out=<csv>]

Generates synthetic databases that no checkpoint is pretrained on (their seed is another one), asks
for their binary tasks in the rolling regime, and compares the test AUROC with that of the rule
which generated the labels: 1 is all of the way from 0.5 to the rule, and none can go further but by
luck. Databases with each kind of signal come equally often.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from rfm.config import run_command, setting
from rfm.data.database import open_database
from rfm.data.synthetic import SyntheticConfig, generate_database
from rfm.data.synthetic_plan import Signal
from rfm.data.tasks import Task, list_tasks, open_task
from rfm.eval.predictions import score
from rfm.eval.zero_shot import ContextConfig, ZeroShot, in_context
from rfm.files import default_cache, publish
from rfm.nn.model import RelationalModel
from rfm.train.process import quieten, set_up_cpu

COLUMNS = ("database", "task", "signal", "rule", "zero-shot", "way")
_WORTH = 0.6  # AUROC of a rule, at least: of one that decides nothing there is no way to go
_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class PlantedConfig:
    """Which checkpoint, and which databases."""

    checkpoint: str = setting(help="a folder or a Hub id")
    count: int = setting(20, ge=1, help="databases")
    rows: int = setting(10_000, ge=500, help="rows of each")
    seed: int = setting(1_000, ge=0, help="of the databases; pretraining has its own seed, 0")
    context: int = setting(256, ge=1, help="examples")
    ask: ContextConfig = setting(factory=ContextConfig)
    cache: Path = setting(factory=default_cache, help="synthetic databases and prepared stores")
    out: Path = setting(Path("runs/planted.csv"), help="CSV of all tasks")


def planted(config: PlantedConfig) -> dict[str, Any]:
    """Ask, compare, and write the table."""
    quieten()
    set_up_cpu()
    model = RelationalModel.from_pretrained(config.checkpoint)
    rows = []
    for task, truth in planted_tasks(config):
        if task.database.name in model.about["databases"]:
            raise ValueError(
                f"{config.checkpoint} was pretrained on {task.database.name}: give another seed"
            )
        asker = ZeroShot(model, task, config.cache, config.ask)
        found = asker.ask("test", "rolling", config.context, 0, {"own": in_context(model)})
        ours, rule = score(task, "test", found["own"].predictions), truth["score"]["test"]["auroc"]
        way = (ours - 0.5) / (rule - 0.5)
        rows.append((task.database.name, task.name, truth["signal"], rule, ours, way))
        _log.info("%s, %s: rule %.3f, zero-shot %.3f", task.full_name, truth["signal"], rule, ours)
    with publish(config.out) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([*row[:3], *(round(number, 6) for number in row[3:])] for row in rows)
    return {"out": config.out, **_shown(rows)}


def planted_tasks(config: PlantedConfig) -> Iterator[tuple[Task, dict[str, Any]]]:
    """The binary tasks, and what is recorded of their rules."""
    signals = get_args(Signal)
    for index in range(config.count):
        settings = SyntheticConfig(
            seed=config.seed, rows=config.rows, signal=signals[index % len(signals)]
        )
        out = config.cache / "synthetic"
        out.mkdir(parents=True, exist_ok=True)
        database = open_database(generate_database(out, index, settings))
        for name in list_tasks(database):
            task = open_task(database, name)
            truth = json.loads((task.folder / "truth.json").read_text())
            if truth["score"]["test"].get("auroc", 0.0) >= _WORTH:
                yield task, truth


def _shown(rows: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The table by signal, on standard error; the mean over databases of their tasks' means."""
    table = Table(title="Zero-shot on planted signals: test AUROC, rolling")
    for column in ("signal", "tasks", "rule", "zero-shot", "way"):
        table.add_column(column)
    for signal in dict.fromkeys(row[2] for row in rows):
        own = [row for row in rows if row[2] == signal]
        rule, ours, way = (float(np.mean([row[i] for row in own])) for i in (3, 4, 5))
        table.add_row(signal, str(len(own)), f"{rule:.3f}", f"{ours:.3f}", f"{way:.2f}")
    Console(stderr=True).print(table)
    names = list(dict.fromkeys(row[0] for row in rows))
    ways = [float(np.mean([row[5] for row in rows if row[0] == name])) for name in names]
    return {"databases": len(names), "tasks": len(rows), "way": float(np.mean(ways))}


if __name__ == "__main__":
    run_command(PlantedConfig, planted, prog="python -m benchmarks.planted", doc=__doc__)
