"""A relational database as a RelBench folder: `manifest.yaml` and `db/<table>.parquet`.

Opening reads the manifest and the parquet footers, nothing else. Data is streamed on demand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rfm.config import setting
from rfm.data.graph import STATIC
from rfm.data.manifest import TableSpec, read_manifest
from rfm.data.parquet import REINDEX, read_batches, row_numbers, take_rows
from rfm.data.schema import (
    Kind,
    Overrides,
    check_kind,
    decoded,
    infer_kind,
    is_text,
    read_kinds,
    read_overrides,
    suggest,
    to_seconds,
)
from rfm.files import default_cache, file_hash

if TYPE_CHECKING:
    from rfm.data.import_sql import ImportConfig

KINDS_FILE = "kinds.yaml"
SAMPLE_ROWS = 100_000
_SAMPLE_BLOCKS = 8
_SAMPLE_CHARS = 1_000  # of each text: what is longer is no category


@dataclass(frozen=True)
class Table:
    """One table: its parquet file and what the manifest says about it."""

    name: str
    path: Path
    num_rows: int
    columns: tuple[str, ...]  # all of them, in file order
    primary_key: str | None
    time_column: str | None
    foreign_keys: dict[str, str]  # column -> parent table, in manifest order

    @property
    def keys(self) -> tuple[str, ...]:
        """The primary key, if there is one, and the foreign keys."""
        own = () if self.primary_key is None else (self.primary_key,)
        return tuple(dict.fromkeys((*own, *self.foreign_keys)))


@dataclass(frozen=True)
class ColumnProfile:
    """A column in the sample of training-period rows; `nulls` and `distinct` count its values."""

    kind: Kind
    rows: int
    nulls: int
    distinct: int | None  # None for nested types


@dataclass(frozen=True, eq=False)
class Database:
    """The tables of one database, in manifest order. Times are unix seconds.

    The training period is all rows up to `val_timestamp`, and all rows of tables without a time
    column.
    """

    name: str
    folder: Path
    val_timestamp: int
    test_timestamp: int
    tables: dict[str, Table]
    overrides: Overrides = field(default_factory=dict)

    def batches(
        self, table: str, columns: Sequence[str], rows: int = 262_144
    ) -> Iterator[pa.RecordBatch]:
        """Stream the given columns of a table, in that order, `rows` rows at a time."""
        yield from read_batches(self.tables[table].path, columns, rows)

    @cached_property
    def spans(self) -> dict[str, tuple[int, int]]:
        """Of each table with times the earliest and the latest, unix seconds."""
        timed = [name for name, table in self.tables.items() if table.time_column is not None]
        times = ((name, self.times(name)) for name in timed)
        return {name: (int(own.min()), int(own.max())) for name, own in times}

    @property
    def first_time(self) -> int:
        """Earliest time of any row, unix seconds; `STATIC` in a database without times."""
        return min((first for first, _ in self.spans.values()), default=STATIC)

    @property
    def last_time(self) -> int:
        """The latest, likewise."""
        return max((last for _, last in self.spans.values()), default=STATIC)

    def with_timestamps(self, val: int, test: int) -> Database:
        """The same tables with other timestamps. What has been read of them goes along: times, and
        profiles and kinds if the training period stays as it is."""
        other = replace(self, val_timestamp=val, test_timestamp=test)
        kept = ["spans", *(["profiles", "kinds"] if val == self.val_timestamp else [])]
        other.__dict__.update({name: self.__dict__[name] for name in kept if name in self.__dict__})
        return other

    def times(self, table: str) -> npt.NDArray[np.int64]:
        """Unix seconds [n] of the time column, rounded down; `STATIC` without a time column.

        Raises:
            ValueError: for a column that holds no times, or null times.
        """
        column, n = self.tables[table].time_column, self.tables[table].num_rows
        times = np.full(n, STATIC, dtype=np.int64)
        if column is None:
            return times
        where, at = f"{self.name}: {table}.{column}", 0
        for batch in self.batches(table, [column]):
            values = batch.column(0)
            kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
            if not (pa.types.is_temporal(kind) or is_text(kind) or pa.types.is_null(kind)) or (
                pa.types.is_time(kind) or pa.types.is_duration(kind) or pa.types.is_interval(kind)
            ):
                raise ValueError(
                    f"{where}: the time column is of type {kind}, wanted a timestamp or date; "
                    "convert it, or set time_col: null in manifest.yaml"
                )
            times[at : at + len(values)] = to_seconds(values)
            at += len(values)
        missing = np.flatnonzero(times == STATIC)
        if len(missing):
            raise ValueError(
                f"{where}: {len(missing)} of {n} times are null or not a time, the first in row "
                f"{missing[0]}: {self._cell(table, column, int(missing[0]))!r}; fill them in, drop "
                "those rows, or set time_col: null in manifest.yaml"
            )
        return times

    def parents(self, table: str, column: str) -> npt.NDArray[np.int32]:
        """The row [n] in the parent table that a foreign key points at, -1 for null.

        Raises:
            ValueError: for values that are no row of the parent table.
        """
        parent = self.tables[self.tables[table].foreign_keys[column]]
        rows = np.empty(self.tables[table].num_rows, dtype=np.int32)
        where, at = f"{self.name}: {table}.{column}", 0
        for batch in self.batches(table, [column]):
            values, valid = row_numbers(batch.column(0), f"{where}: foreign key")
            wrong = np.flatnonzero(valid & ((values < 0) | (values >= parent.num_rows)))
            if len(wrong):
                raise ValueError(
                    f"{where}: {values[wrong[0]]} in row {at + wrong[0]} is no row of "
                    f"{parent.name}, which has rows 0..{parent.num_rows - 1}; make it null, or "
                    f"{REINDEX}"
                )
            rows[at : at + len(values)] = np.where(valid, values, -1)
            at += len(values)
        return rows

    def check_primary_key(self, table: str) -> None:
        """Whether the primary key counts the rows: 0..n-1 in row order.

        Raises:
            ValueError: at the first row where it does not.
        """
        column, at = self.tables[table].primary_key, 0
        if column is None:
            return
        where = f"{self.name}: {table}.{column}"
        for batch in self.batches(table, [column]):
            values, valid = row_numbers(batch.column(0), f"{where}: primary key")
            wrong = np.flatnonzero(~valid | (values != np.arange(at, at + len(values))))
            if len(wrong):
                row = int(wrong[0])
                value = values[row] if valid[row] else "null"
                raise ValueError(
                    f"{where}: the primary key must be 0..n-1 in row order, row {at + row} holds "
                    f"{value}; {REINDEX}"
                )
            at += len(values)

    @cached_property
    def profiles(self) -> dict[str, dict[str, ColumnProfile]]:
        """Per table and column: the kind, nulls and distinct values of a training-period sample.

        Raises:
            ValueError: for columns that cannot be read and overrides that do not fit.
        """
        self._check_overrides()
        return {name: self._profile(table) for name, table in self.tables.items()}

    @cached_property
    def kinds(self) -> dict[str, dict[str, Kind]]:
        """Per table and column the kind, from training-period rows only; see `profiles`."""
        return {t: {c: p.kind for c, p in columns.items()} for t, columns in self.profiles.items()}

    def fingerprint(self, table: str) -> str:
        """A hash of the table's file content, remembered while the file does not change."""
        path = self.tables[table].path
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns)
        if key not in _fingerprints:
            _fingerprints[key] = file_hash(path)
        return _fingerprints[key]

    def describe(self) -> str:
        """Every table and column as printable text: rows, keys, time columns, kinds."""
        from rfm.data.describe import describe

        return describe(self)

    def _cell(self, table: str, column: str, row: int) -> Any:
        for batch in self.batches(table, [column]):
            if row < len(batch):
                return batch.column(0)[row].as_py()
            row -= len(batch)
        raise AssertionError(row)

    def _check_overrides(self) -> None:
        for name, columns in self.overrides.items():
            if name not in self.tables:
                raise ValueError(f"kinds: unknown table {name!r}; {suggest(name, self.tables)}")
            table = self.tables[name]
            for column in columns:
                if column not in table.columns:
                    hint = suggest(column, table.columns)
                    raise ValueError(f"kinds: unknown column {name}.{column}; {hint}")
                if column in (*table.keys, table.time_column):
                    raise ValueError(
                        f"kinds: {name}.{column} is a key or time column by manifest.yaml; its "
                        "kind cannot be changed"
                    )

    def _profile(self, table: Table) -> dict[str, ColumnProfile]:
        sample = self._sample(table)
        given = self.overrides.get(table.name, {})
        profiles = {}
        for column in table.columns:
            values, where = sample.column(column), f"{self.name}: {table.name}.{column}"
            kind: Kind
            if column in table.keys:
                kind = "key"
            elif column == table.time_column:
                kind = "datetime"
            elif column in given:
                kind = given[column]
                check_kind(values, kind, where)
            else:
                kind = infer_kind(values, where)
            nested = pa.types.is_nested(values.type) or pa.types.is_null(values.type)
            distinct = None if nested else pc.count_distinct(decoded(values)).as_py()
            profiles[column] = ColumnProfile(kind, len(values), values.null_count, distinct)
        return profiles

    def _sample(self, table: Table) -> pa.Table:
        """At most `SAMPLE_ROWS` training-period rows, in blocks spread evenly over them.

        Which training rows are taken depends on the training rows alone.
        """
        training = np.arange(table.num_rows)
        if table.time_column is not None:
            training = np.flatnonzero(self.times(table.name) <= self.val_timestamp)
        if len(training) > SAMPLE_ROWS:
            size = SAMPLE_ROWS // _SAMPLE_BLOCKS
            starts = np.linspace(0, len(training) - size, _SAMPLE_BLOCKS).astype(np.int64)
            training = training[(starts[:, None] + np.arange(size)).ravel()]
        return take_rows(table.path, training, _SAMPLE_CHARS)


_fingerprints: dict[tuple[str, int, int], str] = {}


def open_database(
    spec: str | Path,
    root: Path | None = None,
    kinds: Path | str | Mapping[str, Mapping[str, Kind]] | None = None,
    options: ImportConfig | None = None,
) -> Database:
    """Open a database: manifest and parquet footers are read and checked, no data.

    Args:
        spec: a RelBench folder, a name under `root`, or a name on the Hub (`rel-f1`, `org/repo`,
            `org/repo/subdir`), looked for in this order and in the local Hub cache before the
            network; with `HF_HUB_OFFLINE=1` the network is never asked. Or what `rfm import` takes:
            a SQLAlchemy URL, a DuckDB or SQLite file, a folder of CSV or parquet files. These are
            read whole, each time, into the cache (`$RFM_CACHE`).
        root: a folder of RelBench folders.
        kinds: kinds of columns that inference should not decide, `{table: {column: kind}}` or a
            YAML file of that; without, what the folder's `kinds.yaml` says of it, if it has one.
        options: how to import what is no folder yet, such as `ImportConfig(exclude=("log",))`;
            without, as `rfm import` does by itself.

    Raises:
        ValueError: no such database (with what was tried and what there is), a manifest that is
            incomplete or does not fit the parquet files.
    """
    from rfm.data.imported import import_into, is_source
    from rfm.data.locate import find_folder

    if is_source(str(spec)):
        folder = import_into(default_cache(), str(spec), options)
    elif options is not None:
        raise ValueError(
            f"options: {spec} is a database's folder or the name of one; they are of the import of "
            "a database URL, a .sqlite or .duckdb file, or a folder of CSV or parquet files"
        )
    else:
        folder = find_folder(spec, root)
    path = folder / "manifest.yaml"
    manifest = read_manifest(path)
    if kinds is None and (folder / KINDS_FILE).is_file():
        kinds = read_kinds(folder / KINDS_FILE).get(manifest.name)
    overrides = read_overrides(kinds)
    tables = {
        str(table): _open_table(str(table), spec_, folder)
        for table, spec_ in manifest.tables.items()
    }
    for table in tables.values():
        for column, parent in table.foreign_keys.items():
            where = f"{path}: foreign key {table.name}.{column} points at {parent!r}"
            if parent not in tables:
                raise ValueError(f"{where}, which is no table; {suggest(parent, tables)}")
            if tables[parent].primary_key is None:
                raise ValueError(f"{where}, which has no primary key (pkey)")
    val, test = manifest.val_timestamp, manifest.test_timestamp
    return Database(manifest.name, folder, val, test, tables, overrides)


def _open_table(name: str, spec: TableSpec, folder: Path) -> Table:
    """Check one table's parquet footer against its manifest entry."""
    path = folder / "db" / f"{name}.parquet"
    if not path.is_file():
        raise ValueError(f"{folder / 'manifest.yaml'}: table {name!r} has no file {path}")
    try:
        with pq.ParquetFile(path) as file:
            columns, num_rows = tuple(file.schema_arrow.names), file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a whole parquet file, write it again: {error}") from None
    if num_rows == 0:
        raise ValueError(f"{path}: table {name!r} has no rows; leave it out of manifest.yaml")
    if len(set(columns)) < len(columns):
        double = next(c for c in columns if columns.count(c) > 1)
        raise ValueError(f"{path}: two columns are called {double!r}; rename one")
    foreign_keys = {str(column): str(parent) for column, parent in spec.fkeys.items()}
    for role, column in [
        ("pkey", spec.pkey),
        ("time_col", spec.time_col),
        *(("fkeys", c) for c in foreign_keys),
    ]:
        if column is not None and column not in columns:
            raise ValueError(
                f"{folder / 'manifest.yaml'}: {role} {name}.{column} is not in {path}; "
                f"{suggest(str(column), columns)}"
            )
    return Table(name, path, num_rows, columns, spec.pkey, spec.time_col, foreign_keys)


@dataclass(frozen=True)
class SourceConfig:
    root: Path | None = setting(None, help="folder of RelBench folders")
    kinds: Path | None = setting(
        None, help="YAML of column kinds to override: database -> table -> column -> kind"
    )


def open_source(spec: str, root: Path | None, kinds: Path | None) -> Database:
    """`open_database` with a YAML file of the kinds of several databases, by their names."""
    return with_kinds(open_database(spec, root), read_kinds(kinds))


def with_kinds(database: Database, kinds: Mapping[str, Overrides]) -> Database:
    """The database with the kinds that are given of it, if there are any."""
    given = kinds.get(database.name)
    return database if given is None else replace(database, overrides=read_overrides(given))
