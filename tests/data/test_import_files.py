"""Where an import writes, and files of every form as tables."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

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


def csv_folder(folder: Path, **files: str | bytes) -> str:
    folder.mkdir()
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else content.encode()
        (folder / name.replace("_", ".")).write_bytes(raw)
    return str(folder)


def only_table(source: str, out: Path) -> dict[str, list[Any]]:
    import_database(source, out, ImportConfig())
    (path,) = (out / "db").iterdir()
    columns: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return columns


def test_delimiters_are_counted_outside_of_quotes(tmp_path: Path) -> None:
    rows = "".join(f"person {i};{i}\n" for i in range(20))
    source = csv_folder(tmp_path / "a", a_csv='"last name, first, middle";number\n' + rows)
    columns = only_table(source, tmp_path / "out")
    assert set(columns) >= {"last name, first, middle", "number"}
    lines = "id\tname, title, rank\n1\tann, dr, a\n2\tbob, mr, b\n"
    columns = only_table(csv_folder(tmp_path / "b", a_tsv=lines), tmp_path / "tabs")
    assert columns["name, title, rank"] == ["ann, dr, a", "bob, mr, b"]


def test_codes_are_no_numbers_and_times_before_the_calendar_are_text(tmp_path: Path) -> None:
    text = (
        "id,phone,code,small,big,signed,at\n"
        "1,+4912345678,1E5,1e-05,1.5E3,+0.5,2020-12-01 (BC)\n"
        "2,+4912345679,2E3,0.25,2,-0.5,2020-12-01\n"
    )
    columns = only_table(csv_folder(tmp_path / "a", a_csv=text), tmp_path / "out")
    assert columns["phone"] == ["+4912345678", "+4912345679"]
    assert columns["code"] == ["1E5", "2E3"]
    assert (columns["small"], columns["big"]) == ([1e-05, 0.25], [1500, 2])
    assert columns["signed"] == [0.5, -0.5]
    assert columns["at"] == ["2020-12-01 (BC)", "2020-12-01"]


@pytest.mark.parametrize(
    "raw",
    [
        b"\n  \r\nid,name\n1,ann\n2,bob\n",
        b"\xef\xbb\xbf\nid,name\n1,ann\n2,bob\n",
        b"id,name\r\n1,ann\n2,bob\r\n",
        b"\nid,name\n1,ann\r\n2,bob\n",
        b"\xfe\xff" + "id,name\n1,ann\n2,bob\n".encode("utf-16-be"),
        b"\xff\xfe" + "\r\nid,name\r\n1,ann\r\n2,bob".encode("utf-16-le"),
    ],
)
def test_lines_and_bytes_of_every_kind(tmp_path: Path, raw: bytes) -> None:
    columns = only_table(csv_folder(tmp_path / "a", a_csv=raw), tmp_path / "out")
    assert columns["name"] == ["ann", "bob"]
