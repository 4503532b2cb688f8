"""One result, one file: what a method scored on a task, and everything needed to get it again.

    <results>/<regime>/<database>/<task>/<method>/seed-<n>.json      the cell
    <results>/<regime>/<database>/<task>/<method>/seed-<n>.parquet   its test predictions

The predictions are written first: where the cell is, both are, and it need not be run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rfm.data.tasks import Regime, Task
from rfm.eval.predictions import Predictions, write_predictions
from rfm.files import publish


@dataclass(frozen=True)
class Cell:
    """A method's scores on one task.

    task: ``database/task``. method: as the tables call it, fit to name a folder. low, high: 95%
    bootstrap interval of the test score (both the score itself where none was drawn). checkpoint:
    what was fine-tuned ("" for methods without one), pretrained on the databases ``pretraining``.
    context: of how many examples a zero-shot answer is made; -1 for others.
    warnings: what a reader must know, such as that the checkpoint has seen the database. curve:
    (step, validation score). config and versions: of the run (``rfm.train.run_dir.versions``).
    """

    task: str
    regime: Regime
    method: str
    seed: int
    metric: str
    validation: float
    test: float
    low: float
    high: float
    seconds: float
    checkpoint: str = ""
    pretraining: tuple[str, ...] = ()
    context: int = -1
    warnings: tuple[str, ...] = ()
    curve: tuple[tuple[int, float], ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


def cell_path(results: Path, task: str, regime: Regime, method: str, seed: int) -> Path:
    """Where a cell's file is, or would be."""
    return results / regime / task / method / f"seed-{seed}.json"


def write_cell(results: Path, cell: Cell, task: Task, predictions: Predictions) -> Path:
    """The cell and its test predictions; returns the cell's path."""
    path = cell_path(results, cell.task, cell.regime, cell.method, cell.seed)
    write_predictions(task, predictions, path.with_suffix(".parquet"))
    with publish(path) as temporary:
        temporary.write_text(json.dumps(asdict(cell), indent=2, default=str) + "\n")
    return path


def read_cell(path: Path) -> Cell:
    """
    Raises:
        ValueError: if the file is damaged or another version's.
    """
    try:
        content = json.loads(path.read_text())
        content["curve"] = tuple((int(step), float(value)) for step, value in content["curve"])
        for name in ("pretraining", "warnings"):
            content[name] = tuple(content[name])
        return Cell(**content)
    except (OSError, ValueError, TypeError, KeyError) as error:
        known = ", ".join(f.name for f in fields(Cell))
        raise ValueError(
            f"{path} is no result ({error!r}), wanted JSON with {known}: delete it, and it is made "
            "again"
        ) from None


def read_cells(results: Path) -> list[Cell]:
    """All cells of a folder of results, by path."""
    return [read_cell(path) for path in sorted(results.glob("*/*/*/*/seed-*.json"))]
