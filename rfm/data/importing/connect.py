"""Which kind of source a text means."""

from __future__ import annotations

from pathlib import Path

from rfm.data.importing.duck import DuckSource
from rfm.data.importing.file_source import FileSource
from rfm.data.importing.source import Source, parse_url
from rfm.data.importing.sql import SQLSource
from rfm.secrets import without_secrets

_SQLITE = b"SQLite format 3\x00"


def connect(source: str, memory: int, spill: Path) -> Source:
    """Open what `source` means, for reading only.

    Args:
        source: a SQLAlchemy URL, a DuckDB or SQLite file, a folder of CSV and parquet files.
        memory: megabytes that DuckDB may hold, where it reads.
        spill: a folder for what is more.

    Raises:
        ValueError: none of these, or it cannot be opened; secrets of a URL are not shown.
    """
    if "://" in source:
        url = parse_url(source)
        if url.get_backend_name() == "duckdb":
            return DuckSource(Path(str(url.database)), memory, spill)
        return SQLSource(url)
    path = Path(source).expanduser()
    if path.is_dir():
        return FileSource(path, memory, spill)
    if not path.is_file():
        raise ValueError(
            f"source={without_secrets(source)}: no such file or folder; wanted a database URL such "
            "as postgresql://user@host/database, a .duckdb or .sqlite file, or a folder of CSV or "
            "parquet files"
        )
    with path.open("rb") as file:
        head = file.read(16)
    if head == _SQLITE:
        return SQLSource(parse_url("sqlite:///").set(database=str(path)))
    if head[8:12] == b"DUCK":
        return DuckSource(path, memory, spill)
    raise ValueError(
        f"source={source}: neither a SQLite nor a DuckDB file; a CSV or parquet file is imported "
        "with the folder that it is in"
    )


def source_file(source: str) -> Path | None:
    """The file or folder that a source is, None for a server's database.

    Raises:
        ValueError: a URL that is none.
    """
    if "://" not in source:
        return Path(source).expanduser()
    url = parse_url(source)
    is_file = url.get_backend_name() in ("sqlite", "duckdb") and url.database
    return Path(str(url.database)) if is_file else None
