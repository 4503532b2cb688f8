"""Charts of a report as inline SVG; the page's style sheet gives them their colours.

They are drawn 360 units wide, so that their text is as large as the page's on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from rfm.eval.report_numbers import Bins, Floats

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 360.0, 46.0, 18.0, 10.0, 24.0
_HEIGHT = 190.0
_MOST_DOTS = 60
_DAY = 86_400.0


@dataclass(frozen=True)
class Ticks:
    """The range of an axis, and what is written where."""

    low: float
    high: float
    at: Sequence[float]
    words: Sequence[str]


@dataclass(frozen=True)
class _Frame:
    """Where data lies in a chart: units on both axes to units of the picture."""

    across: Ticks
    up: Ticks
    top: float = _TOP
    bottom: float = _HEIGHT - _BOTTOM
    left: float = _LEFT
    right: float = _WIDTH - _RIGHT

    def x(self, value: float) -> float:
        share = (value - self.across.low) / (self.across.high - self.across.low)
        return self.left + float(share) * (self.right - self.left)

    def y(self, value: float) -> float:
        share = (value - self.up.low) / (self.up.high - self.up.low)
        return self.bottom - float(share) * (self.bottom - self.top)

    def axes(self, below: bool = True) -> list[str]:
        """Level lines with their numbers and, unless another chart stands below, those of x."""
        parts = []
        for value, text in zip(self.up.at, self.up.words, strict=True):
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left}" x2="{self.right}" {_both("y", y)}/>')
            parts.append(_text(self.left - 6, y + 4, text, "end"))
        base = f'<line class="axis" x1="{self.left}" x2="{self.right}" {_both("y", self.bottom)}/>'
        parts.append(base)
        for value, text in zip(self.across.at, self.across.words, strict=True) if below else ():
            x = self.x(value)
            parts.append(
                f'<line class="axis" {_both("x", x)} y1="{self.bottom}" y2="{self.bottom + 4}"/>'
            )
            anchor = "end" if x + 4 * len(text) > _WIDTH else "middle"
            parts.append(_text(x, self.bottom + 17, text, anchor))
        return parts


def numbers(low: float, high: float, percent: bool = False) -> Ticks:
    """An axis of numbers with about five ticks at round ones, wide enough for low and high."""
    from matplotlib.ticker import MaxNLocator

    if not high > low:
        low, high = low - max(abs(low), 1.0) / 2, high + max(abs(high), 1.0) / 2
    at = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    at = [0.0 if abs(v) < 1e-12 * (high - low) else float(v) for v in at]
    return Ticks(at[0], at[-1], at, [f"{v:.0%}" if percent else short_number(v) for v in at])


def times(moments: Sequence[pd.Timestamp]) -> Ticks:
    """An axis of unix seconds with dates."""
    from matplotlib import dates

    start, end = _moment(seconds(min(moments))), _moment(seconds(max(moments)))
    if start == end:
        start, end = start - timedelta(days=1), end + timedelta(days=1)
    mpl: Any = dates  # which has no types
    locator = mpl.AutoDateLocator(minticks=2, maxticks=5)
    low, high = float(mpl.date2num(start)), float(mpl.date2num(end))
    ticks = [float(v) for v in locator.tick_values(start, end) if low <= v <= high]
    words = mpl.AutoDateFormatter(locator)
    return Ticks(low * _DAY, high * _DAY, [v * _DAY for v in ticks], [str(words(v)) for v in ticks])


def seconds(moment: pd.Timestamp) -> float:
    return float(np.datetime64(moment, "s").astype("int64"))


def _moment(unix: float) -> datetime:
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=unix)


def lines_over_time(
    title: str,
    moments: Sequence[pd.Timestamp],
    series: Mapping[str, Floats],
    percent: bool = False,
    bounds: tuple[float, float] | None = None,
) -> Markup:
    """A line with dots for each series; NaN leaves a gap. bounds: of the y axis, at least."""
    values = [v for one in series.values() for v in one if np.isfinite(v)]
    values += bounds or ()
    frame = _Frame(times(moments), numbers(min(values), max(values), percent))
    parts = frame.axes()
    x = [frame.x(seconds(moment)) for moment in moments]
    for place, (name, one) in enumerate(series.items()):
        points = [(a, frame.y(v) if np.isfinite(v) else None) for a, v in zip(x, one, strict=True)]
        for (x1, y1), (x2, y2) in pairwise(points):
            if y1 is not None and y2 is not None:
                parts.append(
                    f'<path class="line c{place}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'
                )
        if len(points) <= _MOST_DOTS:
            for (a, y), moment, value in zip(points, moments, one, strict=True):
                if y is not None:
                    shown = f"{value:.1%}" if percent else short_number(value)
                    said = f"{name}, {day(moment)}: {shown}"
                    parts.append(_dot(a, y, 3.0, f"c{place}", said))
    return _svg(title, _HEIGHT, parts)


def columns_over_time(
    title: str,
    moments: Sequence[pd.Timestamp],
    whole: Floats,
    part: Floats,
    names: tuple[str, str],
) -> Markup:
    """A column for each time, of which a part may be filled. part: empty, or as long as whole."""
    frame = _Frame(
        _padded(times(moments), len(moments)), numbers(0.0, max(float(whole.max()), 1.0))
    )
    parts = frame.axes()
    x = [frame.x(seconds(moment)) for moment in moments]
    gap = min((b - a for a, b in pairwise(sorted(x))), default=40.0)
    wide = min(max(gap * 0.7, 1.0), 26.0)
    for i, at in enumerate(x):
        said = f"{day(moments[i])}: {short_number(whole[i])} {names[0]}"
        if len(part):
            said += f", {short_number(part[i])} {names[1]}"
        parts.append(f"<g><title>{escape(said)}</title>")
        parts.append(_column(frame, at - wide / 2, wide, whole[i], "soft" if len(part) else "c0"))
        if len(part):
            parts.append(_column(frame, at - wide / 2, wide, part[i], "c0"))
        parts.append("</g>")
    return _svg(title, _HEIGHT, parts)


def _padded(ticks: Ticks, count: int) -> Ticks:
    """With room for half a column at both ends."""
    room = (ticks.high - ticks.low) * 0.5 / max(count, 2)
    return Ticks(ticks.low - room, ticks.high + room, ticks.at, ticks.words)


def histogram(
    title: str, edges: Floats, counts: npt.NDArray[np.int64], percent: bool = False
) -> Markup:
    """Rows in bins of a number."""
    across = numbers(float(edges[0]), float(edges[-1]), percent)
    within = [
        (a, w) for a, w in zip(across.at, across.words, strict=True) if edges[0] <= a <= edges[-1]
    ]
    across = Ticks(
        float(edges[0]), float(edges[-1]), [a for a, _ in within], [w for _, w in within]
    )
    frame = _Frame(across, numbers(0.0, float(max(counts))))
    parts = frame.axes()
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        left, right = frame.x(low), frame.x(high)
        ends = [f"{v:.0%}" if percent else short_number(v) for v in (low, high)]
        parts.append(f"<g><title>{escape(f'{ends[0]} to {ends[1]}: {count:,}')}</title>")
        parts.append(_column(frame, left + 0.5, right - left - 1, count, "c0") + "</g>")
    return _svg(title, _HEIGHT, parts)


def expected_and_observed(title: str, bins: Bins, percent: bool) -> Markup:
    """Observed over expected with the diagonal and each bin's low to high; larger dots have more
    rows. Of probabilities, a column chart of the rows stands below."""
    height = 334.0 if percent else 290.0
    if percent:
        across = up = numbers(0.0, 1.0, percent)
    else:
        levels = np.concatenate([bins.observed, bins.low, bins.high])
        across = numbers(float(bins.expected.min()), float(bins.expected.max()))
        up = numbers(float(levels.min()), float(levels.max()))
    frame = _Frame(across, up, bottom=height - (80.0 if percent else _BOTTOM))
    low, high = max(across.low, up.low), min(across.high, up.high)
    parts = frame.axes()
    if low < high:
        ends = [f"{frame.x(v):.1f} {frame.y(v):.1f}" for v in (low, high)]
        parts.append(f'<path class="diagonal" d="M{ends[0]}L{ends[1]}"/>')
    most = float(bins.rows.max())
    for i, rows in enumerate(bins.rows):
        x, y = frame.x(bins.expected[i]), frame.y(bins.observed[i])
        lowest, highest = frame.y(bins.low[i]), frame.y(bins.high[i])
        said = (
            f"predicted {_shown(bins.expected[i], percent)}, observed "
            f"{_shown(bins.observed[i], percent)}, {_rows(int(rows))}"
        )
        parts.append(
            f'<line class="whisker" {_both("x", x)} y1="{lowest:.1f}" y2="{highest:.1f}"/>'
        )
        parts.append(_dot(x, y, 3.0 + 4.0 * (rows / most) ** 0.5, "c0", said))
    if percent:
        rows_up = Ticks(0.0, most, [0.0, most], ["0", short_number(most)])
        below = _Frame(across, rows_up, top=height - 48.0, bottom=height - 10.0)
        parts += below.axes(below=False)
        for expected, rows in zip(bins.expected, bins.rows, strict=True):
            parts.append(_column(below, below.x(expected) - 7, 14.0, float(rows), "c0"))
    return _svg(title, height, parts)


def columns(title: str, names: Sequence[str], shares: Sequence[float]) -> Markup:
    """A column for each name, of a share."""
    middle = [i + 0.5 for i in range(len(names))]
    every = -(-len(names) // 10)
    kept = [i for i in range(len(names)) if i % every == 0]
    across = Ticks(0.0, float(len(names)), [middle[i] for i in kept], [names[i] for i in kept])
    frame = _Frame(across, numbers(0.0, max(*shares, 0.01), percent=True))
    parts = frame.axes()
    for i, share in enumerate(shares):
        left, right = frame.x(i + 0.15), frame.x(i + 0.85)
        parts.append(f"<g><title>{escape(f'{names[i]}: {share:.1%}')}</title>")
        parts.append(_column(frame, left, right - left, share, "c0") + "</g>")
    return _svg(title, _HEIGHT, parts)


def short_number(value: float) -> str:
    """At most four digits or so, with thousands as commas."""
    if not np.isfinite(value):
        return "–"
    size = abs(value)
    for power, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if size >= power:
            return f"{value / power:,.3g}{letter}" if size < 1e15 else f"{value:.2g}"
    if size >= 1000 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def day(moment: Any) -> str:
    """A time in words, without the hour where that is midnight, and without seconds where 0."""
    if moment is None or pd.isna(moment):
        return "no time"
    text = str(np.datetime64(pd.Timestamp(moment).to_datetime64(), "s"))
    return text.replace("T", " ").removesuffix(" 00:00:00").removesuffix(":00")


def _shown(value: float, percent: bool) -> str:
    return f"{value:.1%}" if percent else short_number(value)


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _both(axis: str, value: float) -> str:
    return f'{axis}1="{value:.1f}" {axis}2="{value:.1f}"'


def _dot(x: float, y: float, radius: float, colour: str, said: str) -> str:
    circle = f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
    return f"{circle}<title>{escape(said)}</title></circle>"


def _column(frame: _Frame, left: float, width: float, value: float, colour: str) -> str:
    top = frame.y(value)
    return (
        f'<rect class="fill {colour}" x="{left:.1f}" y="{top:.1f}" width="{max(width, 0.5):.1f}" '
        f'height="{max(frame.bottom - top, 0.0):.1f}" rx="1.5"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> Markup:
    said = escape(title)
    return Markup(
        f'<svg class="chart" role="img" viewBox="0 0 {_WIDTH:.0f} {height:.0f}" '
        f'aria-label="{said}"><title>{said}</title>{"".join(parts)}</svg>'
    )
