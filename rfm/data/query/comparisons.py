"""Comparisons: what may be compared with what, and constants made comparable."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rfm.data.original_keys import find_row, key_of_row
from rfm.data.query.bound import Apply, Cell, Fixed, Row, Type, Value
from rfm.data.query.names import Names
from rfm.data.query.parser import read_date
from rfm.data.query.syntax import Constant, Operation

TEXT_OPERATORS = (
    "LIKE", "NOT LIKE", "CONTAINS", "NOT CONTAINS", "STARTS WITH", "NOT STARTS WITH", "ENDS WITH",
    "NOT ENDS WITH",
)  # fmt: skip
_ARTICLES = {
    "number": "a number",
    "boolean": "a condition",
    "text": "a text",
    "datetime": "a time",
    "key": "a key",
    "duration": "a length of time",
    "null": "NULL",
    "list": "a list",
    "other": "something that is neither number, text nor time",
}
_TYPES: dict[type, Type] = {
    bool: "boolean", int: "number", float: "number", str: "text", datetime: "datetime",
    type(None): "null",
}  # fmt: skip


def described(value: Value) -> str:
    """What a value is, in words: a number (orders.total)."""
    what = _ARTICLES[value.type]
    return f"{what} ({value.table}.{value.column})" if isinstance(value, Cell) else what


def literal(constant: Constant) -> Fixed:
    return Fixed(constant.span, _TYPES[type(constant.value)], constant.value)


def bind_comparison(node: Operation, left: Value, right: tuple[Value, ...], names: Names) -> Apply:
    """``left operator right``; IN has several values on its right.

    Raises:
        QueryError: for types that cannot be compared.
    """
    operator = node.operator
    for value in (left, *right):
        if isinstance(value, Row) or value.type in ("list", "duration"):
            raise names.wrong(f"{_ARTICLES[value.type]} cannot be compared", value.span)
    if any(value.type == "null" for value in right):
        return _null(node, left, right, names)
    if left.type == "null":
        raise names.wrong("write the other way round: ... IS NULL", left.span)
    if left.type == "other":
        raise names.wrong(f"{described(left)} can only be compared with NULL", left.span)
    if operator in TEXT_OPERATORS:
        for value in (left, *right):
            if value.type != "text":
                raise names.wrong(f"{operator} is for texts, this is {_value(value)}", value.span)
        return Apply(node.span, "boolean", operator, (left, *right))
    pairs = [_matched(node, left, value, names) for value in right]
    return Apply(node.span, "boolean", operator, (pairs[0][0], *(value for _, value in pairs)))


def _null(node: Operation, left: Value, right: tuple[Value, ...], names: Names) -> Apply:
    if len(right) > 1:
        null = next(v for v in right if v.type == "null")
        raise names.wrong("NULL is in no list; write ... OR ... IS NULL", null.span)
    if node.operator not in ("=", "!="):
        raise names.wrong("expected IS NULL or IS NOT NULL", node.span)
    return Apply(
        node.span, "boolean", "IS NULL" if node.operator == "=" else "IS NOT NULL", (left,)
    )


def _matched(node: Operation, left: Value, right: Value, names: Names) -> tuple[Value, Value]:
    """Both sides of one type, constants converted."""
    if "key" in (left.type, right.type):
        return _keys(node, left, right, names)
    if left.type == right.type:
        if left.type == "boolean" and node.operator not in ("=", "!=", "IN", "NOT IN"):
            raise names.wrong("conditions are compared with = and != only", node.span)
        return left, right
    if isinstance(right, Fixed):
        return _converted(node, left, right, names)
    if isinstance(left, Fixed):
        other, same = _converted(node, right, left, names)
        return same, other
    raise _unlike(node, left, right, names)


def _converted(node: Operation, value: Value, fixed: Fixed, names: Names) -> tuple[Value, Fixed]:
    """A constant in the type of what it is compared with."""
    constant = fixed.value
    if value.type == "datetime" and isinstance(constant, str):
        try:
            return value, replace(fixed, type="datetime", value=read_date(constant))
        except ValueError as error:
            raise names.wrong(
                f"{error}, to compare it with {described(value)}", fixed.span
            ) from None
    if value.type == "text" and fixed.type == "datetime":
        return Apply(value.span, "datetime", "AS TIME", (value,)), fixed
    if node.operator in ("=", "!=", "IN", "NOT IN"):
        if value.type == "number" and isinstance(constant, bool):
            return value, replace(fixed, type="number", value=int(constant))
        if value.type == "boolean" and isinstance(constant, int) and constant in (0, 1):
            return value, replace(fixed, type="boolean", value=bool(constant))
    raise _unlike(node, value, fixed, names)


def _keys(node: Operation, left: Value, right: Value, names: Names) -> tuple[Value, Value]:
    """A key and a key of the same table, or a constant that is one."""
    if node.operator not in ("=", "!=", "IN", "NOT IN"):
        raise names.wrong(
            f"keys are compared with =, != and IN, not with {node.operator}", node.span
        )
    tables = [getattr(value, "key_of", "") for value in (left, right)]
    if left.type == right.type:
        if tables[0] != tables[1]:
            raise names.wrong(f"a key of {tables[0]} is never one of {tables[1]}", right.span)
        return left, right
    fixed, table = (right, tables[0]) if left.type == "key" else (left, tables[1])
    if not isinstance(fixed, Fixed):
        raise names.wrong(f"a key cannot be compared with {_value(fixed)}", fixed.span)
    row = find_row(names.database, table, fixed.value)
    if row < 0:
        raise names.wrong(
            f"{table} has no row with the key {fixed.value!r}; its keys are such as "
            f"{key_of_row(names.database, table, 0)!r}",
            fixed.span,
        )
    found = replace(fixed, type="number", value=row)
    return (left, found) if left.type == "key" else (found, right)


def _unlike(node: Operation, left: Value, right: Value, names: Names) -> Exception:
    hint = ""
    if isinstance(right, Fixed) and left.type == "text" and right.type == "number":
        hint = f"; write it in quotes: '{right.value}'"
    return names.wrong(f"cannot compare {_value(left)} with {_value(right)}{hint}", right.span)


def _value(value: Value) -> str:
    return (
        f"{_ARTICLES[value.type]} ({value.value!r})"
        if isinstance(value, Fixed)
        else described(value)
    )
