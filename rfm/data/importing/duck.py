"""DuckDB files, and folders of CSV and parquet files, which DuckDB reads."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.importing.csv_files import CSV, csv_table, pattern
from rfm.data.importing.duck_connection import connect_duck
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
from rfm.data.importing.sql_types import WIDE, Read, exact_read, is_called_key, narrow_reads
from rfm.data.schema import suggest
from rfm.data.sql_quoting import identifier, literal

_log = logging.getLogger("rfm")
_BATCH_ROWS = 8192  # DuckDB holds several of them, however long their texts are
_INTEGERS = {"TINYINT": pa.int16(), "SMALLINT": pa.int16(), "UTINYINT": pa.int16()}
_INTEGERS |= {
    "INTEGER": pa.int32(),
    "USMALLINT": pa.int32(),
    "UINTEGER": INTEGER,
    "BIGINT": INTEGER,
}


@dataclass(frozen=True)
class _Place:
    """Where a table's rows are, as SQL, and how its columns are selected."""

    sql: str
    reads: tuple[Read, ...]


class _Duck:
    """What both have in common: one connection, `SELECT`s of places."""

    def __init__(self, shown: str, connection: duckdb.DuckDBPyConnection) -> None:
        self.shown, self._connection = shown, connection
        self._places: dict[tuple[str, str], _Place] = {}

    def narrow(
        self, table: SourceTable, without: AbstractSet[str], as_text: AbstractSet[str]
    ) -> SourceTable:
        key = table.schema, table.name
        quoted = [identifier(column.name) for column in table.readable]
        place = self._places[key]
        table, reads = narrow_reads(table, place.reads, quoted, without, as_text, "VARCHAR")
        self._places[key] = _Place(place.sql, reads)
        return table

    def count(self, table: SourceTable, where: str) -> int:
        with self.errors(f"counting rows of {table.shown}"):
            sql = f"SELECT count(*) FROM {self._from(table, where)}"
            row = self._connection.execute(sql).fetchone()
        assert row is not None
        return int(row[0])

    def read(self, table: SourceTable, where: str, limit: int) -> Iterator[pa.RecordBatch]:
        reads = self._places[table.schema, table.name].reads
        cells = ", ".join(f"{read.sql} AS c{i}" for i, read in enumerate(reads))
        with self.errors(f"reading {table.shown}"):
            sql = f"SELECT {cells} FROM {self._from(table, where)}"
            sql += f" LIMIT {limit}" if limit else ""
            reader: pa.RecordBatchReader = self._connection.sql(sql).to_arrow_reader(_BATCH_ROWS)
            for batch in iter(reader):
                yield batch.cast(table.types)

    def close(self) -> None:
        self._connection.close()

    def errors(self, doing: str) -> Any:
        kinds = (duckdb.Error, pa.ArrowException, OSError, EOFError)
        return driver_errors(f"source={self.shown}: {doing}", Hidden(), kinds)

    def _from(self, table: SourceTable, where: str) -> str:
        place = self._places[table.schema, table.name].sql
        if not where:
            return place
        place += f" WHERE ({where}\n)"
        # a condition that ends the statement and begins another could write files
        if len(self._connection.extract_statements(f"SELECT 1 FROM {place}")) != 1:
            raise ValueError(f"where: {where!r} of {table.name}: wanted one condition of SQL")
        return place

    def _columns(
        self, key: tuple[str, str], place: str, in_keys: AbstractSet[str] = frozenset()
    ) -> tuple[SourceColumn, ...]:
        """Describe what a place selects, and remember how it is read."""
        described = self._connection.execute(f"DESCRIBE SELECT * FROM {place}").fetchall()
        reads = [
            self._exact(place, str(row[0]), str(row[1]), str(row[0]) in in_keys)
            for row in described
        ]
        self._places[key] = _Place(place, tuple(r for r in reads if r.type is not None))
        return tuple(
            SourceColumn(str(row[0]), str(row[1]), read.type, read.note)
            for row, read in zip(described, reads, strict=True)
        )

    def _exact(self, place: str, name: str, declared: str, is_key: bool) -> Read:
        """How a column is read; numbers of more than 64 bits without loss, where they are keys or
        whole."""
        c = identifier(name)
        read = _read(c, declared)
        wide = declared in ("UBIGINT", "HUGEINT", "UHUGEINT")
        decimal = declared.startswith("DECIMAL") and read.type == REAL
        if not (wide or (decimal and (is_key or is_called_key(name)))):
            return read
        whole = WIDE["duckdb"].whole.format(c)
        row = self._connection.execute(
            f"SELECT coalesce(bool_and({whole}), true), coalesce(bool_and({c} = floor({c})), true) "
            f"FROM {place}"
        ).fetchall()[0]  # all: the connection is free then
        is_text = is_key or (is_called_key(name) and bool(row[1]))
        return exact_read(WIDE["duckdb"], c, bool(row[0]), is_text, read)


class DuckSource(_Duck):
    """A DuckDB file, opened for reading only. See `rfm.data.importing.source.Source`."""

    def __init__(self, path: Path, memory: int, spill: Path) -> None:
        self.shown = str(path)
        with self.errors("cannot be opened"):
            connection = connect_duck(path, memory, 2, spill)
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
        columns = self._columns((schema, name), f"{identifier(schema)}.{identifier(name)}", in_keys)
        return SourceTable(schema, name, columns, primary, links, is_view)


class FileSource(_Duck):
    """A folder of CSV and parquet files, each a table; a folder of parquet files in it, too."""

    def __init__(self, folder: Path, memory: int, spill: Path) -> None:
        super().__init__(str(folder), connect_duck(None, memory, 2, spill))
        self._files: dict[str, Path] = {}
        self._scratch = spill.with_name("plain")
        if (folder / "manifest.yaml").is_file():
            raise ValueError(
                f"source={folder}: is a database's folder already (it has a manifest.yaml); open "
                "it as it is"
            )
        for path in table_files(folder):
            suffix = _suffix(path)
            if path.is_dir():
                _check_parts(path)
            elif not path.stat().st_size:
                _log.warning("%s: is empty, left out", path)
                continue
            name = path.name[: -len(suffix)] if suffix else path.name
            if name in self._files:
                raise ValueError(
                    f"source={folder}: {path.name} and {self._files[name].name} are both table "
                    f"{name!r}; rename or remove one"
                )
            self._files[name] = path
        if not self._files:
            raise ValueError(f"source={folder}: no *.csv, *.tsv, *.csv.gz or *.parquet file in it")

    def tables(self, schemas: Sequence[str], views: bool) -> list[SourceTable]:
        if schemas:
            raise ValueError(f"schemas={list(schemas)}: a folder of files has no schemas")
        tables = []
        for name, path in self._files.items():
            with self.errors(f"{path.name} cannot be read"):
                tables.append(SourceTable("", name, self._columns(("", name), self._scan(path))))
        return tables

    def _scan(self, path: Path) -> str:
        if not path.name.lower().endswith(CSV):
            files = pattern(path) + ("" if path.is_file() else "/*.parquet")
            return f"read_parquet({literal(files)}, union_by_name = true)"
        return csv_table(self._connection, path, self._scratch)


def table_files(folder: Path) -> list[Path]:
    """Files and folders that are tables: CSV and parquet files, and folders of parquet files."""
    return [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (_suffix(path) if path.is_file() else any(path.glob("*.parquet")))
    ]


def _suffix(path: Path) -> str:
    """The end of a file's name that is no part of its table's."""
    if not path.is_file():
        return ""
    return next((s for s in (*CSV, ".parquet") if path.name.lower().endswith(s)), "")


def _check_parts(folder: Path) -> None:
    """Files of one folder are one table only if they have the same columns."""
    first, *others = sorted(folder.glob("*.parquet"))
    names = _column_names(first)
    for path in others:
        if odd := names ^ _column_names(path):
            raise ValueError(
                f"source={folder.parent}: the files in {folder.name} are read as one table, but "
                f"{first.name} and {path.name} have not the same columns ({sorted(odd)[0]!r} is "
                f"in one of them); give source={folder} if they are tables"
            )


def _column_names(path: Path) -> set[str]:
    try:
        return set(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None


def _read(c: str, declared: str) -> Read:
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
        return Read(f"CASE WHEN isfinite({zoned}) THEN {moment} END", TIMESTAMP, "as UTC")
    if declared == "DATE" or declared.startswith("TIMESTAMP"):
        return Read(f"CASE WHEN isfinite({c}) THEN {c}::TIMESTAMP END", TIMESTAMP)
    if declared == "INTERVAL":
        return Read(f"epoch({c})::DOUBLE", REAL, "in seconds")
    if declared in ("BLOB", "BIT") or declared.startswith("GEOMETRY"):
        return Read("", None, "binary")
    if declared.endswith("]") or re.match(r"STRUCT|MAP|UNION|VARIANT", declared):
        return Read(f"to_json({c})::VARCHAR", TEXT, "nested values as JSON")
    known = declared in ("VARCHAR", "UUID", "TIME", "JSON") or declared.startswith("ENUM")
    return Read(f"{c}::VARCHAR", TEXT, "" if known else "as text")
