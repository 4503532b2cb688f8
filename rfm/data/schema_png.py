"""A schema picture as PNG, drawn by matplotlib in the light colours.

Letters that its font (DejaVu Sans) lacks, such as Chinese ones, become boxes; an SVG shows them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from rfm.data.schema_shapes import LIGHT, Block, Curve, Picture, Text, trace

_SCALE, _LARGEST = 2.0, 6000.0  # pixels for each of the picture's, and pixels at most
_STYLE = {"text.parse_math": False, "font.family": ["DejaVu Sans"]}


def write_png(picture: Picture, path: Path) -> None:
    """Draw the picture at twice its size, or smaller where it would be very large."""
    from matplotlib import style
    from matplotlib.figure import Figure

    scale = min(_SCALE, _LARGEST / max(picture.width, picture.height))
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure((picture.width / 72, picture.height / 72), dpi=72 * scale)
        figure.set_facecolor(LIGHT["paper"])
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_axis_off()
        axes.set_xlim(0, picture.width)
        axes.set_ylim(picture.height, 0)
        for shape in picture.shapes:
            if isinstance(shape, Text):
                _write(axes, shape)
            elif isinstance(shape, Block):
                _fill(axes, shape)
            else:
                _draw(axes, shape)
        figure.savefig(path, format="png", dpi=72 * scale, metadata={"Software": None})


def _write(axes: Any, text: Text) -> None:
    axes.text(
        *text.at,
        text.text,
        color=LIGHT[text.colour],
        fontsize=text.size * 0.94,
        ha="right" if text.anchor == "end" else "left",
        va="baseline",
        fontweight="bold" if text.style == "bold" else "normal",
        fontstyle="italic" if text.style == "italic" else "normal",
    )


def _fill(axes: Any, block: Block) -> None:
    from matplotlib.patches import FancyBboxPatch

    box = f"round,pad=0,rounding_size={block.radius}" if block.radius else "square,pad=0"
    line = LIGHT[block.line] if block.line else "none"
    size = block.width, block.height
    axes.add_patch(FancyBboxPatch(block.at, *size, box, fc=LIGHT[block.fill], ec=line))


def _draw(axes: Any, curve: Curve) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path as Outline

    start, bends, head = trace(curve)
    points = [start, *(point for bend in bends for point in bend)]
    codes = [Outline.MOVETO] + [Outline.CURVE4] * (len(points) - 1)
    colour = LIGHT[curve.colour]
    axes.add_patch(PathPatch(Outline(points, codes), fc="none", ec=colour, lw=1.6, alpha=0.8))
    axes.add_patch(Polygon(head, fc=colour, ec="none"))
