"""A picture of a database's schema: a box for each table, an arrow for each foreign key.

Boxes show the row count, the primary key, the time column, foreign keys and some other columns with
their kinds. An arrow begins at its foreign key's line and has the colour of the table that it
points at. Text stays text in an SVG, and its colours follow the reader's light or dark mode.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rfm.data.database import Database, Table
from rfm.data.schema_layout import Arrow, Box, Layout, Point, lay_out
from rfm.data.schema_shapes import HUES, SIZE, Block, Curve, Picture, Shape, Text, printable
from rfm.data.schema_svg import to_svg
from rfm.files import publish

SUFFIXES = (".svg", ".png")

_HEAD_SIZE, _TITLE_SIZE = 13, 18
_ROW, _HEAD, _PAD, _MARGIN, _TITLE = 20.0, 32.0, 10.0, 28.0, 58.0
_NARROWEST, _NAME, _ROLE = 172.0, 190.0, 132.0  # of a box, of a column's name and role at most
_MOST_KEYS = 20  # foreign keys of one table that get a line each
_SHOWN = ((12, 6), (30, 4), (10_000, 2))  # tables up to which so many other columns are shown
_LONGEST = 80  # characters of a name that are looked at


@dataclass(frozen=True)
class _Line:
    """A line in a table's box. parents: tables that arrows lead to from here, with the keys."""

    name: str
    role: str
    parents: tuple[tuple[str, str], ...] = ()
    style: str = "plain"


def draw_schema(database: Database, path: Path) -> None:
    """Write a picture of the schema, SVG or PNG by the path's suffix.

    Raises:
        ValueError: for another suffix, and for columns that cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path}: a picture of a schema is one of {SUFFIXES}; rename it")
    picture = picture_schema(database)
    with publish(path) as temporary:
        if path.suffix.lower() == ".svg":
            temporary.write_text(to_svg(picture), encoding="utf-8")
        else:
            from rfm.data.schema_png import write_png

            write_png(picture, temporary)


def schema_svg(database: Database) -> str:
    """The picture as one SVG element, for a file of its own or to stand in a page."""
    return to_svg(picture_schema(database))


def picture_schema(database: Database) -> Picture:
    """What is to be drawn, and where."""
    tables = list(database.tables.values())
    place = {table.name: i for i, table in enumerate(tables)}
    lines = [_lines(table, database.kinds[table.name], len(tables)) for table in tables]
    boxes = [_box(table, own) for table, own in zip(tables, lines, strict=True)]
    arrows, labels = [], []
    for i, own in enumerate(lines):
        for row, line in enumerate(own):
            for key, parent in line.parents:
                arrows.append(Arrow(i, place[parent], _level(row)))
                labels.append(_clean(f"{tables[i].name}.{key}") + f" → {_clean(parent)}")
    layout = lay_out(boxes, arrows) if boxes else Layout([], [], [], 0.0, 0.0)
    hue = _hues(tables, layout)
    dx, dy = _MARGIN, _TITLE + _MARGIN / 2
    shapes: list[Shape] = _title(database)
    for arrow, route, label in zip(arrows, layout.routes, labels, strict=True):
        points = [(x + dx, y + dy) for x, y in route]
        colour = hue[tables[arrow.parent].name]
        shapes.append(Curve(points, colour, label, arrow.child == arrow.parent))
    for i, table in enumerate(tables):
        x, y = layout.corners[i]
        corner, size = (x + dx, y + dy), (layout.widths[i], boxes[i].height)
        shapes += _draw_table(table, lines[i], corner, size, hue)
    title = next(shape.text for shape in shapes if isinstance(shape, Text))
    widest = max(_width(s.text, s.size) + _MARGIN for s in shapes[:2] if isinstance(s, Text))
    return Picture(
        f"Schema of {title}",
        "; ".join(labels) or "No foreign keys.",
        max(layout.width + 2 * _MARGIN, widest + _MARGIN),
        layout.height + dy + _MARGIN,
        shapes,
    )


def _title(database: Database) -> list[Shape]:
    tables = list(database.tables.values())
    keys, rows = sum(len(t.foreign_keys) for t in tables), sum(t.num_rows for t in tables)
    counts = f"{_count(len(tables), 'table')}, {_count(keys, 'foreign key')}, {_count(rows, 'row')}"
    name = _clean(database.name)
    short = _shorten(name, 420.0, _TITLE_SIZE)
    full = "" if short == name else name
    return [
        Text((_MARGIN, 32.0), short, "ink", _TITLE_SIZE, style="bold", full=full),
        Text((_MARGIN, 52.0), counts, "soft"),
    ]


def _lines(table: Table, kinds: Mapping[str, str], tables: int) -> list[_Line]:
    """Primary key, time column, foreign keys, then some of the other columns."""
    keys = table.foreign_keys
    lines = []
    if table.primary_key is not None:
        own = table.primary_key
        parents = ((own, keys[own]),) if own in keys else ()
        role = f"primary key → {keys[own]}" if parents else "primary key"
        lines.append(_Line(own, role, parents, "bold"))
    if table.time_column is not None and table.time_column != table.primary_key:
        lines.append(_Line(table.time_column, "time column", style="italic"))
    others = [key for key in keys if key != table.primary_key]
    shown = others if len(others) <= _MOST_KEYS else others[: _MOST_KEYS - 1]
    lines += [_Line(key, f"→ {keys[key]}", ((key, keys[key]),)) for key in shown]
    if rest := others[len(shown) :]:
        to = {keys[key]: key for key in reversed(rest)}
        more = tuple((key, parent) for parent, key in sorted(to.items()))
        lines.append(_Line("", f"+ {_count(len(rest), 'more foreign key')}", more))
    plain = [c for c in table.columns if c not in table.keys and c != table.time_column]
    most = next(columns for upto, columns in _SHOWN if tables <= upto or upto == _SHOWN[-1][0])
    shown = plain if len(plain) <= most + 1 else plain[:most]  # "+ 1 more" takes a line as well
    lines += [_Line(column, kinds[column]) for column in shown]
    if len(plain) > len(shown):
        lines.append(_Line("", f"+ {len(plain) - len(shown)} more"))
    return lines


def _box(table: Table, lines: Sequence[_Line]) -> Box:
    widths = [_width(_clean(table.name), _HEAD_SIZE) * 1.1 + 15 + _width(_rows(table))]
    widths[0] = min(widths[0], _NAME + _ROLE)
    for line in lines:
        name = min(_width(_clean(line.name)) * (1.1 if line.style == "bold" else 1.0), _NAME)
        widths.append(name + 14 + min(_width(_clean(line.role)), _ROLE))
    width = max(_NARROWEST, *widths) + 2 * _PAD
    entry = _level(0) if table.primary_key is not None else _HEAD / 2
    return Box(width, _HEAD + _ROW * len(lines) + 8, entry)


def _level(row: int) -> float:
    """The middle of a line, below the top edge of its box."""
    return _HEAD + 4 + _ROW * (row + 0.5)


def _hues(tables: Sequence[Table], layout: Layout) -> dict[str, str]:
    """A colour for each table that is pointed at, from top to bottom and right to left, so that
    neighbours differ; grey for others."""
    pointed = {parent for table in tables for parent in table.foreign_keys.values()}
    order = sorted(
        (i for i, table in enumerate(tables) if table.name in pointed),
        key=lambda i: (-layout.corners[i][0], layout.corners[i][1]),
    )
    hues = {tables[i].name: f"hue{n % HUES}" for n, i in enumerate(order)}
    return {table.name: "line" for table in tables} | hues


def _draw_table(
    table: Table,
    lines: Sequence[_Line],
    corner: Point,
    size: tuple[float, float],
    hue: Mapping[str, str],
) -> list[Shape]:
    (x, y), (width, height) = corner, size
    right, rows = x + width - _PAD, _rows(table)
    name = _clean(table.name)
    short = _shorten(name, (width - 2 * _PAD - 14 - _width(rows)) / 1.1, _HEAD_SIZE)
    full = "" if short == name else name
    shapes: list[Shape] = [
        Block(corner, width, height, "box", "line", 6.0),
        Block((x + 1, y + 1), width - 2, _HEAD - 1, "head", "", 5.0),
        Block((x, y), width, 4.0, hue[table.name], "", 2.0),
        Text((x + _PAD, y + 22), short, "ink", _HEAD_SIZE, style="bold", full=full),
        Text((right, y + 22), rows, "soft", anchor="end"),
    ]
    for row, line in enumerate(lines):
        base = y + _level(row) + 4
        name, role = _clean(line.name), _clean(line.role)
        if name:
            wide = 1.1 if line.style == "bold" else 1.0
            short = _shorten(name, _NAME / wide)
            full = "" if short == name else name
            shapes.append(Text((x + _PAD, base), short, "ink", style=line.style, full=full))
        short = _shorten(role, _ROLE if name else width - 2 * _PAD)
        full = "" if short == role else role
        colour = hue[line.parents[0][1]] if len(line.parents) == 1 else "soft"
        if not name:
            shapes.append(Text((x + _PAD, base), short, "soft", style="italic", full=full))
        else:
            shapes.append(Text((right, base), short, colour, anchor="end", full=full))
    return shapes


def _rows(table: Table) -> str:
    return _count(table.num_rows, "row")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _clean(text: str) -> str:
    """Printable, in one line that is not endless."""
    shown = printable(text[:_LONGEST].replace("\n", " ").replace("\t", " "))
    return shown if len(text) <= _LONGEST else f"{shown}…"


def _shorten(text: str, width: float, size: int = SIZE) -> str:
    """The text, with its middle cut out where it is wider than it may be."""
    if _width(text, size) <= width:
        return text
    kept = next(
        n for n in range(len(text), -1, -1) if _width(_cut(text, n), size) <= width or n < 3
    )
    return _cut(text, kept)


def _cut(text: str, kept: int) -> str:
    ends = kept // 3
    return f"{text[: kept - ends]}…{text[len(text) - ends :]}"


def _width(text: str, size: int = SIZE) -> float:
    """About how wide a text is in a wide sans serif, in pixels."""
    return size * sum(_em(c) for c in text)


def _em(c: str) -> float:
    if unicodedata.combining(c):
        return 0.0
    if unicodedata.east_asian_width(c) in "WF":
        return 1.05
    if c in "ilj.,'|:;!I ()[]":
        return 0.36
    if c in "mwMW@%…→":
        return 0.95
    return 0.72 if c.isupper() else 0.62
