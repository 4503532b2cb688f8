"""Real databases written to SQLite and PostgreSQL, and imported again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.import_media import sort_of, write_postgres, write_sqlite
from benchmarks.import_roundtrip import Score, score_import
from rfm.data.checks import check_database
from rfm.data.database import Database, open_database
from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.locate import list_databases
from rfm.data.schema import to_seconds

pytestmark = pytest.mark.realdata
SMALL = ("northwind", "chinook", "synthea-omop")


def write(medium: str, truth: Database, folder: Path, postgres: Any, declared: bool) -> str:
    if medium == "sqlite":
        return write_sqlite(truth, folder / "x.sqlite", declared)
    import psycopg

    url: str = postgres.create("roundtrip")
    with psycopg.connect(url) as connection:
        write_postgres(truth, connection, declared)
    return url


def check_same(truth: Database, out: Path, source: str, folder: Path) -> None:
    """With declared keys, and the time columns that tables have, everything comes back."""
    overrides = folder / "times.yaml"
    times = {name: {"time_col": table.time_column} for name, table in truth.tables.items()}
    overrides.write_text(yaml.safe_dump({"tables": times}))
    done = import_database(source, out, ImportConfig(overrides=overrides))
    database = done.database
    assert database is not None
    check_database(database)
    assert set(database.tables) == set(truth.tables)
    for name, table in truth.tables.items():
        other = database.tables[name]
        assert other.primary_key == table.primary_key
        assert other.time_column == table.time_column
        assert other.foreign_keys == table.foreign_keys, name
        assert other.columns == table.columns
        rows, again = pq.read_table(table.path), pq.read_table(other.path)
        for column in table.columns:
            _check_column(rows[column], again[column], f"{name}.{column}")


def _check_column(before: pa.ChunkedArray, after: pa.ChunkedArray, where: str) -> None:
    sort = sort_of(before.type)
    assert after.null_count == before.null_count, where
    if before.null_count < len(before):
        assert sort_of(after.type) == sort, where
    if sort == "time":
        np.testing.assert_array_equal(to_seconds(before), to_seconds(after), where)
    elif sort == "real":
        ours, theirs = before.to_numpy(), after.to_numpy()
        np.testing.assert_array_equal(ours.astype(float), theirs.astype(float), where)
    else:
        ours, theirs = (v.cast(pa.large_string()).combine_chunks() for v in (before, after))
        assert ours.equals(theirs), where


@pytest.mark.parametrize("medium", ["sqlite", "postgresql"])
def test_declared_keys_come_back(
    tmp_path: Path, real_data: Path, medium: str, request: pytest.FixtureRequest
) -> None:
    postgres = request.getfixturevalue("postgres") if medium == "postgresql" else None
    truth = open_database(real_data / "chinook")
    source = write(medium, truth, tmp_path, postgres, declared=True)
    check_same(truth, tmp_path / "out", source, tmp_path)


@pytest.mark.parametrize("medium", ["sqlite", "postgresql"])
def test_small_databases_are_inferred(
    tmp_path: Path, real_data: Path, medium: str, request: pytest.FixtureRequest
) -> None:
    postgres = request.getfixturevalue("postgres") if medium == "postgresql" else None
    total = Score()
    for name in SMALL:
        (tmp_path / name).mkdir()
        truth = open_database(real_data / name)
        source = write(medium, truth, tmp_path / name, postgres, declared=False)
        done = import_database(source, tmp_path / name / "out", ImportConfig())
        assert done.database is not None
        check_database(done.database)
        total += score_import(truth, done)
    _check_score(total)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("medium", ["sqlite", "postgresql"])
def test_all_databases_come_back_or_are_inferred(
    tmp_path: Path, real_data: Path, medium: str, request: pytest.FixtureRequest
) -> None:
    postgres = request.getfixturevalue("postgres") if medium == "postgresql" else None
    total = Score()
    for name in list_databases(real_data):
        truth = open_database(real_data / name)
        for declared in (True, False):
            folder = tmp_path / f"{name}-{declared}"
            folder.mkdir()
            source = write(medium, truth, folder, postgres, declared)
            if declared:
                check_same(truth, folder / "out", source, folder)
            else:
                done = import_database(source, folder / "out", ImportConfig())
                total += score_import(truth, done)
    _check_score(total)


def _check_score(total: Score) -> None:
    numbers = total.numbers()
    assert numbers["primary_keys"] >= 0.95, total.wrong
    assert numbers["time_columns"] >= 0.95, total.wrong
    assert numbers["fkey_precision"] >= 0.95, total.wrong
    assert numbers["fkey_recall"] >= 0.85, total.wrong
