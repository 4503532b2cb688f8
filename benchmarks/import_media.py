"""Write a RelBench folder to SQLite or PostgreSQL, with its keys declared or without any."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from rfm.data.database import Database, Table
from rfm.data.sql_quoting import identifier as quote

_SQLITE = {"boolean": "BOOLEAN", "integer": "INTEGER", "real": "REAL", "time": "TIMESTAMP"}
_POSTGRES = {"boolean": "boolean", "integer": "bigint", "real": "double precision"}
_POSTGRES |= {"time": "timestamp"}


def write_sqlite(database: Database, path: Path, declared: bool) -> str:
    """A new SQLite file; returns what to give as `source`."""
    connection = sqlite3.connect(path)
    for name in _in_order(database):
        table = database.tables[name]
        connection.execute(_create(database, table, _SQLITE, "TEXT", declared))
        marks = ", ".join("?" * len(table.columns))
        insert = f"INSERT INTO {quote(name)} VALUES ({marks})"
        for batch in database.batches(name, table.columns):
            columns = [_texts_of_times(column).to_pylist() for column in batch.columns]
            connection.executemany(insert, zip(*columns, strict=True))
    connection.commit()
    connection.close()
    return str(path)


def write_postgres(database: Database, connection: Any, declared: bool) -> None:
    """Into the public schema, which is emptied, through an open psycopg connection."""
    with connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        for name in _in_order(database):
            table = database.tables[name]
            cursor.execute(_create(database, table, _POSTGRES, "text", False))
            with cursor.copy(f"COPY {quote(name)} FROM STDIN (FORMAT csv)") as copy:
                for batch in database.batches(name, table.columns):
                    copy.write(_csv(batch))
        for name, table in database.tables.items() if declared else ():
            if table.primary_key is not None:
                cursor.execute(
                    f"ALTER TABLE {quote(name)} ADD PRIMARY KEY ({quote(table.primary_key)})"
                )
        for name, table in database.tables.items() if declared else ():
            for column, parent in table.foreign_keys.items():
                key = database.tables[parent].primary_key
                cursor.execute(
                    f"ALTER TABLE {quote(name)} ADD FOREIGN KEY ({quote(column)}) "
                    f"REFERENCES {quote(parent)} ({quote(str(key))})"
                )
    connection.commit()


def sort_of(kind: pa.DataType) -> str:
    """What is left of an Arrow type in a SQL database."""
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "real"
    return "time" if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else "text"


def _create(
    database: Database, table: Table, types: dict[str, str], text: str, declared: bool
) -> str:
    kinds = {f.name: f.type for f in _schema(database, table)}
    parts = [f"{quote(c)} {types.get(sort_of(kinds[c]), text)}" for c in table.columns]
    if declared:
        if table.primary_key is not None:
            parts.append(f"PRIMARY KEY ({quote(table.primary_key)})")
        for column, parent in table.foreign_keys.items():
            key = str(database.tables[parent].primary_key)
            parts.append(f"FOREIGN KEY ({quote(column)}) REFERENCES {quote(parent)} ({quote(key)})")
    return f"CREATE TABLE {quote(table.name)} ({', '.join(parts)})"


def _schema(database: Database, table: Table) -> Iterator[pa.Field]:
    batch = next(database.batches(table.name, table.columns, 1))
    yield from batch.schema


def _in_order(database: Database) -> Sequence[str]:
    return list(database.tables)


def _texts_of_times(column: pa.Array) -> pa.Array:
    if not pa.types.is_timestamp(column.type) and not pa.types.is_date(column.type):
        return column
    return pc.strftime(column.cast(pa.timestamp("us")), format="%Y-%m-%d %H:%M:%S")


def _csv(batch: pa.RecordBatch) -> bytes:
    columns = [
        c.cast(pa.timestamp("us")) if pa.types.is_timestamp(c.type) else c for c in batch.columns
    ]
    columns = [c.cast(pa.string()) if pa.types.is_null(c.type) else c for c in columns]
    out = io.BytesIO()
    options = pcsv.WriteOptions(include_header=False)
    pcsv.write_csv(pa.Table.from_arrays(columns, names=batch.schema.names), out, options)
    return out.getvalue()
