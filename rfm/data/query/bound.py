"""A query whose names are those of a database: what is asked, with types and join paths.

Values are equal that say the same, wherever in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypeAlias

from rfm.data.query.syntax import Function, Query, Span, Unit

Type: TypeAlias = Literal["number", "boolean", "text", "datetime", "key", "duration", "null",
                          "list", "other"]  # fmt: skip
Target: TypeAlias = Literal["forecast", "own", "child"]


@dataclass(frozen=True)
class Hop:
    """From a row along the foreign key ``column`` to a row of ``parent``."""

    table: str
    column: str
    parent: str


Route: TypeAlias = tuple[Hop, ...]


@dataclass(frozen=True)
class Cell:
    """A column of the row that a path leads to; ``key_of``: the table whose rows it holds."""

    span: Span = field(compare=False)
    type: Type
    path: Route
    table: str
    column: str
    key_of: str = ""


@dataclass(frozen=True)
class Row:
    """``table.*``: the row itself, to be counted."""

    span: Span = field(compare=False)
    type: Type
    path: Route
    table: str


@dataclass(frozen=True)
class Fixed:
    span: Span = field(compare=False)
    type: Type
    value: bool | int | float | str | datetime | None


@dataclass(frozen=True)
class Anchor:
    """The anchor time."""

    span: Span = field(compare=False)
    type: Type


@dataclass(frozen=True)
class Interval:
    span: Span = field(compare=False)
    type: Type
    number: int
    unit: Unit


@dataclass(frozen=True)
class Apply:
    """An operator on values."""

    span: Span = field(compare=False)
    type: Type
    operator: str
    operands: tuple[Value, ...]


@dataclass(frozen=True)
class Frame:
    """(start, end] from the anchor on; ``start`` may be minus infinity."""

    start: float
    end: int
    unit: Unit


@dataclass(frozen=True)
class Aggregate:
    """A function over the rows of ``table`` that belong to an entity by ``via`` and lie in
    ``frame`` (rows of tables without times: all).

    argument and condition (a tuple of none or one) are of a row of ``table``; ``key_of``: the table
    whose rows the values are, "" for others.
    """

    span: Span = field(compare=False)
    type: Type
    function: Function
    table: str
    argument: Value
    condition: tuple[Value, ...]
    via: Route
    frame: Frame
    key_of: str = ""


Value: TypeAlias = Cell | Row | Fixed | Anchor | Interval | Apply | Aggregate


@dataclass(frozen=True)
class BoundQuery:
    """A query of one database.

    Attributes:
        kind: a forecast (``target`` holds aggregates), or a static target: a value of the entity's
            ``own`` row, or of its one ``child`` row.
        target: cells of it are the entity's or, of a child target, the child's.
        via: from the child to the entity; empty for other targets.
        where, assuming: conditions on an entity (a tuple of none or one).
        rows: of the entity table that are to be predicted, in the order asked; empty: all.
        ranking: "", RANK or CLASSIFY. top: how many are to be ranked; 0: not said.
    """

    query: Query
    database: str
    kind: Target
    entity: str
    target: Value
    child: str
    via: Route
    where: tuple[Value, ...]
    assuming: tuple[Value, ...]
    rows: tuple[int, ...]
    ranking: Literal["", "RANK", "CLASSIFY"]
    top: int

    @property
    def question(self) -> tuple[object, ...]:
        """What is asked, whoever is asked about: equal questions have the same labels."""
        target = (self.target, self.child, self.via)
        return (self.kind, self.entity, *target, self.ranking, self.top)

    @property
    def conditions(self) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
        """Under which it is asked."""
        return self.where, self.assuming
