"""What a schema picture is made of: texts, blocks and arrows, in colours that have names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rfm.data.schema_layout import Point

LIGHT = {
    "paper": "#ffffff",
    "box": "#ffffff",
    "head": "#f2f4f7",
    "line": "#c9d0da",
    "ink": "#1d2430",
    "soft": "#5b6677",
}
DARK = {
    "paper": "#14171c",
    "box": "#1b2027",
    "head": "#262d37",
    "line": "#434c59",
    "ink": "#e6eaf0",
    "soft": "#a3adbb",
}
_LIGHT_HUES = [
    "#1f6fc4",
    "#b8500e",
    "#1c7f4b",
    "#8a4fc7",
    "#b3305f",
    "#0f7b83",
    "#7d6608",
    "#5a5fcf",
    "#a3432f",
    "#4b7d18",
]
_DARK_HUES = [
    "#6fb1f5",
    "#f2a063",
    "#5fcf95",
    "#c39bf2",
    "#f288ad",
    "#56cbd4",
    "#d9be4a",
    "#a2a7fa",
    "#ee9482",
    "#a3d468",
]
HUES = len(_LIGHT_HUES)
LIGHT |= {f"hue{i}": hue for i, hue in enumerate(_LIGHT_HUES)}
DARK |= {f"hue{i}": hue for i, hue in enumerate(_DARK_HUES)}
SIZE = 12  # of plain text, in pixels

_UNSAFE = ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")
_SAFE = "\n\t\u200c\u200d\xad"  # joiners and hyphens that languages and emoji need
_MOST_MARKS = 4


@dataclass(frozen=True)
class Text:
    """One line of text; y is its base line. anchor: start or end. style: plain, bold, italic.
    full: what was shortened, if it was."""

    at: Point
    text: str
    colour: str
    size: int = SIZE
    anchor: str = "start"
    style: str = "plain"
    full: str = ""


@dataclass(frozen=True)
class Block:
    """A filled rectangle, perhaps with rounded corners and an outline."""

    at: Point
    width: float
    height: float
    fill: str
    line: str = ""
    radius: float = 0.0


@dataclass(frozen=True)
class Curve:
    """An arrow along points, in pairs with a bend between one pair and the next; a loop at the
    right side where `loop`. what: in words."""

    points: Sequence[Point]
    colour: str
    what: str
    loop: bool = False


Shape: TypeAlias = Text | Block | Curve


@dataclass(frozen=True)
class Picture:
    title: str
    description: str
    width: float
    height: float
    shapes: Sequence[Shape]


def trace(curve: Curve) -> tuple[Point, list[tuple[Point, Point, Point]], list[Point]]:
    """Where an arrow starts, its cubic Bézier pieces (two controls and the end), and its head."""
    points = list(curve.points)
    (x, y), before = points[-1], points[-2]
    way = -1.0 if curve.loop or before[0] > x else 1.0
    head = [(x, y), (x - 8 * way, y - 4), (x - 8 * way, y + 4)]
    if curve.loop:
        out = max(points[0][0], x) + 26
        return points[0], [((out, points[0][1]), (out, y), (x - 7 * way, y))], head
    points[-1] = (x - 7 * way, y)
    bends = []
    for i in range(1, len(points)):
        one, two = points[i - 1], points[i]
        reach = (two[0] - one[0]) * (0.5 if i % 2 else 1 / 3)
        bends.append(((one[0] + reach, one[1]), (two[0] - reach, two[1]), two))
    return points[0], bends, head


def printable(text: str) -> str:
    """Without control characters, which XML cannot hold, characters that turn text round, and
    piles of accents."""
    marks, shown = 0, []
    for c in text:
        kind = unicodedata.category(c)
        marks = marks + 1 if kind in ("Mn", "Me") else 0
        if kind in _UNSAFE and c not in _SAFE:
            shown.append("�")
        elif marks <= _MOST_MARKS:
            shown.append(c)
    return "".join(shown)
