"""The database of ``tests/benchmarks/task_folders.py``, prepared: enough rows to make tasks of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rfm.data.database import open_database
from rfm.data.prepare import prepare
from rfm.data.store import RowStore
from rfm.data.tokenizer import Tokenizer, mixture_tokenizer
from tests.benchmarks.task_folders import KEYS, tables
from tests.folders import write_folder


@dataclass(frozen=True)
class Busy:
    """Its tables as they were written, and the store."""

    tables: Mapping[str, pd.DataFrame]
    tokenizer: Tokenizer
    store: RowStore


def open_busy(
    folder: Path,
    tokenizer: Tokenizer | None = None,
    change: Callable[[dict[str, pd.DataFrame]], None] = lambda frames: None,
) -> Busy:
    """Written under ``folder``.

    Args:
        change: of its tables, in place, before they are written.
    """
    frames = tables()
    change(frames)
    database = open_database(write_folder(folder / "busy", frames, KEYS))
    tokenizer = tokenizer or mixture_tokenizer([database], 400, folder / "cache")
    return Busy(frames, tokenizer, prepare(database, tokenizer, folder / "cache"))
