"""Databases that are strange but legal, given to `python -m pretrain`: a run like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rfm.data.corpus import DataConfig, open_corpus
from rfm.data.mixture import PretrainBatches
from tests.batches import tensors
from tests.folders import write_folder
from tests.shop import TEST, VAL, small_batches
from tests.tiny_run import run

pytestmark = pytest.mark.usefixtures("no_trace")


def strange(out: Path) -> Path:
    """All at once: odd names, 500 columns, a bridge of keys, self-references, a cycle, a megabyte
    in a cell, NaN, infinities, huge integers, zones, microseconds, columns of nulls."""
    rng = np.random.default_rng(0)
    n = 60
    when = pd.Series(pd.date_range("2019-06-01", periods=n, freq="9D", tz="America/Lima"))
    tables = {
        "items": pd.DataFrame(
            {
                "type": np.arange(n),
                "größe [cm]": np.where(rng.random(n) < 0.5, np.nan, rng.normal(size=n)),
                "items": np.where(rng.random(n) < 0.2, np.inf, -1e308),
                "self.": rng.integers(0, n, n),
                "huge": rng.choice([np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0], n),
                "表": ["x" * 1_000_000, *["值 <mask>"] * (n - 1)],
                "nothing": [None] * n,
            }
        ),
        "my table.v2": pd.DataFrame(
            {
                "class": np.arange(n),
                "a.b": rng.integers(0, n, n),
                "back to": rng.integers(0, n, n),
                "when": when.dt.as_unit("us"),
                "": ["no name"] * n,
                "--": rng.random(n) < 0.5,
            }
        ),
        "bridge": pd.DataFrame({"x": rng.integers(0, n, n), "y": rng.integers(0, n, n)}),
        "wide": pd.DataFrame(
            {"x": rng.integers(0, n, n), **{f"column {i}": rng.normal(size=n) for i in range(500)}}
        ),
    }
    keys: dict[str, dict[str, Any]] = {
        "items": {"pkey": "type", "fkeys": {"self.": "items"}},
        "my table.v2": {
            "pkey": "class",
            "time_col": "when",
            "fkeys": {"a.b": "items", "back to": "my table.v2"},
        },
        "bridge": {"fkeys": {"x": "items", "y": "my table.v2"}},
        "wide": {"fkeys": {"x": "my table.v2"}},
    }
    return write_folder(out / "strange things", tables, keys, VAL, TEST)


def test_a_strange_database_gives_finite_batches(tmp_path: Path) -> None:
    config = DataConfig(databases=(str(strange(tmp_path)),), cache=tmp_path / "c", vocab_size=400)
    mixture = open_corpus(config, 0).mixture
    assert len(mixture.stores[0].tables) == 4
    read = small_batches(max_tokens=64, strategy="uniform")
    tables = set()
    for split in ("train", "val"):
        batches = PretrainBatches(mixture, read, 0, split, 4)  # type: ignore[arg-type]
        for index in range(4):
            batch = batches[index]
            for at, tensor in tensors(batch):
                if at != ".texts.marginal":
                    assert torch.isfinite(tensor.float()).all(), at
            assert max(b.token.shape[1] for b in batch.buckets) <= 64
            tables |= {mixture.columns[c][1] for c in batch.values.column.tolist()}
    assert tables == {"items", "my table.v2", "wide"}


@pytest.mark.slow
def test_pretraining_on_a_strange_database(tmp_path: Path) -> None:
    databases = f"data.databases=['{strange(tmp_path)}']"
    result = run(tmp_path / "cache", tmp_path / "run", databases)
    assert result["steps"] == 4
    assert (tmp_path / "run" / "model" / "config.json").is_file()
