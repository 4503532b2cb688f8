"""Small RelBench folders for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml


def write_folder(
    folder: Path,
    tables: Mapping[str, pd.DataFrame],
    keys: Mapping[str, Mapping[str, Any]],
    val: str = "2020-01-01",
    test: str = "2020-07-01",
) -> Path:
    """A database of data frames.

    Args:
        keys: per table what the manifest says, of pkey, time_col and fkeys.
    """
    (folder / "db").mkdir(parents=True, exist_ok=True)
    for name, frame in tables.items():
        frame.to_parquet(folder / "db" / f"{name}.parquet", index=False)
    described = {
        name: {"pkey": None, "time_col": None, "fkeys": {}, **keys.get(name, {})} for name in tables
    }
    manifest = {
        "name": folder.name,
        "manifest_version": 1,
        "val_timestamp": val,
        "test_timestamp": test,
        "tables": described,
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest, allow_unicode=True))
    return folder
