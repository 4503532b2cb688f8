"""What a column of a SQL database is read as: an expression of its dialect and an Arrow type."""

from __future__ import annotations

import re
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from rfm.data.importing.names import STRONG_ID_WORDS, split_id
from rfm.data.importing.source import BOOLEAN, INTEGER, REAL, TEXT, TIMESTAMP, SourceTable

_ISO_GLOB = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
_EXACT_DIGITS = 18  # decimals that an int64 holds
# numbers that can be Unix times, of 1985 to 2103: smaller ones are counts or days
SECONDS, MILLISECONDS = (500_000_000, 4_200_000_000), (500_000_000_000, 4_200_000_000_000)


@dataclass(frozen=True)
class Read:
    """How a column is selected, and what comes of it; no type: it cannot be read."""

    sql: str
    type: pa.DataType | None
    note: str = ""


def narrow_reads(
    table: SourceTable,
    reads: Sequence[Read],
    quoted: Sequence[str],
    without: AbstractSet[str],
    as_text: AbstractSet[str],
    text_type: str,
) -> tuple[SourceTable, tuple[Read, ...]]:
    """A table and its reads without some columns, and others as the text that the source makes.

    Args:
        reads, quoted: of `table.readable`: how each is read, and its quoted name.
        text_type: what the source calls a text.
    """
    kept, columns = [], {}
    for column, read, name in zip(table.readable, reads, quoted, strict=True):
        if column.name in without:
            columns[column.name] = replace(column, type=None, note="as given")
            continue
        if column.name in as_text and column.type != TEXT:
            raw = name if column.type == TIMESTAMP else read.sql
            read = Read(f"CAST({raw} AS {text_type})", TEXT, "as text")
            columns[column.name] = replace(column, type=TEXT, note=read.note)
        kept.append(read)
    found = tuple(columns.get(column.name, column) for column in table.columns)
    return replace(table, columns=found), tuple(kept)


@dataclass(frozen=True)
class Wide:
    """How a dialect reads numbers that 64 bits may not hold; `{}` is the quoted column."""

    whole: str  # whether one is a whole number that 64 bits hold
    integer: str
    text: str


WIDE = {
    "postgresql": Wide(
        "{0} BETWEEN -9223372036854775808 AND 9223372036854775807 AND {0} = trunc({0})",
        "{0}::int8",
        "trim_scale({0})::text",
    ),
    "duckdb": Wide(
        "{0} BETWEEN -9223372036854775808 AND 9223372036854775807 AND {0} = floor({0})",
        "{0}::BIGINT",
        "{0}::VARCHAR",
    ),
    "mysql": Wide(
        "{0} BETWEEN -9223372036854775808 AND 9223372036854775807 AND {0} = floor({0})",
        "CAST({0} AS SIGNED)",
        "CAST({0} AS CHAR)",
    ),
}


def exact_read(wide: Wide, c: str, whole: bool, may_be_text: bool, read: Read) -> Read:
    """A wide number as a 64-bit one where all its values are, else as a text where it is a key:
    a float would make different keys the same."""
    if whole:
        return Read(wide.integer.format(c), INTEGER, "whole numbers")
    return Read(wide.text.format(c), TEXT, "as text, for its digits") if may_be_text else read


def in_years(moment: str) -> str:
    """Whether a time is in the years 1 to 9999: beyond, a timestamp may not hold it, nor Python;
    infinite ones are beyond."""
    return f"{moment} >= '0001-01-01' AND {moment} < '10000-01-01'"


def is_called_key(name: str) -> bool:
    return split_id(name)[1] in STRONG_ID_WORDS


def postgres_read(c: str, kind: Any) -> Read:
    """Of a quoted column; every type that is not known comes as PostgreSQL's own text."""
    while isinstance(kind, postgresql.DOMAIN):
        kind = kind.data_type
    if isinstance(kind, sa.Boolean):
        return Read(c, BOOLEAN)
    if isinstance(kind, sa.Integer):
        return Read(c, _integer(kind))
    if isinstance(kind, sa.Float):
        return Read(f"{c}::float8", REAL)
    if isinstance(kind, sa.Numeric):
        if kind.scale == 0 and (kind.precision or 99) <= _EXACT_DIGITS:
            return Read(f"{c}::int8", INTEGER, "whole numbers")
        return Read(f"{c}::float8", REAL)
    if isinstance(kind, sa.DateTime):
        utc = getattr(kind, "timezone", False)
        moment = f"({c} AT TIME ZONE 'UTC')" if utc else f"{c}::timestamp"
        note = "as UTC" if utc else ""
        return Read(f"CASE WHEN {in_years(moment)} THEN {moment} END", TIMESTAMP, note)
    if isinstance(kind, sa.Date):
        return Read(f"CASE WHEN {in_years(c)} THEN {c}::timestamp END", TIMESTAMP)
    if isinstance(kind, sa.Interval | postgresql.INTERVAL):
        return Read(f"extract(epoch FROM {c})::float8", REAL, "in seconds")
    if _is_binary(kind):
        return Read("", None, "binary")
    if isinstance(kind, postgresql.MONEY):
        return Read(f"{c}::numeric::float8", REAL)
    if isinstance(kind, sa.ARRAY):
        return Read(f"array_to_json({c})::text", TEXT, "lists as JSON")
    known = isinstance(kind, sa.String | sa.Uuid | sa.JSON | sa.Time)
    return Read(f"{c}::text", TEXT, "" if known else "as text")


def mysql_read(c: str, kind: Any) -> Read:
    """Of a quoted column of MySQL, MariaDB or a database that nothing special is known of."""
    if isinstance(kind, sa.Boolean):
        return Read(c, BOOLEAN)
    if isinstance(kind, sa.Integer):
        return Read(c, INTEGER)
    if isinstance(kind, sa.Numeric | sa.Float):
        whole = not isinstance(kind, sa.Float) and kind.scale == 0
        if whole and (kind.precision or 99) <= _EXACT_DIGITS:
            return Read(c, INTEGER, "whole numbers")
        return Read(c, REAL)
    if isinstance(kind, sa.DateTime | sa.Date):
        # MySQL's zero dates stand for none; others compare as dates, too
        return Read(f"CASE WHEN {c} >= '0001-01-01' THEN {c} END", TIMESTAMP)
    if type(kind).__name__ == "BIT":
        return Read(f"{c} + 0", INTEGER, "bits as a number")
    binary = _is_binary(kind)
    if binary or isinstance(kind, sa.types.NullType):
        return Read("", None, "binary" if binary else "of a type that is not known")
    return Read(c, TEXT)


def sqlite_reads(
    cursor: Any, place: str, quoted: Sequence[str], declared: Sequence[str]
) -> list[Read]:
    """Of all quoted columns of a SQLite table: what is stored decides, then what is declared,
    because SQLite holds any value in any column."""
    reads: list[Read] = []
    for first in range(0, len(quoted), 100):  # SQLite allows 2000 results
        some = quoted[first : first + 100]
        cells = ", ".join(
            _sqlite_counts(c, said.upper())
            for c, said in zip(some, declared[first : first + 100], strict=True)
        )
        cursor.execute(f"SELECT {cells} FROM {place}")
        found = cursor.fetchone()
        for i, c in enumerate(some):
            counts = [int(n or 0) for n in found[10 * i : 10 * i + 10]]
            reads.append(_sqlite_read(c, declared[first + i].upper(), *counts))
    return reads


def _sqlite_counts(c: str, declared: str) -> str:
    """The ten numbers that ``_sqlite_read`` decides by; no more are counted than it takes."""
    timed = re.search(r"DATE|TIMESTAMP", declared) is not None
    return (
        f"total(typeof({c}) = 'integer'), total(typeof({c}) = 'real'), "
        f"total(typeof({c}) = 'text'), total(typeof({c}) = 'blob'), "
        f"total(typeof({c}) = 'text' AND trim({c}) = ''), "
        + (f"total({c} IS NOT NULL AND {c} NOT IN (0, 1)), " if "BOOL" in declared else "0, ")
        + (
            f"total(typeof({c}) = 'text' AND {c} GLOB '{_ISO_GLOB}' AND {_sqlite_date(c)}), "
            f"total(typeof({c}) = 'integer' AND {_is_day(c)}), "
            f"min(CASE WHEN typeof({c}) = 'integer' THEN {c} END), "
            f"max(CASE WHEN typeof({c}) = 'integer' THEN {c} END)"
            if timed
            else "0, 0, 0, 0"
        )
    )


def _day(c: str) -> str:
    """A number such as 20201231 as the text of its day."""
    return f"printf('%04d-%02d-%02d', {c} / 10000, {c} / 100 % 100, {c} % 100)"


def _is_day(c: str) -> str:
    return f"{c} BETWEEN 17000101 AND 22991231 AND date({_day(c)}, '+0 days') = {_day(c)}"


def _sqlite_date(c: str) -> str:
    """Whether a text is a date that others than SQLite know, too: it takes 2021-02-31 and 24:00."""
    return (
        f"julianday({c}) IS NOT NULL AND date(substr({c}, 1, 10), '+0 days') = "
        f"substr({c}, 1, 10) AND substr({c}, 1, 4) > '0000' AND substr({c}, 12, 2) < '24'"
    )


def _sqlite_read(
    c: str,
    declared: str,
    integers: int,
    reals: int,
    texts: int,
    blobs: int,
    blanks: int,
    no_bits: int,
    dates: int,
    days: int,
    low: int,
    high: int,
) -> Read:
    if blobs and blobs >= integers + reals + texts:
        return Read("", None, "binary")
    if re.search(r"DATE|TIMESTAMP", declared):
        if texts and texts == dates and not (integers or reals or blobs):
            return Read(c, TIMESTAMP)
        if integers and not (reals or texts or blobs):
            if days == integers:
                day = f"CASE WHEN {c} IS NOT NULL THEN {_day(c)} END"
                return Read(day, TIMESTAMP, "numbers such as 20201231 as days")
            for (least, most), seconds in ((SECONDS, c), (MILLISECONDS, f"{c} / 1000.0")):
                if least <= low and high <= most:
                    moment = f"strftime('%Y-%m-%d %H:%M:%f', {seconds}, 'unixepoch')"
                    return Read(moment, TIMESTAMP, "numbers as Unix time")
            return Read(c, INTEGER, "as numbers, which are no Unix times")
        if not (integers or reals or texts or blobs):
            return Read(c, TIMESTAMP)
    if "BOOL" in declared and integers and not (reals or texts or blobs or no_bits):
        return Read(c, BOOLEAN)
    note = ""
    if integers + reals and texts == blanks and not blobs:
        if blanks:
            c, note = f"CASE WHEN typeof({c}) <> 'text' THEN {c} END", "empty texts as null"
        fraction = re.search(r"REAL|FLOA|DOUB|(NUM|DEC)[A-Z]*\(\s*\d+\s*,\s*[1-9]", declared)
        return Read(c, REAL if reals or fraction else INTEGER, note)
    if not (integers or reals or texts or blobs):
        if "INT" in declared:
            return Read(c, INTEGER)
        return Read(c, REAL if re.search(r"REAL|FLOA|DOUB|NUM|DEC", declared) else TEXT)
    if integers or reals or blobs:
        return Read(c, TEXT, "numbers and texts, as text")
    odd = texts - dates if dates else 0
    return Read(c, TEXT, f"as text, because {odd} of its values are no dates" if odd else "")


def _is_binary(kind: Any) -> bool:
    try:
        return kind.python_type is bytes
    except NotImplementedError:  # SQLAlchemy does not know it
        return False


def _integer(kind: Any) -> pa.DataType:
    if isinstance(kind, sa.SmallInteger):
        return pa.int16()
    return INTEGER if isinstance(kind, sa.BigInteger) else pa.int32()
