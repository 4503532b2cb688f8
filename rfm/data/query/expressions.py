"""Expressions of a query -> typed values of a database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from rfm.data.database import Table
from rfm.data.query.bound import (
    Aggregate,
    Anchor,
    Apply,
    Cell,
    Frame,
    Interval,
    Route,
    Row,
    Type,
    Value,
)
from rfm.data.query.comparisons import bind_comparison, described, literal
from rfm.data.query.errors import QueryError
from rfm.data.query.names import Names, keys, quoted, shortest, spell
from rfm.data.query.syntax import (
    ALL,
    Aggregation,
    Column,
    Constant,
    Duration,
    Expression,
    Listing,
    Now,
    Operation,
    Window,
)

_SECONDS = {
    "seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800,
    "months": 2_678_400, "years": 31_622_400,
}  # fmt: skip
_LONGEST = 200 * _SECONDS["years"]
_ARITHMETIC = ("+", "-", "*", "/")
_LOGIC = ("AND", "OR", "NOT")


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: columns are of a row of ``base`` or of its parents.

    role: of the target, of ASSUMING (``future``) or WHERE (``past``), whose aggregates are of
    windows after or before the anchor; of a static target, or within an aggregate (``inner``),
    which have no aggregates.
    """

    names: Names
    base: Table
    entity: Table
    role: Literal["target", "future", "past", "static", "inner"]

    def wrong(self, problem: str, node: Expression | Value | Window) -> QueryError:
        return self.names.wrong(problem, node.span)


def bind_condition(node: Expression, scope: Scope) -> Value:
    """An expression that is true or false."""
    value = bind_value(node, scope)
    if value.type != "boolean":
        raise scope.wrong(
            f"expected a condition, this is {described(value)}; compare it with something, as in "
            "orders.total > 5",
            node,
        )
    return value


def bind_value(node: Expression, scope: Scope) -> Value:
    """
    Raises:
        QueryError: see ``rfm.data.query.binder.bind``.
    """
    if isinstance(node, Column):
        return _bind_column(node, scope)
    if isinstance(node, Constant):
        return literal(node)
    if isinstance(node, Now):
        return Anchor(node.span, "datetime")
    if isinstance(node, Duration):
        if node.number * _SECONDS[node.unit] > _LONGEST:
            raise scope.wrong("this is longer than 200 years", node)
        return Interval(node.span, "duration", node.number, node.unit)
    if isinstance(node, Listing):
        raise scope.wrong("a list can only stand after IN", node)
    if isinstance(node, Aggregation):
        return _bind_aggregation(node, scope)
    return _bind_operation(node, scope)


def _bind_operation(node: Operation, scope: Scope) -> Value:
    if node.operator in _LOGIC:
        operands = tuple(bind_condition(part, scope) for part in node.operands)
        return Apply(node.span, "boolean", node.operator, operands)
    if node.operator in _ARITHMETIC:
        operands = tuple(bind_value(part, scope) for part in node.operands)
        return Apply(node.span, _arithmetic(node, operands, scope), node.operator, operands)
    left = bind_value(node.operands[0], scope)
    right = node.operands[1]
    items = right.items if isinstance(right, Listing) else (right,)
    if isinstance(right, Listing) and node.operator not in ("IN", "NOT IN"):
        raise scope.wrong(f"{node.operator} compares with one value; for several write IN", right)
    if node.operator in ("IN", "NOT IN"):
        odd = next((item for item in items if not isinstance(item, Constant)), None)
        if odd is not None:
            raise scope.wrong("expected constants, such as IN (1, 2, 3)", odd)
    return bind_comparison(
        node, left, tuple(bind_value(item, scope) for item in items), scope.names
    )


def _arithmetic(node: Operation, operands: tuple[Value, ...], scope: Scope) -> Type:
    types = [operand.type for operand in operands]
    if types == ["datetime", "duration"] and node.operator in ("+", "-"):
        return "datetime"
    for operand in operands:
        if operand.type != "number":
            raise scope.wrong(
                f"{node.operator} is for numbers (or NOW - 30 days), this is {described(operand)}",
                operand,
            )
    return "number"


def _bind_column(node: Column, scope: Scope) -> Value:
    names, base = scope.names, scope.base
    first, path, table = names.follow(node)
    if node.column.text == ALL:
        raise scope.wrong(f"{quoted(table.name)}.* can only be counted, by COUNT", node)
    name = names.column(table, node.column)
    if node.steps:
        if first.name != base.name:
            raise scope.wrong(
                f"expected a path that begins at {base.name}, not at {first.name}", node
            )
    elif table.name != base.name:
        path = _parent_path(node, table, scope)
    key_of = table.foreign_keys.get(name, "")
    if not key_of and name == table.primary_key:
        key_of = table.name
    return Cell(node.span, names.type(table, name), path, table.name, name, key_of)


def _parent_path(node: Column, table: Table, scope: Scope) -> Route:
    """From a row to the parent whose column is meant."""
    names, base = scope.names, scope.base
    database = names.database
    if not shortest(database, base.name, table.name) and shortest(database, table.name, base.name):
        window = "" if table.time_column is None else ", -30, 0, days"
        written = names.text[node.span.start : node.span.end]
        raise scope.wrong(
            f"{base.name} may have many rows in {table.name}; write an aggregation, such as "
            f"COUNT({quoted(table.name)}.* WHERE {written} = ...{window}) > 0",
            node,
        )
    column = f"{quoted(table.name)}.{quoted(node.column.text)}"
    return names.path(base, table, node.span, lambda path: spell(path) + column)


def _bind_aggregation(node: Aggregation, scope: Scope) -> Aggregate:
    if scope.role == "inner":
        raise scope.wrong("an aggregation cannot stand within another", node)
    assert scope.role != "static", node
    names = scope.names
    base = _base(node, scope)
    inner = replace(scope, base=base, role="inner")
    argument = _argument(node, inner)
    condition = tuple(bind_condition(where, inner) for where in node.where)
    if node.via:
        via = names.via(node.via, base, scope.entity)
    else:
        via = names.path(
            base,
            scope.entity,
            node.argument.span,
            lambda path: f"{node.function}(... VIA {keys(path)}, ...)",
        )
    frame = _frame(node, base, scope)
    types = {"COUNT": "number", "COUNT_DISTINCT": "number", "SUM": "number", "AVG": "number"}
    kind: Type = types.get(node.function, argument.type)  # type: ignore[assignment]
    if node.function == "LIST_DISTINCT":
        kind = "list"
    key_of = argument.key_of if isinstance(argument, Cell) and kind in ("list", "key") else ""
    return Aggregate(
        node.span, kind, node.function, base.name, argument, condition, via, frame, key_of
    )


def _base(node: Aggregation, scope: Scope) -> Table:
    """The table whose rows are taken: the one that reaches all others in the argument."""
    names = scope.names
    columns = _columns(node.argument)
    if not columns:
        raise scope.wrong(
            f"expected a column of the rows to be taken, as in {node.function}(orders.total, ...)",
            node.argument,
        )
    firsts = [names.follow(column)[0] for column in columns]
    for first in firsts:
        reached = (
            first.name == other.name or shortest(names.database, first.name, other.name)
            for other in firsts
        )
        if all(reached):
            return first
    return firsts[0]


def _columns(node: Expression) -> list[Column]:
    if isinstance(node, Column):
        return [node]
    parts = node.operands if isinstance(node, Operation) else ()
    return [column for part in parts for column in _columns(part)]


def _argument(node: Aggregation, inner: Scope) -> Value:
    argument, function = node.argument, node.function
    if isinstance(argument, Column) and argument.column.text == ALL:
        if function != "COUNT":
            raise inner.wrong(f"{function} needs a column; only COUNT takes *", argument)
        if argument.steps:
            raise inner.wrong(
                f"each row of {inner.base.name} leads to one row at most; write "
                f"COUNT({inner.base.name}.*)",
                argument,
            )
        return Row(argument.span, "other", (), inner.base.name)
    value = bind_value(argument, inner)
    fits: dict[str, tuple[Type, ...]] = {
        "SUM": ("number", "boolean"),
        "AVG": ("number", "boolean"),
        "MIN": ("number", "boolean", "datetime"),
        "MAX": ("number", "boolean", "datetime"),
    }
    wanted = fits.get(function, ("number", "boolean", "datetime", "text", "key"))
    if function == "COUNT":
        wanted = (*wanted, "other")
    if value.type not in wanted:
        raise inner.wrong(
            f"{function} is for {' or '.join(_PLURALS[t] for t in wanted)}, this is "
            f"{described(value)}",
            argument,
        )
    if function == "COUNT" and not isinstance(value, Cell):
        raise inner.wrong(
            f"COUNT takes a column; to count rows with a condition write "
            f"COUNT({quoted(inner.base.name)}.* WHERE ...)",
            argument,
        )
    if function == "LIST_DISTINCT" and not isinstance(value, Cell):
        raise inner.wrong("LIST_DISTINCT takes a column", argument)
    return value


_PLURALS = {"number": "numbers", "boolean": "conditions", "datetime": "times", "text": "texts",
            "key": "keys"}  # fmt: skip


def _frame(node: Aggregation, base: Table, scope: Scope) -> Frame:
    past = scope.role == "past"
    if not node.window:
        if not past:
            raise scope.wrong(
                f"{node.function} of the target needs a window, such as "
                f"{node.function}(..., 0, 30, days)",
                node,
            )
        if node.function in ("FIRST", "LAST"):
            _check_timed(node, base, scope)
        return Frame(-float("inf"), 0, "days")
    _check_timed(node, base, scope)
    window = node.window[0]
    start, end, unit = window.start, window.end, window.unit
    if start >= end:
        raise scope.wrong(
            f"the window ({start:g}, {end}] is empty; write one that ends later than it starts",
            window,
        )
    if past and end > 0:
        raise scope.wrong(
            "WHERE is decided at the anchor time, its windows end there at the latest: write such "
            "as -30, 0, days; for what is to be taken for granted write ASSUMING",
            window,
        )
    if not past and start < 0:
        raise scope.wrong(
            "what is to come lies after the anchor time: the window must start at 0 or later; "
            "for what has been write WHERE",
            window,
        )
    bounds = [abs(b) for b in (start, end) if b != -float("inf")]
    if max(bounds) * _SECONDS[unit] > _LONGEST:
        raise scope.wrong("the window reaches further than 200 years", window)
    return Frame(start, end, unit)


def _check_timed(node: Aggregation, base: Table, scope: Scope) -> None:
    """Rows without times are seen at every anchor: a window over them means nothing, and what is
    to come of them is no secret."""
    if base.time_column is not None:
        return
    if scope.role == "past":
        advice = "leave the window out" if node.window else "it has no first or last row"
    else:
        timed = [
            t.name
            for t in scope.names.database.tables.values()
            if t.time_column is not None
            and shortest(scope.names.database, t.name, scope.entity.name)
        ]
        advice = (
            f"those with times that lead to {scope.entity.name}: {', '.join(timed) or 'none'}; or "
            "give it a time column (time_col in manifest.yaml)"
        )
    raise scope.wrong(f"{base.name} has no time column, its rows lie in no window; {advice}", node)
