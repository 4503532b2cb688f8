"""Baselines without learning, of what is known about the past labels of an entity.

Where a rule does not know an entity it gives the global constant: the mean of the training labels
(for classes and labels their shares), the median in a regression, whose metric is the absolute
error.
"""

from __future__ import annotations

import numpy as np

from benchmarks.answer import ASKED, Answer
from benchmarks.choosing import best_on_validation
from rfm.data.label_history import Floats, LabelHistory, label_history, outcomes
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.predictions import Predictions


def global_constant(task: Task, regime: Regime, seed: int) -> Answer:
    """The same for every row."""
    constant = training_constant(task)
    values = {split: np.tile(constant, (len(task.rows(split)), 1)) for split in ASKED}
    return _answer(task, values, {"constant": constant.tolist()})


def entity_mean(task: Task, regime: Regime, seed: int) -> Answer:
    """The mean of all visible labels of the entity; in a regression their median, if validation
    rows prefer it."""
    labels, constant = label_history(task), training_constant(task)
    ranges = {split: _visible(task, labels, split, regime) for split in ASKED}
    kinds = {"mean": labels.mean}
    if task.task_type == "regression":
        kinds["median"] = labels.median
    values = {
        kind: {split: _filled(of(*ranges[split]), constant) for split in ASKED}
        for kind, of in kinds.items()
    }
    best, scores = best_on_validation(task, {kind: v["val"] for kind, v in values.items()})
    return _answer(task, values[best], {"of": best, "validation": scores})


def last_labels(task: Task, regime: Regime, seed: int, *, count: int) -> Answer:
    """The mean of the ``count`` most recent visible labels of the entity."""
    labels, constant = label_history(task), training_constant(task)
    values = {
        split: _filled(_last(task, labels, split, regime, count), constant) for split in ASKED
    }
    return _answer(task, values, {"count": count})


def last_labels_or_unseen_rate(task: Task, regime: Regime, seed: int, *, count: int) -> Answer:
    """The mean of the last ``count`` visible labels; without any, the rate of the unseen.

    That is the mean label of the past questions, known by the cutoff, whose entity had no visible
    label either, had they been asked with the same staleness (seed time - cutoff): who is still
    unseen after three years has been around, who is unseen after a month is new.
    """
    labels, constant = label_history(task), training_constant(task)
    values = {}
    for split in ASKED:
        value = _last(task, labels, split, regime, count)
        unseen = np.isnan(value).any(axis=1)
        cutoff = task.cutoffs(split, regime)[unseen]
        stale = task.rows(split).time[unseen] - cutoff
        value[unseen] = unseen_rate(labels, cutoff, stale)
        values[split] = _filled(value, constant)
    return _answer(task, values, {"count": count})


def unseen_rate(labels: LabelHistory, cutoff: Ints, stale: Ints) -> Floats:
    """Mean outcome [m, C] of the labels known by cutoffs [m] of questions that would have seen no
    label of their own group, had they been asked ``stale`` [m] seconds late; NaN where there is
    none."""
    starts = np.concatenate([[True], labels.group[1:] != labels.group[:-1]])[: labels.group.size]
    first_known = labels.known[np.flatnonzero(starts)][np.cumsum(starts) - 1]
    behind = labels.asked - first_known  # below the staleness: nothing was seen
    pairs, back = np.unique(np.stack([cutoff, stale], axis=1), axis=0, return_inverse=True)
    rates = np.full((len(pairs), labels.outcome.shape[1]), np.nan)
    for i, (until, late) in enumerate(pairs):
        alike = (labels.known <= until) & (behind < late)
        if alike.any():
            rates[i] = labels.outcome[alike].mean(axis=0)
    return np.asarray(rates[back.ravel()])


def training_constant(task: Task) -> Floats:
    """[C] over the labelled training rows: their mean, or the median in a regression."""
    outcome = outcomes(task, task.rows("train"))
    known = outcome[~np.isnan(outcome).any(axis=1)]
    middle = np.median if task.task_type == "regression" else np.mean
    return np.asarray(middle(known, axis=0), dtype=np.float64)


def _visible(
    task: Task, labels: LabelHistory, split: TaskSplit, regime: Regime
) -> tuple[Ints, Ints]:
    return labels.visible(task.rows(split).entity, task.cutoffs(split, regime))


def _last(task: Task, labels: LabelHistory, split: TaskSplit, regime: Regime, count: int) -> Floats:
    start, end = _visible(task, labels, split, regime)
    return labels.mean(np.maximum(start, end - count), end)


def _filled(value: Floats, constant: Floats) -> Floats:
    return np.asarray(np.where(np.isnan(value), constant, value))


def _answer(task: Task, values: dict[TaskSplit, Floats], config: dict[str, object]) -> Answer:
    val, test = (Predictions.of(task, split, values[split]) for split in ASKED)
    return Answer(val, test, config)
