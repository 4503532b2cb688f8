"""Manifests are read as RelBench reads them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from rfm.data.manifest import read_manifest


def check_read_alike(path: Path) -> None:
    from relbench.manifest import DatasetManifest

    ours, theirs = read_manifest(path), DatasetManifest.load(path)
    assert ours.name == theirs.name
    assert ours.val_timestamp == int(pd.Timestamp(theirs.val_timestamp).timestamp())
    assert ours.test_timestamp == int(pd.Timestamp(theirs.test_timestamp).timestamp())
    assert list(ours.tables) == list(theirs.tables)
    for name, table in ours.tables.items():
        other = theirs.tables[name]
        assert (table.pkey, table.time_col, dict(table.fkeys)) == (
            other.pkey, other.time_col, other.fkeys,
        )  # fmt: skip


def test_one_that_relbench_writes(tmp_path: Path) -> None:
    from relbench.manifest import DatasetManifest, TableSpec

    tables = {
        "users": TableSpec(pkey="id"),
        "orders": TableSpec(time_col="at", fkeys={"user": "users"}),
    }
    made = DatasetManifest("shop", "2020-01-01", "2020-02-01 12:30:00", "a shop", tables)
    made.save(tmp_path / "manifest.yaml")
    check_read_alike(tmp_path / "manifest.yaml")


@pytest.mark.realdata
def test_those_of_real_databases(real_data: Path) -> None:
    paths = sorted(real_data.glob("*/manifest.yaml"))
    assert paths
    for path in paths:
        check_read_alike(path)
