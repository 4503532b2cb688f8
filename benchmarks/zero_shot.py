"""Ask a checkpoint about tasks of databases that it has never seen, without training.

    python -m benchmarks.zero_shot checkpoint=<folder> tasks=[rel-f1/driver-dnf] data.root=<folder>
    python -m benchmarks.zero_shot config=configs/benchmarks/zero_shot.yaml checkpoint=<folder> \
        data.root=<folder>

Tasks x regimes x checkpoints x sizes of the context x seeds of its draws, one result file per cell;
one that is there already is not made again. Beside each checkpoint stand logistic regression and
nearest neighbours on its states, and rules that need no model. A checkpoint that was pretrained on
the database is refused. At the end the report is written of all cells under ``results``.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.baselines import BaselinesConfig, open_tasks, run_baselines
from benchmarks.cells import Cell, cell_path, read_cell, write_cell
from benchmarks.intervals import interval
from benchmarks.readers import logistic_regression, nearest_neighbours
from benchmarks.report import write_report
from rfm.config import run_command, setting
from rfm.data.database import SourceConfig
from rfm.data.tasks import Regime, Task
from rfm.eval.asking import schema_seen, seen_before
from rfm.eval.predictions import (
    LEADERBOARDS,
    METRICS,
    check_scorable,
    score,
    write_leaderboard,
)
from rfm.eval.zero_shot import (
    ContextConfig,
    Reader,
    ZeroShot,
    ZeroShotRecommendation,
    check_askable,
    in_context,
    open_zero_shot,
)
from rfm.files import default_cache
from rfm.nn.model import RelationalModel
from rfm.train.build import with_random_backbone
from rfm.train.process import quieten, set_up_cpu
from rfm.train.run_dir import versions

_log = logging.getLogger("rfm")
_RULES = ("global constant", "entity mean", "last 10 labels", "popularity", "past destinations")


@dataclass(frozen=True)
class ZeroShotData(SourceConfig):
    """Where databases are."""

    cache: Path = setting(factory=default_cache, help="prepared databases and row states")


@dataclass(frozen=True)
class ZeroShotConfig:
    """Which cells."""

    tasks: tuple[str, ...] = setting(help="database/task, ...")
    regimes: tuple[Regime, ...] = setting(("frozen", "rolling"), help="frozen, rolling")
    checkpoint: str = setting("", help="one checkpoint more, called rfm")
    checkpoints: dict[str, str] = setting(factory=dict, help="name -> folder or Hub id")
    random_backbone: bool = setting(
        False, help="ask the first checkpoint with random weights below its head, too"
    )
    context: tuple[int, ...] = setting((0, 16, 64, 256, 1024), ge=0, help="examples, at most")
    seeds: int = setting(1, ge=1, help="0, 1, ...: other examples")
    rules: bool = setting(True, help="rules that need no model, too")
    ask: ContextConfig = setting(factory=ContextConfig)
    results: Path = setting(Path("runs/zero_shot"), help="cells of all methods")
    out: Path = setting(Path("runs/report"), help="tables and page")
    data: ZeroShotData = setting(factory=ZeroShotData)

    def __post_init__(self) -> None:
        if not self.tasks or not self.regimes or not self.context:
            raise ValueError("tasks, regimes and context: wanted one or more of each")
        if self.checkpoint and "rfm" in self.checkpoints:
            raise ValueError(
                "checkpoint=<folder> is called rfm, as is one of checkpoints: rename it"
            )
        if not self.checkpoints and not self.checkpoint:
            raise ValueError("nothing to ask: give checkpoint=<folder>, or checkpoints")
        wrong = [task for task in self.tasks if task.count("/") != 1]
        if wrong:
            raise ValueError(f"tasks={wrong}: wanted database/task, such as rel-f1/driver-dnf")


@dataclass(frozen=True)
class Asked:
    """A checkpoint under a name; source: its folder or Hub id, as the table tells it;
    cached: keep the states of its rows on disk."""

    name: str
    source: str
    model: RelationalModel
    cached: bool = True


def zero_shot(config: ZeroShotConfig) -> dict[str, Any]:
    """Ask what is not there yet, and write the report."""
    quieten()
    set_up_cpu()
    asked = open_checkpoints(config)
    data = SourceConfig(config.data.root, config.data.kinds)
    rules = BaselinesConfig(config.tasks, config.results, config.regimes, methods=_RULES, data=data)
    tasks = open_tasks(rules)
    for task in tasks:
        check_scorable(task)
        for one in asked:
            check_zero_shot(config, one, task)
    if config.rules:
        run_baselines(rules)
    run = 0
    for task in tasks:
        for one in asked:
            run += ask_task(config, one, task)
    paths = write_report(config.results, config.out, config.data.root)
    return {"run": run, **paths}


def open_checkpoints(config: ZeroShotConfig) -> list[Asked]:
    """
    Raises:
        ValueError: see ``RelationalModel.from_pretrained``.
    """
    sources = dict(config.checkpoints)
    if config.checkpoint:
        sources["rfm"] = config.checkpoint
    device = "cuda" if torch.cuda.is_available() else "cpu"
    asked = [
        Asked(name, source, RelationalModel.from_pretrained(source, device=device))
        for name, source in sources.items()
    ]
    if config.random_backbone:
        first = asked[0]
        name = f"{first.name} with a random backbone"
        asked.append(Asked(name, first.source, with_random_backbone(first.model, seed=0), False))
    return asked


def check_zero_shot(config: ZeroShotConfig, one: Asked, task: Task) -> None:
    """
    Raises:
        ValueError: if the checkpoint has seen the task's database; see also ``check_askable``.
    """
    check_askable(one.model, task, config.ask.max_tokens)
    if seen := seen_before(one.model.about, task):
        raise ValueError(
            f"{task.full_name}, checkpoint {one.source}: {seen[0]}, so that its answers are not "
            "zero-shot: leave the task out, or pretrain without the database (data.databases)"
        )


def ask_task(config: ZeroShotConfig, one: Asked, task: Task) -> int:
    """The cells of one checkpoint on one task that are not there yet; returns how many."""
    readers: dict[str, Reader] = {
        "": in_context(one.model),
        ", logistic regression": logistic_regression,
        ", nearest neighbours": nearest_neighbours,
    }
    asker, run = None, 0
    for regime in dict.fromkeys(config.regimes):
        for seed in range(config.seeds):
            for context in dict.fromkeys(config.context):
                alone = context == 0 or task.task_type == "recommendation"
                own = {"": readers[""]} if alone else readers
                names = {kind: method_name(one, kind, context) for kind in own}
                paths = [
                    cell_path(config.results, task.full_name, regime, name, seed)
                    for name in names.values()
                ]
                if all(_is_made(config, one, path) for path in paths):
                    continue
                asker = asker or open_zero_shot(
                    one.model, task, config.data.cache, config.ask, one.cached
                )
                for kind, cell in _ask(config, one, asker, (regime, context, seed), own).items():
                    run += 1
                    _log.info(
                        "%s %s, %s, seed %d: validation %.4f, test %.4f (%.1f s)", cell.task,
                        regime, names[kind], seed, cell.validation, cell.test, cell.seconds,
                    )  # fmt: skip
    return run


def method_name(one: Asked, kind: str, context: int) -> str:
    """As tables and folders of results call the answers of a reader."""
    return f"{one.name}{kind}, context {context}"


def _is_made(config: ZeroShotConfig, one: Asked, path: Path) -> bool:
    """Whether a cell is there.

    Raises:
        ValueError: if it is there, of another checkpoint or asked otherwise.
    """
    if not path.is_file():
        return False
    cell, wanted = read_cell(path), _settings(config)
    if (cell.checkpoint, cell.config["ask"]) != (one.source, wanted):
        raise ValueError(
            f"{path} is of checkpoint {cell.checkpoint}, asked with {cell.config['ask']}, wanted "
            f"{one.source} and {wanted}: give another name (checkpoints), other results, or delete "
            "it"
        )
    return True


def _settings(config: ZeroShotConfig) -> dict[str, Any]:
    return dict(json.loads(json.dumps(asdict(config.ask))))


def _ask(
    config: ZeroShotConfig,
    one: Asked,
    asker: ZeroShot | ZeroShotRecommendation,
    which: tuple[Regime, int, int],
    readers: Mapping[str, Reader],
) -> dict[str, Cell]:
    task, (regime, context, seed) = asker.task, which
    start = time.perf_counter()
    val = asker.ask("val", regime, context, seed, readers)
    test = asker.ask("test", regime, context, seed, readers)
    seconds = time.perf_counter() - start
    cells = {}
    for kind in test:
        predictions = test[kind].predictions
        low, high = interval(task, "test", predictions)
        cell = cells[kind] = Cell(
            task=task.full_name,
            regime=regime,
            method=method_name(one, kind, context),
            seed=seed,
            metric=METRICS[task.task_type],
            validation=score(task, "val", val[kind].predictions),
            test=score(task, "test", predictions),
            low=low,
            high=high,
            seconds=seconds,
            checkpoint=one.source,
            pretraining=tuple(sorted(one.model.about.get("databases", {}))),
            context=context,
            warnings=(*schema_seen(one.model.about, asker.store), *test[kind].warnings),
            config={"ask": _settings(config), "context": context},
            versions=versions(),
        )
        path = write_cell(config.results, cell, task, predictions)
        if task.task_type in LEADERBOARDS:
            write_leaderboard(task, predictions, path.parent / f"leaderboard-{seed}")
    return cells


if __name__ == "__main__":
    run_command(ZeroShotConfig, zero_shot, prog="python -m benchmarks.zero_shot", doc=__doc__)
