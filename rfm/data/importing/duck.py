"""DuckDB files, and how DuckDB reads any columns: its own, and those of files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from rfm.data.importing.duck_connection import connect_duck
from rfm.data.importing.parquet_files import ParquetTable
from rfm.data.importing.source import (
    BOOLEAN,
    INTEGER,
    REAL,
    TEXT,
    TIMESTAMP,
    Hidden,
    SourceColumn,
    SourceKey,
    SourceTable,
    driver_errors,
)
from rfm.data.importing.sql_types import (
    WIDE,
    Read,
    exact_read,
    in_years,
    is_called_key,
    narrow_reads,
)
from rfm.data.schema import suggest
from rfm.data.sql_quoting import identifier

_BATCH_ROWS, _BATCH_BYTES = 8192, 4 << 20
_FEW_ROWS, _LONG = 256, 1000  # rows whose texts have so many bytes come a few at a time
_INTEGERS = {"TINYINT": pa.int16(), "SMALLINT": pa.int16(), "UTINYINT": pa.int16()}
_INTEGERS |= {
    "INTEGER": pa.int32(),
    "USMALLINT": pa.int32(),
    "UINTEGER": INTEGER,
    "BIGINT": INTEGER,
}


@dataclass(frozen=True)
class Place:
    """Where a table's rows are: SQL to select them from, or parquet files."""

    sql: str
    reads: tuple[Read, ...] = ()  # how its columns are selected
    files: ParquetTable | None = None


class DuckReader:
    """What DuckDB files and folders of files have in common: a connection that selects rows."""

    def __init__(self, shown: str, connection: duckdb.DuckDBPyConnection) -> None:
        self.shown, self._connection = shown, connection
        self._places: dict[tuple[str, str], Place] = {}

    def narrow(
        self, table: SourceTable, without: AbstractSet[str], as_text: AbstractSet[str]
    ) -> SourceTable:
        key = table.schema, table.name
        quoted = [identifier(column.name) for column in table.readable]
        place = self._places[key]
        table, reads = narrow_reads(table, place.reads, quoted, without, as_text, "VARCHAR")
        self._places[key] = replace(place, reads=reads)
        return table

    def count(self, table: SourceTable, where: str) -> int:
        place = self._places[table.schema, table.name]
        if place.files and not where:
            return place.files.rows
        condition = self._condition(table, where)
        with self.errors(f"counting rows of {table.shown}"):
            return sum(
                int(self._row(f"SELECT count(*) FROM {rows}{condition}")[0])
                for rows in self._portions(place, _columns_of(table))
            )

    def read(self, table: SourceTable, where: str, limit: int) -> Iterator[pa.RecordBatch]:
        place, left = self._places[table.schema, table.name], limit
        cells = ", ".join(f"{read.sql} AS c{i}" for i, read in enumerate(place.reads))
        wanted = _columns_of(table) if where else {column.name for column in table.readable}
        condition = self._condition(table, where)
        with self.errors(f"reading {table.shown}"):
            size = self._batch_rows(table, place)
            for rows in self._portions(place, wanted):
                sql = f"SELECT {cells} FROM {rows}{condition}" + f" LIMIT {left}" * bool(limit)
                reader = self._connection.sql(sql).to_arrow_reader(size)
                for batch in _of_some_megabytes(reader) if size == _FEW_ROWS else reader:
                    left -= len(batch)
                    yield batch.cast(table.types)
                if limit and left <= 0:
                    return

    def close(self) -> None:
        self._connection.close()

    def errors(self, doing: str) -> Any:
        kinds = (duckdb.Error, pa.ArrowException, OSError, EOFError)
        # how much memory there was is known to who gave it
        passed = (duckdb.OutOfMemoryException,)
        return driver_errors(f"source={self.shown}: {doing}", Hidden(), kinds, passed)

    def _condition(self, table: SourceTable, where: str) -> str:
        if not where:
            return ""
        with self.errors(f"where: {where!r} of {table.name}"):
            # a condition that ends the statement and begins another could write files
            count = len(self._connection.extract_statements(f"SELECT 1 FROM t WHERE ({where}\n)"))
        if count != 1:
            raise ValueError(f"where: {where!r} of {table.name}: wanted one condition of SQL")
        return f" WHERE ({where}\n)"

    def _portions(self, place: Place, columns: AbstractSet[str]) -> Iterator[str]:
        """What to select a table's rows from: at once, or of parquet files one batch after another,
        which is there until the next one is asked for."""
        if place.files is None:
            yield place.sql
            return
        yield from place.files.portions(columns)

    def _batch_rows(self, table: SourceTable, place: Place) -> int:
        """How many rows DuckDB gives at once: it knows no bound of bytes. A view may be work, and
        is not asked twice."""
        texts = [f"coalesce(strlen({read.sql}), 0)" for read in place.reads if read.type == TEXT]
        if place.files or not texts:
            return _BATCH_ROWS
        if table.is_view:
            return _FEW_ROWS
        some = f"(SELECT * FROM {place.sql} LIMIT 16)"
        width = self._row(f"SELECT coalesce(avg({' + '.join(texts)}), 0) FROM {some}")[0]
        return _FEW_ROWS if width > _LONG else _BATCH_ROWS

    def _row(self, sql: str) -> tuple[Any, ...]:
        """The only row of an answer; all of it is fetched, so that the connection is free then."""
        (row,) = self._connection.execute(sql).fetchall()
        return tuple(row)

    def _columns(
        self,
        key: tuple[str, str],
        place: Place,
        described: Sequence[tuple[str, str]],
        in_keys: AbstractSet[str] = frozenset(),
    ) -> tuple[SourceColumn, ...]:
        """The columns of a place by their names and DuckDB's types; remember how they are read."""
        reads = [
            self._exact(place, name, declared, name in in_keys) for name, declared in described
        ]
        kept = tuple(read for read in reads if read.type is not None)
        self._places[key] = replace(place, reads=kept)
        return tuple(
            SourceColumn(name, declared, read.type, read.note)
            for (name, declared), read in zip(described, reads, strict=True)
        )

    def _described(self, rows: str) -> list[tuple[str, str]]:
        """The name and type of each column."""
        found = self._connection.execute(f"DESCRIBE SELECT * FROM {rows}").fetchall()
        return [(str(row[0]), str(row[1])) for row in found]

    def _exact(self, place: Place, name: str, declared: str, is_key: bool) -> Read:
        """How a column is read; numbers of more than 64 bits without loss, where they are keys or
        whole."""
        c = identifier(name)
        read = _read(c, declared)
        wide = declared in ("UBIGINT", "HUGEINT", "UHUGEINT")
        decimal = declared.startswith("DECIMAL") and read.type == REAL
        if not (wide or (decimal and (is_key or is_called_key(name)))):
            return read
        fits = WIDE["duckdb"].whole.format(c)
        found = [
            self._row(
                f"SELECT coalesce(bool_and({fits}), true), coalesce(bool_and({c} = floor({c})), "
                f"true) FROM {rows}"
            )
            for rows in self._portions(place, {name})
        ]
        whole, fractionless = (all(bool(row[i]) for row in found) for i in (0, 1))
        is_text = is_key or (is_called_key(name) and fractionless)
        return exact_read(WIDE["duckdb"], c, whole, is_text, read)


def _columns_of(table: SourceTable) -> set[str]:
    """The columns that a condition may ask for."""
    return {column.name for column in table.columns if column.declared}


def _of_some_megabytes(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The same rows, whose batches may be of a few rows and yet too large, or too small."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in reader:
        rows = max(1, _BATCH_BYTES * len(batch) // max(batch.nbytes, 1))
        held += [batch.slice(at, rows) for at in range(0, len(batch), rows)]
        size += batch.nbytes
        if size >= _BATCH_BYTES:
            yield from held if rows < len(batch) else [pa.concat_batches(held)]
            held, size = [], 0
    if held:
        yield pa.concat_batches(held)


class DuckSource(DuckReader):
    """A DuckDB file, opened for reading only. See `rfm.data.importing.source.Source`."""

    def __init__(self, path: Path, memory: int, spill: Path) -> None:
        self.shown = str(path)
        with self.errors("cannot be opened"):
            # one thread: each holds two thousand rows, and one reads as fast as rows are staged
            connection = connect_duck(path, memory, 1, spill)
            connection.execute("BEGIN TRANSACTION READ ONLY")
        super().__init__(str(path), connection)

    def tables(self, schemas: Sequence[str], views: bool) -> list[SourceTable]:
        sql = "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal"
        with self.errors("cannot be inspected"):
            found = [(str(s), str(t), False) for s, t in self._connection.execute(sql).fetchall()]
            if views:
                sql = "SELECT schema_name, view_name FROM duckdb_views() WHERE NOT internal"
                found += [
                    (str(s), str(t), True) for s, t in self._connection.execute(sql).fetchall()
                ]
            known = sorted({schema for schema, _, _ in found} | {"main"})
            for schema in schemas:
                if schema not in known:
                    raise ValueError(f"schemas: no schema {schema!r}; {suggest(schema, known)}")
            wanted = schemas or ["main"]
            return [
                self._table(schema, name, is_view)
                for schema, name, is_view in sorted(found)
                if schema in wanted
            ]

    def _table(self, schema: str, name: str, is_view: bool) -> SourceTable:
        rows = self._connection.execute(
            "SELECT constraint_type, constraint_column_names, referenced_table, "
            "referenced_column_names FROM duckdb_constraints() "
            "WHERE schema_name = ? AND table_name = ? ORDER BY constraint_index",
            [schema, name],
        ).fetchall()
        primary = next((tuple(row[1]) for row in rows if row[0] == "PRIMARY KEY"), ())
        links = tuple(
            SourceKey(tuple(row[1]), (schema, str(row[2])), tuple(row[3]))
            for row in rows
            if row[0] == "FOREIGN KEY"
        )
        # keys that others point at are declared as one of these, too
        in_keys = {
            str(c) for row in rows if row[0] != "CHECK" and row[0] != "NOT NULL" for c in row[1]
        }
        place = Place(f"{identifier(schema)}.{identifier(name)}")
        columns = self._columns((schema, name), place, self._described(place.sql), in_keys)
        return SourceTable(schema, name, columns, primary, links, is_view)


def _read(c: str, declared: str) -> Read:
    """How a quoted column is read; no value of it may fail, for one would stop the import."""
    if not declared:
        return Read("", None, "of a type that is not known")
    if declared == "BOOLEAN":
        return Read(c, BOOLEAN)
    if declared in _INTEGERS:
        return Read(c, _INTEGERS[declared])
    if decimal := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", declared):
        if decimal[2] == "0" and int(decimal[1]) <= 18:
            return Read(f"{c}::BIGINT", INTEGER, "whole numbers")
        return Read(f"{c}::DOUBLE", REAL)
    if declared in ("FLOAT", "DOUBLE", "UBIGINT", "HUGEINT", "UHUGEINT"):
        return Read(f"{c}::DOUBLE", REAL)
    if declared == "TIMESTAMP WITH TIME ZONE" or declared.startswith("TIMESTAMPTZ"):
        zoned = f"{c}::TIMESTAMPTZ"  # of those in nanoseconds DuckDB knows little
        moment = f"make_timestamp(epoch_us({zoned}))"
        return Read(f"CASE WHEN {in_years(zoned)} THEN {moment} END", TIMESTAMP, "as UTC")
    if declared == "TIMESTAMP_NS":  # years 1677 to 2262
        return Read(f"CASE WHEN isfinite({c}) THEN {c}::TIMESTAMP END", TIMESTAMP)
    if declared == "DATE" or declared.startswith("TIMESTAMP"):
        return Read(f"CASE WHEN {in_years(c)} THEN {c}::TIMESTAMP END", TIMESTAMP)
    if declared == "INTERVAL":
        return Read(f"epoch({c})::DOUBLE", REAL, "in seconds")
    if declared == "BLOB" or declared.startswith("GEOMETRY"):
        return Read("", None, "binary")
    if declared.endswith("]") or re.match(r"STRUCT|MAP|UNION|VARIANT", declared):
        return Read(f"to_json({c})::VARCHAR", TEXT, "nested values as JSON")
    known = declared in ("VARCHAR", "UUID", "TIME", "JSON") or declared.startswith("ENUM")
    return Read(f"{c}::VARCHAR", TEXT, "" if known else "as text")
