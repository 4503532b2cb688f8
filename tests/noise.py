"""A RelBench folder whose later rows are replaced by noise."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from rfm.data.schema import to_seconds


def replace_rows_after(folder: Path, out: Path, moment: str, seed: int = 0) -> int:
    """Copy a database and replace every row later than ``moment``, in every table with times:
    each cell by another of its type (extremes and nulls among them), each key by any row of the
    parent table or null, each time by another later than ``moment``. Returns the number of rows.
    """
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
    (out / "db").mkdir(parents=True)
    shutil.copy(folder / "manifest.yaml", out / "manifest.yaml")
    rng = np.random.default_rng(seed)
    cutoff = int(pd.Timestamp(moment).timestamp())
    sizes = {
        name: pq.read_metadata(folder / "db" / f"{name}.parquet").num_rows
        for name in manifest["tables"]
    }
    replaced = 0
    for name, keys in manifest["tables"].items():
        table = pq.read_table(folder / "db" / f"{name}.parquet")
        if keys["time_col"] is not None:
            later = to_seconds(table.column(keys["time_col"])) > cutoff
            replaced += int(later.sum())
            for i, column in enumerate(table.column_names):
                if column != keys["pkey"]:
                    old = table.column(column)
                    if column == keys["time_col"]:
                        new = _times(rng, len(old), cutoff).cast(old.type, safe=False)
                    elif column in keys["fkeys"]:
                        new = _keys(rng, len(old), sizes[keys["fkeys"][column]], old.type)
                    else:
                        new = _cells(rng, len(old), old.type)
                    changed = pc.if_else(pa.array(later), new, old.combine_chunks())
                    table = table.set_column(i, column, changed)
        pq.write_table(table, out / "db" / f"{name}.parquet")
    return replaced


def _times(rng: np.random.Generator, n: int, cutoff: int) -> pa.Array:
    seconds = cutoff + np.where(rng.random(n) < 0.2, 1, rng.integers(1, 3 * 365 * 86_400, n))
    return pa.array(seconds.astype("datetime64[s]"))


def _keys(rng: np.random.Generator, n: int, parents: int, type_: pa.DataType) -> pa.Array:
    return pa.array(rng.integers(0, parents, n), mask=rng.random(n) < 0.2).cast(type_)


def _cells(rng: np.random.Generator, n: int, type_: pa.DataType) -> pa.Array:
    values: npt.NDArray[Any]
    if pa.types.is_floating(type_):
        extremes = rng.choice([0.0, 1e30, -1e30, np.inf, np.nan], n)
        values = np.where(rng.random(n) < 0.5, extremes, rng.normal(0, 1e6, n))
    elif pa.types.is_boolean(type_):
        values = rng.random(n) < 0.5
    elif pa.types.is_integer(type_):
        values = rng.integers(0, 2 ** min(type_.bit_width - 1, 40), n)
    elif pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        values = rng.integers(-(10**9), 4 * 10**9, n).astype("datetime64[s]")
    else:
        assert pa.types.is_string(type_) or pa.types.is_large_string(type_), type_
        values = np.array([f"noise {w} ж 雑" for w in rng.integers(0, 10**12, n)], dtype=object)
    return pa.array(values, mask=rng.random(n) < 0.1).cast(type_, safe=False)
