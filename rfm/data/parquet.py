"""Parquet files in record batches, as the rest of the package can use them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_ROWS, _BYTES = 65_536, 64 << 20  # of a batch, at most
REINDEX = (
    "reset the key to 0..n-1 in row order and rewrite the foreign keys that point at it "
    "(RelBench: byod/reindex_dataset.py)"
)


def read_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The given columns, in that order, `rows` rows at a time.

    Raises:
        ValueError: if the file is damaged.
    """
    # with pre_buffer, Arrow reads all of the columns ahead
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in _whole(file.iter_batches(batch_size=rows, columns=list(columns)), path):
            yield _without_views(batch.select(list(columns)))


def take_rows(path: Path, rows: npt.NDArray[np.int64], chars: int = 0) -> pa.Table:
    """All columns of the sorted rows [n], texts cut to so many characters, if any; groups of rows
    that hold none of them are not read.

    Raises:
        ValueError: if the file is damaged.
    """
    parts, start = [], 0
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            found = file.metadata.row_group(group)
            end = start + found.num_rows
            if np.searchsorted(rows, start) < np.searchsorted(rows, end):
                at, fit = start, _BYTES * found.num_rows // max(found.total_byte_size, 1)
                size = min(max(fit, 1), _ROWS)
                for batch in _whole(file.iter_batches(size, row_groups=[group]), path):
                    low, high = np.searchsorted(rows, [at, at + len(batch)])
                    if low < high:
                        taken = pa.array(rows[low:high] - at)
                        parts.append(_cut(_without_views(batch).take(taken), chars))
                    at += len(batch)
            start = end
        schema = parts[0].schema if parts else file.schema_arrow
    return pa.Table.from_batches(parts, schema)


def _cut(batch: pa.RecordBatch, chars: int) -> pa.RecordBatch:
    if not chars:
        return batch
    for i, column in enumerate(batch.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            batch = batch.set_column(
                i, column.name, pc.utf8_slice_codeunits(batch.column(i), 0, chars)
            )
    return batch


def _whole(batches: Iterator[pa.RecordBatch], path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a file; names it if it is damaged, although its end is a parquet file's."""
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowInvalid, OSError) as error:
            if getattr(error, "errno", None) is not None:
                raise  # the system's word, not the file's fault
            raise ValueError(f"{path}: is damaged, write it again: {error}") from error
        if batch is None:
            return
        yield batch


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Text views, which few functions of Arrow know, as plain text."""
    for i, column in enumerate(batch.schema):
        if pa.types.is_string_view(column.type):
            batch = batch.set_column(i, column.name, batch.column(i).cast(pa.large_string()))
    return batch


def row_numbers(
    values: pa.Array, where: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Keys [n] (0 for null) and where they are valid; whole floats count as integers.

    Raises:
        ValueError: for other values.
    """
    kind = values.type
    valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
    if pa.types.is_null(kind):
        return np.zeros(len(values), dtype=np.int64), valid
    if pa.types.is_floating(kind):  # how pandas writes integers with nulls
        floats = values.to_numpy(zero_copy_only=False)
        valid = valid & ~np.isnan(floats)
        whole = np.where(valid, floats, 0.0)
        if bool(np.all(np.isfinite(whole) & (whole == np.floor(whole)) & (abs(whole) < 2**53))):
            return whole.astype(np.int64), valid
    elif pa.types.is_integer(kind):
        return values.cast(pa.int64(), safe=False).fill_null(0).to_numpy(), valid
    example = pc.drop_null(values)
    shown = f" (e.g. {example[0].as_py()!r})" if len(example) else ""
    raise ValueError(f"{where} is of type {kind}{shown}, wanted row numbers; {REINDEX}")
