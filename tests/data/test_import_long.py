"""Rows with long texts, whose batches must be small; files that Arrow reads instead of DuckDB."""

from __future__ import annotations

import csv
import datetime
import decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.import_sql import Import, ImportConfig, import_database
from rfm.data.importing.connect import connect

DAY = datetime.datetime(2020, 1, 1)


def imported(source: Path, out: Path, **options: Any) -> Import:
    return import_database(str(source), out, ImportConfig(**options))


def rows_of(done: Import, table: str) -> list[dict[str, Any]]:
    assert done.database is not None
    return pq.read_table(done.database.tables[table].path).to_pylist()


@pytest.fixture(scope="module")
def bodies() -> pa.Table:
    """75 MB of texts of 50 kB each."""
    random = np.random.default_rng(0)
    texts = [random.bytes(25_000).hex() for _ in range(1500)]
    return pa.table({"id": pa.array(range(1500)), "body": texts})


def test_long_texts_of_parquet_files_need_little(tmp_path: Path, bodies: pa.Table) -> None:
    (tmp_path / "source").mkdir()
    pq.write_table(bodies, tmp_path / "source" / "t.parquet", row_group_size=1500)
    done = imported(tmp_path / "source", tmp_path / "out", memory=200)
    assert rows_of(done, "t") == bodies.to_pylist()


def test_a_text_that_comes_back_is_long_each_time(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    table = pa.table({"id": range(4000), "body": ["x" * 100_000, "y" * 100_000] * 2000})
    pq.write_table(table, tmp_path / "source" / "t.parquet")
    assert (tmp_path / "source" / "t.parquet").stat().st_size < 1_000_000
    source = connect(str(tmp_path / "source"), 64, tmp_path / "spill")
    (columns,) = source.tables((), False)
    sizes = [batch.nbytes for batch in source.read(columns, "", 1000)]
    source.close()
    assert sum(sizes) >= 100_000_000
    assert max(sizes) < 17_000_000


def test_long_texts_of_csv_files_need_little(tmp_path: Path, bodies: pa.Table) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source" / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(bodies.column_names)
        writer.writerows(zip(*bodies.to_pydict().values(), strict=True))
    done = imported(tmp_path / "source", tmp_path / "out", memory=200)
    assert rows_of(done, "t") == bodies.to_pylist()


@pytest.mark.parametrize("kind", ["TABLE", "VIEW"])
def test_long_texts_of_duckdb_files_come_in_small_batches(
    tmp_path: Path, bodies: pa.Table, kind: str
) -> None:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        connection.register("bodies", bodies)
        connection.execute("CREATE TABLE made AS SELECT * FROM bodies")
        connection.execute(f"CREATE {kind} t AS SELECT * FROM made")
    source = connect(str(tmp_path / "source.duckdb"), 200, tmp_path / "spill")
    (table,) = (t for t in source.tables((), True) if t.name == "t")
    sizes = [batch.nbytes for batch in source.read(table, "", 0)]
    source.close()
    assert sum(sizes) >= 60_000_000
    assert max(sizes) < 10_000_000


def test_what_does_not_fit_says_what_to_give(tmp_path: Path) -> None:
    path = tmp_path / "source.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT range AS id FROM range(9)")
        connection.execute(
            "CREATE VIEW v AS SELECT string_agg(repeat('x', 9), '') OVER () AS a, "
            "id FROM range(20000000) r(id)"
        )
    with pytest.raises(ValueError, match=r"memory=64 MB is too little .* give more"):
        imported(path, tmp_path / "out", memory=64, views=True)
    assert not (tmp_path / "out").exists()


def part_files(folder: Path) -> None:
    """Parts of one table, whose columns have other types and other places."""
    folder.mkdir(parents=True)
    first = {"id": pa.array([1, 2], pa.int8()), "n": [1, None], "x": ["a", "b"]}
    pq.write_table(pa.table({**first, "empty": pa.nulls(2), "a.b": [1, 2]}), folder / "0.parquet")
    second = {"n": [0.5, None], "x": [3, 4], "empty": [0, 1], "a.b": [3, 4]}
    pq.write_table(pa.table({**second, "id": pa.array([3, 4], pa.int64())}), folder / "1.parquet")


def odd_files(folder: Path) -> Path:
    """Columns of all types."""
    part_files(folder / "parts")
    with duckdb.connect() as connection:
        connection.execute(
            "COPY (SELECT 1 AS id, interval '1 year 2 days 3 seconds' AS i, uuid() AS u, "
            "true AS b, 1::UTINYINT AS u1, 300::UBIGINT AS u8, 1.5::FLOAT AS f, "
            "12345678901234567890::DECIMAL(20, 0) AS wide_id, 1.25::DECIMAL(9, 2) AS d, "
            "DATE '2020-01-01' AS day, TIME '10:00' AS t, TIMESTAMP '2020-01-01 10:00' AS at, "
            "TIMESTAMPTZ '2020-01-01 10:00+02' AS utc, [1, 2] AS l, {'a': 1} AS s, MAP {'k': 1} "
            "AS m, '{}'::JSON AS j, 'x'::BLOB AS blob UNION ALL SELECT 2 AS id, NULL, NULL, NULL, "
            "NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL "
            f") TO '{folder / 'typed.parquet'}' (FORMAT parquet)"
        )
    pq.write_table(
        pa.table(
            {
                "id": pa.array(["a", "b"]).dictionary_encode(),
                "large": pa.array(["a", None], pa.large_string()),
                "wide": pa.array([decimal.Decimal(7), None], pa.decimal256(50, 0)),
                "half": pa.array(np.array([1.5, 2], "float16")),
                "at": pa.array([0, 86_400], pa.timestamp("s", "Asia/Tokyo")),
                "day": pa.array([DAY, None], pa.date64()),
            }
        ),
        folder / "arrow.parquet",
    )
    return folder


def test_arrow_reads_what_duckdb_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, found = odd_files(tmp_path / "source"), []
    said = tmp_path / "said.yaml"
    said.write_text("tables: {typed: {columns: {m: drop, s: text}}}")
    for bytes_of_row in (1e9, 0):
        monkeypatch.setattr("rfm.data.importing.file_source._LONG_ROWS", bytes_of_row)
        done = imported(source, tmp_path / f"out{bytes_of_row}", overrides=said)
        found.append({name: rows_of(done, name) for name in done.plan.tables})
    by_duckdb, by_arrow = found
    assert by_arrow == by_duckdb
    assert [row["x"] for row in by_arrow["parts"]] == ["a", "b", "3", "4"]
    assert [row["n"] for row in by_arrow["parts"]] == [1, None, 0.5, None]
    assert by_arrow["typed"][0]["i"] == pytest.approx(365.25 * 86_400 + 2 * 86_400 + 3, rel=0.02)


def test_names_that_differ_by_case_stay_apart(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "t"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"x": [0.5, 0.5], "X": [5.5, 6], "X.x": [9, 9]}), folder / "0.parquet")
    pq.write_table(pa.table({"X": [7.0, 8], "X.x": [9, 9], "x": [1.5, 2.5]}), folder / "1.parquet")
    done = imported(tmp_path / "source", tmp_path / "out")
    rows = [(row["x"], row["X_2"], row["X.x"]) for row in rows_of(done, "t")]
    assert rows == [(0.5, 5.5, 9), (0.5, 6, 9), (1.5, 7, 9), (2.5, 8, 9)]


def test_arrow_reads_what_a_condition_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfm.data.importing.file_source._LONG_ROWS", 0)
    monkeypatch.setattr("rfm.data.importing.parquet_files._BATCH_BYTES", 800)
    (tmp_path / "source").mkdir()
    table = pa.table({"id": range(1000), "blob": [b"%d" % (i % 3) for i in range(1000)]})
    pq.write_table(table, tmp_path / "source" / "t.parquet")
    where = {"t": "blob = '1'::BLOB AND id >= 10"}
    done = imported(tmp_path / "source", tmp_path / "out", where=where)
    assert [row["id"] for row in rows_of(done, "t")] == list(range(330))
    told = imported(
        tmp_path / "source", tmp_path / "out", where=where, dry_run=True, dry_run_rows=100
    )
    assert (told.counts, told.plan.tables["t"].facts.rows) == ({"t": 330}, 100)
    told = imported(tmp_path / "source", tmp_path / "out", dry_run=True, dry_run_rows=100)
    assert (told.counts, told.plan.tables["t"].facts.rows) == ({"t": 1000}, 100)


def test_columns_of_types_that_duckdb_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rfm.data.importing.file_source._LONG_ROWS", 0)
    (tmp_path / "source").mkdir()
    halves = pa.array([[np.float16(1)], None], pa.list_(pa.float16()))
    pq.write_table(pa.table({"id": [1, 2], "x": halves}), tmp_path / "source" / "t.parquet")
    done = imported(tmp_path / "source", tmp_path / "out", where={"t": "id > 1"})
    assert done.plan.tables["t"].notes == ("x is left out: of a type that is not known",)


def test_several_tables_of_which_not_all_rows_are_read(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "source.duckdb")) as connection:
        for name in "abc":
            connection.execute(f"CREATE TABLE {name} AS SELECT range AS id FROM range(100)")
    told = imported(tmp_path / "source.duckdb", tmp_path / "out", dry_run=True, dry_run_rows=50)
    assert told.counts == {"a": 100, "b": 100, "c": 100}
