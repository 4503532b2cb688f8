"""A schema picture as PNG, drawn by matplotlib in the light colours."""

from __future__ import annotations

import warnings
from pathlib import Path

from rfm.data.schema_shapes import LIGHT, Block, Picture, Text, trace

_SCALE, _LARGEST = 2.0, 8000.0  # pixels for each of the picture's, and pixels at most
_STYLE = {"text.parse_math": False, "font.family": ["DejaVu Sans"]}


def write_png(picture: Picture, path: Path) -> None:
    """Draw the picture at twice its size, or smaller where it would be very large."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
    from matplotlib.path import Path as Outline

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
                axes.text(
                    *shape.at,
                    shape.text,
                    color=LIGHT[shape.colour],
                    fontsize=shape.size * 0.94,
                    ha="right" if shape.anchor == "end" else "left",
                    va="baseline",
                    fontweight="bold" if shape.style == "bold" else "normal",
                    fontstyle="italic" if shape.style == "italic" else "normal",
                )
            elif isinstance(shape, Block):
                box = (
                    f"round,pad=0,rounding_size={shape.radius}" if shape.radius else "square,pad=0"
                )
                line = LIGHT[shape.line] if shape.line else "none"
                fill = LIGHT[shape.fill]
                size = shape.width, shape.height
                axes.add_patch(FancyBboxPatch(shape.at, *size, box, fc=fill, ec=line))
            else:
                start, bends, head = trace(shape)
                points = [start, *(point for bend in bends for point in bend)]
                codes = [Outline.MOVETO] + [Outline.CURVE4] * (len(points) - 1)
                colour = LIGHT[shape.colour]
                way = Outline(points, codes)
                axes.add_patch(PathPatch(way, fc="none", ec=colour, lw=1.6, alpha=0.8))
                axes.add_patch(Polygon(head, fc=colour, ec="none"))
        FigureCanvasAgg(figure)
        figure.savefig(path, format="png", dpi=72 * scale, metadata={"Software": None})
