"""Where an import writes, and files of every form as tables."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pandas as pd
import pyarrow as pa
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


def test_names_of_files_are_no_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "d[1]"
    folder.mkdir()
    (tmp_path / "d1").mkdir()
    names = ["x[1]", "x1", "x*", "xy", "q?", "qa"]
    for i, name in enumerate(names):
        (folder / f"{name}.csv").write_text(f"id,from\n1,{name}\n2,{name}\n")
        parts = folder / f"{name} parts"
        parts.mkdir()
        pq.write_table(pa.table({"id": [1, 2], "at": [i, i]}), parts / "part[0].parquet")
    out = tmp_path / "out"
    import_database(str(folder), out, ImportConfig())
    tables = [pq.read_table(path) for path in (out / "db").iterdir()]
    texts = [table["from"].to_pylist() for table in tables if "from" in table.column_names]
    parts_of = [table["at"].to_pylist() for table in tables if "at" in table.column_names]
    assert sorted(texts) == sorted([name] * 2 for name in names)
    assert sorted(parts_of) == [[i] * 2 for i in range(len(names))]


def test_a_database_folder_is_no_source(tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_database(str(people_file(tmp_path / "x.db")), out, ImportConfig())
    with pytest.raises(ValueError, match="is a database's folder already"):
        import_database(str(out), tmp_path / "other", ImportConfig())
    pq.write_table(pa.table({"id": [1], "city": ["Oslo"]}), out / "db" / "places.parquet")
    (out / "manifest.yaml").unlink()
    with pytest.raises(ValueError, match="have not the same columns"):
        import_database(str(out), tmp_path / "other", ImportConfig())


def test_moments_with_a_zone_in_nanoseconds(tmp_path: Path) -> None:
    moments = pd.to_datetime(["2020-01-01 12:00", "2020-01-02 12:00"]).tz_localize("Asia/Tokyo")
    at = pa.array(moments.as_unit("ns"), pa.timestamp("ns", "Asia/Tokyo"))
    (tmp_path / "files").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "at": at}), tmp_path / "files" / "visits.parquet")
    out = tmp_path / "out"
    import_database(str(tmp_path / "files"), out, ImportConfig())
    read = pq.read_table(out / "db" / "visits.parquet")["at"].to_pylist()
    assert read == [pd.Timestamp("2020-01-01 03:00"), pd.Timestamp("2020-01-02 03:00")]
