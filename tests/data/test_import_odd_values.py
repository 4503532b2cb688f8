"""Values that a source takes and others do not: none stops an import, none is told wrongly."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from rfm.data.import_sql import Import, ImportConfig, import_database


def sqlite_file(folder: Path, statements: Sequence[str], **rows: Sequence[tuple[Any, ...]]) -> Path:
    path = folder / "source.sqlite"
    with sqlite3.connect(path) as connection:
        for statement in statements:
            connection.execute(statement)
        for table, values in rows.items():
            marks = ", ".join("?" * len(values[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
    connection.close()
    return path


def imported(source: Path, out: Path, **options: Any) -> Import:
    return import_database(str(source), out, ImportConfig(**options))


def column(done: Import, table: str, name: str) -> list[Any]:
    assert done.database is not None
    found: list[Any] = pq.read_table(done.database.tables[table].path)[name].to_pylist()
    return found


def written(folder: Path, text: str) -> Path:
    path = folder / "overrides.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("odd", ["2021-02-31", "0000-01-01", "2020-01-01 24:01:00"])
def test_dates_that_only_sqlite_takes_are_texts(tmp_path: Path, odd: str) -> None:
    rows = [(1, "2020-01-01"), (2, odd), (3, "2020-01-03 10:00:00+02:00")]
    path = sqlite_file(tmp_path, ["CREATE TABLE t (id INTEGER PRIMARY KEY, d DATE)"], t=rows)
    done = imported(path, tmp_path / "out")
    assert column(done, "t", "d") == [text for _, text in rows]
    assert "1 of its values are no dates" in (tmp_path / "out" / "import.yaml").read_text()


@pytest.mark.parametrize(("said", "left"), [("drop", False), ("text", True)])
def test_overrides_get_rid_of_what_cannot_be_read(tmp_path: Path, said: str, left: bool) -> None:
    rows = [(1, "2020-01-01", 5), (2, "2020-13-01", 6)]
    # a date that passes for one and cannot be read, as other sources have them
    path = sqlite_file(tmp_path, ["CREATE TABLE t (id INTEGER PRIMARY KEY, d DATE, n INT)"], t=rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rfm.data.importing.sql_types._sqlite_date", lambda c: "TRUE")
        with pytest.raises(ValueError, match="overrides="):
            imported(path, tmp_path / "out")
        overrides = written(tmp_path, f"tables: {{t: {{columns: {{d: {said}}}}}}}")
        done = imported(path, tmp_path / "out", overrides=overrides)
    assert column(done, "t", "n") == [5, 6]
    if left:
        assert column(done, "t", "d") == ["2020-01-01", "2020-13-01"]
    else:
        assert list(done.plan.tables["t"].names) == ["id", "n"]
        assert done.plan.tables["t"].notes == ("d is left out, as given",)
    overrides = written(tmp_path, "tables: {t: {columns: {dd: drop}}}")
    with pytest.raises(ValueError, match=r"no column t\.dd"):
        imported(path, tmp_path / "other", overrides=overrides, dry_run=True)


def test_numbers_that_are_days_are_no_seconds(tmp_path: Path) -> None:
    rows = [(1, 19990101, 9990101, 1_600_000_000), (2, 20201231, 7, 1_600_000_100), (3, None, 0, 0)]
    made = ["CREATE TABLE t (id INTEGER PRIMARY KEY, rel DATE, no DATE, at DATETIME)"]
    done = imported(sqlite_file(tmp_path, made, t=rows), tmp_path / "out")
    days = column(done, "t", "rel")
    assert [day and str(day.date()) for day in days[:2]] == ["1999-01-01", "2020-12-31"]
    assert column(done, "t", "no") == [9990101, 7, 0]
    assert column(done, "t", "at") == [1_600_000_000, 1_600_000_100, 0]


def test_numbers_that_are_unix_times_are_times(tmp_path: Path) -> None:
    rows = [(1, 1_600_000_000, 1_600_000_000_000), (2, 1_700_000_000, 1_700_000_000_500)]
    made = ["CREATE TABLE t (id INTEGER PRIMARY KEY, a DATETIME, b TIMESTAMP)"]
    done = imported(sqlite_file(tmp_path, made, t=rows), tmp_path / "out")
    assert [str(v) for v in column(done, "t", "a")] == [
        "2020-09-13 12:26:40",
        "2023-11-14 22:13:20",
    ]
    assert str(column(done, "t", "b")[1]) == "2023-11-14 22:13:20.500000"


def test_a_time_within_a_key_is_still_the_time(tmp_path: Path) -> None:
    made = [
        "CREATE TABLE sensors (id INTEGER PRIMARY KEY, since DATE)",
        "CREATE TABLE readings (sensor_id INTEGER REFERENCES sensors (id), measured_at TIMESTAMP, "
        "value REAL, PRIMARY KEY (sensor_id, measured_at))",
        "CREATE TABLE days (day DATE PRIMARY KEY, rain REAL)",
    ]
    readings = [(s, f"2020-01-{d:02d} 10:00:00", s / d) for s in (1, 2) for d in range(1, 20)]
    days = [(f"2020-01-{d:02d}", 0.5) for d in range(1, 20)]
    sensors = [(1, "2019-01-01"), (2, "2019-02-01")]
    path = sqlite_file(tmp_path, made, sensors=sensors, readings=readings, days=days)
    done = imported(path, tmp_path / "out")
    assert done.plan.tables["readings"].time.column == "measured_at"
    assert done.plan.tables["readings"].key == ("sensor_id", "measured_at")
    assert done.plan.tables["days"].time.column == "day"
    times = [str(t)[:10] for t in column(done, "readings", "measured_at")]
    assert times == [f"2020-01-{d:02d}" for _ in (1, 2) for d in range(1, 20)]


@pytest.mark.parametrize(("columns", "rows", "size"), [(250, 60, 1), (2, 120, 1_000_000)])
def test_wide_tables_and_long_texts_need_little(
    tmp_path: Path, columns: int, rows: int, size: int
) -> None:
    names = [f"n{i}" for i in range(columns)]
    row = [("x" * (i * size + 1))[-size:] + str(i) for i in range(3)]
    values = [(k, *(row[(k + i) % 3] for i in range(columns))) for k in range(rows)]
    made = [f"CREATE TABLE t (id INTEGER PRIMARY KEY, {', '.join(n + ' TEXT' for n in names)})"]
    done = imported(sqlite_file(tmp_path, made, t=values), tmp_path / "out", memory=192)
    assert column(done, "t", names[-1]) == [value[-1] for value in values]


def test_values_that_are_not_finite_are_null(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    values = pa.array([1.5, float("nan"), float("inf"), -float("inf"), None])
    table = pa.table({"id": range(5), "x": values, "y": values.cast(pa.float32())})
    pq.write_table(table, folder / "t.parquet")
    done = imported(folder, tmp_path / "out")
    path = sqlite_file(
        tmp_path, ["CREATE TABLE t (id INTEGER, x REAL)"], t=[(0, 1.5), (1, 9e999), (2, None)]
    )
    other = imported(path, tmp_path / "other")
    assert column(done, "t", "x") == column(done, "t", "y") == [1.5, None, None, None, None]
    assert column(other, "t", "x") == [1.5, None, None]
    assert "x: 3 values are NaN or infinite, and null now" in done.plan.tables["t"].notes
    assert other.plan.tables["t"].notes == ("x: 1 values are NaN or infinite, and null now",)


def test_wide_numbers_are_exact_keys(tmp_path: Path) -> None:
    path, big = tmp_path / "wide.duckdb", 12345678901234567890
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE a (id DECIMAL(20, 0) PRIMARY KEY, n HUGEINT)")
        connection.execute(
            "CREATE TABLE b (id UBIGINT PRIMARY KEY, a DECIMAL(20, 0) "
            "REFERENCES a (id), x DECIMAL(30, 2))"
        )
        connection.execute(f"INSERT INTO a VALUES ({big}, 5), ({big + 1}, 6)")
        connection.execute(f"INSERT INTO b VALUES (7, {big + 1}, 1.5), (8, {big}, 2)")
    done = imported(path, tmp_path / "out")
    assert not done.warnings
    assert column(done, "b", "a") == [1, 0]
    assert column(done, "b", "x") == [1.5, 2.0]
    assert column(done, "a", "n") == [5, 6]
    keys = pq.read_table(tmp_path / "out" / "keys" / "b.parquet")["id"]
    assert keys.to_pylist() == [7, 8]
    assert keys.type == pa.int64()


def test_unsigned_ids_of_files_are_keys(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for shift in (0, 2**63):
        users = {"user_id": pa.array(range(shift + 1, shift + 101), pa.uint64())}
        orders = {
            "order_id": pa.array(range(1, 401), pa.uint64()),
            "user_id": pa.array([shift + 1 + i % 100 for i in range(400)], pa.uint64()),
        }
        pq.write_table(pa.table(users), folder / "users.parquet")
        pq.write_table(pa.table(orders), folder / "orders.parquet")
        done = imported(folder, tmp_path / f"out{shift}")
        assert [link.parent for link in done.plan.tables["orders"].links] == ["users"]
        assert done.plan.tables["orders"].key == ("order_id",)
        assert column(done, "orders", "user_id") == [i % 100 for i in range(400)]


def test_numeric_keys_of_postgresql(tmp_path: Path, postgres: Any) -> None:
    url, big = postgres.create("wide_keys"), 12345678901234567890
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        for statement in (
            "CREATE TABLE a (id numeric(20, 0) PRIMARY KEY)",
            "CREATE TABLE b (id numeric PRIMARY KEY, a_id numeric REFERENCES a (id), x numeric)",
            f"INSERT INTO a VALUES ({big}), ({big + 1})",
            f"INSERT INTO b VALUES ({2**53 + 1}, {big + 1}, 'NaN'), ({2**53}, {big}, 0.5)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    done = imported(url, tmp_path / "out")
    assert not done.warnings
    assert column(done, "b", "a_id") == [0, 1]
    assert column(done, "b", "x") == [0.5, None]
    keys = pq.read_table(tmp_path / "out" / "keys" / "b.parquet")["id"].to_pylist()
    assert keys == [2**53, 2**53 + 1]


@pytest.mark.parametrize(
    "name",
    [
        "lastupdated",
        "dateofbirth",
        "modifieddate",
        "updatedat",
        "lastupdate",
        "updateddate",
        "lastmodified",
        "updatedon",
        "duedate",
        "enddate",
        "expirydate",
        "hiredate",
        "lastlogin",
        "bdate",
        "upd_ts",
    ],
)
def test_words_written_together_are_refused_as_times(tmp_path: Path, name: str) -> None:
    rows = [(i, f"2020-01-{i:02d}", f"2020-02-{i:02d}") for i in range(1, 9)]
    made = [f"CREATE TABLE t (id INTEGER PRIMARY KEY, {name} DATE, orderdate DATE)"]
    done = imported(sqlite_file(tmp_path, made, t=rows), tmp_path / "out", dry_run=True)
    assert done.plan.tables["t"].time.column == "orderdate"
    assert "orderdate says" not in done.plan.tables["t"].time.refused[name]


def test_a_link_to_a_unique_column_with_nulls_is_kept(tmp_path: Path) -> None:
    made = [
        "CREATE TABLE a (id INTEGER PRIMARY KEY, code TEXT UNIQUE)",
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a TEXT REFERENCES a (code))",
    ]
    a, b = [(1, "x"), (2, None), (3, None), (4, "y")], [(1, "y"), (2, "x"), (3, None)]
    done = imported(sqlite_file(tmp_path, made, a=a, b=b), tmp_path / "out")
    assert not done.warnings
    assert column(done, "b", "a") == [3, 0, None]


@pytest.mark.parametrize("keys", [("A", "b"), ("A", "a")])
def test_links_whose_case_does_not_count(tmp_path: Path, keys: tuple[str, str]) -> None:
    made = [
        "CREATE TABLE a (id TEXT COLLATE NOCASE PRIMARY KEY)".replace(
            "COLLATE NOCASE ", "COLLATE NOCASE " * (keys[1] == "b")
        ),
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a TEXT REFERENCES a (id))",
    ]
    path = sqlite_file(tmp_path, made, a=[(k,) for k in keys], b=[(1, "a"), (2, "B"), (3, "A")])
    done = imported(path, tmp_path / "out")
    assert column(done, "b", "a") == ([0, 1, 0] if keys[1] == "b" else [1, None, 0])
    assert len(done.warnings) == (keys[1] == "a")


DUCKDB = {  # a type, a value as any, one that others may not know, and how they are read
    "DATE": ("'2020-01-01'", "'5000000-01-01'", "2020-01-01 00:00:00", None),
    "TIMESTAMP": ("'2020-01-01'", "'0044-03-15 (BC)'", "2020-01-01 00:00:00", None),
    "TIMESTAMP_S": ("'2020-01-01'", "'290000-01-01'", "2020-01-01 00:00:00", None),
    "TIMESTAMP_NS": ("'2020-01-01'", "'infinity'", "2020-01-01 00:00:00", None),
    "TIMESTAMPTZ": ("'2020-01-01 02:00+02'", "'infinity'", "2020-01-01 00:00:00", None),
    "TIME": ("'10:00'", "'24:00:00'", "10:00:00", "24:00:00"),
    "TIMETZ": ("'10:00:00+02'", "'00:00:00-15:59'", "10:00:00+02", "00:00:00-15:59"),
    "INTERVAL": ("'2 days'", "'-1 days'", "172800.0", "-86400.0"),
    "BIT": ("'101'", "'0'", "101", "0"),
    "UUID": (f"'{'1' * 32}'", f"'{'f' * 32}'", "11111111-1111-1111-1111-111111111111",
             "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "HUGEINT": ("7", f"-{'9' * 30}", "7.0", "-1e+30"),
    "ENUM('a', 'b]')": ("'a'", "'b]'", "a", "b]"),
    "INTEGER[]": ("[1, 2]", "[NULL]", "[1,2]", "[null]"),
    "STRUCT(a TIMESTAMP, b BLOB)": (
        "{'a': 'infinity', 'b': 'x'}", "{'a': NULL, 'b': '\\xFF'}",
        '{"a":"infinity","b":"x"}', '{"a":null,"b":"\\\\xFF"}',
    ),
    "MAP(INTEGER, VARCHAR)": ("MAP {1: 'x'}", "MAP {}", '{"1":"x"}', "{}"),
    "UNION(n INTEGER, t TEXT)": ("5", "union_value(t := 'x')", '{"n":5}', '{"t":"x"}'),
}  # fmt: skip


def test_no_value_of_a_duckdb_file_stops_an_import(tmp_path: Path) -> None:
    path = tmp_path / "source.duckdb"
    with duckdb.connect(str(path)) as connection:
        columns = ", ".join(f"c{i} {kind}" for i, kind in enumerate(DUCKDB))
        connection.execute(f"CREATE TABLE t (id INTEGER, {columns}, raw BLOB)")
        for row in (0, 1):
            cells = ", ".join(values[row] for values in DUCKDB.values())
            connection.execute(f"INSERT INTO t VALUES ({row}, {cells}, 'x')")
    done = imported(path, tmp_path / "out")
    assert done.plan.tables["t"].notes == ("raw is left out: binary",)
    for i, (_, _, *wanted) in enumerate(DUCKDB.values()):
        found = column(done, "t", f"c{i}")
        assert [value if value is None else str(value) for value in found] == wanted


def test_times_that_only_postgresql_knows_are_none(
    tmp_path: Path, postgres: Any, adbc: bool
) -> None:
    import psycopg

    url = postgres.create("far")
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE t (id int PRIMARY KEY, d date, s timestamp, z timestamptz)"
        )
        for i, text in enumerate(("2020-01-01", "0044-03-15 BC", "290000-01-01", "infinity")):
            connection.execute("INSERT INTO t VALUES (%s, %s, %s, %s)", (i, text, text, text))
        connection.execute("INSERT INTO t VALUES (4, '5000000-01-01', NULL, NULL)")
    done = import_database(url, tmp_path / "out", ImportConfig())
    for name in "dsz":
        found = column(done, "t", name)
        assert [str(value)[:7] for value in found] in (
            ["2020-01", *["None"] * 4],
            ["2020-01"] * 5,  # a time column, whose rows without one have the latest
        )


def test_a_year_zero_in_a_csv_file_is_no_time(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    lines = ["id,at,day", "1,2020-01-01,31/12/2020", "2,0000-01-01,1/2/2020", "3,2021-01-01,"]
    (tmp_path / "source" / "t.csv").write_text("\n".join(lines))
    done = imported(tmp_path / "source", tmp_path / "out")
    assert column(done, "t", "at") == ["2020-01-01", "0000-01-01", "2021-01-01"]
    assert [str(day)[:10] for day in column(done, "t", "day")[:2]] == ["2020-12-31", "2020-02-01"]
