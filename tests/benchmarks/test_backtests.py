"""Earlier windows: whose rows go where, and what cannot be a window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.backtests import BacktestConfig, backtests
from rfm.data.database import open_database
from rfm.data.task_rows import SPLITS
from rfm.data.tasks import open_task


def config(shop: Path, out: Path, **words: Any) -> BacktestConfig:
    database = open_database(shop)
    val = pd.Timestamp(database.val_timestamp, unit="s")
    given = {"tasks": ("buys",), "test": (str((val - pd.Timedelta("60d")).date()),), **words}
    return BacktestConfig(database=str(shop), out=out, **{"gap": "120d", **given})


def frame(folder: Path, split: str) -> pd.DataFrame:
    return pd.read_parquet(folder / "tasks" / "buys" / f"{split}.parquet")


def test_rows_of_a_window(task_shop: Path, tmp_path: Path) -> None:
    made = config(task_shop, tmp_path)
    folder = Path(backtests(made)["folders"][0])
    task = open_task(open_database(folder), "buys")
    test = pd.Timestamp(made.test[0])
    assert pd.Timestamp(task.database.test_timestamp, unit="s") == test
    assert pd.Timestamp(task.database.val_timestamp, unit="s") == test - pd.Timedelta("120d")
    delta = pd.Timedelta(task.timedelta, unit="s")
    rows = {split: frame(folder, split) for split in SPLITS}
    assert (rows["train"]["date"] + delta <= test - pd.Timedelta("120d")).all()
    assert (rows["val"]["date"] >= test - pd.Timedelta("120d")).all()
    assert (rows["val"]["date"] + delta <= test).all()
    assert (rows["test"]["date"] >= test).all()
    original = pd.Timestamp(open_database(task_shop).val_timestamp, unit="s")
    lasted = frame(task_shop, "val")["date"].max() - original
    for split, begins in (("val", test - pd.Timedelta("120d")), ("test", test)):
        assert (rows[split]["date"] <= begins + lasted).all()
    assert min(map(len, rows.values())) > 0
    for split in SPLITS:
        assert len(task.rows(split)) == len(rows[split])


def test_no_row_of_the_test_split_goes_anywhere(task_shop: Path, tmp_path: Path) -> None:
    folder = Path(backtests(config(task_shop, tmp_path, length="9999d"))["folders"][0])
    kept_out = frame(task_shop, "test")["date"].min()
    there = [frame(folder, split)["date"].max() for split in SPLITS]
    assert max(there) < kept_out
    assert there[-1] == max(frame(task_shop, split)["date"].max() for split in ("train", "val"))


def test_gap_and_length(task_shop: Path, tmp_path: Path) -> None:
    original = open_database(task_shop)
    made = config(task_shop, tmp_path / "a", gap="", length="31d")
    first = Path(backtests(made)["folders"][0])
    window = open_database(first)
    gap = original.test_timestamp - original.val_timestamp
    assert window.test_timestamp - window.val_timestamp == gap
    assert frame(first, "test")["date"].max() <= pd.Timestamp(made.test[0]) + pd.Timedelta("31d")
    with pytest.raises(ValueError, match="is there already"):
        backtests(made)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"test": ("soon",)}, "wanted a day such as"),
        ({"test": ("2999-01-01",)}, "before the test split begins"),
        ({"test": ("1900-01-01",)}, "no train rows"),
        ({"tasks": ("status",)}, "wanted a forecast"),
        ({"tasks": ("nothing",)}, "nothing"),
        ({"length": "long"}, "wanted a time such as 1825d"),
        ({"length": "-3d"}, "wanted a time such as 1825d"),
        ({"tasks": ()}, "one or more"),
    ],
)
def test_what_cannot_be_a_window(
    task_shop: Path, tmp_path: Path, words: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        backtests(config(task_shop, tmp_path, **words))
    assert not any(tmp_path.iterdir())
