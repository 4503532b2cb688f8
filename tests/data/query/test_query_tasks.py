"""Task folders: derived and given times, names, what RelBench reads; and original keys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.attach import attach_task
from rfm.data.database import Database, open_database
from rfm.data.query import (
    QueryError,
    check_times,
    compile_text,
    entities,
    labels,
    split_times,
    write_task,
)
from rfm.data.task_rows import SPLITS, Ints, TaskSplit
from rfm.data.tasks import open_task
from tests.data.query.made import TEST, VAL, seconds, shop_frames, write_shop
from tests.folders import write_folder

_DAY = 86_400
_VISITS = "PREDICT COUNT(visits.*, 0, 30, days) > 0 FOR EACH customers.id"
_KINDS = [
    _VISITS,
    "PREDICT SUM(orders.total VIA orders.customer_id, 0, 2, months) FOR EACH customers.id",
    "PREDICT LAST(orders.state VIA orders.customer_id, 0, 30, days) FOR EACH customers.id",
    "PREDICT LIST_DISTINCT(orders.state VIA orders.customer_id, 0, 60, days) FOR EACH customers.id",
    "PREDICT LIST_DISTINCT(items.product_id VIA items.order_id -> orders.gift_to, 0, 60, days) "
    "FOR EACH customers.id",
    "PREDICT orders.total FOR EACH orders.id",
    "PREDICT orders.state FOR EACH orders.id",
    "PREDICT orders.total > 50 FOR EACH orders.id",
    "PREDICT cards.colour FOR EACH customers.id",
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    frames = shop_frames()
    people = frames["customers"].drop(columns="since")
    database = write_shop(tmp_path_factory.mktemp("tasks"), frames)
    people.to_parquet(database.folder / "db" / "customers.parquet", index=False)
    manifest = database.folder / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("time_col: since", "time_col: null"))
    return open_database(database.folder)


@pytest.mark.parametrize("text", _KINDS)
def test_relbench_and_rfm_open_what_is_written(text: str, shop: Database, tmp_path: Path) -> None:
    import relbench

    compiled = compile_text(text, shop)
    written = write_task(compiled, shop, shop.folder)
    assert written.path.parent == shop.folder / "tasks"
    task = open_task(shop, written.path.name)
    assert (task.task_type, task.kind, task.timedelta) == (
        compiled.task_type, compiled.kind, compiled.timedelta,
    )  # fmt: skip
    theirs = relbench.load_dataset(str(shop.folder)).load_task(written.path.name)
    for split in SPLITS:
        assert len(task.rows(split)) == written.rows[split] > 0
        assert task.rows(split).labelled.all()
        assert len(theirs.get_table(split).df) == written.rows[split]
        assert f"{split}: {written.rows[split]} rows" in written.words()
    if compiled.kind == "forecast":
        again = relbench.load_dataset(str(shop.folder)).load_task(task.name, regenerate=True)
        for split in SPLITS:
            assert len(again.get_table(split).df) == written.rows[split]
    attached = attach_task(task, tmp_path)
    assert attached.questions["test"].size == written.rows["test"]


def test_names_follow_the_content(shop: Database, tmp_path: Path) -> None:
    compiled = compile_text(_VISITS, shop)
    first = write_task(compiled, shop, tmp_path)
    stamp = (first.path / "train.parquet").stat().st_mtime_ns
    assert write_task(compiled, shop, tmp_path).path == first.path
    assert (first.path / "train.parquet").stat().st_mtime_ns == stamp
    later = dict(split_times(compiled, shop))
    later["train"] = later["train"][1:]
    assert write_task(compiled, shop, tmp_path, later).path != first.path
    other = compile_text(_VISITS.replace("30", "31"), shop)
    assert write_task(other, shop, tmp_path).path != first.path
    assert sorted(p.name for p in first.path.iterdir()) == [
        "manifest.yaml", "test.parquet", "train.parquet", "val.parquet",
    ]  # fmt: skip
    assert not [p for p in (tmp_path / "tasks").iterdir() if p.name.startswith(".")]


def test_times_are_those_of_relbench(shop: Database) -> None:
    times = split_times(compile_text(_VISITS, shop), shop, num_eval_timestamps=5)
    val, test = seconds(VAL), seconds(TEST)
    steps = np.diff(times["train"])
    assert set(steps) == {30 * _DAY}
    assert times["train"][-1] == val - 30 * _DAY
    assert shop.first_time <= times["train"][0] < shop.first_time + 30 * _DAY
    assert times["val"].tolist() == [val, val + 30 * _DAY, val + 60 * _DAY]  # 91 days
    assert times["test"].tolist() == [test, test + 30 * _DAY]  # until June 23


def test_windows_that_do_not_fit(shop: Database) -> None:
    long = compile_text("PREDICT COUNT(visits.*, 0, 92, days) FOR EACH customers.id", shop)
    with pytest.raises(
        ValueError, match=r"looks 92 days ahead.*only 91 days to the test timestamp"
    ):
        split_times(long, shop)
    with pytest.raises(ValueError, match=r"only .* days to the last row"):
        split_times(
            compile_text("PREDICT COUNT(visits.*, 0, 90, days) FOR EACH customers.id", shop), shop
        )
    listed = compile_text(_KINDS[4], shop)
    with pytest.raises(ValueError, match="num_eval_timestamps is 2"):
        split_times(listed, shop, 2)


def test_given_times_are_checked(shop: Database) -> None:
    compiled = compile_text(_VISITS, shop)
    good: dict[TaskSplit, Ints] = {
        "train": np.array([seconds("2019-06-15"), seconds("2019-12-02")]),
        "val": np.array([seconds("2020-02-01")]),
        "test": np.array([seconds("2020-05-01")]),
    }
    check_times(compiled, shop, good)
    bad: list[tuple[TaskSplit, str]] = [
        ("train", "2019-12-03"), ("val", "2019-12-31"), ("val", "2020-03-03"),
        ("test", "2020-03-31"), ("test", "2020-06-20"),
    ]  # fmt: skip
    for split, time in bad:
        with pytest.raises(ValueError, match=f"anchor times of {split} are"):
            check_times(compiled, shop, {**good, split: np.array([seconds(time)])})
    with pytest.raises(ValueError, match="no anchor times for val"):
        check_times(compiled, shop, {"train": good["train"], "test": good["test"]})


def test_months_take_as_long_as_the_longest(shop: Database) -> None:
    for window, days in [("0, 1, months", 31), ("0, 2, months", 62), ("0, 12, months", 366),
                         ("0, 1, years", 366), ("3, 10, weeks", 70)]:  # fmt: skip
        text = f"PREDICT COUNT(visits.*, {window}) FOR EACH customers.id"
        assert compile_text(text, shop).timedelta == days * _DAY
    text = f"{_VISITS} ASSUMING COUNT(visits.*, 0, 45, days) > 0"
    assert compile_text(text, shop).timedelta == 45 * _DAY


def test_a_split_without_labels_is_said(shop: Database, tmp_path: Path) -> None:
    compiled = compile_text(f"{_VISITS} WHERE customers.age > 200", shop)
    with pytest.raises(
        ValueError, match=r"train has no labelled rows: 0 labelled .* not by WHERE"
    ) as said:
        write_task(compiled, shop, tmp_path)
    assert "choose other times (val_timestamp" in str(said.value)
    assert "num_eval" not in str(said.value)  # of which not every caller knows
    assert not (tmp_path / "tasks").exists()


def _imported(folder: Path) -> Database:
    """As an import leaves it: row numbers in the tables, original keys beside them."""
    frames = {
        "customers": pd.DataFrame({"id": [0, 1, 2], "city": ["Oslo", "Lima", "Oslo"]}),
        "lines": pd.DataFrame({"id": [0, 1, 2, 3], "n": [1, 2, 3, 4]}),
        "orders": pd.DataFrame(
            {
                "at": pd.to_datetime(["2019-06-02"] * 4),
                "customer": [0, 1, 1, 2],
                "line": [3, 2, 1, 0],
            }
        ),
    }
    keys = {
        "customers": {"pkey": "id"},
        "lines": {"pkey": "id"},
        "orders": {"time_col": "at", "fkeys": {"customer": "customers", "line": "lines"}},
    }
    written = write_folder(folder / "imported", frames, keys)
    (written / "keys").mkdir()
    names = pa.table({"CustomerID": ["ALFKI", "BONAP", "it's"]})
    pq.write_table(names, written / "keys" / "customers.parquet")
    parts = pa.table({"OrderID": [7, 7, 8, 9], "Product": ["x", "y", "x", "x"]})
    pq.write_table(parts, written / "keys" / "lines.parquet")
    return open_database(written)


def test_original_keys(tmp_path: Path) -> None:
    database = _imported(tmp_path)
    at = seconds("2019-06-01")
    text = "PREDICT COUNT(orders.*, 0, 30, days) FOR customers.id IN ('it\\'s', 'BONAP')"
    compiled = compile_text(text, database)
    assert entities(compiled, database, at).row.tolist() == [2, 1]
    assert entities(compiled, database, at, keys=["ALFKI"]).row.tolist() == [0]
    assert labels(compiled, database, [at]).label.to_pylist() == [1.0, 2.0, 1.0]
    with pytest.raises(QueryError, match=r"no row with the key 'alfki'.*'ALFKI'"):
        compile_text(text.replace("BONAP", "alfki"), database)
    others = "COUNT(orders.* WHERE orders.customer != 'BONAP', 0, 30, days)"
    only = compile_text(f"PREDICT {others} FOR EACH customers.id", database)
    assert labels(only, database, [at]).label.to_pylist() == [1.0, 0.0, 1.0]
    some = compile_text(text.replace("IN ('it\\'s', 'BONAP')", "= 'ALFKI'"), database)
    assert entities(some, database, at).row.tolist() == [0]
    where = compile_text(f"{text.split(' FOR ')[0]} FOR EACH customers.id WHERE customers.id = "
                         "'BONAP' AND customers.city = 'Lima'", database)  # fmt: skip
    assert entities(where, database, at).row.tolist() == [1]


def test_original_keys_of_several_columns(tmp_path: Path) -> None:
    database = _imported(tmp_path)
    text = "PREDICT COUNT(orders.*, 0, 30, days) FOR lines.id "
    for listed, rows in [("IN ((9, 'x'), (7, 'y'))", [3, 1]), ("= (8, 'x')", [2]),
                         ("IN ((8, 'x'))", [2])]:  # fmt: skip
        compiled = compile_text(text + listed, database)
        assert entities(compiled, database, seconds("2019-06-01")).row.tolist() == rows
    with pytest.raises(QueryError, match="of 2 parts each"):
        compile_text(f"{text}IN (7, 8, 9)", database)
    with pytest.raises(QueryError, match="no row with the key"):
        compile_text(f"{text}= (9, 'y')", database)
