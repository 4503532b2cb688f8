"""SQLite files, opened so that nothing is written to them nor beside them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote


def open_sqlite(path: Path, alone: bool) -> sqlite3.Connection:
    """Open a file for reading only; one that nobody writes without leaving anything beside it."""
    if not path.is_file():
        raise sqlite3.OperationalError(f"no file {path}")
    uri = f"file:{quote(str(path.absolute()))}?mode=ro" + "&immutable=1" * alone
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    return connection


def has_closed_log(path: Path) -> bool:
    """Whether a SQLite file keeps a write-ahead log, which is not there: all of it is in the
    file."""
    if not path.is_file() or path.with_name(f"{path.name}-wal").exists():
        return False
    with path.open("rb") as file:
        return file.read(20)[18:20] == b"\x02\x02"


def state_of(path: Path) -> tuple[int, int]:
    """By which a change of a file is known."""
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size
