"""Values and aggregate functions of a query as SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from rfm.data.query.bound import Aggregate, Anchor, Apply, Cell, Fixed, Interval, Row, Value
from rfm.data.query.names import schema
from rfm.data.query.numbers_sql import finite, spell_arithmetic
from rfm.data.query.rows_sql import Source, moment
from rfm.data.query.spelling import constant, interval
from rfm.data.sql_quoting import identifier

COMPARED = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TEXT: dict[str, str] = {
    "LIKE": "({0} LIKE {1})",
    "CONTAINS": "contains({0}, {1})",
    "STARTS WITH": "starts_with({0}, {1})",
    "ENDS WITH": "ends_with({0}, {1})",
}


def spell_function(aggregate: Aggregate, spell: Callable[[Value], str], source: Source) -> str:
    """The aggregate function over rows of ``source``."""
    function, argument = aggregate.function, aggregate.argument
    if isinstance(argument, Row):
        return "count(*)"
    value = spell(argument)
    if isinstance(argument, Apply) and argument.type == "boolean":
        value = f"coalesce({value}, FALSE)"  # as in WHERE, what is unknown does not hold
    if aggregate.key_of or argument.type == "key":
        value = f"CAST({value} AS BIGINT)"
    if function in ("SUM", "AVG"):
        value = f"CAST({value} AS DOUBLE)"
    if function in ("FIRST", "LAST"):
        table = source.table
        tie = identifier(table.primary_key) if table.primary_key is not None else ""
        order = f"row(b.{identifier(str(table.time_column))}, {f'b.{tie}' if tie else value})"
        return f"{'arg_min' if function == 'FIRST' else 'arg_max'}({value}, {order})"
    if function in ("MIN", "MAX") and argument.type == "boolean":
        return f"{'bool_and' if function == 'MIN' else 'bool_or'}({value})"
    if function == "COUNT_DISTINCT":
        return f"count(DISTINCT {value})"
    if function == "LIST_DISTINCT":
        return f"list(DISTINCT {value} ORDER BY {value}) FILTER (WHERE {value} IS NOT NULL)"
    return f"{function.lower()}({value})"


def spell_value(value: Value, rows: Source, anchor: str, spell: Callable[[Value], str]) -> str:
    if isinstance(value, Cell):
        return _cell(value, rows)
    if isinstance(value, Fixed):
        assert value.value is not None, value
        return constant(value.value)
    if isinstance(value, Anchor):
        return anchor
    if isinstance(value, Interval):
        return interval(value.number, value.unit)
    assert isinstance(value, Apply), value
    if value.type == "number":
        return spell_arithmetic(value, rows.database, spell)
    return _operation(value, [spell(operand) for operand in value.operands])


def _cell(cell: Cell, rows: Source) -> str:
    table = rows.database.tables[cell.table]
    kind = schema(table).field(cell.column).type

    def spell(alias: str) -> str:
        if cell.type == "datetime":
            return moment(table, cell.column, alias)
        name = f"{alias}.{identifier(cell.column)}"
        return finite(name) if pa.types.is_floating(kind) else name

    return rows.cell(cell.path, spell)


def _operation(value: Apply, operands: Sequence[str]) -> str:
    operator = value.operator
    if operator in ("AND", "OR"):
        return "(" + f" {operator} ".join(operands) + ")"
    if operator == "NOT":
        return f"(NOT {operands[0]})"
    if operator in ("IS NULL", "IS NOT NULL"):
        return f"({operands[0]} {operator})"
    if operator == "AS TIME":
        return f"TRY_CAST({operands[0]} AS TIMESTAMP)"
    if operator in ("IN", "NOT IN"):
        return f"({operands[0]} {operator} ({', '.join(operands[1:])}))"
    if operator in COMPARED:
        return f"({operands[0]} {COMPARED[operator]} {operands[1]})"
    if operator.removeprefix("NOT ") in _TEXT:
        said = _TEXT[operator.removeprefix("NOT ")].format(*operands)
        return f"(NOT {said})" if operator.startswith("NOT ") else said
    assert operator in ("+", "-"), operator  # NOW - 30 days
    return f"({operands[0]} {operator} {operands[1]})"
