"""PostgreSQL, SQLite, MySQL and whatever else SQLAlchemy has a dialect for.

Rows come by ADBC from PostgreSQL, where its driver is installed, else by a server-side cursor, in
a transaction that cannot write.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as sa_postgresql
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.reflection import Inspector, ObjectKind
from sqlalchemy.pool import NullPool

from rfm.data.importing.convert import batches_of
from rfm.data.importing.declared import declared_links
from rfm.data.importing.source import (
    BATCH_ROWS,
    REAL,
    TEXT,
    SourceColumn,
    SourceKey,
    SourceTable,
    driver_errors,
    hidden_of,
    show_url,
)
from rfm.data.importing.sql_types import (
    WIDE,
    Read,
    exact_read,
    is_called_key,
    mysql_read,
    narrow_reads,
    postgres_read,
    sqlite_reads,
)
from rfm.data.importing.sqlite_file import has_closed_log, open_sqlite, state_of
from rfm.data.schema import suggest
from rfm.data.sql_quoting import identifier

_READ_ONLY = {
    "postgresql": [
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        # rows in the order of the heap: the same table gives the same folder
        "SET LOCAL synchronize_seqscans = off",
        "SET LOCAL max_parallel_workers_per_gather = 0",
        "SET LOCAL statement_timeout = 0",
    ],
    "mysql": ["START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"],
    "sqlite": ["BEGIN"],  # one state of the file; it is opened with mode=ro
}


class SQLSource:
    """A database behind a SQLAlchemy URL. See `rfm.data.importing.source.Source`."""

    def __init__(self, url: URL) -> None:
        """Connect and begin a transaction that only reads.

        Raises:
            ValueError: no such database, driver or right to connect; secrets are not shown.
        """
        self.shown, self._hidden, self._dialect = show_url(url), hidden_of(url), ""
        self._reads: dict[tuple[str, str], list[Read]] = {}
        self._unwritten: tuple[Path, tuple[int, int]] | None = None
        self._parents: set[tuple[str, str]] = set()
        self._adbc: Any = None
        try:
            if url.get_backend_name() == "sqlite":
                path = Path(str(url.database))
                # SQLite writes files beside one with a log, even to read it, and leaves them there;
                # while nobody has it open, it is read without, and looked at again afterwards
                alone = has_closed_log(path)
                self._unwritten = (path, state_of(path)) if alone else None
                self._engine = sa.create_engine(
                    "sqlite://", creator=lambda: open_sqlite(path, alone), poolclass=NullPool
                )
            else:
                self._engine = sa.create_engine(url, poolclass=NullPool)
        except sa.exc.NoSuchModuleError:
            raise ValueError(
                f"source={self.shown}: no such kind of database; wanted postgresql://, mysql://, "
                "sqlite:/// or duckdb:///, or another that SQLAlchemy has a dialect for, installed"
            ) from None
        except (ImportError, sa.exc.SQLAlchemyError) as error:
            raise ValueError(
                f"source={self.shown}: no driver for it: {self._hidden.scrub(str(error))}; "
                'install one, such as pip install "rfm[postgres]" or "rfm[mysql]"'
            ) from None
        self._dialect = self._engine.dialect.name
        with self._errors("cannot be opened"):
            self._connection: Connection = self._engine.connect()
            for statement in _READ_ONLY.get(self._dialect, []):
                self._connection.exec_driver_sql(statement)
            if self._dialect == "postgresql" and _has_adbc():
                self._adbc = _connect_adbc(self._engine.dialect.create_connect_args(url)[1])

    def tables(self, schemas: Sequence[str], views: bool) -> list[SourceTable]:
        with self._errors("cannot be inspected"), warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # types that it does not know
            inspector = sa.inspect(self._connection)
            known = inspector.get_schema_names()
            for schema in schemas:
                if schema not in known:
                    raise ValueError(f"schemas: no schema {schema!r}; {suggest(schema, known)}")
            default = inspector.default_schema_name or ""
            if self._dialect == "sqlite":
                default = ""
            return [
                table
                for schema in (schemas or [default])
                for table in self._tables_of(inspector, schema, views)
            ]

    def narrow(
        self, table: SourceTable, without: AbstractSet[str], as_text: AbstractSet[str]
    ) -> SourceTable:
        key = table.schema, table.name
        quoted = [self._quote(column.name) for column in table.readable]
        text = {"mysql": "CHAR", "sqlite": "TEXT"}.get(self._dialect, "VARCHAR")
        table, reads = narrow_reads(table, self._reads[key], quoted, without, as_text, text)
        self._reads[key] = list(reads)
        return table

    def count(self, table: SourceTable, where: str) -> int:
        with self._errors(f"counting rows of {table.shown}"):
            sql = f"SELECT count(*) FROM {self._from(table, where)}"
            if self._adbc is not None:
                with self._query_adbc(sql) as cursor:
                    return int(cursor.fetchone()[0])
            cursor = self._cursor()
            cursor.execute(sql)
            return int(cursor.fetchone()[0])

    def read(self, table: SourceTable, where: str, limit: int) -> Iterator[pa.RecordBatch]:
        reads = self._reads[table.schema, table.name]
        cells = ", ".join(f"{read.sql} AS c{i}" for i, read in enumerate(reads))
        with self._errors(f"reading {table.shown}"):
            sql = f"SELECT {cells} FROM {self._from(table, where)}"
            sql += f" LIMIT {limit}" if limit else ""
            if self._adbc is not None:
                with self._query_adbc(sql) as cursor:
                    for batch in cursor.fetch_record_batch():
                        yield batch.cast(table.types)
                return
            cursor = self._cursor("rfm_import")
            try:
                cursor.execute(sql)
                yield from batches_of(cursor, table)
            finally:
                cursor.close()
            if self._unwritten and state_of(self._unwritten[0]) != self._unwritten[1]:
                raise OSError("the file was written meanwhile")

    def close(self) -> None:
        """End the transaction; of a connection that was lost nothing is left to end."""
        if self._adbc is not None:
            with contextlib.suppress(*self._kinds()):
                self._adbc.close()
        with contextlib.suppress(*self._kinds()):
            self._connection.close()
        self._engine.dispose()

    def _tables_of(self, inspector: Inspector, schema: str, views: bool) -> list[SourceTable]:
        given = schema or None
        kind = ObjectKind.ANY if views else ObjectKind.TABLE
        columns = inspector.get_multi_columns(given, kind=kind)
        keys = inspector.get_multi_pk_constraint(given, kind=kind)
        primary = {
            k[1]: tuple(keys[k]["constrained_columns"]) if k in keys else () for k in columns
        }
        links = declared_links(self._connection, inspector, schema, primary)
        view_names = {*inspector.get_view_names(given)} if views else set()
        if views and self._dialect == "postgresql":
            view_names |= {*inspector.get_materialized_view_names(given)}
        skipped, refused = self._partitions(schema), self._refused(schema)
        self._parents |= self._inherited(schema)
        tables = []
        for key in sorted(columns, key=lambda key: key[1]):
            name = key[1]
            if name in skipped:
                continue
            in_keys = _in_keys((schema, name), primary[name], links)
            reads = [
                Read("", None, "no right to read it") if (name, c["name"]) in refused else read
                for c, read in zip(
                    columns[key],
                    self._reads_of(schema, name, columns[key], in_keys, refused),
                    strict=True,
                )
            ]
            self._reads[schema, name] = [read for read in reads if read.type is not None]
            tables.append(
                SourceTable(
                    schema,
                    name,
                    tuple(
                        SourceColumn(str(c["name"]), _declared(c["type"]), r.type, r.note)
                        for c, r in zip(columns[key], reads, strict=True)
                    ),
                    primary[name],
                    tuple(links.get(name, [])),
                    name in view_names,
                )
            )
        return tables

    def _reads_of(
        self,
        schema: str,
        name: str,
        columns: Sequence[Any],
        in_keys: set[str],
        refused: set[tuple[str, str]],
    ) -> list[Read]:
        """How all columns are read; binary ones only where keys are made of them."""
        quoted = [self._quote(str(column["name"])) for column in columns]
        types = [column["type"] for column in columns]
        if self._dialect == "sqlite":
            declared = [_declared(kind) for kind in types]
            place = self._place(schema, name)
            reads = sqlite_reads(self._cursor(), place, quoted, declared)
        else:
            read = postgres_read if self._dialect == "postgresql" else mysql_read
            reads = [read(q, kind) for q, kind in zip(quoted, types, strict=True)]
            reads = [
                read
                if (name, str(column["name"])) in refused
                else self._exact(self._place(schema, name), q, column, read, in_keys)
                for q, column, read in zip(quoted, columns, reads, strict=True)
            ]
        digits = "encode({}, 'hex')" if self._dialect == "postgresql" else "lower(hex({}))"
        return [
            Read(
                f"CASE WHEN {q} IS NOT NULL THEN {digits.replace('{}', q)} END",
                TEXT,
                "in hexadecimal",
            )
            if read.type is None and str(column["name"]) in in_keys
            else read
            for q, column, read in zip(quoted, columns, reads, strict=True)
        ]

    def _exact(self, place: str, c: str, column: Any, read: Read, in_keys: set[str]) -> Read:
        """Wide numbers that are keys, or called so, and MySQL's unsigned ones, without loss."""
        name, kind, wide = str(column["name"]), column["type"], WIDE.get(self._dialect)
        while isinstance(kind, sa_postgresql.DOMAIN):
            kind = kind.data_type
        is_key = name in in_keys
        numeric = isinstance(kind, sa.Numeric) and not isinstance(kind, sa.Float)
        unsigned = isinstance(kind, sa.BigInteger) and getattr(kind, "unsigned", False)
        wanted = read.type == REAL and numeric and (is_key or is_called_key(name))
        if wide is None or not (wanted or unsigned):
            return read
        whole = wide.whole.format(c)
        count = f"SELECT count({c}), sum(CASE WHEN {whole} THEN 1 ELSE 0 END) "
        cursor = self._cursor()
        cursor.execute(f"{count}, sum(CASE WHEN {c} = floor({c}) THEN 1 ELSE 0 END) FROM {place}")
        present, fit, fractionless = (int(n or 0) for n in cursor.fetchone())
        if fit == present and unsigned:
            return read
        return exact_read(wide, c, fit == present, is_key or fractionless == present, read)

    def _partitions(self, schema: str) -> set[str]:
        """PostgreSQL's partitions, whose rows their partitioned table has too."""
        if self._dialect != "postgresql":
            return set()
        sql = sa.text(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relispartition AND n.nspname = :schema"
        )
        return {str(row[0]) for row in self._connection.execute(sql, {"schema": schema})}

    def _inherited(self, schema: str) -> set[tuple[str, str]]:
        """PostgreSQL's tables that others inherit from: a plain SELECT gives the others' rows
        too."""
        if self._dialect != "postgresql":
            return set()
        sql = sa.text(
            "SELECT DISTINCT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent "
            "JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.relkind = 'r' AND n.nspname = :schema"
        )
        found = self._connection.execute(sql, {"schema": schema})
        return {(schema, str(row[0])) for row in found}

    def _refused(self, schema: str) -> set[tuple[str, str]]:
        """Tables and their columns that PostgreSQL does not let this user read."""
        if self._dialect != "postgresql":
            return set()
        sql = sa.text(
            "SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n "
            "ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid "
            "WHERE n.nspname = :schema AND c.relkind IN ('r', 'p', 'f', 'v', 'm') "
            "AND a.attnum > 0 AND NOT a.attisdropped "
            "AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')"
        )
        found = self._connection.execute(sql, {"schema": schema})
        return {(str(table), str(column)) for table, column in found}

    def _from(self, table: SourceTable, where: str) -> str:
        place = self._place(table.schema, table.name)
        if not where:
            return place
        place += f" WHERE ({where}\n)"
        if self._dialect == "postgresql":
            # what is prepared is one statement: a condition cannot end it and begin another, that
            # would leave the transaction which only reads; other drivers take one at a time
            self._cursor().execute(f"SELECT 1 FROM {place} LIMIT 0", prepare=True)
        return place

    def _place(self, schema: str, name: str) -> str:
        place = ".".join(self._quote(part) for part in (schema, name) if part)
        return f"ONLY {place}" if (schema, name) in self._parents else place

    def _quote(self, name: str) -> str:
        return identifier(name, "`" if self._dialect == "mysql" else '"')

    def _cursor(self, name: str = "") -> Any:
        """A cursor of the driver itself: with a name, one that the server keeps the rows of."""
        driver = self._connection.connection.driver_connection
        assert driver is not None
        if self._dialect == "postgresql" and name:
            cursor = driver.cursor(name=name)
            cursor.itersize = BATCH_ROWS
            return cursor
        if self._dialect == "mysql" and name:
            return driver.cursor(importlib.import_module("pymysql.cursors").SSCursor)
        return driver.cursor()

    def _query_adbc(self, sql: str) -> Any:
        """A cursor that has begun; its rows end when it is closed."""
        cursor = self._adbc.cursor()
        # 16 MiB, the driver's own size, is much beside a bound of a few hundred
        cursor.adbc_statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(4 << 20)})
        cursor.execute(sql)
        return cursor

    def _errors(self, doing: str) -> Any:
        return driver_errors(f"source={self.shown}: {doing}", self._hidden, self._kinds())

    def _kinds(self) -> tuple[type[Exception], ...]:
        """The errors that drivers raise."""
        kinds: tuple[type[Exception], ...] = (sa.exc.SQLAlchemyError, pa.ArrowException, OSError)
        kinds += (sa.exc.DBAPIError, sqlite3.Error)
        if self._dialect in ("postgresql", "mysql"):
            kinds += (self._engine.dialect.dbapi.Error,)  # type: ignore[union-attr]
        if self._dialect == "postgresql" and _has_adbc():
            from adbc_driver_manager import Error

            kinds += (Error,)
        return kinds


def _in_keys(
    table: tuple[str, str], primary: Sequence[str], links: Mapping[str, Sequence[SourceKey]]
) -> set[str]:
    """Columns of a table that its key, its foreign keys or those that point at it are made of."""
    pointing = [link for found in links.values() for link in found if link.parent == table]
    own = [c for link in links.get(table[1], []) for c in link.columns]
    return {*primary, *own, *(c for link in pointing for c in link.parent_columns)}


def _declared(kind: Any) -> str:
    try:
        return str(kind)
    except sa.exc.CompileError:  # NullType: SQLAlchemy does not know it
        return "unknown"


def _has_adbc() -> bool:
    return importlib.util.find_spec("adbc_driver_postgresql") is not None


def _connect_adbc(arguments: Mapping[str, Any]) -> Any:
    """Connect with what SQLAlchemy gives to its own driver: of a URL, libpq and it do not read
    every character alike."""
    dbapi = importlib.import_module("adbc_driver_postgresql.dbapi")
    conninfo = importlib.import_module("psycopg.conninfo")
    known = {name: value for name, value in arguments.items() if name != "context"}  # psycopg's own
    connection = dbapi.connect(conninfo.make_conninfo(**known))
    with connection.cursor() as cursor:
        for statement in _READ_ONLY["postgresql"]:
            cursor.execute(statement)
    return connection
