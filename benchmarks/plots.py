"""Plots as inline SVG that takes the page's colours: score bars, learning curves, calibration."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.calibration import Reliability
from benchmarks.summary import Summary
from benchmarks.tables import Line, better, shown
from rfm.data.tasks import Regime
from rfm.files import content_hash

WIDTH = 4.4  # inches, labels and all; small, so that the text can be read on a phone
COLOURS = {"ours": "#2b7fd4", "baseline": "#8b93a0", "published": "#d9772b"}
_INK = "#010203"  # a stand-in for the text colour of the page
_CHANCE = {"roc_auc": 0.5}  # where bars start
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "rfm",  # the same ids each time
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 8,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "legend.frameon": False,
}


def score_bars(
    task: str, regime: Regime, lines: Sequence[Line], summaries: Sequence[Summary]
) -> str:
    """Bars of our own scores on one task, with the bootstrap interval and a dot for each seed; a
    diamond for each published score. Best first within each group."""
    metric = next(line.scores[task].metric for line in lines if task in line.scores)
    sign = -1 if better(metric).endswith("↑") else 1
    order = {group: i for i, group in enumerate(COLOURS)}
    rows = sorted(
        (line for line in lines if task in line.scores),
        key=lambda line: (order[line.group], sign * line.scores[task].mean),
    )
    cells = {one.first.method: one.cells for one in summaries}
    with style.context(["default", _STYLE]):  # not the settings of whoever runs this
        figure = Figure(figsize=(WIDTH, 0.6 + 0.19 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, line in enumerate(rows):
            seeds = [] if line.group == "published" else [c.test for c in cells[line.method]]
            _score_row(axes, y, line, task, seeds)
        axes.set_yticks(range(len(rows)), [line.method for line in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(better(metric))
        axes.margins(x=0.03)
        return _svg(figure, f"Test scores on {task}, {regime}")


def line_colours(methods: Sequence[str]) -> dict[str, str]:
    """A colour for each, the same in all plots of a task."""
    return {method: f"C{place % 10}" for place, method in enumerate(methods)}


def _score_row(axes: Axes, y: int, line: Line, task: str, seeds: Sequence[float]) -> None:
    score, colour = line.scores[task], COLOURS[line.group]
    if line.group == "published":
        axes.plot(score.mean, y, "D", color=colour, markersize=4)
    else:
        start = _CHANCE.get(score.metric, 0.0)
        axes.barh(y, score.mean - start, left=start, height=0.66, color=colour, alpha=0.55)
        axes.plot(seeds, [y] * len(seeds), "o", color=colour, markersize=2.2)
    if score.interval is not None:
        axes.plot(score.interval, (y, y), color=_INK, linewidth=0.8)
    value = f"{shown(score.metric, score.mean)}{' '.join(['', *score.marks])}"
    axes.text(1.02, y, value, va="center", fontsize=7, transform=axes.get_yaxis_transform())


def learning_curves(
    task: str, regime: Regime, summaries: Sequence[Summary], colours: Mapping[str, str]
) -> str:
    """Validation score by step of every method that has a curve: each seed thin, their mean, at
    the steps that all seeds have, thick."""
    with style.context(["default", _STYLE]):  # not the settings of whoever runs this
        figure = Figure(figsize=(WIDTH, 2.5 + 0.16 * len(summaries)), layout="constrained")
        axes = figure.add_subplot()
        for one in summaries:
            colour = colours[one.first.method]
            curves = [dict(cell.curve) for cell in one.cells if cell.curve]
            for curve in curves:
                axes.plot(*_points(curve), color=colour, linewidth=0.6, alpha=0.6)
            shared = sorted(set.intersection(*(set(curve) for curve in curves)))
            mean = {step: float(np.mean([curve[step] for curve in curves])) for step in shared}
            axes.plot(*_points(mean), color=colour, linewidth=1.8, label=one.first.method)
        axes.set_xlabel("step")
        axes.set_ylabel(f"validation {better(summaries[0].first.metric)}")
        _legend_below(figure, axes)
        return _svg(figure, f"Learning curves on {task}, {regime}")


def _points(curve: Mapping[int, float]) -> tuple[list[int], list[float]]:
    steps = sorted(curve)
    return steps, [curve[step] for step in steps]


def by_context(task: str, regime: Regime, summaries: Sequence[Summary]) -> str:
    """Test score by size of the context, of every method that has one; sizes are equally far
    apart."""
    sizes = sorted({one.first.context for one in summaries})
    lines: dict[str, dict[int, float]] = {}
    for one in summaries:
        name = one.first.method.removesuffix(f", context {one.first.context}")
        lines.setdefault(name, {})[sizes.index(one.first.context)] = one.mean
    with style.context(["default", _STYLE]):  # not the settings of whoever runs this
        figure = Figure(figsize=(WIDTH, 2.5 + 0.16 * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        for name, scores in lines.items():
            axes.plot(*_points(scores), "o-", markersize=3, linewidth=1.4, label=name)
        axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set_xlabel("examples")
        axes.set_ylabel(f"test {better(summaries[0].first.metric)}")
        _legend_below(figure, axes)
        return _svg(figure, f"Score by context on {task}, {regime}")


def calibration(
    task: str, regime: Regime, methods: Mapping[str, Reliability], colours: Mapping[str, str]
) -> str:
    """Observed against predicted share of positives of each method, above how many test rows each
    bin holds."""
    with style.context(["default", _STYLE]):  # not the settings of whoever runs this
        figure = Figure(figsize=(WIDTH, 3.5 + 0.16 * len(methods)), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        above.plot((0, 1), (0, 1), color=_INK, linewidth=0.6, linestyle=":")
        edges = np.linspace(0, 1, len(next(iter(methods.values())).count) + 1)
        for method, one in methods.items():
            there = one.count > 0
            label = f"{method} (ECE {one.error:.3f})"
            above.plot(
                one.predicted[there], one.observed[there], "o-", markersize=3, linewidth=1.2,
                label=label, color=colours[method],
            )  # fmt: skip
            below.stairs(one.count, edges, color=colours[method], linewidth=1.2)
        above.set_ylabel("observed share")
        above.set_ylim(-0.03, 1.03)
        below.set_xlabel("predicted probability")
        below.set_ylabel("test rows")
        _legend_below(figure, above)
        return _svg(figure, f"Calibration on {task}, {regime}")


def _legend_below(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=7)


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page: no prolog, no metadata, ids that no other figure has."""
    text = io.StringIO()
    nothing: dict[str, Any] = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"\n\s+", "\n", re.sub(r'<g id="[^"]*">', "<g>", svg))
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>f{content_hash(title)[:8]}-", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
