"""Are probabilities what they say? Predicted against observed shares of positives, in bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cells import cell_path
from benchmarks.summary import Summary
from rfm.data.database import open_database
from rfm.data.tasks import Task, open_task
from rfm.eval.predictions import align, read_predictions

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Of each bin of equal width: predicted [BINS], observed [BINS]: mean probability and share of
    positives, NaN where it is empty. count [BINS]: rows, averaged over seeds."""

    predicted: npt.NDArray[np.float64]
    observed: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by rows."""
        distance = np.nan_to_num(np.abs(self.predicted - self.observed))
        return float((distance * self.count).sum() / self.count.sum())


def reliability(probability: npt.NDArray[Any], label: npt.NDArray[Any], seeds: int) -> Reliability:
    """
    Args:
        probability, label: [n * seeds], the rows of all seeds one after the other.
    """
    place = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    rows = np.where(count > 0, count, np.nan)
    predicted = np.bincount(place, weights=probability, minlength=BINS) / rows
    observed = np.bincount(place, weights=label, minlength=BINS) / rows
    return Reliability(predicted, observed, count / seeds)


def task_reliability(
    results: Path, summaries: Sequence[Summary], root: Path | None
) -> tuple[dict[str, Reliability], list[str]]:
    """Of each method with predictions, for summaries of one binary task in one regime; and what
    could not be had, and why, in words.

    Args:
        root: folder of RelBench folders, for the labels.

    Raises:
        ValueError: for a database or predictions that do not fit the results.
    """
    if root is None:
        return {}, ["labels are not known: the report was made without data.root"]
    database, name = summaries[0].first.task.split("/")
    if not (root / database / "manifest.yaml").is_file():
        return {}, [f"labels are not known: database {database} is not under data.root"]
    task = open_task(open_database(root / database), name)
    found, missing = {}, []
    for one in summaries:
        paths = [
            cell_path(results, c.task, c.regime, c.method, c.seed).with_suffix(".parquet")
            for c in one.cells
        ]
        if not all(path.is_file() for path in paths):
            missing.append(f"{one.first.method}: no predictions beside some of its results")
            continue
        probability, label = _pooled(task, paths)
        if probability.min() < 0 or probability.max() > 1:
            missing.append(f"{one.first.method}: its scores are no probabilities")
            continue
        found[one.first.method] = reliability(probability, label, len(paths))
    return found, missing


def _pooled(
    task: Task, paths: Sequence[Path]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Probabilities and labels of the labelled test rows, of all files."""
    rows = task.rows("test")
    values = [align(task, "test", read_predictions(task, path))[rows.labelled, 0] for path in paths]
    return np.concatenate(values), np.tile(rows.label[rows.labelled, 0], len(paths))
