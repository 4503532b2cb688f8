"""What comes late in an imported database changes nothing earlier, and is not seen early."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rfm.data.database import Database
from rfm.data.import_sql import ImportConfig, import_database

SPLITS = {"val_timestamp": "2020-09-01", "test_timestamp": "2020-11-01"}


def tables() -> dict[str, pd.DataFrame]:
    """Customers, their orders over a year, and what became of those later."""
    rng = np.random.default_rng(3)
    n = 400
    ordered = pd.Timestamp("2020-01-01") + pd.to_timedelta(
        np.sort(rng.integers(0, 366 * 24, n)), "h"
    )
    return {
        "customers": pd.DataFrame({"customer_id": np.arange(40) * 3 + 5, "city": "Oslo"}),
        "orders": pd.DataFrame(
            {
                "order_id": np.arange(n) + 1000,
                "customer_id": rng.integers(0, 40, n) * 3 + 5,
                "created_at": ordered,
                "updated_at": ordered + pd.to_timedelta(rng.integers(1, 99, n), "D"),
                "due_date": ordered + pd.to_timedelta(30, "D"),
                "shipped_at": (ordered + pd.to_timedelta(3, "D")).where(rng.random(n) > 0.2),
                "price": rng.normal(50, 9, n).round(2),
                "note": [f"note {i}" for i in rng.integers(0, 50, n)],
            }
        ),
    }


def imported(folder: Path, frames: dict[str, pd.DataFrame], **options: Any) -> Database:
    folder.mkdir()
    with sqlite3.connect(folder / "shop.sqlite") as connection:
        for name, frame in frames.items():
            frame.to_sql(name, connection, index=False)
    connection.close()
    source = str(folder / "shop.sqlite")
    done = import_database(source, folder / "shop", ImportConfig(**options))
    assert done.database is not None
    return done.database


def test_the_time_column_is_when_the_row_came_to_be(tmp_path: Path) -> None:
    database = imported(tmp_path / "a", tables())
    assert database.tables["orders"].time_column == "created_at"
    assert database.tables["customers"].time_column is None


@pytest.mark.parametrize("since", ["val_timestamp", "test_timestamp"])
def test_later_rows_change_no_earlier_ones(tmp_path: Path, since: str) -> None:
    frames, changed = tables(), tables()
    orders = changed["orders"]
    late = orders["created_at"] > SPLITS[since]
    assert 0 < late.sum() < len(orders)
    orders.loc[late, "price"] = -orders.loc[late, "price"] * 7 + 1e6
    orders.loc[late, "note"] = "changed"
    orders.loc[late, "customer_id"] = 5
    orders.loc[late, "created_at"] += pd.Timedelta("30D")
    before = imported(tmp_path / "a", frames, **SPLITS)
    after = imported(tmp_path / "b", changed, **SPLITS)
    assert before.val_timestamp == after.val_timestamp
    assert before.test_timestamp == after.test_timestamp
    limit = int(pd.Timestamp(SPLITS[since]).timestamp())
    assert (before.times("orders") <= limit).sum() == (~late).sum()
    seen = [
        pq.read_table(d.tables["orders"].path).filter(d.times("orders") <= limit).to_pylist()
        for d in (before, after)
    ]
    assert seen[0] == seen[1]
    assert before.kinds == after.kinds
    assert (before.folder / "manifest.yaml").read_text().split("tables:")[1] == (
        after.folder / "manifest.yaml"
    ).read_text().split("tables:")[1]


def test_more_late_rows_renumber_no_earlier_ones(tmp_path: Path) -> None:
    frames, fewer = tables(), tables()
    fewer["orders"] = fewer["orders"].iloc[:300]
    whole = imported(tmp_path / "a", frames, **SPLITS)
    part = imported(tmp_path / "b", fewer, **SPLITS)
    rows = [pq.read_table(d.tables["orders"].path).slice(0, 300) for d in (whole, part)]
    assert rows[0].to_pylist() == rows[1].to_pylist()


def test_a_row_without_a_time_is_seen_by_nothing_earlier(tmp_path: Path) -> None:
    frames = tables()
    frames["orders"].loc[7, "created_at"] = pd.NaT
    database = imported(tmp_path / "a", frames, **SPLITS)
    assert database.tables["orders"].time_column == "created_at"
    times = database.times("orders")
    assert times[7] == times.max() > database.test_timestamp


def test_derived_splits_leave_training_rows_before_both(tmp_path: Path) -> None:
    database = imported(tmp_path / "a", tables())
    times = database.times("orders")
    train = (times <= database.val_timestamp).mean()
    val = (times <= database.test_timestamp).mean()
    assert 0.75 < train <= 0.8 < val <= 0.9
