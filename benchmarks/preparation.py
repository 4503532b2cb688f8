"""Prepare databases in a process of their own, so that nothing is remembered and its peak memory
is that of preparation.

    python -m benchmarks.preparation config=<yaml with folders and cache>
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rfm.config import run_command, setting
from rfm.data.database import open_database
from rfm.data.prepare import prepare
from rfm.data.tokenizer import mixture_tokenizer


@dataclass(frozen=True)
class PreparationConfig:
    folders: tuple[str, ...] = setting(help="RelBench folders")
    cache: Path = setting(help="an empty folder for the tokenizer and the stores")
    vocab_size: int = setting(8192, ge=300, le=65536)


def prepare_apart(folders: Sequence[Path], cache: Path) -> dict[str, Any]:
    """Run this file on some folders in another process, and return its result."""
    cache.mkdir(parents=True)
    config = cache / "preparation.yaml"
    described = {"folders": [str(f.resolve()) for f in folders], "cache": str(cache.resolve())}
    config.write_text(yaml.safe_dump(described, allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.preparation", f"config={config.resolve()}"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"preparing {len(folders)} databases failed, see above")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def main(config: PreparationConfig) -> dict[str, Any]:
    start = time.perf_counter()
    databases = [open_database(folder) for folder in config.folders]
    tokenizer = mixture_tokenizer(databases, config.vocab_size, config.cache)
    tokenizer_seconds = time.perf_counter() - start
    stores, seconds = [], {}
    for database in databases:
        before = time.perf_counter()
        stores.append(prepare(database, tokenizer, config.cache))
        seconds[database.name] = round(time.perf_counter() - before, 3)
    return {
        "seconds": time.perf_counter() - start,
        "tokenizer_seconds": tokenizer_seconds,
        "peak_bytes": peak_bytes(),
        "rows": sum(store.num_rows for store in stores),
        "bytes": sum(_size(config.cache / part) for part in ("stores", "tables")),
        "stores": [str(store.folder) for store in stores],
        "seconds_by_database": seconds,
    }


def peak_bytes() -> int:
    """Most memory that this process ever held.

    ``getrusage`` also counts what the parent held when it started this process (Linux keeps the
    figure over ``exec``), so the kernel's own record of this program comes first.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _size(folder: Path) -> int:
    return sum(
        (Path(top) / name).stat().st_size for top, _, names in os.walk(folder) for name in names
    )


if __name__ == "__main__":
    run_command(PreparationConfig, main, prog="python -m benchmarks.preparation", doc=__doc__)
