"""What the columns of staged tables hold, as far as keys and times are told by it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from rfm.data.importing.duck_connection import connect_duck
from rfm.data.importing.names import split_id, unmarked
from rfm.data.importing.stage import Staged

Sort = Literal["integer", "real", "text", "boolean", "time"]
_ISO = r"^\s*\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}.*)?\s*$"
_LONGEST_KEY = 1000  # bytes: longer texts are read, not looked up
_MANY, _HEAD = 1_000_000, 5000
_HEAD_BYTES, _HEAD_LEAST = 32 << 20, 50  # rows of the head take so much at most, and are so many
_COLUMNS = 24  # asked for at once
_ALMOST = 0.9  # of values that a sketch counts as different: perhaps all of them are


@dataclass(frozen=True)
class ColumnFacts:
    """A column of a staged table; `low` and `high` are of whole numbers and times only."""

    name: str
    at: str  # its name in the staged file
    sort: Sort
    rows: int
    nulls: int
    distinct: int  # exact where `unique`; else off by some percent, or more of fractions and times
    unique: bool  # all values differ and none is null
    low: Any
    high: Any
    whole: bool  # numbers without a fraction
    times: bool  # texts that are all ISO dates or timestamps

    @property
    def counts_rows(self) -> bool:
        """Whole numbers without gap and repetition: nothing that is measured looks like that."""
        return self.unique and self.sort == "integer" and self.high - self.low == self.rows - 1

    @property
    def null_share(self) -> float:
        return self.nulls / max(self.rows, 1)


@dataclass(frozen=True)
class TableFacts:
    """A staged table that has rows."""

    name: str  # in the folder that is made
    staged: Staged
    columns: Mapping[str, ColumnFacts]  # by the source's name, in its order

    @property
    def rows(self) -> int:
        return self.staged.rows

    @cached_property
    def plain(self) -> Mapping[str, str]:
        """Per column its name without what marks all columns as this table's."""
        return unmarked(list(self.columns))

    @property
    def path(self) -> Path:
        return self.staged.path


class Facts:
    """Questions to the staged files; DuckDB answers within `memory` megabytes, else spills."""

    def __init__(self, memory: int, threads: int, spill: Path) -> None:
        self.connection = connect_duck(None, memory, threads, spill)

    def close(self) -> None:
        self.connection.close()

    def table(self, name: str, staged: Staged) -> TableFacts:
        """All columns of a staged table."""
        described = list(zip(staged.table.readable, staged.table.types, strict=True))
        heads = self._heads(staged)
        cells = [
            cell
            for (_, field), head in zip(described, heads, strict=True)
            for cell in _cells(field, head, field.name in staged.rising)
        ]
        found = self._cells(cells, 6, scan(staged.path))
        columns = {}
        for i, (source, field) in enumerate(described):
            n, distinct, low, high, odd, longest = found[6 * i : 6 * i + 6]
            sort, nulls = _sort(field.type), staged.rows - int(n)
            if distinct is None:
                distinct = 1 if low == high and n else heads[i].share * int(n)
            unique = field.name in staged.rising
            if not unique and sort in ("integer", "text") and not nulls and staged.rows:
                almost = (
                    int(distinct) >= _ALMOST * staged.rows and int(longest or 0) <= _LONGEST_KEY
                )
                # a text of many rows is looked at only where its name says that it may be a key
                named = sort == "integer" or staged.rows <= _MANY or split_id(source.name)[1] != ""
                unique = almost and named
                unique = unique and self.distinct(staged.path, [field.name]) == staged.rows
            columns[source.name] = ColumnFacts(
                source.name,
                field.name,
                sort,
                staged.rows,
                nulls,
                staged.rows if unique else min(int(distinct), int(n)),
                unique,
                low,
                high,
                sort == "integer" or (sort == "real" and int(n) > 0 and not odd),
                sort == "text" and int(n) > 0 and not odd,
            )
        return TableFacts(name, staged, columns)

    def _heads(self, staged: Staged) -> list[_Head]:
        """What the first rows say of each column, which spares questions to all of them."""
        cells = []
        for field in staged.table.types:
            odd = _odd(field)
            # by their hashes: some thousand long texts would be held whole
            share = f"count(DISTINCT hash({field.name})) FILTER ({field.name} IS NOT NULL)"
            cells += [odd, f"{share} / greatest(count({field.name}), 1)"]
        limit = max(_HEAD_LEAST, min(_HEAD, _HEAD_BYTES * staged.rows // max(staged.bytes, 1)))
        found = self._cells(cells, 2, f"(SELECT * FROM {scan(staged.path)} LIMIT {limit})")
        pairs = zip(found[::2], found[1::2], strict=True)
        return [_Head(bool(odd), float(share)) for odd, share in pairs]

    def _cells(self, cells: list[str], each: int, rows: str) -> tuple[Any, ...]:
        """Answers to `each` questions per column, some columns at a time: DuckDB holds megabytes
        for every question."""
        found: tuple[Any, ...] = ()
        for first in range(0, len(cells), each * _COLUMNS):
            some = cells[first : first + each * _COLUMNS]
            found += self._row(f"SELECT {', '.join(some)} FROM {rows}")
        return found

    def distinct(self, path: Path, columns: list[str]) -> int:
        """Different combinations of values, exactly, of rows without null in them."""
        names = ", ".join(columns)
        present = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        return int(
            self._row(
                f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM {scan(path)} WHERE {present})"
            )[0]
        )

    def present(self, path: Path, columns: list[str]) -> int:
        """Rows without null in any of some columns."""
        present = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        return int(self._row(f"SELECT count(*) FROM {scan(path)} WHERE {present}")[0])

    def matches_folded(
        self, child: Path, column: str, parent: Path, parent_column: str, exactly: int
    ) -> bool:
        """Whether more than `exactly` of the child's different texts are the parent's if upper and
        lower case are the same, and the parent's still differ."""
        distinct, rows = self._row(
            f"SELECT count(v), coalesce(sum(n), 0) FROM (SELECT lower({parent_column}) AS v, "
            f"count({parent_column}) AS n FROM {scan(parent)} GROUP BY v)"
        )
        if distinct < rows:
            return False
        found = self._row(
            f"SELECT count(*) FROM (SELECT DISTINCT {column} AS v FROM {scan(child)}) c WHERE "
            f"EXISTS (SELECT 1 FROM {scan(parent)} p WHERE lower(c.v) = lower(p.{parent_column}))"
        )
        return int(found[0]) > exactly

    def contained(
        self,
        child: Path,
        columns: list[str],
        parent: Path,
        parent_columns: list[str],
        folded: bool = False,
    ) -> tuple[int, int, int, int]:
        """Of the child's different values: how many, how many are the parent's (`folded`: if upper
        and lower case are the same), and the rows of either count."""
        names = ", ".join(columns)
        present = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        on = " AND ".join(
            f"lower(c.{c}) = lower(p.{p})"
            if folded
            else f"c.{c}::VARCHAR = p.{p}::VARCHAR"
            if cast
            else f"c.{c} = p.{p}"
            for c, p, cast in self._casts(child, columns, parent, parent_columns)
        )
        found = self._row(
            f"SELECT count(*), coalesce(sum(f), 0), coalesce(sum(n), 0), "
            "coalesce(sum(n) FILTER (f = 1), 0) FROM ("
            f"SELECT c.n, (EXISTS (SELECT 1 FROM {scan(parent)} p WHERE {on}))::INT AS f FROM "
            f"(SELECT {names}, count(*) AS n FROM {scan(child)} WHERE {present} GROUP BY ALL) c)"
        )
        return int(found[0]), int(found[1]), int(found[2]), int(found[3])

    def overlap(self, a: Path, column: str, b: Path, other: str) -> float:
        """Different values that two columns share, of those that either has."""
        found = self._row(
            f"SELECT count(*) FILTER (n = 2), count(*) FROM (SELECT v, count(*) AS n FROM ("
            f"SELECT DISTINCT {column} AS v FROM {scan(a)} UNION ALL "
            f"SELECT DISTINCT {other} FROM {scan(b)}) WHERE v IS NOT NULL GROUP BY v)"
        )
        return float(found[0]) / max(float(found[1]), 1.0)

    def _casts(
        self, child: Path, columns: list[str], parent: Path, parent_columns: list[str]
    ) -> list[tuple[str, str, bool]]:
        """Columns to compare, and whether as text: a number and a text never equal otherwise."""
        kinds = [
            dict(self._row_types(path, names))
            for path, names in ((child, columns), (parent, parent_columns))
        ]
        return [
            (c, p, (kinds[0][c] == "VARCHAR") != (kinds[1][p] == "VARCHAR"))
            for c, p in zip(columns, parent_columns, strict=True)
        ]

    def _row_types(self, path: Path, names: list[str]) -> list[tuple[str, str]]:
        sql = f"DESCRIBE SELECT {', '.join(names)} FROM {scan(path)}"
        return [(str(r[0]), str(r[1])) for r in self.connection.execute(sql).fetchall()]

    def _row(self, sql: str) -> tuple[Any, ...]:
        row = self.connection.execute(sql).fetchone()
        assert row is not None
        return tuple(row)


def scan(path: Path) -> str:
    """A staged file as a table of SQL."""
    return "read_parquet('" + str(path).replace("'", "''") + "', file_row_number = true)"


def as_moment(value: Any) -> datetime.datetime | None:
    """The low or high end of a column of times."""
    return value if isinstance(value, datetime.datetime) else None


def _sort(kind: pa.DataType) -> Sort:
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "real"
    return "time" if pa.types.is_timestamp(kind) else "text"


@dataclass(frozen=True)
class _Head:
    """Of a column's first rows: whether one is no whole number or no time (by its type), and the
    share of values that differ."""

    odd: bool
    share: float


def _odd(field: pa.Field) -> str:
    """Whether a number has a fraction, or a text is no time."""
    c, sort = field.name, _sort(field.type)
    if sort == "real":
        return f"coalesce(bool_or({c} <> floor({c})), false)"
    if sort == "text":
        return (
            f"coalesce(bool_or(NOT regexp_matches({c}, '{_ISO}') "
            f"OR coalesce(try_cast({c} AS TIMESTAMPTZ) < TIMESTAMPTZ '0001-01-01', true)), false)"
        )
    return "false"


def _cells(field: pa.Field, head: _Head, rising: bool) -> list[str]:
    """Not null, different values (null: not asked), lowest, highest, odd, longest."""
    c, sort = field.name, _sort(field.type)
    ends = [f"min({c})", f"max({c})"] if sort in ("integer", "time", "real") else ["NULL", "NULL"]
    counted = sort in ("integer", "text") or (sort == "real" and not head.odd)
    distinct = f"approx_count_distinct({c})" if counted and not rising else "NULL"
    longest = f"max(strlen({c}))" if sort == "text" else "0"
    return [f"count({c})", distinct, *ends, "true" if head.odd else _odd(field), longest]
