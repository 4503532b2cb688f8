"""The keys of imported tables as their source has them, and the rows that they name.

An import numbers rows, because RelBench wants primary keys 0..n-1; the source's own keys are in
`keys/<table>.parquet` beside them, in row order. Where that file is missing, a table's key is its
row number.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.database import Database, open_database


def original_keys(database: Database | Path, table: str) -> pa.Table:
    """The source's key [n] of each row, in row order: one column, or several of a composite key.

    Without a file of its own the key is the row number, under the name of the primary key (or
    `row`, in a table without one).

    Raises:
        ValueError: if there is no such table.
    """
    database = database if isinstance(database, Database) else open_database(database)
    if table not in database.tables:
        raise ValueError(
            f"{database.name}: no table {table!r}; there are: {', '.join(database.tables)}"
        )
    path = database.folder / "keys" / f"{table}.parquet"
    known = database.tables[table]
    if not path.is_file():
        rows = pa.array(np.arange(known.num_rows, dtype=np.int64))
        return pa.table({known.primary_key or "row": rows})
    with pq.ParquetFile(path) as file:
        keys = file.read()
    if len(keys) != known.num_rows:
        raise ValueError(
            f"{path}: has {len(keys)} keys of {known.num_rows} rows; import the database again"
        )
    return keys


def key_parts(database: Database, table: str) -> int:
    """How many columns a table's original key has."""
    return original_keys(database, table).num_columns if _stamp(database, table) else 1


def find_row(database: Database, table: str, key: Any) -> int:
    """The row of an original key, -1 if no row has it; a composite key is a tuple or a list. A
    number written as text finds the number."""
    parts = tuple(str(part) for part in (key if isinstance(key, tuple | list) else (key,)))
    if not _stamp(database, table):
        written = parts[0] if len(parts) == 1 else ""
        row = int(written) if written.isascii() and written.isdigit() else -1
        return row if row < database.tables[table].num_rows else -1
    return _index(database.folder, table, _stamp(database, table)).get(parts, -1)


def key_of_row(database: Database, table: str, row: int) -> Any:
    """The original key of a row; a composite one is a tuple."""
    if not _stamp(database, table):
        return row
    parts = _tuples(original_keys(database, table).slice(row, 1))[0]
    return parts[0] if len(parts) == 1 else parts


def _stamp(database: Database, table: str) -> int:
    """Changes with the file of original keys; 0 where there is none, a key is the row number."""
    path = database.folder / "keys" / f"{table}.parquet"
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=4)
def _index(folder: Path, table: str, stamp: int) -> dict[tuple[str, ...], int]:
    """Read once, as a list may hold many keys."""
    keys = _tuples(original_keys(folder, table))
    return {tuple(str(part) for part in key): row for row, key in enumerate(keys)}


def _tuples(keys: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in keys.columns), strict=True))
