"""Rows of a source to parquet files beside the folder that is being made, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from rfm.data.importing.parquet_writer import write_groups
from rfm.data.importing.source import Source, SourceTable

_GROUP_BYTES = 32 << 20
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
    rows, size = 0, 0
    with write_groups(path, types, "snappy", [], _GROUP_ROWS, _GROUP_BYTES) as groups:
        for batch in source.read(table, where, limit):
            rising.see(batch)
            rows += len(batch)
            size += batch.nbytes
            groups.add(pa.Table.from_batches([batch]))
    whole = not limit or rows < limit
    return Staged(table, path, rows, whole, size, frozenset(rising.last if rows else ()))


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
