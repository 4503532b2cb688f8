"""A schema picture as SVG: text stays text, and colours follow the reader's light or dark mode."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from rfm.data.schema_shapes import DARK, LIGHT, Block, Picture, Shape, Text, trace

_FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans','Noto Sans',sans-serif"


def to_svg(picture: Picture) -> str:
    """The picture as SVG; colours are classes, so that dark mode can change them."""
    width, height = f"{picture.width:.0f}", f"{picture.height:.0f}"
    body = "\n".join(_svg_shape(shape) for shape in picture.shapes)
    title = escape(picture.title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="schema" role="img" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'aria-label="{title}" font-family="{_FONT}">\n<title>{title}</title>\n'
        f"<desc>{escape(picture.description)}</desc>\n<style>{_css()}</style>\n"
        f'<rect class="f-paper" width="100%" height="100%"/>\n{body}\n</svg>\n'
    )


def _css() -> str:
    def rules(colours: Mapping[str, str]) -> str:
        return "".join(
            f".schema .f-{name}{{fill:{value}}}.schema .s-{name}{{stroke:{value}}}"
            for name, value in colours.items()
        )

    return (
        ".schema path.way{fill:none;stroke-width:1.6;stroke-opacity:.8}"
        f"{rules(LIGHT)}@media (prefers-color-scheme:dark)"
        f"{{{rules(DARK)}}}"
    )


def _svg_shape(shape: Shape) -> str:
    if isinstance(shape, Block):
        x, y = shape.at
        line = f" s-{shape.line}" if shape.line else ""
        return (
            f'<rect class="f-{shape.fill}{line}" x="{x:.1f}" y="{y:.1f}" '
            f'width="{shape.width:.1f}" height="{shape.height:.1f}" rx="{shape.radius:g}"/>'
        )
    if isinstance(shape, Text):
        extra = {"bold": ' font-weight="600"', "italic": ' font-style="italic"'}
        anchor = ' text-anchor="end"' if shape.anchor == "end" else ""
        full = f"<title>{escape(shape.full)}</title>" if shape.full else ""
        return (
            f'<text class="f-{shape.colour}" x="{shape.at[0]:.1f}" y="{shape.at[1]:.1f}" '
            f'font-size="{shape.size}"{anchor}{extra.get(shape.style, "")}>'
            f"{escape(shape.text)}{full}</text>"
        )
    start, bends, head = trace(shape)
    steps = [f"M{start[0]:.1f} {start[1]:.1f}"]
    for one, two, end in bends:
        steps.append("C" + " ".join(f"{x:.1f} {y:.1f}" for x, y in (one, two, end)))
    tip = "L".join(f"{x:.1f} {y:.1f}" for x, y in head)
    return (
        f'<g><title>{escape(shape.what)}</title><path class="way s-{shape.colour}" '
        f'd="{"".join(steps)}"/><path class="f-{shape.colour}" d="M{tip}Z"/></g>'
    )
