"""Tables that are too large to be sorted at once, sources that are not at hand, the command."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from rfm.config import run_command
from rfm.data.checks import check_database
from rfm.data.import_sql import ImportCommand, ImportConfig, import_command, import_database
from rfm.data.importing.convert import to_array
from rfm.data.importing.source import INTEGER, REAL, TEXT, TIMESTAMP
from rfm.data.importing.sql_types import mysql_read
from rfm.data.original_keys import original_keys


def large_file(folder: Path, rows: int) -> tuple[Path, list[str]]:
    """Rows with texts as keys in no order, a text of their own each, and a parent in the table."""
    keys = [f"k{i * 7919 % rows:06d}" for i in range(rows)]
    path = folder / "large.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE t (id TEXT PRIMARY KEY, body TEXT, at TIMESTAMP, "
            "parent_id TEXT REFERENCES t (id))"
        )
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?)",
            (
                (key, f"body of {key} " * 9, f"2020-01-{i % 28 + 1:02d}", keys[i // 2])
                for i, key in enumerate(keys)
            ),
        )
    connection.close()
    return path, keys


@pytest.mark.parametrize("bucket", [1 << 30, 100_000, 1])
def test_rows_are_reordered_in_buckets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int
) -> None:
    monkeypatch.setattr("rfm.data.importing.rows._BUCKET_BYTES", bucket)
    monkeypatch.setattr("rfm.data.importing.rows._BATCH_BYTES", 30_000)
    monkeypatch.setattr("rfm.data.importing.rows._GROUP_ROWS", 1000)
    path, keys = large_file(tmp_path, 5000)
    done = import_database(str(path), tmp_path / "out", ImportConfig())
    assert done.database is not None
    check_database(done.database)
    rows = pq.read_table(done.database.tables["t"].path)
    wanted = sorted(keys)
    assert original_keys(done.database, "t").column(0).to_pylist() == wanted
    assert rows["id"].to_pylist() == list(range(5000))
    assert [text.split()[2] for text in rows["body"].to_pylist()] == wanted
    row_of = {key: row for row, key in enumerate(wanted)}
    parents = {key: row_of[keys[i // 2]] for i, key in enumerate(keys)}
    assert rows["parent_id"].to_pylist() == [parents[key] for key in wanted]
    assert pq.read_metadata(done.database.tables["t"].path).num_row_groups >= 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.db", "out"]
    assert not list((tmp_path / "out").glob(".*"))


def test_few_rows_at_a_time_where_texts_are_long(tmp_path: Path) -> None:
    from rfm.data.importing.connect import connect

    path = tmp_path / "wide.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (body TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", (("x" * 50_000,) for _ in range(2000)))
    connection.close()
    source = connect(str(path), 64, tmp_path / "spill")
    (table,) = source.tables((), False)
    sizes = [batch.nbytes for batch in source.read(table, "", 0)]
    source.close()
    assert sum(sizes) >= 100_000_000
    assert max(sizes[1:]) < 6_000_000


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = large_file(tmp_path, 50)
    words = [f"source={path}", f"out={tmp_path / 'out'}", "where.t=id < 'k000010'", "views=true"]

    def run(*more: str) -> dict[str, Any]:
        run_command(
            ImportCommand, import_command, prog="rfm import", doc=None, argv=[*words, *more]
        )
        captured = capsys.readouterr()
        assert "t.parent_id -> t" in captured.err
        said: dict[str, Any] = json.loads(captured.out.splitlines()[-1])
        return said

    said = run("dry_run=true")
    assert (said["out"], said["rows"]) == (None, 10)
    assert not (tmp_path / "out").exists()
    said = run()
    assert (said["out"], said["rows"]) == (str(tmp_path / "out"), 10)
    with pytest.raises(SystemExit):
        run("val_timestamp=2020-01-05", "overwrite=true")
    assert "give both" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (mysql.TINYINT(1), INTEGER),
        (mysql.DECIMAL(10, 0), INTEGER),
        (mysql.DECIMAL(10, 2), REAL),
        (mysql.DECIMAL(30, 0), REAL),
        (mysql.DOUBLE(), REAL),
        (mysql.DATETIME(), TIMESTAMP),
        (sa.Date(), TIMESTAMP),
        (mysql.TIME(), TEXT),
        (mysql.ENUM("a", "b"), TEXT),
        (mysql.JSON(), TEXT),
        (mysql.LONGTEXT(), TEXT),
        (mysql.BIT(1), INTEGER),
        (mysql.LONGBLOB(), None),
        (sa.BINARY(16), None),
    ],
)
def test_types_of_mysql(kind: Any, wanted: pa.DataType | None) -> None:
    assert mysql_read("`x`", kind).type == wanted


def test_values_of_cursors() -> None:
    import datetime
    import decimal

    assert to_array([decimal.Decimal("1.5"), None], REAL, "c").to_pylist() == [1.5, None]
    assert to_array([{"a": [1]}, {"x"}, b"y"], TEXT, "c").to_pylist() == ['{"a": [1]}', "x", "y"]
    zone = datetime.timezone(datetime.timedelta(hours=2))
    times = [datetime.datetime(2020, 1, 1, 12, tzinfo=zone), datetime.date(2020, 1, 2), None]
    assert to_array(times, TIMESTAMP, "c").to_pylist() == [
        datetime.datetime(2020, 1, 1, 10),
        datetime.datetime(2020, 1, 2),
        None,
    ]
    with pytest.raises(ValueError, match=r"t\.c: .*drop"):
        to_array(["x"], INTEGER, "t.c")
