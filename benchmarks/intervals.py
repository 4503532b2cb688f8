"""How sure a score is: 95% bootstrap interval over the rows of a split.

Rows are drawn with replacement, independently: rows of one entity or one seed time are not kept
together, so that the interval speaks of other rows of the same period, not of another period. A
resample is a weight per row [n], and every metric is computed for many resamples at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rfm.data.task_rows import TaskRows, TaskSplit
from rfm.data.tasks import Task
from rfm.eval.predictions import Predictions, align, relbench_task

Floats = npt.NDArray[np.float64]
Metric: TypeAlias = Callable[[Floats], Floats]
"""Weights of the rows [B, n] -> the metric [B], NaN where it is not defined."""
_CELLS = 2_000_000  # weights held at once


def interval(
    task: Task,
    split: TaskSplit,
    predictions: Predictions,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The bootstrap percentile interval of the task's metric, over the labelled rows of a split.

    Raises:
        ValueError: see ``align``.
    """
    rows = task.rows(split)
    value = align(task, split, predictions)[rows.labelled]
    n = len(value)
    metric = metric_of_weights(task, split, value)
    rng, chunk = np.random.default_rng(seed), max(1, _CELLS // n)
    drawn = []
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=count).astype(np.float64)
        drawn.append(metric(weights))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def metric_of_weights(task: Task, split: TaskSplit, value: Floats) -> Metric:
    """The task's metric as a function of the weights of a split's labelled rows, predicted as
    ``value`` [n, C]. With all weights 1 it is ``score``."""
    rows = task.rows(split)
    label = rows.label[rows.labelled]
    kind = task.task_type
    if kind == "binary_classification":
        return _auroc(label[:, 0], value[:, 0])
    if kind == "multilabel_classification":
        each = [_average_precision(label[:, c], value[:, c]) for c in range(label.shape[1])]
        return lambda weights: np.mean([one(weights) for one in each], axis=0)
    if kind == "multiclass_classification":
        return _mean_of((value.argmax(axis=1) == label[:, 0]).astype(np.float64))
    if kind == "regression":
        scale = float(relbench_task(task.database.folder, task.name).nmae_std)
        return _mean_of(np.abs(value[:, 0] - label[:, 0]) / scale)
    return _mean_of(average_precisions(rows, value.astype(np.int64)))


def average_precisions(rows: TaskRows, answer: npt.NDArray[np.int64]) -> Floats:
    """AP@k [n] of the answers [n, k] to the rows that have any destination (RelBench's MAP@k is
    their mean)."""
    start, found = rows.start, []
    for i, row in enumerate(np.flatnonzero(rows.labelled)):
        wanted = np.unique(rows.destination[start[row] : start[row + 1]])
        hit = np.isin(answer[i], wanted)
        precision = np.cumsum(hit) / np.arange(1, hit.size + 1)
        found.append(float((precision * hit).sum() / min(wanted.size, hit.size)))
    return np.array(found)


def _mean_of(each: Floats) -> Metric:
    return lambda weights: np.asarray(weights @ each / weights.sum(axis=1))


def _auroc(label: Floats, value: Floats) -> Metric:
    """Share of the pairs of a 1 and a 0 in the right order; pairs of equal values count half."""
    order, group = _groups(value)
    ones = label[order] == 1

    def metric(weights: Floats) -> Floats:
        weights = weights[:, order]
        one = np.add.reduceat(weights * ones, group, axis=1)
        zero = np.add.reduceat(weights * ~ones, group, axis=1)
        below = np.cumsum(zero, axis=1) - zero / 2
        pairs = one.sum(axis=1) * zero.sum(axis=1)
        return np.asarray((one * below).sum(axis=1) / np.where(pairs > 0, pairs, np.nan))

    return metric


def _average_precision(label: Floats, value: Floats) -> Metric:
    """Sum over thresholds of precision times the recall gained, as scikit-learn has it; 0 without
    any 1."""
    order, group = _groups(-value)
    ones = label[order] == 1

    def metric(weights: Floats) -> Floats:
        weights = weights[:, order]
        one = np.add.reduceat(weights * ones, group, axis=1)
        above = np.cumsum(np.add.reduceat(weights, group, axis=1), axis=1)
        precision = np.cumsum(one, axis=1) / np.maximum(above, 1)
        return np.asarray((precision * one).sum(axis=1) / np.maximum(one.sum(axis=1), 1))

    return metric


def _groups(value: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The order [n] that sorts values [n], and where in it each run of equal values starts."""
    order = np.argsort(value, kind="stable")
    value = value[order]
    return order, np.flatnonzero(np.concatenate([[True], value[1:] != value[:-1]]))
