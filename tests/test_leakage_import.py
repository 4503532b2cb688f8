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
from rfm.data.prepare import prepare
from rfm.data.query import compile_text, labels
from rfm.data.sampler import Seeds, fan_outs, sample
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.posing import anchor_time

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


def with_lines() -> dict[str, pd.DataFrame]:
    """The shop with products, and lines of orders: what is in an order, and no more."""
    rng, frames = np.random.default_rng(4), tables()
    order = np.repeat(frames["orders"].order_id.to_numpy(), 2)
    frames["products"] = pd.DataFrame({"product_id": np.arange(6) + 3, "weight": np.arange(6) / 2})
    frames["order_lines"] = pd.DataFrame(
        {
            "order_id": rng.permutation(order),
            "product_id": rng.integers(0, 6, order.size) + 3,
            "pieces": rng.integers(1, 9, order.size),
        }
    )
    return frames


def test_lines_of_later_orders_are_not_sampled(tmp_path: Path) -> None:
    database = imported(tmp_path / "a", with_lines(), **SPLITS)
    at = int(pd.Timestamp("2020-06-01").timestamp())
    ordered = database.times("orders")[database.parents("order_lines", "order_id")]
    np.testing.assert_array_equal(database.times("order_lines"), ordered)
    tokenizer = mixture_tokenizer([database], 400, tmp_path / "cache")
    graph = prepare(database, tokenizer, tmp_path / "cache").graph
    first = dict(zip(graph.tables, graph.table_start[:-1].tolist(), strict=True))
    seeds = Seeds.at(first["products"] + np.arange(6), at)
    rows = sample(graph, seeds, fan_outs(graph, [1000, 1000]), "uniform").row
    ours = first["order_lines"] <= rows
    lines = rows[ours & (rows < first["order_lines"] + ordered.size)] - first["order_lines"]
    assert np.unique(lines).size == (ordered <= at).sum() > 100
    assert (ordered[lines] <= at).all()


def test_lines_of_later_orders_are_not_counted(tmp_path: Path) -> None:
    """What is asked of a product at an anchor, labels and conditions, is of its lines' orders."""
    frames, changed = with_lines(), with_lines()
    orders, lines = changed["orders"], changed["order_lines"]
    end = pd.Timestamp("2020-07-01")
    late = lines.order_id.isin(orders.order_id[orders.created_at > end])
    lines.loc[late, "pieces"] = 1000
    lines.loc[late, "product_id"] = 3
    query = (
        "PREDICT SUM(order_lines.pieces, 0, 30, days) FOR EACH products.product_id "
        "WHERE COUNT(order_lines.*, -60, 0, days) > 9 AND SUM(order_lines.pieces, -INF, 0) < 900"
    )
    anchors = [int((end - pd.Timedelta(f"{days}D")).timestamp()) for days in (60, 30, 20)]
    found = []
    for name, made in (("a", frames), ("b", changed)):
        database = imported(tmp_path / name, made, **SPLITS)
        found.append([labels(compile_text(query, database), database, [a]) for a in anchors])
    for ours, theirs in zip(found[0][:2], found[1][:2], strict=True):
        assert len(ours) > 0
        assert ours.entity.tolist() == theirs.entity.tolist()
        assert ours.label.to_pylist() == theirs.label.to_pylist()
    assert found[0][2].entity.tolist() == found[1][2].entity.tolist()  # conditions are of before
    assert found[0][2].label.to_pylist() != found[1][2].label.to_pylist()
    (early, *_), n = found[0], frames["order_lines"].merge(frames["orders"], on="order_id")
    window = n[
        (n.created_at > end - pd.Timedelta("60D")) & (n.created_at <= end - pd.Timedelta("30D"))
    ]
    wanted = window.groupby("product_id").pieces.sum()
    assert early.label.to_pylist() == [wanted.get(row + 3, 0) for row in early.entity.tolist()]


def test_lines_of_no_order_are_seen_by_nothing_earlier(tmp_path: Path) -> None:
    frames = with_lines()
    frames["order_lines"].loc[7, "order_id"] = 5  # there is none
    frames["orders"].loc[9, "created_at"] = pd.NaT
    database = imported(tmp_path / "a", frames, **SPLITS)
    times, order = database.times("order_lines"), frames["order_lines"].order_id
    assert (times[[7, *np.flatnonzero(order == 1009)]] == times.max()).all()
    assert times.max() == database.times("orders").max() > database.test_timestamp


def test_days_that_stand_for_never_move_nothing(tmp_path: Path) -> None:
    frames, changed = tables(), tables()
    changed["orders"].loc[5, "created_at"] = pd.Timestamp("2262-01-01")
    whole, other = (imported(tmp_path / n, f) for n, f in (("a", frames), ("b", changed)))
    assert other.times("orders")[5] == other.times("orders").max() == whole.times("orders").max()
    query = compile_text(
        "PREDICT COUNT(orders.*, 0, 30, days) FOR EACH customers.customer_id", other
    )
    assert anchor_time(query, other, None) == whole.times("orders").max()


def test_derived_splits_leave_training_rows_before_both(tmp_path: Path) -> None:
    database = imported(tmp_path / "a", tables())
    times = database.times("orders")
    train = (times <= database.val_timestamp).mean()
    val = (times <= database.test_timestamp).mean()
    assert 0.75 < train <= 0.8 < val <= 0.9
