"""Names and texts in SQL: quoted, they are nothing but themselves."""

from __future__ import annotations


def identifier(name: str, mark: str = '"') -> str:
    """The name of a table or a column; `mark` is the dialect's own."""
    return mark + name.replace(mark, mark * 2) + mark


def literal(value: object) -> str:
    """A text, or what a value is as one, as a constant."""
    return "'" + str(value).replace("'", "''") + "'"
