"""Fine-tune on many tasks: tasks x regimes x methods x seeds, one result file per cell.

    python -m benchmarks.finetuned checkpoint=<folder> tasks=[rel-f1/driver-dnf] data.root=<folder>
    python -m benchmarks.finetuned config=configs/benchmarks/finetuned.yaml data.root=<folder>

A method is a name and the words that ``python -m finetune`` takes besides database, task, regime
and seed. A cell that is there already is not run again. At the end the report is written of all
cells under ``results``, those of ``python -m benchmarks.baselines`` included.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, cell_path, write_cell
from benchmarks.intervals import interval
from benchmarks.report import write_report
from finetune.__main__ import finetune
from finetune.config import FinetuneConfig, TaskData
from rfm.config import load_config, run_command, setting
from rfm.data.database import open_source
from rfm.data.tasks import Regime, Task, open_task
from rfm.eval.predictions import read_predictions
from rfm.train.run_dir import versions
from rfm.train.tuned import finished_seed

_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class FinetunedConfig:
    """Which cells."""

    tasks: tuple[str, ...] = setting(help="database/task, ...")
    regimes: tuple[Regime, ...] = setting(("frozen",), help="frozen, rolling")
    checkpoint: str = setting("", help="one method more: rfm, from this checkpoint by default keys")
    methods: dict[str, list[str]] = setting(
        factory=dict, help="name -> words of python -m finetune, such as checkpoint=none"
    )
    regime_words: dict[str, list[str]] = setting(
        factory=dict, help="regime -> more such words, for all methods"
    )
    seeds: int = setting(5, ge=1)
    results: Path = setting(Path("runs/results"), help="cells of all methods")
    out: Path = setting(Path("runs/report"), help="tables and page")
    data: TaskData = setting(factory=TaskData)

    def __post_init__(self) -> None:
        if not self.tasks or not self.regimes:
            raise ValueError("tasks and regimes: wanted one or more of each")
        if not self.methods and not self.checkpoint:
            raise ValueError("nothing to fine-tune: give checkpoint=<folder>, or methods")
        wrong = [task for task in self.tasks if task.count("/") != 1]
        if wrong:
            raise ValueError(f"tasks={wrong}: wanted database/task, such as rel-f1/driver-dnf")


def finetuned(config: FinetunedConfig) -> dict[str, Any]:
    """Run the cells that are not there yet, and write the report."""
    methods = dict(config.methods)
    if config.checkpoint:
        methods["rfm"] = [f"checkpoint={config.checkpoint}"]
    cells = [
        _tuning(config, methods[method], task, regime, seed, method)
        for task in config.tasks
        for regime in config.regimes
        for method in methods
        for seed in range(config.seeds)
    ]  # all of them are read before any is run, so that a mistake shows at once
    for task in config.tasks:
        _open(config, *task.split("/"))
    new = [cell for cell in cells if not _path(config, *cell).is_file()]
    for i, (method, tuning) in enumerate(new):
        _log.info("cell %d of %d: %s", i + 1, len(new), _path(config, method, tuning))
        _run(config, method, tuning)
    ours = tuple(methods)
    paths = write_report(config.results, config.out, config.data.root, ours=ours)
    return {"cells": len(cells), "run": len(new), **paths}


def _tuning(
    config: FinetunedConfig, words: list[str], task: str, regime: Regime, seed: int, method: str
) -> tuple[str, FinetuneConfig]:
    """A cell: its method, and what is to be run."""
    database, name = task.split("/")
    run_dir = config.results / "runs" / regime / task / method
    own = [*words, *config.regime_words.get(regime, [])]
    given = [f"database={database}", f"task={name}", f"regime={regime}", f"seed={seed}"]
    tuning = load_config(FinetuneConfig, [*own, *given], prog=f"methods[{method}]", doc=None)
    own_data = replace(
        tuning.data, root=config.data.root, cache=config.data.cache, kinds=config.data.kinds
    )
    return method, replace(tuning, run_dir=run_dir, data=own_data)


def _open(config: FinetunedConfig, database: str, task: str) -> Task:
    return open_task(open_source(database, config.data.root, config.data.kinds), task)


def _path(config: FinetunedConfig, method: str, tuning: FinetuneConfig) -> Path:
    task = f"{tuning.database}/{tuning.task}"
    return cell_path(config.results, task, tuning.regime, method, tuning.seed)


def _run(config: FinetunedConfig, method: str, tuning: FinetuneConfig) -> None:
    finetune(tuning)
    assert tuning.run_dir is not None
    folder = tuning.run_dir / f"seed-{tuning.seed}"
    result = finished_seed(folder)
    assert result is not None
    task = _open(config, tuning.database, tuning.task)
    predictions = read_predictions(task, folder / "test.parquet")
    low, high = interval(task, "test", predictions)
    cell = Cell(
        task=result["task"],
        regime=tuning.regime,
        method=method,
        seed=tuning.seed,
        metric=result["metric"],
        validation=result["validation"],
        test=result["test"],
        low=low,
        high=high,
        seconds=result["seconds"],
        checkpoint=result["checkpoint"],
        pretraining=tuple(result["pretraining"]),
        warnings=tuple(result["warnings"]),
        curve=tuple((int(step), float(value)) for step, value in result["curve"]),
        config=_shown(asdict(tuning), result),
        versions=versions(),
    )
    write_cell(config.results, cell, task, predictions)


def _shown(config: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run's config what makes its numbers, without where its files are, and with what ``auto``
    stood for."""
    data = {key: config["data"][key] for key in ("serialisation", "vocab_size")}
    decided = {"data": data, "parts": result["parts"], "precision": result["precision"]}
    return {**{key: v for key, v in config.items() if key != "run_dir"}, **decided}


if __name__ == "__main__":
    run_command(FinetunedConfig, finetuned, prog="python -m benchmarks.finetuned", doc=__doc__)
