"""Importing small databases of every kind."""

from __future__ import annotations

import gzip
import logging
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from rfm.data.checks import check_database
from rfm.data.database import Database
from rfm.data.import_sql import Import, ImportConfig, import_database
from rfm.data.original_keys import find_row, original_keys

SHOP = """
CREATE TABLE customers (code TEXT PRIMARY KEY, city TEXT, born DATE);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT REFERENCES customers (code),
    ordered_at TIMESTAMP, last_update TIMESTAMP, due DATE, paid BOOLEAN, price NUMERIC(10, 2));
CREATE TABLE lines (order_id INTEGER REFERENCES orders (id), line INTEGER, weight REAL,
    PRIMARY KEY (order_id, line));
CREATE TABLE returns (order_id INTEGER, line INTEGER, why TEXT, returned TIMESTAMP,
    FOREIGN KEY (order_id, line) REFERENCES lines (order_id, line));
INSERT INTO customers VALUES ('zoe', 'Oslo', '1990-01-01'), ('amy', 'Lima', '1980-02-02'),
    ('bob', 'Oslo', NULL);
INSERT INTO orders VALUES
    (70, 'zoe', '2020-01-01 10:00:00', '2021-01-01', '2020-02-01', true, 9.50),
    (30, 'amy', '2020-02-01 00:00:00', '2021-01-01', '2020-03-01', false, 1),
    (50, 'zoe', '2020-03-01 00:00:00', '2021-02-01', '2020-04-01', NULL, 2);
INSERT INTO lines VALUES (70, 1, 0.5), (30, 2, NULL), (70, 2, 1);
INSERT INTO returns VALUES (70, 2, 'broken', '2020-05-01'), (30, 2, NULL, '2020-06-01'),
    (70, NULL, 'lost', '2020-06-02');
"""


def shop_file(folder: Path) -> str:
    path = folder / "shop.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(SHOP)
    connection.close()
    return str(path)


def imported(source: str, out: Path, **options: Any) -> tuple[Import, Database]:
    done = import_database(source, out, ImportConfig(**options))
    assert done.database is not None
    check_database(done.database)
    return done, done.database


def rows_of(database: Database, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(database.tables[table].path).to_pylist()
    return rows


def check_shop(database: Database) -> None:
    """All that the shop must come to, from wherever it is imported."""
    tables = database.tables
    assert tables["orders"].primary_key == "id"
    assert tables["orders"].time_column == "ordered_at"
    assert tables["orders"].foreign_keys == {"customer": "customers"}
    assert tables["customers"].time_column is None
    assert original_keys(database, "customers").column(0).to_pylist() == ["amy", "bob", "zoe"]
    assert original_keys(database, "orders").column(0).to_pylist() == [30, 50, 70]
    orders = rows_of(database, "orders")
    assert [(r["id"], r["customer"], r["price"]) for r in orders] == [
        (0, 0, 1.0),
        (1, 2, 2.0),
        (2, 2, 9.5),
    ]
    assert orders[2]["ordered_at"] == pd.Timestamp("2020-01-01 10:00:00")
    assert [r["paid"] for r in orders] == [False, None, True]


def test_sqlite_with_declared_keys(tmp_path: Path) -> None:
    done, database = imported(shop_file(tmp_path), tmp_path / "out")
    check_shop(database)
    assert not done.warnings
    lines, returns = database.tables["lines"], database.tables["returns"]
    assert lines.primary_key == "lines_key"
    assert lines.foreign_keys == {"order_id": "orders"}
    assert rows_of(database, "lines")[1] == {
        "lines_key": 1,
        "order_id": 2,
        "line": 1,
        "weight": 0.5,
        "ordered_at": pd.Timestamp("2020-01-01 10:00:00"),
    }
    keys = original_keys(database, "lines")
    assert keys.to_pylist() == [
        {"order_id": 30, "line": 2},
        {"order_id": 70, "line": 1},
        {"order_id": 70, "line": 2},
    ]
    assert [find_row(database, "lines", k) for k in [(70, 2), (30, 1), ["30", "2"]]] == [2, -1, 0]
    assert [find_row(database, "customers", key) for key in ["zoe", "eve"]] == [2, -1]
    assert returns.foreign_keys == {"lines_key": "lines"}
    assert [r["lines_key"] for r in rows_of(database, "returns")] == [2, 0, None]
    assert (tmp_path / "out" / "schema.svg").read_text().startswith("<svg")


def test_relbench_loads_it(tmp_path: Path) -> None:
    import relbench

    imported(shop_file(tmp_path), tmp_path / "out")
    loaded = relbench.load_dataset(str(tmp_path / "out")).get_db(upto_test_timestamp=False)
    assert len(loaded.table_dict["orders"].df) == 3
    assert loaded.table_dict["orders"].time_col == "ordered_at"


def test_postgresql_by_adbc_and_by_cursor(
    tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    url = postgres.create("shop")
    with psycopg.connect(url) as connection:
        connection.execute(SHOP)
    _, database = imported(url, tmp_path / "adbc")
    check_shop(database)
    monkeypatch.setattr("rfm.data.importing.sql._has_adbc", lambda: False)
    _, other = imported(url, tmp_path / "cursor")
    check_shop(other)
    for name in database.tables:
        assert rows_of(database, name) == rows_of(other, name)


def test_duckdb_file(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.execute(SHOP)
    _, database = imported(str(tmp_path / "shop.duckdb"), tmp_path / "out")
    check_shop(database)
    assert database.tables["returns"].foreign_keys == {"lines_key": "lines"}


def test_folder_of_files_without_keys(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    text = "customer_id;name;zip\n7;Zoë;01234\n3;Amy;99999\n9;;55555\n"
    (files / "customers.csv").write_text(text, encoding="latin-1")
    with gzip.open(files / "orders.csv.gz", "wt") as file:
        file.write("order_id,customer_id,order_date,amount\n")
        file.writelines(
            f"{i},{(7, 3, 9)[i % 3]},2020-01-{i % 28 + 1:02d},{i / 2}\n" for i in range(200, 300)
        )
    events = pd.DataFrame({"order_id": [200, 299, 299], "at": pd.to_datetime(["2021"] * 3)})
    events["at"] += pd.to_timedelta([3, 1, 2], "D")
    events.to_parquet(files / "events.parquet")
    (files / "empty.csv").write_text("")
    _, database = imported(str(files), tmp_path / "out")
    assert database.tables["orders"].foreign_keys == {"customer_id": "customers"}
    assert database.tables["orders"].time_column == "order_date"
    assert database.tables["events"].foreign_keys == {"order_id": "orders"}
    assert database.tables["events"].time_column == "at"
    assert [r["order_id"] for r in rows_of(database, "events")] == [0, 99, 99]
    customers = rows_of(database, "customers")
    assert [(r["name"], r["zip"]) for r in customers] == [
        ("Amy", "99999"),
        ("Zoë", "01234"),
        (None, "55555"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("id,x\n1,2\n2,3\n3,4,5,6\n4,5\n", 4),
        ('id,x\n1,2\n2,"3\n3,4\n', 3),
        ("id;x;y\n1;2;3\n2;3\n", 3),
    ],
)
def test_a_bad_file_says_where(tmp_path: Path, text: str, line: int) -> None:
    (tmp_path / "good.csv").write_text("id,x\n1,2\n2,3\n")
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"bad\.csv.*Line: {line}"):
        import_database(str(tmp_path), tmp_path / "out", ImportConfig())
    assert not (tmp_path / "out").exists()


def test_types_that_texts_of_a_file_have(tmp_path: Path) -> None:
    lines = ["id,i,f,code,b,d,us,eu,both,t,huge,n,n"]
    lines += [
        "1,1,1,007,true,2020-01-31,12/31/2020,31.12.2020,01/02/2020,x,12345678901234567890,a,"
    ]
    lines += ["2,-2,1.5e3,12,FALSE,2020-02-01 10:00:00,1/2/2020,1.2.2020,03/04/2020,1,1,b,"]
    (tmp_path / "t.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    _, database = imported(str(tmp_path), tmp_path.parent / f"{tmp_path.name}-out")
    assert rows_of(database, "t") == [
        {
            "id": 0, "i": 1, "f": 1.0, "code": "007", "b": True,
            "d": pd.Timestamp("2020-01-31"), "us": pd.Timestamp("2020-12-31"),
            "eu": pd.Timestamp("2020-12-31"), "both": "01/02/2020", "t": "x",
            "huge": "12345678901234567890", "n": "a", "n_2": None,
        },
        {
            "id": 1, "i": -2, "f": 1500.0, "code": "12", "b": False,
            "d": pd.Timestamp("2020-02-01 10:00:00"), "us": pd.Timestamp("2020-01-02"),
            "eu": pd.Timestamp("2020-02-01"), "both": "03/04/2020", "t": "1",
            "huge": "1", "n": "b", "n_2": None,
        },
    ]  # fmt: skip


def test_types_that_postgresql_has(tmp_path: Path, postgres: Any) -> None:
    import psycopg

    url = postgres.create("types")
    with psycopg.connect(url) as connection:
        connection.execute(
            """
            CREATE TYPE mood AS ENUM ('sad', 'glad');
            CREATE DOMAIN percent AS numeric(5, 2);
            CREATE TABLE things (
                thing_id uuid PRIMARY KEY, big numeric(12, 0), price numeric, share percent,
                cash money, doc jsonb, tags text[], feel mood, took interval, clock time,
                moment timestamptz, never timestamp, raw bytea, host inet, small smallint, f real);
            INSERT INTO things VALUES (
                'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 123456789012, 1.5, 99.5, 12.30,
                '{"a": [1, 2]}', '{x,"y z"}', 'glad', '1 hour', '12:30',
                '2020-01-01 12:00+02', 'infinity', '\\x00', '10.0.0.1', 7, 0.5);
            INSERT INTO things (thing_id, price) VALUES
                ('b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'NaN');
            """
        )
    done, database = imported(url, tmp_path / "out")
    first, second = rows_of(database, "things")
    assert first == {
        "thing_id": 0,
        "big": 123456789012,
        "price": 1.5,
        "share": 99.5,
        "cash": 12.3,
        "doc": '{"a": [1, 2]}',
        "tags": '["x","y z"]',
        "feel": "glad",
        "took": 3600.0,
        "clock": "12:30:00",
        "moment": pd.Timestamp("2020-01-01 10:00:00"),
        "never": None,
        "host": "10.0.0.1/32",
        "small": 7,
        "f": 0.5,
    }
    assert all(value is None for name, value in second.items() if name != "thing_id")
    assert any("raw is left out: binary" in note for note in done.plan.tables["things"].notes)
    assert str(original_keys(database, "things").column(0)[0]).startswith("a0eebc99")


def test_sqlite_columns_hold_what_they_want(tmp_path: Path) -> None:
    path = tmp_path / "loose.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b REAL, c DATETIME, d BOOLEAN,
                e NUMERIC, f BLOB, g, at INTEGER);
            INSERT INTO t VALUES
                (1, 1, 1.5, 1577836800, 1, '', x'00', 'x', 1577836800),
                (2, 'two', 2, 1577836801, 0, 7, x'01', 'y', 1577836900);
            """
        )
    connection.close()
    _, database = imported(str(path), tmp_path / "out")
    assert database.tables["t"].time_column in ("at", "c")
    assert rows_of(database, "t")[1] == {
        "id": 1,
        "a": "two",
        "b": 2.0,
        "c": pd.Timestamp("2020-01-01 00:00:01"),
        "d": False,
        "e": 7,
        "g": "y",
        "at": rows_of(database, "t")[1]["at"],
    }


@pytest.mark.parametrize("medium", ["sqlite", "postgresql"])
def test_binary_keys_are_kept_as_text(
    tmp_path: Path, medium: str, request: pytest.FixtureRequest
) -> None:
    kind = "BLOB" if medium == "sqlite" else "bytea"
    made = [
        f"CREATE TABLE parents (id {kind} PRIMARY KEY, photo {kind})",
        f"CREATE TABLE children (parent {kind} REFERENCES parents (id))",
    ]
    blobs = [b"\xff\x00", b"\x01\x02"]
    if medium == "sqlite":
        source, mark = str(tmp_path / "x.db"), "?"
        connection: Any = sqlite3.connect(source)
    else:
        import psycopg

        source, mark = request.getfixturevalue("postgres").create("blobs"), "%s"
        connection = psycopg.connect(source)
    with connection:
        for statement in made:
            connection.execute(statement)
        for blob in blobs:
            connection.execute(f"INSERT INTO parents VALUES ({mark}, {mark})", (blob, blob))
        for child in (blobs[0], None, blobs[1]):
            connection.execute(f"INSERT INTO children VALUES ({mark})", (child,))
    connection.close()
    done, database = imported(source, tmp_path / "out")
    assert original_keys(database, "parents").column(0).to_pylist() == ["0102", "ff00"]
    assert [r["parent"] for r in rows_of(database, "children")] == [1, None, 0]
    assert "photo" not in database.tables["parents"].columns
    assert "photo is left out: binary" in done.plan_text


def test_overrides_win(tmp_path: Path) -> None:
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(
        yaml.safe_dump(
            {
                "tables": {
                    "customers": {"keep_key": True, "columns": {"born": "drop"}},
                    "orders": {
                        "time_col": "due",
                        "columns": {"price": "category", "last_update": "drop"},
                    },
                    "lines": {"pkey": None, "time_col": None, "fkeys": {"order_id": None}},
                    "returns": "drop",
                }
            }
        )
    )
    _, database = imported(shop_file(tmp_path), tmp_path / "out", overrides=overrides)
    assert list(database.tables) == ["customers", "lines", "orders"]
    assert rows_of(database, "customers")[2] == {
        "code": 2,
        "city": "Oslo",
        "code_original": "zoe",
    }
    assert database.tables["orders"].time_column == "due"
    assert "last_update" not in database.tables["orders"].columns
    assert database.tables["lines"].foreign_keys == {}
    assert [r["order_id"] for r in rows_of(database, "lines")] == [70, 30, 70]
    kinds = yaml.safe_load((tmp_path / "out" / "kinds.yaml").read_text())
    assert kinds == {"out": {"orders": {"price": "category"}}}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"tables": {"ordrs": {}}}, "did you mean 'orders'"),
        ({"tables": {"orders": {"pkey": "idd"}}}, r"no column orders.idd; did you mean 'id'"),
        ({"tables": {"orders": {"pkey": "paid"}}}, "null or the same in two rows"),
        ({"tables": {"orders": {"time_col": "price"}}}, "holds no times"),
        ({"tables": {"orders": {"fkeys": {"customer": "customer"}}}}, "did you mean 'customers'"),
        ({"tables": {"orders": {"columns": {"price": "numbr"}}}}, "did you mean 'number'"),
        ({"tables": {"orders": {"primary": "id"}}}, "unknown 'primary'"),
        (["orders"], "wanted tables"),
        ({"tables": {"customers": {"columns": {"city": "number"}}}}, "cannot be of the kind"),
        (
            {"tables": {"orders": {"time_col": "due", "columns": {"due": "drop"}}}},
            "its time_col and dropped",
        ),
    ],
)
def test_overrides_that_do_not_fit(tmp_path: Path, said: Any, message: str) -> None:
    overrides = tmp_path / "overrides.yaml"
    overrides.write_text(yaml.safe_dump(said))
    with pytest.raises(ValueError, match=message):
        import_database(shop_file(tmp_path), tmp_path / "out", ImportConfig(overrides=overrides))
    assert not (tmp_path / "out").exists()


def test_a_key_that_is_none_stays_none(tmp_path: Path) -> None:
    """Though a declared foreign key points at it: that is then a column, which is said."""
    connection = sqlite3.connect(tmp_path / "s.sqlite")
    connection.executescript("""
        CREATE TABLE orders (id INTEGER PRIMARY KEY, at TEXT);
        CREATE TABLE lines (n INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders (id));
        INSERT INTO orders VALUES (1, '2020-01-01'), (2, '2020-02-01'), (3, '2020-03-01');
        INSERT INTO lines VALUES (1, 1), (2, 1), (3, 3);
    """)
    connection.close()
    overrides = tmp_path / "o.yaml"
    overrides.write_text("tables: {orders: {pkey: null}}")
    done, database = imported(str(tmp_path / "s.sqlite"), tmp_path / "out", overrides=overrides)
    assert database.tables["orders"].primary_key is None
    assert database.tables["lines"].foreign_keys == {}
    assert any("overrides give orders no primary key" in said for said in done.warnings)


def test_tables_schemas_views_and_rows_are_chosen(tmp_path: Path, postgres: Any) -> None:
    import psycopg

    url = postgres.create("chosen")
    with psycopg.connect(url) as connection:
        connection.execute(
            """
            CREATE SCHEMA sales; CREATE SCHEMA crm;
            CREATE TABLE crm.people (id int PRIMARY KEY, name text);
            CREATE TABLE sales.people (id int PRIMARY KEY, fee float);
            CREATE TABLE sales.orders (id int PRIMARY KEY, buyer int REFERENCES crm.people (id),
                day date) PARTITION BY RANGE (id);
            CREATE TABLE sales.orders_1 PARTITION OF sales.orders FOR VALUES FROM (0) TO (100);
            CREATE TABLE sales.orders_2 PARTITION OF sales.orders FOR VALUES FROM (100) TO (999);
            CREATE VIEW sales.big AS SELECT * FROM sales.orders WHERE id > 100;
            CREATE TABLE sales.log (x int); INSERT INTO sales.log VALUES (1);
            INSERT INTO crm.people VALUES (5, 'a'), (6, 'b');
            INSERT INTO sales.people VALUES (1, 0.5);
            INSERT INTO sales.orders SELECT i, 5 + i % 2, date '2020-01-01' + i
            FROM generate_series(1, 200) i;
            """
        )
    done, database = imported(
        url,
        tmp_path / "out",
        schemas=("sales", "crm"),
        exclude=("log",),
        where={"orders": "buyer = 5 -- half of them"},
        views=["big"],
    )
    assert set(database.tables) == {"sales_people", "crm_people", "orders", "big"}
    assert done.counts == {"sales_people": 1, "crm_people": 2, "orders": 100, "big": 100}
    assert database.tables["orders"].foreign_keys == {"buyer": "crm_people"}
    assert {r["buyer"] for r in rows_of(database, "orders")} == {0}
    with pytest.raises(ValueError, match="no schema 'sale'; did you mean 'sales'"):
        import_database(url, tmp_path / "x", ImportConfig(schemas=("sale",)))
    options = ImportConfig(schemas=("sales",), include=("order",))
    with pytest.raises(ValueError, match="include: 'order' is no table; did you mean 'orders'"):
        import_database(url, tmp_path / "x", options)


def test_foreign_keys_without_a_parent_become_null(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            CREATE TABLE parents (id INTEGER PRIMARY KEY); CREATE TABLE empties (id INTEGER);
            CREATE TABLE children (parent_id INTEGER REFERENCES parents (id));
            INSERT INTO parents VALUES (1), (2);
            INSERT INTO children VALUES (2), (3), (NULL), (3);
            """
        )
    connection.close()
    with caplog.at_level(logging.WARNING, "rfm"):
        _, database = imported(str(path), tmp_path / "out")
    assert [r["parent_id"] for r in rows_of(database, "children")] == [1, None, None, None]
    assert "children.parent_id: 2 of 4 rows point at no row" in caplog.text
    assert "empties: has no rows" in caplog.text


def test_rows_without_a_time_are_never_early(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"id": range(100), "happened_at": pd.date_range("2020-01-01", periods=100)}
    )
    frame.loc[[3, 50], "happened_at"] = pd.NaT
    folder = tmp_path / "few"
    folder.mkdir()
    frame.to_parquet(folder / "events.parquet")
    done, database = imported(str(folder), tmp_path / "few-out")
    assert database.tables["events"].time_column == "happened_at"
    assert database.times("events")[3] == database.times("events").max()
    assert any("2 of 100 rows have no time" in warning for warning in done.warnings)
    frame.loc[10:40, "happened_at"] = pd.NaT
    frame.to_parquet(folder / "events.parquet")
    done, database = imported(str(folder), tmp_path / "many-out")
    assert database.tables["events"].time_column is None
    assert "33 of 100 rows have none" in done.plan_text


def test_splits_are_derived_or_given(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    times = pd.date_range("2020-01-01", periods=1000, freq="6h")
    pd.DataFrame({"at": times, "x": np.arange(1000.0)}).to_parquet(folder / "events.parquet")
    done, _ = imported(str(folder), tmp_path / "derived")
    assert done.splits == ("2020-07-18", "2020-08-12")
    given = {"val_timestamp": "2020-05-01", "test_timestamp": "2020-06-01"}
    _, database = imported(str(folder), tmp_path / "given", **given)
    assert database.val_timestamp == pd.Timestamp("2020-05-01").timestamp()
    options = ImportConfig(val_timestamp="2021-01-01", test_timestamp="2020-01-01")
    with pytest.raises(ValueError, match="must come before"):
        import_database(str(folder), tmp_path / "x", options)


def test_a_dry_run_shows_everything_and_writes_nothing(tmp_path: Path) -> None:
    source = shop_file(tmp_path)
    before = sorted(p.name for p in tmp_path.iterdir())
    done = import_database(source, tmp_path / "out", ImportConfig(dry_run=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert done.database is None
    for text in [
        "customers  3 rows",
        "primary key: id (id): declared",
        "time column: ordered_at",
        "not last_update: when it was last changed",
        "orders.customer -> customers",
        "MB of memory",
    ]:
        assert text in done.plan_text


def test_what_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    source, out = shop_file(tmp_path), tmp_path / "out"
    imported(source, out)
    with pytest.raises(ValueError, match="overwrite=true"):
        import_database(source, out, ImportConfig())
    imported(source, out, overwrite=True, exclude=("returns",))
    assert not (out / "db" / "returns.parquet").exists()
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="is no database"):
        import_database(source, home, ImportConfig(overwrite=True))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "out", "shop.sqlite"]


def test_the_same_source_gives_the_same_folder(tmp_path: Path) -> None:
    source = shop_file(tmp_path)
    imported(source, tmp_path / "one", name="shop")
    imported(source, tmp_path / "two", name="shop")
    for path in sorted((tmp_path / "one").rglob("*.*")):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes(), path
