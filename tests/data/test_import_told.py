"""What is said of an import: by a dry run beforehand, in import.yaml, in warnings."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest
import yaml

from rfm.data.import_sql import Import, ImportConfig, import_database


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """People and their visits, of which four of people that are not there and one without time."""
    path = tmp_path / "source.db"
    people = [(f"P{i}", f"name {i}") for i in range(40)]
    visits = [(i, f"p{i % 40}", f"2020-01-{i % 28 + 1:02d}", i % 40) for i in range(196)]
    visits += [(196 + i, "nobody", "2020-02-01", 99) for i in range(3)]
    visits += [(199, "nobody", None, 0)]
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (id TEXT PRIMARY KEY, name TEXT)")
        connection.execute(
            "CREATE TABLE visits (id INTEGER PRIMARY KEY, person_id TEXT REFERENCES people (id), "
            "at TIMESTAMP, score INTEGER)"
        )
        for table in ("empty", "log", "audit"):
            connection.execute(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO people VALUES (?, ?)", people)
        connection.executemany("INSERT INTO visits VALUES (?, ?, ?, ?)", visits)
        connection.execute("INSERT INTO log VALUES (1)")
    connection.close()
    (tmp_path / "said.yaml").write_text("tables: {audit: drop}")
    return path


def run(source: Path, dry_run: bool, rows: int = 1000) -> Import:
    options = ImportConfig(
        dry_run=dry_run,
        dry_run_rows=rows,
        exclude=("log",),
        overrides=source.with_name("said.yaml"),
    )
    return import_database(str(source), source.with_name("out"), options)


WARNINGS = (
    "empty: has no rows, left out",
    "visits.person_id: 4 of 200 rows point at no row: null",
    "visits.at: 1 of 200 rows have no time: they get the latest one, so that nothing sees them "
    "early",
)


def test_a_dry_run_knows_what_the_import_will_warn_of(source: Path) -> None:
    told, done = run(source, True), run(source, False)
    assert told.warnings == done.warnings == WARNINGS
    assert "declared, upper and lower case are the same" in told.plan_text
    for warning in WARNINGS:
        assert told.plan_text.count(f"warning: {warning}\n") == 1
        assert done.plan_text.count(f"warning: {warning}\n") == 1
    left_out = "left out: log: by exclude; audit: by overrides; empty: has no rows\n"
    assert left_out in told.plan_text
    assert left_out in done.plan_text


def test_all_that_is_warned_of_is_written_down(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(source, False)
    written = yaml.safe_load(source.with_name("out").joinpath("import.yaml").read_text())
    assert written["warnings"] == list(WARNINGS)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [*WARNINGS]
    assert written["left_out"] == {
        "log": "by exclude",
        "audit": "by overrides",
        "empty": "has no rows",
    }
    (link,) = written["tables"]["visits"]["fkeys"]
    assert link["rows_without_parent"] == 4


def test_of_parents_that_were_read_in_part_nothing_is_said(source: Path) -> None:
    told = run(source, True, 39)
    assert not any("point at no row" in warning for warning in told.warnings)
    told = run(source, True, 198)  # the parents whole, of the children two of the four
    assert "visits.person_id: 2 of 198 rows point at no row: null" in told.warnings
