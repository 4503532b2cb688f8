"""Times and numbers that texts hold, and times that are none, as conditions of DuckDB."""

from __future__ import annotations

from rfm.data.importing.duck_connection import utc

FIRST, LAST = "1000-01-01", "2200-01-01"  # what is outside stands for "never" or "not known"
_ISO = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?\s*$"
# 00123 is a code
_NUMBER = r"^\s*[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?\s*$"
_CASTS = {"number": "DOUBLE", "boolean": "BOOLEAN", "datetime": "TIMESTAMP", "text": "VARCHAR"}
_CASTS["category"] = "VARCHAR"


def is_time(cell: str) -> str:
    """Whether a text is an ISO date or timestamp, whenever that is."""
    return (
        f"(regexp_matches({cell}, '{_ISO}') AND "
        f"coalesce(try_cast({cell} AS TIMESTAMPTZ) >= TIMESTAMPTZ '0001-01-01', false))"
    )


def is_number(cell: str) -> str:
    """Whether a text is written as numbers are, and codes are not."""
    return f"regexp_matches({cell}, '{_NUMBER}')"


def happened(moment: str) -> str:
    """Whether a time is one that something can have happened at: neither 9999-12-31 nor 0001-01-01
    is."""
    return f"({moment} >= TIMESTAMP '{FIRST}' AND {moment} < TIMESTAMP '{LAST}')"


def as_time(cell: str) -> str:
    """The time of a text, null if it is none."""
    return f"CASE WHEN {is_time(cell)} THEN {utc(cell)} END"


def as_kind(cell: str, sort: str, kind: str) -> str:
    """A value as what the user says that its column holds; null where it is no such thing."""
    if kind == "datetime" and sort == "text":
        return as_time(cell)
    value = f"try_cast({cell} AS {_CASTS[kind]})"
    if kind == "number" and sort == "text":
        return f"CASE WHEN isfinite({value}) THEN {value} END"
    return value
