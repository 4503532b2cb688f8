"""Constants as duckdb reads them: with names that are quoted, nothing of a query gets into SQL any
other way."""

from __future__ import annotations

import re
from datetime import datetime

from rfm.data.sql_quoting import literal

PLACEHOLDER = "{timedelta}"  # which RelBench replaces, wherever it stands


def constant(value: bool | int | float | str | datetime) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"CAST('{value!r}' AS DOUBLE)"
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value:%Y-%m-%d %H:%M:%S}'"
    return _text(value)


def interval(number: int, unit: str) -> str:
    return f"INTERVAL '{number} {unit}'"


def _text(text: str) -> str:
    """In quotes; what cannot be printed is spelled by its number, and no placeholder is whole."""
    spelled: list[str] = []
    for part in re.findall(r"[^\W_]+|.", text, flags=re.DOTALL):
        if part.isprintable():
            same = spelled and spelled[-1].startswith("'") and part != "timedelta"
            if same:
                spelled[-1] = spelled[-1][:-1] + literal(part)[1:]
            else:
                spelled.append(literal(part))
        else:
            spelled += [f"chr({ord(c)})" for c in part]
    return "(" + " || ".join(spelled) + ")" if len(spelled) > 1 else "".join(spelled) or "''"
