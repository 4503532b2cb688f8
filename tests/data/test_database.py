"""Opening a RelBench folder: what is legal, and what is refused with a fix."""

from __future__ import annotations

import json
import time
from datetime import date, datetime
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rfm.config import run_command
from rfm.data import database as database_module
from rfm.data.checks import check_database
from rfm.data.database import open_database, open_source
from rfm.data.describe import DescribeConfig, describe_spec
from rfm.data.graph import STATIC
from rfm.data.locate import list_databases
from tests.folders import write_folder

DAY = 86_400


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def shop() -> dict[str, dict[str, Any]]:
    """A fresh description of a small database; tests change it before writing it."""
    return {
        "customers": {
            "data": {"id": [0, 1, 2], "name": ["Ann", "Bob", "Cy"], "type": ["a", "a", "a"]},
            "pkey": "id",
        },
        "orders": {
            "data": {
                "id": [0, 1, 2, 3],
                "customer": pa.array([2, None, 0, 2]),
                "at": [datetime(1970, 1, d) for d in (2, 3, 4, 5)],
                "price": [1.5, 2.5, 3.5, 4.5],
            },
            "pkey": "id",
            "time_col": "at",
            "fkeys": {"customer": "customers"},
        },
    }


def write(folder: Path, tables: dict[str, dict[str, Any]], /, **manifest: Any) -> Path:
    (folder / "db").mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {
        "name": folder.name,
        "val_timestamp": "1970-01-04",
        "test_timestamp": "1970-01-05",
        "tables": {},
    }
    for name, table in tables.items():
        pq.write_table(pa.table(table["data"]), folder / "db" / f"{name}.parquet", row_group_size=3)
        content["tables"][name] = {k: table.get(k) for k in ("pkey", "time_col")}
        content["tables"][name]["fkeys"] = table.get("fkeys", {})
    content.update(manifest)
    content = {k: v for k, v in content.items() if v != "left out"}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder


def test_open(tmp_path: Path) -> None:
    db = open_database(write(tmp_path / "shop", shop()))
    assert (db.name, db.val_timestamp, db.test_timestamp) == ("shop", 3 * DAY, 4 * DAY)
    assert list(db.tables) == ["customers", "orders"]
    orders = db.tables["orders"]
    assert (orders.num_rows, orders.columns) == (4, ("id", "customer", "at", "price"))
    assert (orders.primary_key, orders.time_column) == ("id", "at")
    assert orders.foreign_keys == {"customer": "customers"}
    assert orders.path.is_file()
    check_database(db)


def test_reading(tmp_path: Path) -> None:
    db = open_database(write(tmp_path / "shop", shop()))
    batches = list(db.batches("orders", ["price", "id"], rows=2))
    assert [len(b) for b in batches] == [2, 2]
    assert batches[1].to_pydict() == {"price": [3.5, 4.5], "id": [2, 3]}
    parents = db.parents("orders", "customer")
    assert (parents.dtype, parents.tolist()) == (np.int32, [2, -1, 0, 2])
    times = db.times("orders")
    assert (times.dtype, times.tolist()) == (np.int64, [DAY, 2 * DAY, 3 * DAY, 4 * DAY])
    assert db.times("customers").tolist() == [STATIC] * 3


def test_kinds(tmp_path: Path) -> None:
    db = open_database(write(tmp_path / "shop", shop()))
    assert db.kinds == {
        "customers": {"id": "key", "name": "text", "type": "category"},
        "orders": {"id": "key", "customer": "key", "at": "datetime", "price": "number"},
    }


def test_rows_after_the_validation_timestamp_change_no_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "SAMPLE_ROWS", 16)
    rng = np.random.default_rng(0)
    n = 200
    days = rng.integers(0, 8, n)
    past = days <= 3  # the validation timestamp is day 3
    data = {"flag": rng.integers(0, 2, n), "word": rng.choice(["x", "y"], n), "at": days}
    kinds = []
    for changed in (False, True):
        table = {name: values.tolist() for name, values in data.items()}
        if changed:
            table["flag"] = np.where(past, data["flag"], 7).tolist()
            words = [
                w if p else f"new {i}"
                for i, (w, p) in enumerate(zip(data["word"], past, strict=True))
            ]
            table["word"] = words
        table["at"] = [datetime(1970, 1, 1 + d) for d in days]
        folder = write(tmp_path / str(changed), {"t": {"data": table, "time_col": "at"}})
        kinds.append(open_database(folder).profiles)
    assert kinds[0] == kinds[1]
    assert kinds[0]["t"]["flag"].kind == "boolean"
    assert kinds[0]["t"]["flag"].rows == 16


def test_a_table_without_training_rows(tmp_path: Path) -> None:
    tables = shop()
    tables["orders"]["data"]["at"] = [datetime(1980, 1, 1)] * 4
    tables["orders"]["data"]["note"] = ["a", "a", "b", "b"]
    db = open_database(write(tmp_path / "shop", tables))
    assert db.kinds["orders"]["price"] == "number"
    assert db.kinds["orders"]["note"] == "text"
    assert "note" in db.describe()


def test_overrides(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop", shop())
    kinds = open_database(folder, kinds={"customers": {"type": "text"}}).kinds
    assert kinds["customers"]["type"] == "text"
    for given, message in [
        ({"customer": {"type": "text"}}, "unknown table 'customer'; did you mean 'customers'"),
        ({"customers": {"typ": "text"}}, r"unknown column customers\.typ; did you mean 'type'"),
        ({"customers": {"name": "number"}}, r"customers\.name: cannot be .* it holds 'Ann'"),
        ({"orders": {"customer": "number"}}, "is a key or time column"),
        ({"orders": {"at": "text"}}, "is a key or time column"),
    ]:
        with pytest.raises(ValueError, match=message):
            _ = open_database(folder, kinds=given).kinds  # type: ignore[arg-type]


def test_unusual_names_and_shapes_are_legal(tmp_path: Path) -> None:
    wide = {f"column {i}": [i, i + 1] for i in range(500)}
    tables = {
        "items": {
            "data": {"type.id": [0, 1], "type": ["a", "b"], "items": [1, 2], "größe [cm]": [1, 2]},
            "pkey": "type.id",
        },
        "my table.v2": {"data": {"a.b": [1, 0], "a": [5, 6]}, "fkeys": {"a.b": "items"}},
        "bridge": {"data": {"x": [0, 1], "y": [1, 1]}, "fkeys": {"x": "items", "y": "items"}},
        "表": {"data": wide},
    }
    db = open_database(write(tmp_path / "odd", tables))
    check_database(db)
    assert db.parents("my table.v2", "a.b").tolist() == [1, 0]
    assert next(db.batches("my table.v2", ["a"])).to_pydict() == {"a": [5, 6]}
    assert db.kinds["bridge"] == {"x": "key", "y": "key"}
    assert len(db.kinds["表"]) == 500
    text = db.describe()
    assert "größe [cm]" in text
    assert "my table.v2: 2 rows" in text


@pytest.mark.parametrize(
    "times",
    [
        pa.array([DAY, 2 * DAY, 3 * DAY, 4 * DAY], pa.timestamp("s", tz="Asia/Tokyo")),
        pa.array([d * DAY * 10**9 for d in (1, 2, 3, 4)], pa.timestamp("ns")),
        pa.array([date(1970, 1, d) for d in (2, 3, 4, 5)]),
        pa.array(["1970-01-02", "1970-01-03T00:00:00Z", "1970-01-04 00:00", "1970-01-05"]),
    ],
)
def test_time_columns_of_many_types(tmp_path: Path, times: pa.Array) -> None:
    tables = shop()
    tables["orders"]["data"]["at"] = times
    db = open_database(write(tmp_path / "shop", tables))
    assert db.times("orders").tolist() == [DAY, 2 * DAY, 3 * DAY, 4 * DAY]
    assert db.kinds["orders"]["at"] == "datetime"


@pytest.mark.parametrize(
    "customer",
    [pa.array([2.0, None, 0.0, 2.0]), pa.array([2, None, 0, 2], pa.uint8())],
)
def test_foreign_keys_as_pandas_writes_them(tmp_path: Path, customer: pa.Array) -> None:
    tables = shop()
    tables["orders"]["data"]["customer"] = customer
    db = open_database(write(tmp_path / "shop", tables))
    assert db.parents("orders", "customer").tolist() == [2, -1, 0, 2]


def test_an_empty_foreign_key(tmp_path: Path) -> None:
    tables = shop()
    tables["orders"]["data"]["customer"] = pa.nulls(4)
    db = open_database(write(tmp_path / "shop", tables))
    check_database(db)
    assert db.parents("orders", "customer").tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"val_timestamp": "left out"}, "lacks val_timestamp"),
        ({"test_timestamp": "left out"}, "lacks test_timestamp"),
        ({"val_timestamp": None}, "val_timestamp is None, wanted an ISO date"),
        ({"val_timestamp": "soon"}, "val_timestamp is 'soon', wanted an ISO date"),
        ({"val_timestamp": "1971-01-01"}, "val_timestamp 1971-01-01 is after test_timestamp"),
        ({"tables": {}}, "has no tables"),
        ({"tables": [1]}, "cannot be read as a RelBench manifest"),
        ({"tables": {"nope": {}}}, "table 'nope' has no file"),
        ({"tables": {"customers": {"pkey": "idd"}}}, r"pkey customers\.idd .* did you mean 'id'"),
        ({"tables": {"customers": {"time_col": "x"}}}, r"time_col customers\.x is not in"),
        ({"tables": {"customers": {"fkeys": {"x": "y"}}}}, r"fkeys customers\.x is not in"),
        (
            {"tables": {"customers": {"fkeys": {"id": "customer"}}}},
            "'customer', which is no table; d",
        ),
        ({"tables": {"customers": {"fkeys": {"id": "customers"}}}}, "has no primary key"),
    ],
)
def test_manifests_that_do_not_fit(tmp_path: Path, manifest: dict[str, Any], message: str) -> None:
    folder = write(tmp_path / "shop", shop(), **manifest)
    with pytest.raises(ValueError, match=message):
        open_database(folder)


def test_broken_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "shop", shop())
    (folder / "manifest.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="cannot be read as a RelBench manifest"):
        open_database(folder)
    folder = write(tmp_path / "shop", shop())
    parquet = folder / "db" / "orders.parquet"
    for size in (0, 100, parquet.stat().st_size - 7):
        parquet.write_bytes(parquet.read_bytes()[:size])
        with pytest.raises(ValueError, match=r"orders\.parquet: not a whole parquet file"):
            open_database(folder)
        write(tmp_path / "shop", shop())
    tables = shop()
    tables["orders"]["data"] = pa.table(tables["orders"]["data"]).slice(0, 0)
    with pytest.raises(ValueError, match="table 'orders' has no rows"):
        open_database(write(tmp_path / "empty", tables))


def change(table: str, column: str, values: Any) -> dict[str, dict[str, Any]]:
    tables = shop()
    tables[table]["data"][column] = values
    return tables


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (change("customers", "id", [0, 1, 1]), r"shop: customers\.id: .* row 2 holds 1; reset the"),
        (change("customers", "id", [1, 2, 3]), r"shop: customers\.id: .* row 0 holds 1"),
        (change("orders", "id", [0, 1, 2, None]), r"orders\.id: .* row 3 holds null"),
        (change("customers", "id", ["a", "b", "c"]), r"customers\.id: primary key is of type str"),
        (
            change("orders", "customer", [0, 1, 2, 3]),
            r"customer: 3 in row 3 is no row of customers",
        ),
        (change("orders", "customer", [0, -1, 2, 1]), r"customer: -1 in row 1 is no row"),
        (change("orders", "customer", list("abcd")), r"customer: foreign key is of .* 'a'\)"),
        (change("orders", "customer", [0.5, 1, 1, 1]), r"customer: foreign key is of type double"),
        (change("orders", "at", [1, 2, 3, 4]), r"orders\.at: the time column is of type int64"),
        (change("orders", "at", [None, datetime(1970, 1, 1), None, None]), "3 of 4 times are null"),
        (change("orders", "at", ["1970-01-02"] * 3 + ["soon"]), "first in row 3: 'soon'"),
    ],
)
def test_check_database(tmp_path: Path, tables: dict[str, dict[str, Any]], message: str) -> None:
    db = open_database(write(tmp_path / "shop", tables))
    with pytest.raises(ValueError, match=message):
        check_database(db)


def test_where_a_database_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "root" / "shop", shop())
    write(tmp_path / "root" / "shop2", shop())
    root = tmp_path / "root"
    assert list_databases(root) == ["shop", "shop2"]
    assert open_database("shop", root).folder == root / "shop"
    monkeypatch.chdir(root)
    assert open_database("shop").name == "shop"
    with pytest.raises(ValueError, match=r"no database 'shp'; tried .*did you mean 'shop'\? there"):
        open_database("shp", root)
    with pytest.raises(ValueError, match=r"Hub cache of .*HF_HUB_OFFLINE=1.*data\.root=<folder"):
        open_database("shp")
    with pytest.raises(ValueError, match=r"no manifest\.yaml in it"):
        open_database(tmp_path)


@pytest.mark.parametrize(
    ("repo", "subdir", "spec"),
    [
        ("stanford-star/relbench-v1", "rel-x", "rel-x"),
        ("stanford-star/relbench-v2-extra", "rel-x", "rel-x"),
        ("org/repo", "", "org/repo"),
        ("org/repo", "a/b", "org/repo/a/b"),
    ],
)
def test_the_hub_cache(tmp_path: Path, repo: str, subdir: str, spec: str) -> None:
    cached = tmp_path / "hub" / f"datasets--{repo.replace('/', '--')}"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    folder = write(cached / "snapshots" / ("0" * 40) / subdir, shop())
    assert open_database(spec).folder == folder
    (folder / "db" / "orders.parquet").unlink()
    with pytest.raises(ValueError, match="no database"):
        open_database(spec)


def test_text_views_are_texts(tmp_path: Path) -> None:
    write(tmp_path / "shop", shop())
    path = tmp_path / "shop" / "db" / "customers.parquet"
    table = pq.read_table(path)
    before = open_database(tmp_path / "shop").kinds
    at = table.column_names.index("name")
    viewed = table.set_column(at, "name", table.column("name").cast(pa.string_view()))
    pq.write_table(viewed, path)
    db = open_database(tmp_path / "shop")
    assert pq.read_schema(path).field("name").type == pa.string_view()
    assert db.kinds == before
    batch = next(db.batches("customers", ["name"]))
    assert batch.column(0).to_pylist() == table.column("name").to_pylist()


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    db = open_database(write(tmp_path / "shop", shop()))
    first = db.fingerprint("orders")
    assert first == open_database(tmp_path / "shop").fingerprint("orders")
    assert first != db.fingerprint("customers")
    write(tmp_path / "shop", change("orders", "price", [9.0, 9.0, 9.0, 9.0]))
    assert db.fingerprint("orders") != first


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "shop", shop())
    argv = ["database=shop", f"data.root={tmp_path}", "check=true"]
    run_command(DescribeConfig, describe_spec, prog="x", doc=None, argv=argv)
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["tables"], result["rows"], result["foreign_keys"]) == (2, 7, 1)
    assert result["kinds"] == {"category": 1, "datetime": 1, "key": 3, "number": 1, "text": 1}
    assert "-> customers" in err


def test_command_reads_the_kinds_that_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "shop", shop())
    (tmp_path / "kinds.yaml").write_text(
        "shop: {orders: {price: category}}\nother: {t: {c: text}}\n"
    )
    argv = ["database=shop", f"data.root={tmp_path}", f"data.kinds={tmp_path / 'kinds.yaml'}"]
    run_command(DescribeConfig, describe_spec, prog="x", doc=None, argv=argv)
    assert json.loads(capsys.readouterr().out)["kinds"]["category"] == 2


@pytest.mark.realdata
def test_real_databases(real_data: Path) -> None:
    names = list_databases(real_data)
    start = time.perf_counter()
    databases = [open_database(name, real_data) for name in names]
    assert time.perf_counter() - start < 0.05 * sum(len(db.tables) for db in databases) + 5
    for db in databases:
        check_database(db)
        assert set(db.kinds) == set(db.tables)
        for name, table in db.tables.items():
            frame = pd.read_parquet(table.path, columns=list(table.keys) or None)
            assert len(frame) == table.num_rows
            assert tuple(db.kinds[name]) == table.columns


@pytest.mark.realdata
def test_rel_f1_kinds(real_data: Path) -> None:
    kinds = open_database("rel-f1", real_data).kinds
    assert kinds["drivers"]["nationality"] == "category"
    assert kinds["drivers"]["surname"] == "text"
    assert kinds["drivers"]["dob"] == "datetime"
    assert kinds["results"]["driverId"] == "key"
    assert kinds["results"]["milliseconds"] == "number"


def test_a_folder_may_say_itself_what_its_columns_are(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(4), "grade": [1, 2, 3, 2]})
    folder = write_folder(tmp_path / "school", {"marks": frame}, {"marks": {"pkey": "id"}})
    assert open_database(folder).kinds["marks"]["grade"] == "number"
    (folder / "kinds.yaml").write_text("school: {marks: {grade: category}}")
    assert open_database(folder).kinds["marks"]["grade"] == "category"
    assert open_source(str(folder), None, None).kinds["marks"]["grade"] == "category"
    said = {"marks": {"grade": "text"}}
    assert open_database(folder, kinds=said).kinds["marks"]["grade"] == "text"
    (tmp_path / "other.yaml").write_text("school: {marks: {grade: text}}")
    assert open_source(str(folder), None, tmp_path / "other.yaml").kinds["marks"]["grade"] == "text"


def test_long_texts_are_looked_at_in_part(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": range(6), "body": [f"{i}" + "long " * 100_000 for i in range(6)]})
    folder = write_folder(tmp_path / "books", {"pages": frame}, {"pages": {"pkey": "id"}})
    database = open_database(folder)
    assert database.profiles["pages"]["body"].kind == "text"
    assert database.profiles["pages"]["body"].distinct == 6
    assert len(next(database.batches("pages", ["body"])).column(0)[5].as_py()) == 500_001


def test_times_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by the same tables with other timestamps."""
    frames = {
        "early": pd.DataFrame({"at": pd.to_datetime(["2020-01-05 00:00", "2020-01-01 12:00"])}),
        "late": pd.DataFrame({"at": pd.to_datetime(["2020-03-01"])}),
        "timeless": pd.DataFrame({"x": [1.0]}),
    }
    keys = {"early": {"time_col": "at"}, "late": {"time_col": "at"}, "timeless": {}}
    database = open_database(write_folder(tmp_path / "times", frames, keys))
    read = list[str]()
    times = database_module.Database.times
    monkeypatch.setattr(
        database_module.Database,
        "times",
        lambda self, name: [read.append(name), times(self, name)][1],
    )
    span = [int(pd.Timestamp(t).timestamp()) for t in ("2020-01-01 12:00", "2020-03-01")]
    assert [database.first_time, database.last_time] == span
    later = database.with_timestamps(database.val_timestamp, span[1])
    assert [later.first_time, later.last_time] == span
    assert read == ["early", "late"]


def test_without_times_there_is_no_first_and_no_last(tmp_path: Path) -> None:
    frames = {"timeless": pd.DataFrame({"x": [1.0]})}
    database = open_database(write_folder(tmp_path / "none", frames, {"timeless": {}}))
    assert (database.first_time, database.last_time) == (STATIC, STATIC)
