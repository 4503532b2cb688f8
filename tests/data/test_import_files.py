"""Where an import writes, and files of every form as tables."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rfm.data.import_sql import ImportConfig, import_database


def people_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO people VALUES (1, 'ann'), (5, 'bob')")
    connection.close()
    return path


@pytest.mark.parametrize("url", ["{}", "sqlite:///{}"])
def test_overwrite_never_removes_the_source(tmp_path: Path, url: str) -> None:
    out = tmp_path / "out"
    import_database(str(people_file(tmp_path / "x.db")), out, ImportConfig())
    inside = people_file(out / "db" / "x.db")
    with pytest.raises(ValueError, match="holds the source"):
        import_database(url.format(inside), out, ImportConfig(overwrite=True))
    assert inside.is_file()


def test_overwrite_removes_only_what_an_import_wrote(tmp_path: Path) -> None:
    source, out = str(people_file(tmp_path / "x.db")), tmp_path / "out"
    import_database(source, out, ImportConfig())
    (out / "tasks").mkdir()
    with pytest.raises(ValueError, match="tasks in it is not of an import"):
        import_database(source, out, ImportConfig(overwrite=True))
    assert (out / "tasks").is_dir()
    (out / "tasks").rmdir()
    (tmp_path / "said.yaml").write_text("tables: {people: {columns: {name: text}}}")
    options = ImportConfig(overwrite=True, overrides=tmp_path / "said.yaml")
    import_database(source, out, options)
    import_database(source, out, options)
    os.utime(out / "kinds.yaml")  # written by hand since
    with pytest.raises(ValueError, match=r"kinds\.yaml in it is not of an import"):
        import_database(source, out, options)


def test_a_link_as_the_folder_to_write_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, real = str(people_file(tmp_path / "x.db")), tmp_path / "real" / "out"
    import_database(source, real, ImportConfig())
    (tmp_path / "link").symlink_to(real)
    done = import_database(source, tmp_path / "link", ImportConfig(overwrite=True))
    assert (tmp_path / "link").is_symlink()
    assert done.database is not None
    assert done.database.name == "out"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    import_database(source, Path(), ImportConfig())
    assert pq.read_table(tmp_path / "here" / "db" / "people.parquet").num_rows == 2
    with pytest.raises(ValueError, match=r"x\.db is a file"):
        import_database(source, tmp_path / "x.db" / "out", ImportConfig())
