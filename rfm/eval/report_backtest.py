"""How the question went at past anchor times, and whether probabilities and intervals hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rfm.eval.predictions import HIGH, LABEL, LOW, PREDICTION
from rfm.eval.report_charts import (
    columns,
    day,
    expected_and_observed,
    lines_over_time,
    short_number,
)
from rfm.eval.report_numbers import (
    Bins,
    actual_by_predicted,
    class_table,
    confidence,
    coverage,
    hits_by_rank,
    known,
    reliability,
    scores,
    scores_by_time,
)
from rfm.eval.report_parts import Figure, Grid, Section, count, spell

if TYPE_CHECKING:
    from rfm.eval.report import PredictionRun

_MOST_TIMES, _CLASSES = 60, 12
_PERCENT = ("accuracy", "coverage", "share of positives", "share of the commonest class")
_HOLDS, _ROUGH, _TOO_FEW = 0.03, 0.08, 0.05  # of probabilities: what they may be off by
_NONE = "no past anchor time with known labels was asked about"


def headline(run: PredictionRun) -> tuple[str, float, int]:
    """The name and value of the first metric over all past answers, and how many those are."""
    frame = known(run.backtest, run.task_type)
    if not len(frame):
        return "", float("nan"), 0
    found = scores(frame, run.task_type)
    name = next(name for name in found if name != "rows")
    return name, found[name], int(found["rows"])


def verdict(run: PredictionRun) -> str:
    """In one sentence whether probabilities, or intervals, held at past anchor times; nothing of
    what has none."""
    frame = run.backtest if len(run.backtest) else run.predictions
    intervals, answered = run.task_type == "regression", run.task_type == "binary_classification"
    if not (answered or run.classes or (intervals and {LOW, HIGH} <= set(frame.columns))):
        return ""
    what = "intervals" if intervals else "probabilities"
    past = known(run.backtest, run.task_type) if len(run.backtest) else run.backtest
    if not len(past):
        why = "no label of the backtest is known" if len(run.backtest) else "there was no backtest"
        return f"Whether {what} hold is not known: {why}."
    if intervals:
        return _judged_intervals(coverage(past), len(past), run.interval)
    if answered:
        given = tuple(past[c].to_numpy("float64") for c in (PREDICTION, LABEL))
        return _judged(reliability(*given), "Probabilities")
    return _judged(
        reliability(*confidence(past, run.classes)), "Probabilities of the answers given"
    )


def _judged(bins: Bins, which: str) -> str:
    """Probabilities by their error, beside what chance alone would make of as many answers."""
    error, chance, rows = bins.error, bins.chance_error, int(bins.rows.sum())
    said = (
        f"{which} were off by {_points(error)} on average in the backtest "
        f"({count(rows, 'answer')}; chance alone makes about {100 * chance:.1f})"
    )
    over = float(np.average(bins.expected - bins.observed, weights=bins.rows))
    way = f", on the whole too {'high' if over > 0 else 'low'}" if abs(over) > error / 2 else ""
    if chance > _TOO_FEW:
        return f"{said}: too few answers to tell whether they hold."
    if error <= max(_HOLDS, 1.5 * chance):
        return f"{said}: they hold."
    if error <= _ROUGH:
        return f"{said}{way}: take them as rough."
    return f"{said}{way}: trust their order, not their size."


def _judged_intervals(inside: float, rows: int, wanted: float) -> str:
    said = (
        f"{inside:.1%} of past outcomes lay between {LOW} and {HIGH}, {wanted:.0%} should "
        f"({count(rows, 'answer')} of the backtest)"
    )
    chance = float(np.sqrt(wanted * (1 - wanted) / rows))
    if chance > _TOO_FEW:
        return f"{said}: too few answers to tell whether intervals hold."
    if abs(inside - wanted) <= max(_HOLDS, 2 * chance):
        return f"{said}: intervals hold."
    return f"{said}: intervals are too {'narrow' if inside < wanted else 'wide'}."


def _points(share: float) -> str:
    return f"{100 * share:.1f} percentage points"


def backtest_section(run: PredictionRun) -> Section:
    """Metrics at each past anchor time and over all."""
    title = "Backtest"
    frame = known(run.backtest, run.task_type) if len(run.backtest) else run.backtest
    if not len(frame):
        why = "none of its labels is known" if len(run.backtest) else _NONE
        return Section("backtest", title, [f"There are no past scores: {why}."])
    overall = scores(frame, run.task_type)
    by_time = scores_by_time(frame, run.time, run.task_type)
    names = [name for name in overall if name != "rows"]
    sentences = [
        f"The same question at {count(by_time['time'].nunique(), 'past anchor time')}, "
        f"{count(int(overall['rows']), 'answer')} whose label is known by now."
        if by_time["time"].notna().any()
        else f"{count(int(overall['rows']), 'answer')} to the same question whose label is known."
    ]
    if left_out := len(run.backtest) - len(frame):
        sentences.append(f"{count(left_out, 'row')} without a label or a prediction left out.")
    if run.task_type == "binary_classification" and by_time["AUROC"].isna().any():
        single = int(by_time["AUROC"].isna().sum())
        sentences.append(
            f"AUROC is not defined at {count(single, 'anchor time')}, where all labels are equal."
        )
    figures = []
    if by_time["time"].isna().all():
        sentences.append("These answers have no anchor times, so nothing is drawn over time.")
    elif by_time["time"].nunique() < 2:
        sentences.append("There is one past anchor time only, so nothing is drawn over time.")
    else:
        figures = _figures(by_time.dropna(subset=["time"]), names)
    return Section("backtest", title, sentences, figures, [], [_grid(by_time, overall, names)])


def _figures(by_time: pd.DataFrame, names: list[str]) -> list[Figure]:
    """Metrics between 0 and 1 in one chart, of numbers' errors one each."""
    moments = list(by_time["time"])
    numbers = "MAE" in names
    together = [["MAE", "RMSE"], ["R²"], ["coverage"]] if numbers else [names]
    figures = []
    for group in together:
        series = {n: by_time[n].to_numpy("float64") for n in group if n in by_time}
        if not any(np.isfinite(one).any() for one in series.values()):
            continue
        said = f"{', '.join(series)} by past anchor time"
        bounds = (0.0, 1.0) if not numbers or group == ["coverage"] else None
        if group == ["MAE", "RMSE"]:
            bounds = (0.0, 0.0)
        svg = lines_over_time(said, moments, series, group == ["coverage"], bounds)
        legend = list(series) if len(series) > 1 else []
        figures.append(
            Figure(
                svg,
                "Scores by past anchor time." if legend else f"{said[0].upper()}{said[1:]}.",
                legend,
            )
        )
    return figures


def _grid(by_time: pd.DataFrame, overall: dict[str, float], names: list[str]) -> Grid:
    rows = [["all", f"{int(overall['rows']):,}", *(_score(n, overall[n]) for n in names)]]
    for _, row in by_time.tail(_MOST_TIMES)[::-1].iterrows():
        scored = [_score(name, row[name]) if name in row else "–" for name in names]
        rows.append([day(row["time"]), f"{int(row['rows']):,}", *scored])
    caption = "Scores over all past answers, and by anchor time, latest first"
    if len(by_time) > _MOST_TIMES:
        caption += f"; {len(by_time) - _MOST_TIMES:,} earlier anchor times are not shown"
    head = ["anchor time", "rows", *names]
    return Grid(f"{caption}.", head, rows, [False] + [True] * (len(head) - 1))


def _score(name: str, value: float) -> str:
    if not np.isfinite(value):
        return "–"
    if name in _PERCENT:
        return f"{value:.1%}"
    return short_number(value) if name in ("MAE", "RMSE") else f"{value:.3f}"


def calibration_section(run: PredictionRun) -> Section:
    """Predicted against observed, over all past anchor times."""
    title = "Calibration"
    if not len(run.backtest):
        return Section("calibration", title, [f"Calibration is not known: {_NONE}."])
    frame = known(run.backtest, run.task_type)
    if not len(frame):
        why = "no label of the backtest is known"
        return Section("calibration", title, [f"Calibration is not known: {why}."])
    if run.task_type == "binary_classification":
        return _of_probabilities(frame, title)
    if run.task_type == "regression":
        return _of_numbers(frame, title, run.interval)
    if run.task_type == "multiclass_classification":
        return _of_classes(frame, title, run)
    return _of_rankings(frame, title)


def _of_probabilities(frame: pd.DataFrame, title: str) -> Section:
    probability, label = frame[PREDICTION].to_numpy("float64"), frame[LABEL].to_numpy("float64")
    bins = reliability(probability, label)
    brier = float(((probability - label) ** 2).mean())
    sentences = [
        f"On average {probability.mean():.1%} was predicted and {label.mean():.1%} came true. "
        f"Expected calibration error {bins.error:.3f}, Brier score {brier:.3f}."
    ]
    caption = "How often what was predicted came true; on the dotted line, as often as said."
    return _reliable(bins, sentences, title, caption, ("probability", "came true"))


def _of_classes(frame: pd.DataFrame, title: str, run: PredictionRun) -> Section:
    grids = [_class_grid(frame)]
    if not run.classes:
        why = "the probabilities of classes are not in this run"
        said = [f"Whether probabilities hold is not known: {why}. By class:"]
        return Section("calibration", title, said, [], [], grids)
    bins = reliability(*confidence(frame, run.classes))
    sentences = [
        "Of each answer, the probability of the class that was predicted, and whether it was "
        f"right. Expected calibration error {bins.error:.3f}."
    ]
    caption = (
        "How often answers of which confidence are right; on the dotted line, as often as said."
    )
    section = _reliable(bins, sentences, title, caption, ("confidence", "right"))
    return Section("calibration", title, sentences, section.figures, [], [*grids, *section.grids])


def _reliable(
    bins: Bins, sentences: list[str], title: str, caption: str, words: tuple[str, str]
) -> Section:
    rows = [
        [f"{e:.1%}", f"{o:.1%}", f"{lo:.1%} to {hi:.1%}", f"{n:,}"]
        for e, o, lo, hi, n in zip(
            bins.expected, bins.observed, bins.low, bins.high, bins.rows, strict=True
        )
    ]
    head = [f"mean {words[0]}", words[1], "95% interval", "rows"]
    grid = Grid("Calibration by bin.", head, rows, [True] * 4, folded=True)
    svg = expected_and_observed(caption, bins, percent=True)
    caption += (
        f" Across: {words[0]}; up: share that {words[1] if words[1] != 'right' else 'is right'}"
    )
    caption += ", with its 95% interval; below: rows of each bin."
    return Section("calibration", title, sentences, [Figure(svg, caption)], [], [grid])


def _class_grid(frame: pd.DataFrame) -> Grid:
    table = class_table(frame)
    rows = [
        [
            spell(str(name)),
            f"{int(row['labelled']):,}",
            f"{int(row['predicted']):,}",
            _score("accuracy", row["precision"]),
            _score("accuracy", row["recall"]),
        ]
        for name, row in table.head(_CLASSES).iterrows()
    ]
    rest = f"; {len(table) - _CLASSES:,} rarer ones are not shown" if len(table) > _CLASSES else ""
    head = ["class", "labelled", "predicted", "precision", "recall"]
    return Grid(f"Classes, commonest first{rest}.", head, rows, [False] + [True] * 4)


def _of_numbers(frame: pd.DataFrame, title: str, interval: float) -> Section:
    prediction, label = frame[PREDICTION].to_numpy("float64"), frame[LABEL].to_numpy("float64")
    sentences = [
        f"On average {short_number(prediction.mean())} was predicted and "
        f"{short_number(label.mean())} came."
    ]
    if {LOW, HIGH} <= set(frame.columns):
        sentences.append(
            f"{coverage(frame):.1%} of labels lie in their interval, {interval:.0%} should."
        )
    else:
        sentences.append("Predictions have no intervals here, so there is no coverage to check.")
    bins = actual_by_predicted(prediction, label)
    rows = [
        [
            *(short_number(float(v)) for v in (e, o)),
            f"{short_number(float(lo))} to {short_number(float(hi))}",
            f"{n:,}",
        ]
        for e, o, lo, hi, n in zip(
            bins.expected, bins.observed, bins.low, bins.high, bins.rows, strict=True
        )
    ]
    head = ["mean predicted", "mean actual", "middle 80% of actual", "rows"]
    grid = Grid("Predicted and actual, by bin.", head, rows, [True] * 4, folded=True)
    if len(bins.rows) < 2:
        sentences.append("All past predictions are equal, so there is nothing to draw.")
        return Section("calibration", title, sentences, [], [], [grid])
    svg = expected_and_observed("Mean actual number by predicted number", bins, percent=False)
    caption = (
        "Across: predicted, in ten bins of as many rows; up: mean of what came, and where the "
        "middle 80% lies. On the dotted line both are equal."
    )
    return Section("calibration", title, sentences, [Figure(svg, caption)], [], [grid])


def _of_rankings(frame: pd.DataFrame, title: str) -> Section:
    said = "A ranking has no probabilities to hold; how often each of its places was right instead."
    hits = hits_by_rank(frame)
    if not hits.shape[1]:
        return Section("calibration", title, ["All past recommendations are empty lists."])
    shares = hits.mean(axis=0)
    names = [str(rank + 1) for rank in range(len(shares))]
    svg = columns("Share of right recommendations by rank", names, list(map(float, shares)))
    figure = Figure(svg, "Share of recommendations that are right, by rank.")
    return Section("calibration", title, [said], [figure])
