"""CSV files: delimiter, encoding and types, decided by all of a file and not by its beginning."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import duckdb

from rfm.data.importing.duck_connection import utc
from rfm.data.importing.folder_names import free
from rfm.data.sql_quoting import identifier, literal

_log = logging.getLogger("rfm")
CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_NULLS = ("", "NULL", "null", "\\N", "NaN", "nan")  # not NA: that is Namibia, too
_DELIMITERS = ",;\t|"
_LONGEST_LINE = 1 << 24  # bytes
# 00123 is a code: as a number it would lose its zeros, one of 19 digits its last ones; +49123 is a
# telephone's, and 2E3 a place's: numbers in such words are written 2.0E3 or 2e+03
_INTEGER = "-?(0|[1-9][0-9]{0,17})"
_REAL = (
    r"-?(0|[1-9][0-9]{0,17})([eE][+-][0-9]{2,3})?"
    r"|[+-]?((0|[1-9][0-9]{0,17})\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
)
# (BC): DuckDB reads it, but what comes of it is not in this calendar
_ISO = r"\d{4}-\d\d-\d\d([ T]\d[^()]*)?"
_DATE = r"\s*\d{1,2}[/.]\d{1,2}[/.]\d{4}.*"
_DAY_FIRST = ("%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M")
_MONTH_FIRST = ("%m/%d/%Y", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M:%S %p")


def csv_table(connection: duckdb.DuckDBPyConnection, path: Path, scratch: Path) -> str:
    """A CSV file with a header as a table of SQL, its columns of the types that all rows have.

    Integers, numbers, true/false, ISO dates and timestamps; dates such as 31/12/2020, where only
    one order of day and month fits all rows; else text.

    Args:
        scratch: a folder for copies of files that DuckDB cannot read as they are; they must stay
            until the table has been read.

    Raises:
        ValueError, duckdb.Error: a file that is no table, with the line at which it is none.
    """
    encoding = _encoding(path)
    if encoding == "utf-16":  # DuckDB knows one order of its bytes only
        return _table(connection, _plain_copy(path, encoding, scratch), "utf-8")
    try:
        return _table(connection, path, encoding)
    except (duckdb.InvalidInputException, ValueError):
        if not _has_mixed_lines(path):
            raise
    return _table(connection, _plain_copy(path, encoding, scratch), "utf-8")


def _table(connection: duckdb.DuckDBPyConnection, path: Path, encoding: str) -> str:
    delimiter, names, skipped, more = _header(path, encoding)
    columns = ", ".join(f"c{i}: 'VARCHAR'" for i in range(len(names)))
    scan = (
        f"read_csv({literal(pattern(path))}, auto_detect = false, header = true, skip = {skipped}, "
        f"delim = {literal(delimiter)}, quote = '\"', escape = '\"', "
        f"nullstr = [{', '.join(map(literal, _NULLS))}], "
        f"compression = '{'gzip' if path.name.lower().endswith('.gz') else 'none'}', "
        f"encoding = {literal(encoding)}, columns = {{{columns}}}, "
        # by itself DuckDB takes buffers of sixteen such lines
        f"max_line_size = {_LONGEST_LINE}, buffer_size = {2 * _LONGEST_LINE})"
    )
    tests = [test for i in range(len(names)) for test, _ in _types(f"c{i}")]
    found = connection.execute(f"SELECT {', '.join(tests)}, count(*) FROM {scan}").fetchone()
    assert found is not None
    if more and not found[-1]:
        raise ValueError(f"its lines give no rows, divided at {delimiter!r} as its header is")
    each = len(tests) // len(names)
    cells = []
    for i, name in enumerate(names):
        fits = found[each * i : each * (i + 1)]
        casts = [cast for fit, (_, cast) in zip(fits, _types(f"c{i}"), strict=True) if fit]
        both = fits[-1] and fits[-2]  # 01/02/2020 alone tells nothing
        cell = casts[0] if casts and not both else f"c{i}"
        cells.append(f"{cell} AS {identifier(name)}")
    return f"(SELECT {', '.join(cells)} FROM {scan})"


def pattern(path: Path) -> str:
    """A path for DuckDB, which takes * ? and [ in one for a pattern."""
    return re.sub(r"[*?\[]", r"[\g<0>]", str(path))


def _types(c: str) -> list[tuple[str, str]]:
    """Per type whether all values fit, and the value as it. A column without values is text."""

    def all_are(condition: str) -> str:
        return f"coalesce(bool_and({condition}) FILTER ({c} IS NOT NULL), false)"

    return [
        (all_are(f"regexp_full_match({c}, '{_INTEGER}')"), f"{c}::BIGINT"),
        (all_are(f"regexp_full_match({c}, '{_REAL}')"), f"{c}::DOUBLE"),
        (all_are(f"lower({c}) IN ('true', 'false')"), f"{c}::BOOLEAN"),
        (
            all_are(_if_like(c, _ISO, f"try_cast({c} AS TIMESTAMPTZ) >= '0001-01-01'")),
            utc(c),
        ),
        *(
            (
                all_are(_if_like(c, _DATE, f"try_strptime({c}, {list(formats)}) IS NOT NULL")),
                f"strptime({c}, {list(formats)})",
            )
            for formats in (_DAY_FIRST, _MONTH_FIRST)
        ),
    ]


def _if_like(c: str, form: str, condition: str) -> str:
    """A condition that is asked only of texts like a pattern: that takes a fraction of the time."""
    return f"coalesce(CASE WHEN regexp_full_match({c}, '{form}') THEN {condition} END, false)"


def _header(path: Path, encoding: str) -> tuple[str, list[str], int, bool]:
    """The delimiter, the names in the header, each once and none empty, how many empty lines are
    before it, and whether anything comes after it."""
    with io.TextIOWrapper(_open(path), encoding.replace("utf-8", "utf-8-sig"), newline="") as file:
        skipped, at, first = 0, 0, file.readline()
        while first and not first.strip():
            skipped, at, first = skipped + 1, file.tell(), file.readline()
        file.seek(at)
        delimiter = _delimiter(path, first)
        rows = csv.reader(file, delimiter=delimiter)
        try:
            names = next(rows)
        except (StopIteration, csv.Error) as error:
            raise ValueError(f"its first line is no header of columns: {error}") from None
        try:
            more = any(map(any, rows))
        except csv.Error:  # a cell that is longer than this module reads
            more = True
    taken: set[str] = set()
    names = [free(name.strip() or f"column_{i + 1}", taken) for i, name in enumerate(names)]
    return delimiter, names, skipped, more


def _delimiter(path: Path, line: str) -> str:
    """What divides most of a header, outside of quotes; tabs where a file's name says so."""
    parts = {d: len(next(csv.reader([line], delimiter=d), [])) for d in _DELIMITERS}
    if parts["\t"] > 1 and ".tsv" in path.suffixes[-2:]:
        return "\t"
    return max(_DELIMITERS, key=parts.__getitem__)


def _has_mixed_lines(path: Path) -> bool:
    """Whether some lines end as on Windows and others do not, which DuckDB refuses."""
    ends = set()
    with _open(path) as file:
        for line in file:
            ends.add(line.endswith(b"\r\n"))
    return len(ends) > 1


def _plain_copy(path: Path, encoding: str, scratch: Path) -> Path:
    """A copy in UTF-8, whose lines all end alike and of which the first is not empty."""
    scratch.mkdir(parents=True, exist_ok=True)
    copy = scratch / (path.name[:-3] if path.name.lower().endswith(".gz") else path.name)
    with (
        io.TextIOWrapper(_open(path), encoding.replace("utf-8", "utf-8-sig")) as file,
        copy.open("w", encoding="utf-8", newline="") as plain,
    ):
        line = next((line for line in file if line.strip()), "")
        plain.write(line)
        shutil.copyfileobj(file, plain, 1 << 20)
    return copy


def _encoding(path: Path) -> str:
    """`utf-8` where the whole file is, `utf-16` where its first bytes say so, else `latin-1`."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    with _open(path) as file:
        if (head := file.read(2)) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return "utf-16"
        try:
            decode(head)
            while block := file.read(1 << 20):
                decode(block)
            decode(b"", True)
        except UnicodeDecodeError:
            _log.warning("%s: is not UTF-8, read as Latin-1", path)
            return "latin-1"
    return "utf-8"


def _open(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")
