"""Parquet files of long rows as tables whose rows come some megabytes at a time.

DuckDB's own reader is faster, but holds two thousand rows of a row group at once, for which texts
of 50 kB need hundreds of megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.importing.folder_names import free
from rfm.data.importing.source import BATCH_ROWS
from rfm.data.sql_quoting import identifier

_BATCH_BYTES, _PROBED_ROWS = 8 << 20, 64
_INTERVAL = pa.month_day_nano_interval()
_ROWS = "rfm_rows"


class ParquetTable:
    """Files with the same columns, which are one table of DuckDB.

    `columns`: their names, of which each is there once, upper and lower case being the same, and
    DuckDB's types that the values of all files have; no type: DuckDB knows none for it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> None:
        self._connection, self._paths = connection, paths
        first: dict[tuple[str, int], str] = {}
        self._schemas = [_schema(path, first) for path in paths]
        kinds = list(dict.fromkeys(self._schemas))
        unknown = {name for schema in kinds for name in self._unknown(schema)}
        known = [pa.schema([f for f in schema if f.name not in unknown]) for schema in kinds]
        types = dict(self._types(known))
        self.columns = [(name, types.get(name, "")) for name in self._schemas[0].names]
        # per file the columns that have another type in it than in all together
        casts = {
            kind: {n: types[n] for n, declared in self._types([some]) if types[n] != declared}
            for kind, some in zip(kinds, known, strict=True)
        }
        self._casts = [casts[schema] for schema in self._schemas]

    @cached_property
    def rows(self) -> int:
        return sum(pq.read_metadata(path).num_rows for path in self._paths)

    def portions(self, columns: AbstractSet[str]) -> Iterator[str]:
        """What to select all rows of some columns from, some megabytes at a time: each is there
        until the next is asked for."""
        for casts, batch in self._batches(columns):
            replaced = ", ".join(
                f"CAST({identifier(name)} AS {declared}) AS {identifier(name)}"
                for name, declared in casts.items()
                if name in columns
            )
            self._connection.register(_ROWS, batch)
            try:
                yield f"(SELECT * REPLACE ({replaced}) FROM {_ROWS})" if replaced else _ROWS
            finally:
                self._connection.unregister(_ROWS)

    def _batches(
        self, columns: AbstractSet[str]
    ) -> Iterator[tuple[Mapping[str, str], pa.RecordBatch]]:
        for casts, path, schema in zip(self._casts, self._paths, self._schemas, strict=True):
            places = [i for i, field in enumerate(schema) if field.name in columns]
            kept = pa.schema([schema.field(i) for i in places])
            with _open(path) as file:
                rough = file.schema_arrow.names
                # to Arrow a dot parts a column from those that are nested in it
                alone = len({name.split(".")[0] for name in rough}) == len(rough)
                read = [rough[i] for i in places] if alone else rough
                for batch in file.iter_batches(_batch_rows(file, read), columns=read):
                    found = batch.columns if alone else [batch.column(i) for i in places]
                    yield casts, _as(kept, found)

    def _types(self, schemas: Sequence[pa.Schema]) -> list[tuple[str, str]]:
        """Names and DuckDB's types of all columns together."""
        names = [f"{_ROWS}_{i}" for i in range(len(schemas))]
        try:
            for name, schema in zip(names, schemas, strict=True):
                self._connection.register(name, schema.empty_table())
            selected = " UNION ALL BY NAME ".join(f"SELECT * FROM {name}" for name in names)
            found = self._connection.execute(f"DESCRIBE {selected}").fetchall()
        finally:
            for name in names:
                self._connection.unregister(name)
        return [(str(row[0]), str(row[1])) for row in found]

    def _unknown(self, schema: pa.Schema) -> list[str]:
        """Columns of which DuckDB does not know the type."""
        unknown = []
        for field in schema:
            try:
                self._types([pa.schema([field])])
            except duckdb.NotImplementedException:
                unknown.append(field.name)
        return unknown


def _open(path: Path) -> pq.ParquetFile:
    # with pre_buffer, Arrow reads the whole file ahead
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)


def _schema(path: Path, names: dict[tuple[str, int], str]) -> pa.Schema:
    """The types of a file's columns, under the names that the first file's get."""
    with _open(path) as file:
        leaves = [file.schema.column(i) for i in range(len(file.schema))]
        intervals = {leaf.path for leaf in leaves if leaf.converted_type == "INTERVAL"}
        rough, taken = file.schema_arrow.names, {name.casefold() for name in names.values()}
        fields = []
        for i, field in enumerate(file.schema_arrow):
            key = field.name, rough[:i].count(field.name)
            if key not in names:
                names[key] = free(field.name or f"column_{i + 1}", taken)
            kind = _INTERVAL if field.name in intervals else _known(field.type)
            fields.append((names[key], kind))
    return pa.schema(fields)


def _known(kind: pa.DataType) -> pa.DataType:
    """The type that DuckDB knows instead of one that it does not."""
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.float64() if pa.types.is_decimal256(kind) else kind


def _as(schema: pa.Schema, columns: list[pa.Array]) -> pa.RecordBatch:
    arrays = [
        _intervals(array)
        if kind == _INTERVAL
        else array.cast(kind)
        if array.type != kind
        else array
        for array, kind in zip(columns, schema.types, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _intervals(array: pa.FixedSizeBinaryArray) -> pa.Array:
    """Parquet's intervals, which Arrow has as bytes: months, days and milliseconds."""
    parts = np.frombuffer(array.buffers()[1], "<u4", 3 * len(array), 12 * array.offset)
    months, days, milliseconds = parts.reshape(-1, 3).T
    made = np.empty(len(array), dtype=[("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
    made["months"], made["days"] = months, days
    made["nanoseconds"] = milliseconds.astype(np.int64) * 1_000_000
    valid = array.is_valid().buffers()[1]
    return pa.Array.from_buffers(_INTERVAL, len(array), [valid, pa.py_buffer(made)])


def has_doubles(path: Path) -> bool:
    """Whether columns have the same name but for upper and lower case, by which DuckDB's reader
    mixes those of several files up."""
    names = pq.read_schema(path).names
    return len({name.casefold() for name in names}) < len(names)


def row_bytes(path: Path) -> float:
    """How long rows are in memory: in the row group of the longest, or as the first ones are, for a
    text that comes back is in the file once."""
    with _open(path) as file:
        return _row_bytes(file, file.schema_arrow.names)


def _batch_rows(file: pq.ParquetFile, columns: list[str]) -> int:
    """Rows that make some megabytes."""
    return max(1, min(BATCH_ROWS, int(_BATCH_BYTES / _row_bytes(file, columns))))


def _row_bytes(file: pq.ParquetFile, columns: list[str]) -> float:
    leaves = [file.schema.column(i).path for i in range(len(file.schema))]
    wanted = {*columns}
    read = [i for i, path in enumerate(leaves) if {path, path.split(".")[0]} & wanted]
    probe = next(file.iter_batches(_PROBED_ROWS, columns=columns), None)
    width = probe.nbytes / len(probe) if probe else 1.0
    for i in range(file.num_row_groups):
        group = file.metadata.row_group(i)
        size = sum(group.column(leaf).total_uncompressed_size for leaf in read)
        width = max(width, size / max(group.num_rows, 1))
    return max(width, 1.0)
