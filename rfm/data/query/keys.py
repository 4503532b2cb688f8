"""Keys as a user writes them -> rows, and back (``rfm.data.original_keys``)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from rfm.data.database import Database
from rfm.data.original_keys import original_keys


def key_parts(database: Database, table: str) -> int:
    """How many columns a table's original key has."""
    return original_keys(database, table).num_columns if _stamp(database, table) else 1


def find_row(database: Database, table: str, key: Any) -> int:
    """The row of an original key, -1 if no row has it; a composite key is a tuple. A number written
    as text finds the number."""
    parts = tuple(str(part) for part in (key if isinstance(key, tuple) else (key,)))
    if not _stamp(database, table):
        written = parts[0] if len(parts) == 1 else ""
        row = int(written) if written.isascii() and written.isdigit() else -1
        return row if row < database.tables[table].num_rows else -1
    return _index(database.folder, table, _stamp(database, table)).get(parts, -1)


def key_of_row(database: Database, table: str, row: int) -> Any:
    """The original key of a row; a composite one is a tuple."""
    if not _stamp(database, table):
        return row
    parts = _tuple(original_keys(database, table).slice(row, 1))[0]
    return parts[0] if len(parts) == 1 else parts


def _stamp(database: Database, table: str) -> int:
    """Changes with the file of original keys; 0 where there is none, a key is the row number."""
    path = database.folder / "keys" / f"{table}.parquet"
    return path.stat().st_mtime_ns if path.is_file() else 0


@lru_cache(maxsize=4)
def _index(folder: Path, table: str, stamp: int) -> dict[tuple[str, ...], int]:
    """Read once, as a list may hold many keys."""
    keys = _tuple(original_keys(folder, table))
    return {tuple(str(part) for part in key): row for row, key in enumerate(keys)}


def _tuple(keys: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(column.to_pylist() for column in keys.columns), strict=True))
