"""Keys as a user knows them -> rows, and back.

A database has row numbers for keys. One that was imported keeps the original keys of each table
beside it, ``keys/<table>.parquet``, in row order; where there are none, a key is the row number.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rfm.data.database import Database


def find_row(database: Database, table: str, key: Any) -> int:
    """The row of a key, -1 if there is none. A key of several columns is a tuple, or its parts
    joined by commas."""
    path = database.folder / "keys" / f"{table}.parquet"
    if not path.is_file():
        whole = isinstance(key, int) and not isinstance(key, bool)
        return key if whole and 0 <= key < database.tables[table].num_rows else -1
    return _index(path, path.stat().st_mtime_ns).get(_comparable(key), -1)


def key_of_row(database: Database, table: str, row: int) -> Any:
    """The key of a row as its user knows it."""
    path = database.folder / "keys" / f"{table}.parquet"
    if not path.is_file():
        return row
    return _keys(path, path.stat().st_mtime_ns)[row]


@cache
def _keys(path: Path, changed: int) -> list[Any]:
    columns = [column.to_pylist() for column in pq.read_table(path).columns]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


@cache
def _index(path: Path, changed: int) -> dict[Any, int]:
    return {_comparable(key): row for row, key in enumerate(_keys(path, changed))}


def _comparable(key: Any) -> Any:
    """Whole floats are integers, several columns are one text."""
    if isinstance(key, tuple | list):
        return ",".join(str(_comparable(part)) for part in key)
    return int(key) if isinstance(key, float) and key.is_integer() else key
