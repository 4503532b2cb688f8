"""Rows of a source to parquet files beside the folder that is being made, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.importing.source import Source, SourceTable

_GROUP_BYTES = 48 << 20
_GROUP_ROWS = 500_000


@dataclass(frozen=True)
class Staged:
    """One table's rows in the source's order; columns `c0`, `c1`, ... of `table.readable`."""

    table: SourceTable
    path: Path
    rows: int
    whole: bool  # False: only the first rows were read
    bytes: int  # of the rows in memory
    rising: frozenset[str] = field(default_factory=frozenset)  # whole numbers that only ever grow


def stage_table(source: Source, table: SourceTable, where: str, limit: int, path: Path) -> Staged:
    """Stream the first `limit` (0: all) rows to a parquet file; memory is bounded by a batch."""
    types = table.types
    rising = _Rising(types)
    held: list[pa.RecordBatch] = []
    rows, all_bytes, held_bytes = 0, 0, 0
    with pq.ParquetWriter(path, types, compression="snappy", use_dictionary=False) as writer:

        def flush() -> None:
            if held:
                writer.write_table(pa.Table.from_batches(held, types), row_group_size=_GROUP_ROWS)
                held.clear()

        for batch in source.read(table, where, limit):
            rising.see(batch)
            rows += len(batch)
            held.append(batch)
            held_bytes += batch.nbytes
            all_bytes += batch.nbytes
            if held_bytes > _GROUP_BYTES:
                flush()
                held_bytes = 0
        flush()
    whole = not limit or rows < limit
    return Staged(table, path, rows, whole, all_bytes, frozenset(rising.last if rows else ()))


class _Rising:
    """Which whole-number columns are strictly increasing and without null, batch after batch."""

    def __init__(self, types: pa.Schema) -> None:
        self.last = {f.name: -(2**63) - 1 for f in types if pa.types.is_integer(f.type)}

    def see(self, batch: pa.RecordBatch) -> None:
        for name in list(self.last):
            values = batch.column(name)
            if values.null_count or not len(values):
                if len(values):
                    del self.last[name]
                continue
            numbers = values.to_numpy()
            if numbers[0] <= self.last[name] or not np.all(numbers[1:] > numbers[:-1]):
                del self.last[name]
            else:
                self.last[name] = int(numbers[-1])
