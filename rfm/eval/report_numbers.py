"""The numbers behind a report of predictions: scores per anchor time, calibration, signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rfm.data.task_rows import TaskType
from rfm.eval.predictions import HIGH, LABEL, LOW, PREDICTION

BINS = 10
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """Rows in bins of their prediction. expected, observed [n]: means of the prediction and of the
    label. low, high [n]: between which the label lies (see who makes them). rows [n]: how many."""

    expected: Floats
    observed: Floats
    low: Floats
    high: Floats
    rows: npt.NDArray[np.int64]

    @property
    def error(self) -> float:
        """Mean distance of expected and observed, weighted by rows: with bins of probabilities,
        the expected calibration error."""
        return float(np.average(np.abs(self.expected - self.observed), weights=self.rows))

    @property
    def chance_error(self) -> float:
        """About what ``error`` would be of probabilities that hold: what chance makes of as many
        rows (the mean distance of a normal distribution)."""
        spread = np.sqrt(2 / np.pi * self.expected * (1 - self.expected) / self.rows)
        return float(np.average(spread, weights=self.rows))


@dataclass(frozen=True)
class SignalTotal:
    """A path, table and column over all explanations. strength: mean |weight|, weight: mean weight,
    both with 0 where it does not appear; appears: in how many explanations."""

    path: tuple[str, ...]
    table: str
    column: str
    strength: float
    weight: float
    appears: int


def known(backtest: pd.DataFrame, task_type: TaskType) -> pd.DataFrame:
    """The rows whose label is known and whose prediction is one."""
    there = backtest[PREDICTION].notna() & backtest[LABEL].notna()
    frame: pd.DataFrame = backtest[there]
    if task_type in ("binary_classification", "regression"):
        frame = frame.assign(
            **{c: pd.to_numeric(frame[c]).astype("float64") for c in (LABEL, PREDICTION)}
        )
        frame = frame[np.isfinite(frame[[LABEL, PREDICTION]]).all(axis=1)]
    return frame


def scores(frame: pd.DataFrame, task_type: TaskType) -> dict[str, float]:
    """Metrics of known rows by name, NaN where one is not defined; and `rows`.

    Of recommendations, k is the length of the longest list. RelBench's MAP@k: precisions at the
    hits / min(k, labels).
    """
    if task_type == "recommendation":
        return _ranking_scores(frame)
    from sklearn import metrics  # slow import, which answers do without

    label, prediction = frame[LABEL].to_numpy(), frame[PREDICTION].to_numpy()
    if task_type == "binary_classification":
        both = np.unique(label).size > 1
        found = {
            "AUROC": float(metrics.roc_auc_score(label, prediction)) if both else np.nan,
            "average precision": (
                float(metrics.average_precision_score(label, prediction)) if label.any() else np.nan
            ),
            "accuracy": float(((prediction >= 0.5) == (label > 0.5)).mean()),
            "share of positives": float(label.mean()),
        }
    elif task_type == "multiclass_classification":
        label, prediction = label.astype(str), prediction.astype(str)
        found = {
            "accuracy": float(metrics.accuracy_score(label, prediction)),
            "macro F1": float(
                metrics.f1_score(label, prediction, average="macro", zero_division=0)
            ),
            "share of the commonest class": float(
                np.unique(label, return_counts=True)[1].max() / len(label)
            ),
        }
    else:
        spread = len(label) > 1 and np.ptp(label) > 0
        found = {
            "MAE": float(metrics.mean_absolute_error(label, prediction)),
            "RMSE": float(metrics.root_mean_squared_error(label, prediction)),
            "R²": float(metrics.r2_score(label, prediction)) if spread else np.nan,
        }
        if {LOW, HIGH} <= set(frame.columns):
            found["coverage"] = coverage(frame)
    return {"rows": len(frame), **found}


def _ranking_scores(frame: pd.DataFrame) -> dict[str, float]:
    hits = hits_by_rank(frame)
    k = hits.shape[1]
    wanted = np.array([len(set(map(str, label))) for label in frame[LABEL]])
    asked = wanted > 0
    hits, wanted = hits[asked], wanted[asked]
    if not k or not len(hits):
        return {"rows": len(hits), "MAP": np.nan, "recall": np.nan, "hit rate": np.nan}
    precision = hits.cumsum(axis=1) / np.arange(1, k + 1)
    return {
        "rows": len(hits),
        f"MAP@{k}": float(((precision * hits).sum(axis=1) / np.minimum(wanted, k)).mean()),
        f"recall@{k}": float((hits.sum(axis=1) / wanted).mean()),
        "hit rate": float(hits.any(axis=1).mean()),
    }


def hits_by_rank(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """[n, k]: whether what stands at a rank of a recommendation is among the labels."""
    k = max(map(len, frame[PREDICTION]), default=0)
    hits = np.zeros((len(frame), k), dtype=bool)
    for row, (label, ranked) in enumerate(zip(frame[LABEL], frame[PREDICTION], strict=True)):
        right = set(map(str, label))
        hits[row, : len(ranked)] = [str(one) in right for one in ranked]
    return hits


def scores_by_time(frame: pd.DataFrame, time: str, task_type: TaskType) -> pd.DataFrame:
    """`scores` of each anchor time, in the order of time: columns `time` and the metrics."""
    rows = [
        {"time": moment, **scores(group, task_type)}
        for moment, group in frame.groupby(time, sort=True, dropna=False)
    ]
    table: pd.DataFrame = pd.DataFrame(rows)
    return table


def coverage(frame: pd.DataFrame) -> float:
    """The share of labels that lie in their interval, bounds included."""
    low, high = (pd.to_numeric(frame[c]).to_numpy("float64") for c in (LOW, HIGH))
    label = frame[LABEL].to_numpy("float64")
    return float(((low <= label) & (label <= high)).mean())


def reliability(probability: Floats, happened: Floats) -> Bins:
    """Bins of equal width of a probability [n]; low, high: 95% interval of the observed share
    (Wilson 1927)."""
    place = np.clip((probability * BINS).astype(np.int64), 0, BINS - 1)
    rows = np.bincount(place, minlength=BINS)
    filled = rows > 0
    n = rows[filled]
    expected = np.bincount(place, weights=probability, minlength=BINS)[filled] / n
    observed = np.bincount(place, weights=happened, minlength=BINS)[filled] / n
    z = 1.96
    middle = (observed + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(observed * (1 - observed) / n + z**2 / (4 * n**2))
    return Bins(expected, observed, middle - half, middle + half, n)


def actual_by_predicted(prediction: Floats, label: Floats) -> Bins:
    """Bins of as many rows each, by a predicted number [n]; low, high: between which the middle 80%
    of labels lie. Equal predictions stay together."""
    edges = np.unique(np.quantile(prediction, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = np.searchsorted(edges, prediction, side="left")
    groups = [place == i for i in np.unique(place)]
    return Bins(
        np.array([prediction[g].mean() for g in groups]),
        np.array([label[g].mean() for g in groups]),
        np.array([np.quantile(label[g], 0.1) for g in groups]),
        np.array([np.quantile(label[g], 0.9) for g in groups]),
        np.array([int(g.sum()) for g in groups]),
    )


def confidence(frame: pd.DataFrame, classes: Mapping[str, str]) -> tuple[Floats, Floats]:
    """Of each row [n] the probability of the class that is predicted, and whether it is right."""
    probability = frame[list(classes.values())].to_numpy("float64")
    place = {name: i for i, name in enumerate(map(str, classes))}
    at = frame[PREDICTION].astype(str).map(place).to_numpy("float64")
    assert not np.isnan(at).any()
    right = frame[PREDICTION].astype(str).to_numpy() == frame[LABEL].astype(str).to_numpy()
    return probability[np.arange(len(at)), at.astype(int)], right.astype("float64")


def class_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Per class, commonest first: labelled, predicted, precision and recall (NaN where none)."""
    label, prediction = frame[LABEL].astype(str), frame[PREDICTION].astype(str)
    table: pd.DataFrame = pd.DataFrame(
        {
            "labelled": label.value_counts(),
            "predicted": prediction.value_counts(),
            "right": label[label == prediction].value_counts(),
        }
    ).fillna(0)
    table["precision"] = table["right"] / table["predicted"].where(table["predicted"] > 0)
    table["recall"] = table["right"] / table["labelled"].where(table["labelled"] > 0)
    by = ["labelled", "predicted"]
    ordered: pd.DataFrame = table.sort_values(by, ascending=False, kind="stable")
    return ordered


def steps(path: str | Sequence[Any]) -> tuple[str, ...]:
    """A path of foreign keys as its steps; one that is in words is a single step."""
    every = (path,) if isinstance(path, str) else path
    return tuple(str(step) for step in every if str(step))


def total_signals(explanations: Sequence[Mapping[str, Any]]) -> list[SignalTotal]:
    """Signals of all explanations by path, table and column, strongest first."""
    found: dict[tuple[tuple[str, ...], str, str], dict[int, float]] = {}
    for i, explanation in enumerate(explanations):
        for signal in explanation["signals"]:
            path = steps(signal["path"])
            of = found.setdefault((path, str(signal["table"]), str(signal["column"])), {})
            weight = float(signal["weight"])
            of[i] = of.get(i, 0.0) + (weight if np.isfinite(weight) else 0.0)
    totals = [
        SignalTotal(
            *key,
            sum(map(abs, weights.values())) / len(explanations),
            sum(weights.values()) / len(explanations),
            len(weights),
        )
        for key, weights in found.items()
    ]
    return sorted(totals, key=lambda t: (-t.strength, t.path, t.table, t.column))
