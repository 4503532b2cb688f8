"""The keys of imported tables as their source has them, and the rows that they name.

An import numbers rows, because RelBench wants primary keys 0..n-1; the source's own keys are in
`keys/<table>.parquet` beside them, in row order. Where that file is missing, a table's key is its
row number.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.database import Database, open_database
from rfm.data.schema import is_text


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
    """The row of an original key, -1 if no row has it; a composite key is a tuple or a list.

    A number written as text finds the number, 17.0 finds 17, and a time finds whatever its zone
    and type, a date being its midnight (times without a zone are UTC). A missing value finds none.
    """
    parts = tuple(key) if isinstance(key, tuple | list | np.ndarray) else (key,)
    if any(is_missing(part) for part in parts):
        return -1
    parts = tuple(_plain(part) for part in parts)
    if not _stamp(database, table):
        written = _spelled(parts[0]) if len(parts) == 1 else ""
        numbered = written.isascii() and written.isdigit() and len(written) < 19
        row = int(written) if numbered else -1
        return row if row < database.tables[table].num_rows else -1
    index = _index(database.folder, table, _stamp(database, table))
    row = index.get(tuple(str(part) for part in parts), -1)
    return row if row >= 0 else index.get(tuple(_spelled(part) for part in parts), -1)


def is_missing(key: Any) -> bool:
    """Whether a key, or a part of one, is None, NaN or the like."""
    parts = key if isinstance(key, tuple | list | np.ndarray) else (key,)
    return any(pd.api.types.is_scalar(part) and bool(pd.isna(part)) for part in parts)


def key_of_row(database: Database, table: str, row: int) -> Any:
    """The original key of a row; a composite one is a tuple."""
    return keys_of_rows(database, table, [row])[0]


def keys_of_rows(database: Database, table: str, rows: npt.ArrayLike) -> list[Any]:
    """The original keys of rows [n], read once; composite ones are tuples."""
    at = np.asarray(rows, dtype=np.int64)
    if at.size == 0 or not _stamp(database, table):
        return [int(row) for row in at]
    parts = _tuples(original_keys(database, table).take(at))
    return [part[0] if len(part) == 1 else part for part in parts]


def _stamp(database: Database, table: str) -> int:
    """Changes with the file of original keys; 0 where there is none, a key is the row number."""
    path = database.folder / "keys" / f"{table}.parquet"
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=4)
def _index(folder: Path, table: str, stamp: int) -> dict[tuple[str, ...], int]:
    """Read once, as a list may hold many keys: as they are printed and, where nobody else's key is
    printed so, as ``_spelled``."""
    table_keys = original_keys(folder, table)
    keys = _tuples(table_keys)
    index = {tuple(str(part) for part in key): row for row, key in enumerate(keys)}
    if not all(_printed(kind) for kind in table_keys.schema.types):
        for row, key in enumerate(keys):
            index.setdefault(tuple(_spelled(part) for part in key), row)
    return index


def _printed(kind: pa.DataType) -> bool:
    """Whether ``_spelled`` writes values of a type as they are printed."""
    return bool(pa.types.is_integer(kind) or is_text(kind))


def _plain(part: Any) -> Any:
    """A numpy scalar as Python's own; its times, which have nanoseconds, as pandas's."""
    if isinstance(part, np.datetime64):
        return pd.Timestamp(part)
    return part.item() if isinstance(part, np.generic) else part


def _spelled(part: Any) -> str:
    """A part of a key in the one way that equal values of all types have."""
    if isinstance(part, datetime):
        utc = (
            part.astimezone(timezone.utc).replace(tzinfo=None) if part.tzinfo is not None else part
        )
        return str(utc).removesuffix(" 00:00:00")
    if isinstance(part, Decimal) and part.is_finite():
        return f"{part.normalize():f}"
    return str(int(part)) if isinstance(part, float) and part.is_integer() else str(part)


def _tuples(keys: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in keys.columns), strict=True))
