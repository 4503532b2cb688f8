"""Cells without the runs behind them, and a task small enough to count its answers by hand."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.cells import Cell, cell_path, write_cell
from rfm.data.database import open_database
from rfm.data.tasks import Task, open_task
from rfm.eval.predictions import Predictions
from tests.folders import write_folder

DNF, TOP3, POSITION = "rel-f1/driver-dnf", "rel-f1/driver-top3", "rel-f1/driver-position"


def cell(task: str = DNF, method: str = "rfm", seed: int = 0, **other: Any) -> Cell:
    """A cell with plausible values for what is not given."""
    test = other.setdefault("test", 0.8)
    given = {
        "regime": "frozen",
        "metric": "nmae" if task == POSITION else "roc_auc",
        "validation": test,
        "low": test,
        "high": test,
        "seconds": 10.0,
        "config": {"seed": seed, "lr": 1e-4, "optim": {"steps": 100}, "data": {"root": f"/{seed}"}},
        "versions": {"commit": "abc123", "device": "cpu"},
    }
    return Cell(task=task, method=method, seed=seed, **(given | other))


def put(results: Path, *cells: Cell) -> Path:
    """Write cells without predictions; returns the folder."""
    for one in cells:
        path = cell_path(results, one.task, one.regime, one.method, one.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(one)))
    return results


def coin_task(root: Path) -> Task:
    """Binary task ``coins/heads``: eight test rows, half of them 1."""
    write_folder(
        root / "coins",
        {
            "coins": pd.DataFrame({"id": range(8)}),
            "tosses": pd.DataFrame({"coin": [0, 1], "at": pd.to_datetime(["2019-01-01"] * 2)}),
        },
        {"coins": {"pkey": "id"}, "tosses": {"time_col": "at", "fkeys": {"coin": "coins"}}},
    )
    folder = root / "coins" / "tasks" / "heads"
    folder.mkdir(parents=True)
    manifest = {
        "name": "heads",
        "kind": "external",
        "task_type": "binary_classification",
        "description": "",
        "entity_table": "coins",
        "entity_col": "id",
        "target_col": "heads",
        "time_col": "date",
        "timedelta": "30 days",
        "manifest_version": 1,
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    for split, date in (("train", "2019-06-01"), ("val", "2020-01-01"), ("test", "2020-07-01")):
        rows = {"date": pd.Timestamp(date), "id": range(8), "heads": [0, 1] * 4}
        pd.DataFrame(rows).to_parquet(folder / f"{split}.parquet", index=False)
    return open_task(open_database(root / "coins"), "heads")


def put_predictions(results: Path, task: Task, one: Cell, probability: Any) -> None:
    """Write a cell and its test predictions."""
    rows = task.rows("test")
    value = np.asarray(probability, dtype=np.float64)[:, None]
    write_cell(results, one, task, Predictions(rows.entity, rows.time, value))
