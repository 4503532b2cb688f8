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
from rfm.data.importing.text_values import (
    FIRST,
    LAST,
    as_kind,
    as_time,
    happened,
    is_number,
    is_time,
)
from rfm.data.sql_quoting import literal

Sort = Literal["integer", "real", "text", "boolean", "time"]
_LONGEST_KEY = 1000  # bytes: longer texts are read, not looked up
_MANY, _HEAD = 1_000_000, 5000
_HEAD_BYTES, _HEAD_LEAST = 32 << 20, 50  # rows of the head take so much at most, and are so many
_COLUMNS = 24  # asked for at once
_ALMOST = 0.9  # of values that a sketch counts as different: perhaps all of them are
_FIRST, _LAST = map(datetime.datetime.fromisoformat, (FIRST, LAST))
_SHOWN = 40  # letters of an example
_MOST = 0.5  # of the first values, which are then looked at further


@dataclass(frozen=True)
class Holds:
    """What most values of a column are, times or texts of numbers, and what the others are."""

    kind: Literal["", "time", "number"] = ""
    fit: int = 0  # values that are; times only if something can have happened then
    never: int = 0  # other times, such as 9999-12-31: they stand for none
    odd: str = ""  # an example of what is no time or no number at all
    strange: str = ""  # an example of what stands for none


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
    holds: Holds = Holds()

    @property
    def counts_rows(self) -> bool:
        """Whole numbers without gap and repetition: nothing that is measured looks like that."""
        return self.unique and self.sort == "integer" and self.high - self.low == self.rows - 1

    @property
    def unread(self) -> int:
        """Values that are not what most are."""
        return self.rows - self.nulls - self.holds.fit - self.holds.never if self.holds.kind else 0


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
        columns = {
            source.name: self._column(source.name, staged, field, head, found[6 * i : 6 * i + 6])
            for i, ((source, field), head) in enumerate(zip(described, heads, strict=True))
        }
        return TableFacts(name, staged, columns)

    def _column(
        self, name: str, staged: Staged, field: pa.Field, head: _Head, found: tuple[Any, ...]
    ) -> ColumnFacts:
        n, distinct, low, high, fit, longest = found
        sort, at = _sort(field.type), field.name
        nulls, holds = staged.rows - int(n), Holds()
        if sort == "time" and n:
            holds = Holds("time", int(n))
            if not (_happened(low) and _happened(high)):
                holds, low, high = self.holds(staged.path, at, "time", sort)
        elif sort == "text" and n and head.kind:
            holds = Holds(head.kind, int(n))
            if fit < n:
                holds, *_ = self.holds(staged.path, at, head.kind, sort)
        if distinct is None:
            same = low == high and low is not None
            distinct = 1 if same else round(head.share * int(n))
            distinct = min(distinct, 2) if sort == "boolean" else distinct
        unique = at in staged.rising
        if not unique and sort in ("integer", "text") and not nulls and staged.rows:
            almost = int(distinct) >= _ALMOST * staged.rows and int(longest or 0) <= _LONGEST_KEY
            # a text of many rows is looked at only where its name says that it may be a key
            named = sort == "integer" or staged.rows <= _MANY or split_id(name)[1] != ""
            unique = almost and named and self.distinct(staged.path, [at]) == staged.rows
        return ColumnFacts(
            name,
            at,
            sort,
            staged.rows,
            nulls,
            staged.rows if unique else min(int(distinct), int(n)),
            unique,
            low,
            high,
            sort == "integer" or (sort == "real" and 0 < int(n) == int(fit)),
            holds,
        )

    def holds(
        self, path: Path, at: str, kind: Literal["time", "number"], sort: Sort
    ) -> tuple[Holds, Any, Any]:
        """How many values are times or numbers, exactly; the first and the last time."""
        read = is_number(at) if kind == "number" else "true" if sort == "time" else is_time(at)
        moment = at if sort == "time" else as_time(at)
        good = happened(moment) if kind == "time" else "true"
        ends = [f"{end}({moment}) FILTER ({good})" for end in ("min", "max")]
        found = self.row(
            f"SELECT count_if({read} AND {good}), count_if({read} AND NOT {good}), "
            f"min(left({at}::VARCHAR, {_SHOWN})) FILTER (NOT {read}), "
            f"min(left({at}::VARCHAR, {_SHOWN})) FILTER ({read} AND NOT {good}), "
            f"{', '.join(ends if kind == 'time' else ['NULL', 'NULL'])} FROM {scan(path)} "
            f"WHERE {at} IS NOT NULL"
        )
        fit, never, odd, strange, low, high = found
        return Holds(kind, int(fit), int(never), odd or "", strange or ""), low, high

    def readable(self, path: Path, column: ColumnFacts, kind: str) -> tuple[int, int, str]:
        """Values of a column, how many can be read as a kind, and an example of the others."""
        at, read = column.at, as_kind(column.at, column.sort, kind)
        values, fit, odd = self.row(
            f"SELECT count({at}), count({read}), min(left({at}::VARCHAR, {_SHOWN})) "
            f"FILTER ({at} IS NOT NULL AND {read} IS NULL) FROM {scan(path)}"
        )
        return int(values), int(fit), odd or ""

    def _heads(self, staged: Staged) -> list[_Head]:
        """What the first rows say of each column, which spares questions to all of them."""
        cells = []
        for field in staged.table.types:
            c, sort = field.name, _sort(field.type)
            present = f"FILTER ({c} IS NOT NULL)"
            times = f"avg({is_time(c)}::INT) {present}" if sort == "text" else "0"
            numbers = f"avg({_is_fit(c, sort, 'number')}::INT) {present}"
            # by their hashes: some thousand long texts would be held whole
            share = f"count(DISTINCT hash({c})) {present}"
            cells += [
                times,
                numbers if sort in ("text", "real") else "0",
                f"{share} / greatest(count({c}), 1)",
            ]
        limit = max(_HEAD_LEAST, min(_HEAD, _HEAD_BYTES * staged.rows // max(staged.bytes, 1)))
        found = self._cells(cells, 3, f"(SELECT * FROM {scan(staged.path)} LIMIT {limit})")
        return [
            _Head(*(1.0 if value is None else float(value) for value in found[at : at + 3]))
            for at in range(0, len(found), 3)
        ]

    def _cells(self, cells: list[str], each: int, rows: str) -> tuple[Any, ...]:
        """Answers to `each` questions per column, some columns at a time: DuckDB holds megabytes
        for every question."""
        found: tuple[Any, ...] = ()
        for first in range(0, len(cells), each * _COLUMNS):
            some = cells[first : first + each * _COLUMNS]
            found += self.row(f"SELECT {', '.join(some)} FROM {rows}")
        return found

    def distinct(self, path: Path, columns: list[str]) -> int:
        """Different combinations of values, exactly, of rows without null in them."""
        names = ", ".join(columns)
        present = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        return int(
            self.row(
                f"SELECT count(*) FROM (SELECT DISTINCT {names} FROM {scan(path)} WHERE {present})"
            )[0]
        )

    def present(self, path: Path, columns: list[str]) -> int:
        """Rows without null in any of some columns."""
        present = " AND ".join(f"{c} IS NOT NULL" for c in columns)
        return int(self.row(f"SELECT count(*) FROM {scan(path)} WHERE {present}")[0])

    def matches_folded(
        self, child: Path, column: str, parent: Path, parent_column: str, exactly: int
    ) -> bool:
        """Whether more than `exactly` of the child's different texts are the parent's if upper and
        lower case are the same, and the parent's still differ."""
        distinct, rows = self.row(
            f"SELECT count(v), coalesce(sum(n), 0) FROM (SELECT lower({parent_column}) AS v, "
            f"count({parent_column}) AS n FROM {scan(parent)} GROUP BY v)"
        )
        if distinct < rows:
            return False
        found = self.row(
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
        found = self.row(
            f"SELECT count(*), coalesce(sum(f), 0), coalesce(sum(n), 0), "
            "coalesce(sum(n) FILTER (f = 1), 0) FROM ("
            f"SELECT c.n, (EXISTS (SELECT 1 FROM {scan(parent)} p WHERE {on}))::INT AS f FROM "
            f"(SELECT {names}, count(*) AS n FROM {scan(child)} WHERE {present} GROUP BY ALL) c)"
        )
        return int(found[0]), int(found[1]), int(found[2]), int(found[3])

    def overlap(self, a: Path, column: str, b: Path, other: str) -> float:
        """Different values that two columns share, of those that either has."""
        found = self.row(
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

    def row(self, sql: str) -> tuple[Any, ...]:
        """The one row of an answer."""
        row = self.connection.execute(sql).fetchone()
        assert row is not None
        return tuple(row)


def scan(path: Path) -> str:
    """A staged file as a table of SQL."""
    return f"read_parquet({literal(path)}, file_row_number = true)"


def _happened(moment: Any) -> bool:
    # one that Python does not know comes as something else
    return isinstance(moment, datetime.datetime) and _FIRST <= moment < _LAST


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
    """Of a column's first values the shares that are times (of texts) and that are numbers (whole
    ones, where they are no texts), and that differ; 1 of none."""

    times: float
    numbers: float
    share: float

    @property
    def kind(self) -> Literal["", "time", "number"]:
        """What most of its texts are."""
        return "time" if self.times >= _MOST else "number" if self.numbers >= _MOST else ""


def _is_fit(c: str, sort: Sort, kind: str) -> str:
    if sort == "real":
        return f"({c} = floor({c}))"
    return f"({is_time(c)} AND {happened(as_time(c))})" if kind == "time" else is_number(c)


def _cells(field: pa.Field, head: _Head, rising: bool) -> list[str]:
    """Not null, different values (null: not asked), lowest, highest, those that are what most are
    (0: not asked), longest."""
    c, sort = field.name, _sort(field.type)
    ends = [f"min({c})", f"max({c})"] if sort in ("integer", "time", "real") else ["NULL", "NULL"]
    whole = sort == "real" and head.numbers == 1
    counted = sort in ("integer", "text") or whole
    distinct = f"approx_count_distinct({c})" if counted and not rising else "NULL"
    asked = whole or (sort == "text" and head.kind != "")
    fit = f"count_if({_is_fit(c, sort, head.kind)})" if asked else "0"
    longest = f"max(strlen({c}))" if sort == "text" else "0"
    return [f"count({c})", distinct, *ends, fit, longest]
