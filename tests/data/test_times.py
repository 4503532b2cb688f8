"""Which rows are training rows, which validation rows, and who is there at a given time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.times import TimeIndex
from tests.shop import TEST_SECONDS, VAL_SECONDS, Shop, prepare_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return prepare_shop(tmp_path_factory.mktemp("shop"))


def seconds(shop: Shop, table: str, column: str) -> np.ndarray:
    return shop.tables[table][column].astype("datetime64[s]").astype("int64").to_numpy()


TIMED = pytest.mark.parametrize(
    ("table", "column"), [("orders", "at"), ("products", "listed"), ("reviews", "written")]
)


@TIMED
def test_positions_follow_time(shop: Shop, table: str, column: str) -> None:
    index, t = TimeIndex(shop.store), shop.store.graph.tables.index(table)
    times = seconds(shop, table, column)
    rows = index.rows(t, np.arange(index.size(t))) - shop.row(table, 0)
    assert np.array_equal(rows, np.argsort(times, kind="stable"))
    assert not np.array_equal(rows, np.arange(rows.size))


@TIMED
def test_visible_rows(shop: Shop, table: str, column: str) -> None:
    index, t = TimeIndex(shop.store), shop.store.graph.tables.index(table)
    times = seconds(shop, table, column)
    for moment in [*times[:20], *times[:20] - 1, 0, 2**40]:
        assert index.visible(t, int(moment)) == (times <= moment).sum()


@TIMED
def test_splits_end_at_their_timestamps(shop: Shop, table: str, column: str) -> None:
    index, t = TimeIndex(shop.store), shop.store.graph.tables.index(table)
    times = seconds(shop, table, column)
    train, val = (
        index.rows(t, np.asarray(index.split(t, s), dtype=np.int64)) - shop.row(table, 0)
        for s in ("train", "val")
    )
    assert set(train) == set(np.flatnonzero(times <= VAL_SECONDS))
    assert set(val) == set(np.flatnonzero((times > VAL_SECONDS) & (times <= TEST_SECONDS)))
    assert train.size > 0
    assert val.size > 0


def test_a_row_at_the_very_second_belongs_to_the_earlier_split(tmp_path: Path) -> None:
    moments = [VAL_SECONDS, VAL_SECONDS + 1, TEST_SECONDS, TEST_SECONDS + 1]
    frame = pd.DataFrame({"at": pd.to_datetime(moments, unit="s"), "x": range(4)})
    shop = prepare_shop(tmp_path, {"t": frame}, {"t": {"time_col": "at"}})
    index = TimeIndex(shop.store)
    assert list(index.split(0, "train")) == [0]
    assert list(index.split(0, "val")) == [1, 2]
    assert index.rows(0, np.arange(4)).tolist() == [0, 1, 2, 3]  # stored in order: no sort kept


def test_static_tables_of_a_database_with_times_train_only(shop: Shop) -> None:
    index, t = TimeIndex(shop.store), shop.store.graph.tables.index("customers")
    assert list(index.split(t, "train")) == list(range(12))
    assert len(index.split(t, "val")) == 0
    assert index.visible(t, -(2**60)) == 12
    assert not index.all_static


def test_without_times_one_row_in_twenty_is_held_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": np.arange(4000.0)})
    shop = prepare_shop(tmp_path, {"t": frame, "few": frame[:5]}, {})
    index = TimeIndex(shop.store)
    assert index.all_static
    t = shop.store.graph.tables.index("t")
    train, val = index.split(t, "train"), index.split(t, "val")
    assert sorted([*train, *val]) == list(range(4000))
    assert 150 < len(val) < 250
    assert np.diff(np.asarray(val)).max() < 60  # spread over the table
    assert shop.store.first_time == shop.store.val_timestamp
