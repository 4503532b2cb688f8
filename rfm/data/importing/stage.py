"""Rows of a source to parquet files beside the folder that is being made, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    infinite: Mapping[str, int] = field(default_factory=dict)  # NaN and infinite values, null now


def stage_table(source: Source, table: SourceTable, where: str, limit: int, path: Path) -> Staged:
    """Stream the first `limit` (0: all) rows to a parquet file; memory is bounded by a batch."""
    types = table.types
    rising = _Rising(types)
    rows, size = 0, 0
    infinite: dict[str, int] = {}
    with write_groups(path, types, "snappy", [], _GROUP_ROWS, _GROUP_BYTES) as groups:
        for batch in source.read(table, where, limit):
            rising.see(batch)
            rows += len(batch)
            size += batch.nbytes
            groups.add(pa.Table.from_batches([_finite(batch, infinite)]))
    pa.default_memory_pool().release_unused()  # which Arrow keeps, and DuckDB needs now
    whole = not limit or rows < limit
    return Staged(table, path, rows, whole, size, frozenset(rising.last if rows else ()), infinite)


def _finite(batch: pa.RecordBatch, counts: dict[str, int]) -> pa.RecordBatch:
    """Rows with null for NaN and infinite values, which no sum survives; count them."""
    for i, kind in enumerate(batch.schema):
        if not pa.types.is_floating(kind.type):
            continue
        finite = pc.is_finite(batch.column(i))
        odd = pc.sum(pc.invert(finite)).as_py()
        if odd:
            counts[kind.name] = counts.get(kind.name, 0) + odd
            values = pc.if_else(finite, batch.column(i), pa.scalar(None, kind.type))
            batch = batch.set_column(i, kind, values)
    return batch


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
