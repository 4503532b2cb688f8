"""Databases that are imported when they are opened."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rfm.data.checks import check_database
from rfm.data.database import open_database
from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.imported import is_source


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RFM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path: Path, rows: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE IF EXISTS people")
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
        people = [(i, f"name {i}") for i in range(rows)]
        connection.executemany("INSERT INTO people VALUES (?, ?)", people)
    connection.close()
    return path


def test_whoever_has_opened_a_database_keeps_what_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "club.sqlite", 20)
    before = open_database(path)
    write(path, 30)
    after = open_database(f"sqlite:///{path}")
    assert (before.tables["people"].num_rows, after.tables["people"].num_rows) == (20, 30)
    check_database(before)
    check_database(after)
    assert before.name == after.name == "club"


def test_what_has_not_changed_is_the_same_folder(tmp_path: Path, cache: Path) -> None:
    path = write(tmp_path / "club.sqlite", 20)
    assert open_database(path).folder == open_database(path).folder
    assert len(list((cache / "imported").iterdir())) == 1


def test_equal_names_in_different_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for place, rows in (("a", 5), ("b", 6)):
        write(tmp_path / place / "club.db", rows)
        monkeypatch.chdir(tmp_path / place)
        found.append(open_database("club.db"))
    assert [one.tables["people"].num_rows for one in found] == [5, 6]
    assert found[0].folder != found[1].folder


def test_what_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    assert not is_source(str(tmp_path / "files"))
    (tmp_path / "files" / "people.csv").write_text("id,name\n1,ann\n2,bob\n")
    assert is_source(str(tmp_path / "files"))
    (tmp_path / "files" / "manifest.yaml").write_text("name: files")
    assert not is_source(str(tmp_path / "files"))
    for name in ("parts/people/0.parquet", "packed/people.tsv.gz", "loud/PEOPLE.CSV"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
        assert is_source(str(tmp_path / name.split("/")[0]))
    assert is_source("postgresql://me@here/shop")
    assert not is_source("rel-f1")
    assert is_source(str(tmp_path / "none.sqlite"))  # it is not there, which its import says


def test_a_source_that_cannot_be_read_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    broken = tmp_path / "club.sqlite"
    broken.write_bytes(b"SQLite format 3\x00 and then nothing")
    with pytest.raises(ValueError, match=r"club\.sqlite"):
        open_database(broken)
    assert list((cache / "imported").iterdir()) == []


def test_opening_a_url_shows_no_secret(
    tmp_path: Path, postgres: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import psycopg

    url = postgres.create("opened")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (3), (5)")
    with caplog.at_level(logging.DEBUG):
        database = open_database(postgres.url("opened") + "?password=hunter2")
        open_database(f"sqlite:///{write(tmp_path / 'club.sqlite', 3)}?token=hunter2")
    assert len(database.tables) == 1
    assert caplog.text.count("imported in") == 2
    assert "hunter2" not in caplog.text


def test_a_source_is_imported_as_the_options_say(tmp_path: Path) -> None:
    path = write(tmp_path / "club.sqlite", 20)
    (tmp_path / "said.yaml").write_text("tables: {people: {columns: {name: drop}}}")
    plain, given = (
        open_database(path, options=options)
        for options in (None, ImportConfig(overrides=tmp_path / "said.yaml", name="guests"))
    )
    assert (plain.name, plain.tables["people"].columns) == ("club", ("id", "name"))
    assert (given.name, given.tables["people"].columns) == ("guests", ("id",))
    assert plain.folder != given.folder
    assert open_database(path).folder == plain.folder
    with pytest.raises(ValueError, match="a dry run leaves nothing to open"):
        open_database(path, options=ImportConfig(dry_run=True))
    for folder in (given.folder, "rel-f1"):
        with pytest.raises(ValueError, match=r"options: .* is a database's folder or the name"):
            open_database(folder, options=ImportConfig())


def test_old_states_go_but_for_the_last_few(tmp_path: Path, cache: Path) -> None:
    path, states = tmp_path / "club.sqlite", []
    other = open_database(write(tmp_path / "other.sqlite", 99)).folder.parent
    for rows in range(3, 11):
        states.append(open_database(write(path, rows)).folder.parent)
    assert all(state.is_dir() for state in states)  # none is old
    for days, state in enumerate([*reversed(states), other], start=28):
        then = time.time() - 86_400 * days
        os.utime(state / ".source", (then, then))
    open_database(path)
    assert [state.is_dir() for state in states] == [False] * 3 + [True] * 5
    assert other.is_dir()


def test_what_a_killed_import_left_is_removed(tmp_path: Path, cache: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    folders = cache / "imported"
    left = [folders / f".{process}-abcd1234" for process in (dead.pid, dead.pid, os.getpid())]
    left[1] = folders / f".{dead.pid}-new"
    for folder in left:
        (folder / ".club").mkdir(parents=True)
        if folder != left[1]:
            os.utime(folder / ".club", (0, 0))
            os.utime(folder, (0, 0))
    open_database(write(tmp_path / "club.sqlite", 3))
    assert [folder.is_dir() for folder in left] == [False, True, True]
    out = tmp_path / "o[u]t"
    mine, others = tmp_path / f".o[u]t.{dead.pid}-abcd1234", tmp_path / f".out.{dead.pid}-abcd1234"
    for folder in (mine, others):
        folder.mkdir()
        os.utime(folder, (0, 0))
    import_database(str(tmp_path / "club.sqlite"), out, ImportConfig())
    assert not mine.exists()
    assert others.exists()
