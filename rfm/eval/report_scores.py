"""The answers of a run and how they are distributed; the labels that there were before."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from rfm.eval.predictions import HIGH, LOW, PREDICTION
from rfm.eval.report_charts import columns_over_time, day, histogram, lines_over_time, short_number
from rfm.eval.report_parts import Bars, Figure, Grid, Section, count, scale_bars, spell

if TYPE_CHECKING:
    from rfm.eval.report import PredictionRun

_ROWS, _BARS = 20, 12
_MOST_TIMES = 120  # columns of a chart
_MOST_LINES = 60  # rows of a table of anchor times


def scores_section(run: PredictionRun) -> Section:
    """The distribution of predictions, and the first of them."""
    frame, title = run.predictions, "Predictions"
    given = frame[frame[PREDICTION].notna()]
    if not len(given):
        why = "no entity fits the query at the anchor time" if not len(frame) else "all are null"
        return Section("predictions", title, [f"There are no predictions: {why}."])
    sentences, figures, bars = [], [], []
    if run.task_type == "binary_classification":
        sentence, figure = _probabilities(given)
        sentences, figures = [sentence], [figure]
    elif run.task_type == "regression":
        sentences, figures = _numbers(given)
    elif run.task_type == "multiclass_classification":
        bars = [_classes(given, run)]
    else:
        bars = [_recommended(given)]
    if len(given) < len(frame):
        missing = len(frame) - len(given)
        sentences.append(f"Left out are {missing:,} of {len(frame):,} predictions, which are null.")
    return Section("predictions", title, sentences, figures, bars, [_first_rows(given, run)])


def _probabilities(given: pd.DataFrame) -> tuple[str, Figure]:
    value = given[PREDICTION].to_numpy("float64")
    counts, edges = np.histogram(value, bins=20, range=(0.0, 1.0))
    sentence = (
        f"The mean probability is {value.mean():.1%}; "
        f"{count(int((value >= 0.5).sum()), 'prediction')} of {len(value):,} at 50% or more."
    )
    svg = histogram("How many predictions have which probability", edges, counts, percent=True)
    return sentence, Figure(svg, "How many predictions have which probability.")


def _numbers(given: pd.DataFrame) -> tuple[list[str], list[Figure]]:
    value = pd.to_numeric(given[PREDICTION]).to_numpy("float64")
    value = value[np.isfinite(value)]
    if not len(value):
        return ["No prediction is a finite number, so there is nothing to draw."], []
    quarters = [short_number(float(q)) for q in np.quantile(value, [0.25, 0.5, 0.75])]
    sentences = [
        f"Half of the predictions lie between {quarters[0]} and {quarters[2]}, the median is "
        f"{quarters[1]}; they reach from {short_number(value.min())} to "
        f"{short_number(value.max())}."
    ]
    low, high = np.quantile(value, [0.005, 0.995])
    whole = value.max() - value.min()
    caption = "How many predictions lie where."
    if high > low and whole > 3 * (high - low):
        left_out = int(((value < low) | (value > high)).sum())
        caption = f"How many predictions lie where; {left_out:,} outermost ones are left out."
    else:
        low, high = value.min(), value.max()
    if not high > low:
        return [f"All predictions are {short_number(float(low))}."], []
    counts, edges = np.histogram(value, bins=30, range=(low, high))
    return sentences, [Figure(histogram("How many predictions lie where", edges, counts), caption)]


def _classes(given: pd.DataFrame, run: PredictionRun) -> Bars:
    counts = given[PREDICTION].astype(str).value_counts()
    items = []
    for name, rows in counts.head(_BARS).items():
        column = {str(k): v for k, v in run.classes.items()}.get(str(name))
        note = f"probability {given[column].mean():.1%} on average" if column else ""
        items.append((spell(str(name)), f"{rows:,} ({rows / len(given):.1%})", float(rows), note))
    return scale_bars(items, f"Classes by how often they are predicted{_others(len(counts))}.")


def _recommended(given: pd.DataFrame) -> Bars:
    often = Counter(spell(one) for ranked in given[PREDICTION] for one in set(map(str, ranked)))
    top = sorted(often.items(), key=lambda item: (-item[1], item[0]))[:_BARS]
    items = [(name, f"{rows:,} ({rows / len(given):.1%})", float(rows), "") for name, rows in top]
    return scale_bars(items, f"What is recommended to most{_others(len(often))}.")


def _others(number: int) -> str:
    return f"; {number - _BARS:,} others" if number > _BARS else ""


def _first_rows(given: pd.DataFrame, run: PredictionRun) -> Grid:
    """The highest predictions, or the first where they cannot be ordered."""
    ordered = run.task_type in ("binary_classification", "regression")
    frame = given
    if ordered:
        value = pd.to_numeric(given[PREDICTION])
        frame = given.loc[value.sort_values(ascending=False, kind="stable").index]
        if not given.index.is_unique:
            frame = given.iloc[np.argsort(-value.to_numpy("float64"), kind="stable")]
    moments = given[run.time].drop_duplicates()
    times = [run.time] if len(moments) > 1 else []
    interval = [LOW, HIGH] if {LOW, HIGH} <= set(given.columns) else []
    signal = ["top_signal"] if "top_signal" in given.columns else []
    columns = [run.entity, *times, PREDICTION, *interval, *signal]
    probability = {str(k): v for k, v in run.classes.items()}
    rows = []
    for _, row in frame.head(_ROWS).iterrows():
        cells = [spell(row[column]) for column in columns]
        if run.task_type == "binary_classification":
            cells[columns.index(PREDICTION)] = f"{float(row[PREDICTION]):.1%}"
        if probability:
            cells.append(f"{float(row[probability[str(row[PREDICTION])]]):.1%}")
        rows.append(cells)
    head = [*map(str, columns), *(["probability"] if probability else [])]
    which = "highest" if ordered else "first"
    at = "" if times or moments.isna().any() else f" at {day(moments.iloc[0])}"
    caption = f"All {len(given):,} predictions{at}, {which} first."
    if len(given) > _ROWS:
        rest = len(given) - _ROWS
        caption = f"The {_ROWS} {which} of {len(given):,} predictions{at}; {rest:,} more"
        caption += " are not shown." if rest > 1 else " is not shown."
    numeric = [ordered and column in (PREDICTION, LOW, HIGH) for column in columns]
    return Grid(caption, head, rows, numeric + [True] * bool(probability))


def labels_section(run: PredictionRun) -> Section:
    """How many labels there were at past anchor times, and how many are positive or their mean."""
    title, frame = "Labels over time", run.balance
    if not len(frame) or frame["time"].isna().all() or frame["labelled"].sum() == 0:
        why = "no label is known at any past anchor time, or none was counted"
        return Section("labels", title, [f"There is no label balance: {why}."])
    frame = frame.dropna(subset=["time"]).sort_values("time", kind="stable")
    labelled = int(frame["labelled"].sum())
    sentence = f"{count(labelled, 'labelled example')} at {count(len(frame), 'anchor time')}"
    if "positives" in frame:
        positives = int(frame["positives"].sum())
        sentence += f", {positives:,} of them positive ({positives / labelled:.1%})"
    elif "mean" in frame:
        mean = float(np.average(frame["mean"].fillna(0.0), weights=frame["labelled"]))
        sentence += f", their mean is {short_number(mean)}"
    sentences = [f"{sentence}."]
    figures = []
    if frame["time"].nunique() < 2:
        sentences.append("There is one anchor time only, so there is nothing to draw over time.")
    else:
        figures = _balance_figures(_merged(frame))
    return Section("labels", title, sentences, figures, [], [_balance_grid(frame)])


def _balance_figures(frame: pd.DataFrame) -> list[Figure]:
    moments, labelled = list(frame["time"]), frame["labelled"].to_numpy("float64")
    part = frame["positives"].to_numpy("float64") if "positives" in frame else np.empty(0)
    names = ("labelled", "positive")
    svg = columns_over_time("Labelled examples by anchor time", moments, labelled, part, names)
    legend = ["positive", "other labels"] if len(part) else []
    figures = [Figure(svg, "Labelled examples by anchor time.", legend)]
    if len(part):
        share = np.divide(part, labelled, out=np.full(len(part), np.nan), where=labelled > 0)
        svg = lines_over_time("Share of positives", moments, {"share": share}, percent=True)
        figures.append(Figure(svg, "Share of positives by anchor time."))
    elif "mean" in frame and np.isfinite(frame["mean"].to_numpy("float64")).any():
        svg = lines_over_time("Mean label", moments, {"mean": frame["mean"].to_numpy("float64")})
        figures.append(Figure(svg, "Mean label by anchor time."))
    return figures


def _merged(frame: pd.DataFrame) -> pd.DataFrame:
    """At most `_MOST_TIMES` rows: neighbouring anchor times taken together."""
    each = -(-len(frame) // _MOST_TIMES)
    if each == 1:
        return frame
    place = np.arange(len(frame)) // each
    merged: pd.DataFrame = (
        frame[["time", "labelled"]].groupby(place).agg({"time": "first", "labelled": "sum"})
    )
    if "positives" in frame:
        merged["positives"] = frame["positives"].groupby(place).sum()
    elif "mean" in frame:
        total = (frame["mean"] * frame["labelled"]).groupby(place).sum()
        merged["mean"] = total / merged["labelled"].where(merged["labelled"] > 0)
    return merged


def _balance_grid(frame: pd.DataFrame) -> Grid:
    extra = [column for column in ("positives", "mean") if column in frame]
    head = ["anchor time", "labelled", *extra, *(["share"] if "positives" in extra else [])]
    rows = []
    for _, row in frame.tail(_MOST_LINES)[::-1].iterrows():
        cells = [day(row["time"]), f"{int(row['labelled']):,}", *(spell(row[c]) for c in extra)]
        if "positives" in extra:
            cells.append(f"{row['positives'] / row['labelled']:.1%}" if row["labelled"] else "–")
        rows.append(cells)
    caption = "Labels by anchor time, latest first"
    if len(frame) > _MOST_LINES:
        caption += f"; {len(frame) - _MOST_LINES:,} earlier anchor times are not shown"
    return Grid(f"{caption}.", head, rows, [False] + [True] * (len(head) - 1), folded=True)
