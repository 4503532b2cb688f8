"""The syntax tree of a query: what was written, and where; nothing is known of the database yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

Function: TypeAlias = Literal[
    "COUNT", "SUM", "AVG", "MIN", "MAX", "FIRST", "LAST", "COUNT_DISTINCT", "LIST_DISTINCT"
]
Unit: TypeAlias = Literal["seconds", "minutes", "hours", "days", "weeks", "months", "years"]
ALL = "*"  # the column of `orders.*`


@dataclass(frozen=True)
class Span:
    """Characters ``start`` to ``end`` (exclusive) of the query."""

    start: int
    end: int


@dataclass(frozen=True)
class Name:
    text: str
    span: Span


@dataclass(frozen=True)
class Step:
    """``results ->`` or, with the foreign key to follow, ``results.raceId ->``; an empty ``key``
    is to be found."""

    table: Name
    key: Name


@dataclass(frozen=True)
class Column:
    """``table.column``, or ``step -> ... -> table.column``."""

    span: Span
    steps: tuple[Step, ...]
    table: Name
    column: Name


@dataclass(frozen=True)
class Constant:
    """A value; ``None`` is the language's NULL."""

    span: Span
    value: bool | int | float | str | datetime | None


@dataclass(frozen=True)
class Listing:
    """``(1, 2, 3)``"""

    span: Span
    items: tuple[Expression, ...]


@dataclass(frozen=True)
class Now:
    """``NOW``: the anchor time."""

    span: Span


@dataclass(frozen=True)
class Duration:
    """``30 days``"""

    span: Span
    number: int
    unit: Unit


@dataclass(frozen=True)
class Operation:
    """``left operator right``, ``NOT x``, ``-x`` or ``x AND y AND z``: the operator in capitals."""

    span: Span
    operator: str
    operands: tuple[Expression, ...]


@dataclass(frozen=True)
class Window:
    """``start, end, unit``: (start, end] from the anchor time on; ``start`` may be minus
    infinity."""

    span: Span
    start: float
    end: int
    unit: Unit


@dataclass(frozen=True)
class Aggregation:
    """``FUNCTION(argument WHERE where VIA via, window)``; what is not written is an empty tuple."""

    span: Span
    function: Function
    argument: Expression
    where: tuple[Expression, ...]
    via: tuple[Step, ...]
    window: tuple[Window, ...]


Expression: TypeAlias = Column | Constant | Listing | Now | Duration | Operation | Aggregation


@dataclass(frozen=True)
class Ranking:
    """``RANK TOP 10``, ``CLASSIFY`` or ``FORECAST 3 TIMEFRAMES``; 0 where no number is written."""

    span: Span
    kind: Literal["RANK", "CLASSIFY", "TOP", "FORECAST"]
    number: int


@dataclass(frozen=True)
class Keys:
    """``= 5`` or ``IN (5, 6)``: the entities to be predicted."""

    span: Span
    operator: Name
    value: Expression


@dataclass(frozen=True)
class Query:
    """``PREDICT target [ranking] FOR [EACH] entity [keys] [WHERE where] [ASSUMING assuming]``.

    What is optional is an empty tuple, or a tuple of one.
    """

    text: str
    target: Expression
    ranking: tuple[Ranking, ...]
    entity: Column
    keys: tuple[Keys, ...]
    where: tuple[Expression, ...]
    assuming: tuple[Expression, ...]
