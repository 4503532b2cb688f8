"""Arithmetic as SQL, in types that hold what comes of it: columns may be narrow.

Sums, differences and products of whole and decimal numbers are exact as long as 38 digits hold
them, whatever the numbers are; all else is DOUBLE. What is not finite is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from rfm.data.database import Database
from rfm.data.query.bound import Aggregate, Apply, Cell, Fixed, Value
from rfm.data.query.names import schema

ARITHMETIC = ("+", "-", "*", "/")
_MOST_DIGITS = 38  # of DECIMAL; HUGEINT holds as many
_COUNT_DIGITS = 19


@dataclass(frozen=True)
class Exact:
    """Numbers of up to ``digits`` before and ``scale`` after the decimal point."""

    digits: int
    scale: int

    @property
    def sql(self) -> str:
        return f"DECIMAL({_MOST_DIGITS}, {self.scale})" if self.scale else "HUGEINT"


def exact(value: Value, database: Database) -> Exact | None:
    """The digits that a number may have, None if it is a floating one."""
    if isinstance(value, Fixed):
        if not isinstance(value.value, int):
            return None
        return _held(Exact(len(str(abs(value.value))), 0))
    if isinstance(value, Cell):
        return _of_type(schema(database.tables[value.table]).field(value.column).type)
    if isinstance(value, Aggregate):
        if value.function in ("COUNT", "COUNT_DISTINCT"):
            return Exact(_COUNT_DIGITS, 0)
        return None if value.function in ("SUM", "AVG") else exact(value.argument, database)
    if not isinstance(value, Apply) or value.operator not in ARITHMETIC:
        return None
    operands = [exact(operand, database) for operand in value.operands]
    known = [operand for operand in operands if operand is not None]
    if len(known) < len(operands) or value.operator == "/":
        return None
    if value.operator == "*":
        return _held(Exact(sum(k.digits for k in known), sum(k.scale for k in known)))
    carry = len(known) - 1
    return _held(Exact(max(k.digits for k in known) + carry, max(k.scale for k in known)))


def spell_arithmetic(value: Apply, database: Database, spell: Callable[[Value], str]) -> str:
    """SQL of an operation on numbers, NULL if it is not finite (too large, or divided by zero).

    Args:
        spell: SQL of the operands that are no such operations themselves.
    """
    divisors = list[str]()
    spelled = _nested(value, database, spell, divisors)
    if exact(value, database) is not None:
        return spelled
    sound = [f"{divisor} <> 0" for divisor in divisors]
    return f"CASE WHEN {' AND '.join([*sound, f'isfinite({spelled})'])} THEN {spelled} END"


def finite(spelled: str) -> str:
    """A floating number, NULL if it is none or infinite."""
    return f"CASE WHEN isfinite({spelled}) THEN {spelled} END"


def _nested(
    value: Apply, database: Database, spell: Callable[[Value], str], divisors: list[str]
) -> str:
    """Checked at the outermost operation alone, as each check says the operation twice.
    ``divisors`` gets what must not be zero: ``nullif`` would double it at every level."""
    result, operator = exact(value, database), value.operator
    operands = []
    for operand in value.operands:
        if isinstance(operand, Apply) and operand.operator in ARITHMETIC:
            said = _nested(operand, database, spell, divisors)
        else:
            said = spell(operand)
        own = exact(operand, database)
        if result is None or own is None:
            kind = "DOUBLE"
        elif operator == "*" and result.scale:
            kind = f"DECIMAL({_MOST_DIGITS}, {own.scale})"
        else:
            kind = result.sql
        operands.append(f"CAST({said} AS {kind})")
    if len(operands) == 1:
        return f"(- {operands[0]})"
    if operator == "/":
        divisors.append(operands[1])
    return f"({operands[0]} {operator} {operands[1]})"


def _of_type(kind: pa.DataType) -> Exact | None:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        lowest = 2 ** (kind.bit_width - pa.types.is_signed_integer(kind))
        return Exact(len(str(lowest)), 0)
    if pa.types.is_decimal(kind):
        return _held(Exact(max(kind.precision - kind.scale, 1), max(kind.scale, 0)))
    return None


def _held(found: Exact) -> Exact | None:
    return found if found.digits + found.scale <= _MOST_DIGITS else None
