"""What a section of a report is made of, and how values are spelled in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from rfm.eval.report_charts import day, short_number

_LONGEST, _FIRST = 120, 5  # characters of a value, members of a list


@dataclass(frozen=True)
class Figure:
    """A chart and what is said below it. legend: names of its series, in their order."""

    svg: Markup
    caption: str
    legend: Sequence[str] = ()


@dataclass(frozen=True)
class Bar:
    """A name, a value in words and as a share of the longest bar, -1..1. note: below the name."""

    name: str
    value: str
    share: float
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """A list of bars; signed ones start in the middle."""

    caption: str
    bars: Sequence[Bar]
    signed: bool = False


@dataclass(frozen=True)
class Grid:
    """A table. numeric: whether each column is aligned right. folded: shown when asked for."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool]
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A section with a heading; without figures, bars and grids, `sentences` say why."""

    anchor: str
    title: str
    sentences: Sequence[str]
    figures: Sequence[Figure] = ()
    bars: Sequence[Bars] = ()
    grids: Sequence[Grid] = ()


@dataclass(frozen=True)
class Example:
    """One explained prediction."""

    entity: str
    time: str
    prediction: str
    top_signal: str
    signals: Bars


def spell(value: Any, members: int = _FIRST) -> str:
    """A value as a reader wants it: numbers short, times without midnight, of lists that have more
    than some members the first ones."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        said = [f"{spell(str(k))}: {spell(v, members)}" for k, v in value.items()]
        return "; ".join(said) or "none"
    if isinstance(value, Sequence | np.ndarray | set | frozenset) and not isinstance(value, bytes):
        every = sorted(value, key=str) if isinstance(value, set | frozenset) else list(value)
        more = f", and {len(every) - members} more" if len(every) > members else ""
        return ", ".join(map(spell, every[:members])) + more or "none"
    if value is None or pd.isna(value):
        return "–"
    if isinstance(value, date | np.datetime64):  # a datetime is a date
        return day(value)
    if isinstance(value, Integral):
        return str(value) if abs(int(value)) < 10_000 else f"{value:,}"
    if isinstance(value, Real):
        return short_number(float(value))
    return spell(str(value))


def count(number: int, what: str) -> str:
    plural = what if number == 1 else f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:,} {plural}"


def signed(value: float) -> str:
    """With a sign that is as wide as a plus."""
    if not np.isfinite(value):
        return "–"
    return f"{value:+.3g}".replace("-", "−")


def scale_bars(
    items: Sequence[tuple[str, str, float, str]], caption: str, negative: bool = False
) -> Bars:
    """Bars of (name, value in words, value, note), the longest as long as there is room."""
    sizes = [abs(value) for _, _, value, _ in items if np.isfinite(value)]
    longest = max(sizes, default=0.0) or 1.0
    bars = [
        Bar(name, words, value / longest if np.isfinite(value) else 0.0, note)
        for name, words, value, note in items
    ]
    return Bars(caption, bars, negative)
