"""Memory and speed of importing a large PostgreSQL table, beside `COPY ... TO STDOUT` of it.

    python -m benchmarks.import_speed postgres=<URL of an empty database> [rows=5000000]

The import runs in a process of its own, whose peak memory (DuckDB's and Arrow's included, for they
live in it) is its resident set as the operating system has it. `COPY` is read by psycopg in this
process and thrown away; the import reads, infers, numbers and writes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from rfm.config import run_command, setting

_MAKE = """
DROP TABLE IF EXISTS events; DROP TABLE IF EXISTS users;
CREATE TABLE users (id bigint {key}, name text, signed_up timestamp);
INSERT INTO users SELECT 10 * i, md5(i::text), timestamp '2015-01-01' + i * interval '7 minutes'
    FROM generate_series(1, 200000) i;
CREATE TABLE events (id bigint {key}, user_id bigint, happened_at timestamp, kind text,
    amount double precision, quantity integer, paid boolean, note text);
INSERT INTO events SELECT i, 10 * (1 + (i::bigint * 7919) % 200000),
    timestamp '2018-01-01' + i * interval '20 seconds',
    (array['view', 'buy', 'return', 'ask'])[1 + i % 4], (i::bigint * 31 % 100003) / 7.0,
    i % 17, i % 3 = 0, md5(i::text) FROM generate_series(1, {rows}) i;
ANALYZE
"""


@dataclass(frozen=True)
class SpeedConfig:
    postgres: str = setting(help="URL of a database whose tables users and events are replaced")
    rows: int = setting(5_000_000, ge=1)
    declared: bool = setting(False, help="declare the primary keys")
    repeats: int = setting(3, ge=1, help="of COPY and the import, turn and turn about")


def run(config: SpeedConfig) -> Mapping[str, Any]:
    import psycopg

    key = "PRIMARY KEY" if config.declared else ""
    with psycopg.connect(config.postgres, autocommit=True) as connection:
        connection.execute(_MAKE.format(rows=config.rows, key=key).encode())
    copies, imports, peaks = [], [], []
    for _ in range(config.repeats):
        copies.append(_time_copy(config.postgres))
        with tempfile.TemporaryDirectory() as folder:
            seconds, peak = _time_import(config.postgres, Path(folder) / "out")
        imports.append(seconds)
        peaks.append(peak)
        print(f"COPY {copies[-1]:.2f} s, import {imports[-1]:.2f} s, {peaks[-1]:.0f} MB")
    return {
        "rows": config.rows,
        "copy_seconds": min(copies),
        "import_seconds": min(imports),
        "speed_of_copy": min(copies) / min(imports),
        "peak_megabytes": max(peaks),
    }


def _time_copy(url: str) -> float:
    """Seconds of both tables' `COPY ... TO STDOUT`."""
    import psycopg

    began = time.perf_counter()
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        for table in (b"users", b"events"):
            with cursor.copy(b"COPY " + table + b" TO STDOUT") as copy:
                for _ in copy:
                    pass
    return time.perf_counter() - began


def _time_import(url: str, out: Path) -> tuple[float, float]:
    """Seconds that an import says it took, and the peak of its process in megabytes."""
    command = [sys.executable, "-m", "rfm", "import", url, f"out={out}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watcher.start()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return float(json.loads(said.splitlines()[-1])["seconds"]), peak[0]


def _watch(pid: int, peak: list[float]) -> None:
    try:
        process = psutil.Process(pid)
        while process.is_running():
            peak[0] = max(peak[0], process.memory_info().rss / 1e6)
            time.sleep(0.02)
    except psutil.Error:
        return


if __name__ == "__main__":
    run_command(SpeedConfig, run, prog="python -m benchmarks.import_speed", doc=__doc__)
