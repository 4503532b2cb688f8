"""DuckDB connections that hold little, ask no network and know no time zone but UTC."""

from __future__ import annotations

from pathlib import Path

import duckdb


def connect_duck(
    path: Path | None, memory: int, threads: int, spill: Path
) -> duckdb.DuckDBPyConnection:
    """Connect to a file, for reading only, or to none.

    Args:
        memory: megabytes that it may hold; what is more goes to the folder `spill`.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory}MB",
        "threads": threads,
        "temp_directory": str(spill),
        "autoinstall_known_extensions": False,
        "allow_community_extensions": False,
    }
    connection = duckdb.connect(
        ":memory:" if path is None else str(path), read_only=path is not None, config=config
    )
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def utc(cell: str) -> str:
    """An ISO text as a timestamp, in UTC where it names a time zone: DuckDB's own cast to a plain
    timestamp forgets the zone. Null for other texts. For connections of `connect_duck`."""
    return f"make_timestamp(epoch_us(try_cast({cell} AS TIMESTAMPTZ)))"
