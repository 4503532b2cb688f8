"""Whole rows of a staged table in their final order, to the folder's parquet file.

DuckDB sorts and joins narrow columns only (see `rfm.data.importing.write`): rows with long texts
are too wide to be sorted within a bound. Here they are streamed, and where their order changes,
scattered to files of consecutive rows first, each of which fits into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.importing.parquet_writer import write_groups
from rfm.data.importing.stage import Staged

_BATCH_BYTES = 8 << 20
_BUCKET_BYTES, _MOST_BUCKETS = 64 << 20, 256
_GROUP_BYTES, _GROUP_ROWS = 32 << 20, 122_880
_ROW = "r"


@dataclass(frozen=True)
class Cells:
    """Where a column of the folder comes from: a staged column, a computed one, or (neither) the
    row number."""

    name: str
    staged: str = ""
    computed: str = ""
    repeats: bool = True  # whether values come back often


def write_rows(
    staged: Staged, cells: Sequence[Cells], computed: Path, rows: Path, out: Path, work: Path
) -> None:
    """Write a table.

    Args:
        computed: parquet file of computed columns, in the final order; no file where none is.
        rows: parquet file of each staged row's final row (`r`); no file where they stay.
    """
    # at least one column, for a batch without any does not know how many rows it has
    wide = [cell.staged for cell in cells if cell.staged] or ["c0"]
    batches = (
        _reordered(staged, wide, rows, work)
        if rows.is_file()
        else _batches(staged.path, wide, _batch_rows(staged))
    )
    narrow = _Narrow(computed)
    types = {**_types(staged.path), **narrow.types}
    types[""] = pa.int64()
    schema = pa.schema([(cell.name, types[cell.staged or cell.computed]) for cell in cells])
    at, dictionary = 0, [cell.name for cell in cells if cell.repeats]
    with write_groups(out, schema, "snappy", dictionary, _GROUP_ROWS, _GROUP_BYTES) as groups:
        for batch in batches:
            found = {**_columns(batch), **_columns(narrow.take(len(batch)))}
            number = pa.array(np.arange(at, at + len(batch)))
            arrays = [found.get(c.staged or c.computed, number) for c in cells]
            groups.add(pa.table(arrays, schema=schema))
            at += len(batch)
    assert at == staged.rows, (at, staged.rows)


class _Narrow:
    """Computed columns, as many rows at a time as are asked for."""

    def __init__(self, path: Path) -> None:
        self.types = _types(path) if path.is_file() else {}
        self._batches = _batches(path, list(self.types), 32_768) if self.types else iter(())
        self._left = pa.table({})

    def take(self, rows: int) -> pa.Table:
        if not self.types:
            return self._left
        parts = [self._left] if self._left.num_columns else []
        while sum(len(part) for part in parts) < rows:
            parts.append(pa.Table.from_batches([next(self._batches)]))
        whole = pa.concat_tables(parts)
        self._left = whole.slice(rows)
        return whole.slice(0, rows)


def _reordered(
    staged: Staged, columns: Sequence[str], rows: Path, work: Path
) -> Iterator[pa.RecordBatch | pa.Table]:
    """Staged rows in their final order, a bucket of consecutive ones at a time."""
    buckets = min(_MOST_BUCKETS, -(-staged.bytes // _BUCKET_BYTES)) or 1
    size = -(-staged.rows // buckets)
    types = _types(staged.path)
    schema = pa.schema([*((c, types[c]) for c in columns), (_ROW, pa.int64())])
    paths = [work / f"{staged.path.stem}-{b}.arrow" for b in range(buckets)]
    places = _Narrow(rows)
    writers = [pa.ipc.new_stream(str(path), schema) for path in paths]
    for batch in _batches(staged.path, columns, _batch_rows(staged)):
        place = places.take(len(batch)).column(_ROW).to_numpy()
        bucket = place // size
        order = np.argsort(bucket, kind="stable")
        starts = np.searchsorted(bucket[order], np.arange(buckets + 1))
        whole = pa.RecordBatch.from_arrays([*batch.columns, pa.array(place)], schema=schema)
        for b in np.unique(bucket):
            writers[b].write_batch(whole.take(pa.array(order[starts[b] : starts[b + 1]])))
    for writer in writers:
        writer.close()
    for path in paths:
        with pa.ipc.open_stream(str(path)) as reader:
            table = reader.read_all()
        path.unlink()
        order = np.argsort(table.column(_ROW).to_numpy())
        ordered = table.select(list(columns)).take(pa.array(order))
        for start in range(0, len(ordered), _GROUP_ROWS):
            yield ordered.slice(start, _GROUP_ROWS)


def _batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    # with pre_buffer, Arrow reads the whole file ahead
    with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
        yield from file.iter_batches(batch_size=rows, columns=list(columns))


def _batch_rows(staged: Staged) -> int:
    """Rows that make some megabytes."""
    return max(1, min(32_768, _BATCH_BYTES * staged.rows // max(staged.bytes, 1)))


def _columns(rows: pa.RecordBatch | pa.Table) -> Mapping[str, pa.Array]:
    return dict(zip(rows.schema.names, rows.columns, strict=True))


def _types(path: Path) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in pq.read_schema(path)}
