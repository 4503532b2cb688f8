"""Names that break or inject, where they are not quoted; sources that must not change."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.checks import check_database
from rfm.data.database import Database, open_database
from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.importing.source import SourceTable, parse_url
from rfm.data.importing.sql import SQLSource
from rfm.data.sql_quoting import identifier as quote

HOSTILE = [
    *('a"b', "a'b", "a`b", "a;b", "a--b", "a/*b*/", 'x"; DROP TABLE victim; --', "x'); --"),
    *("select", "SELECT", "table", "order", "group", "from", "where", "user", "null", "true"),
    *("naïve", "表", "имя", "😀", "a\u0301", "‮rtl", "with space", " lead", "tail ", "tab\tname"),
    *("new\nline", "%s", "100%", "%(x)s", ":name", "?", "$1", "{x}", "\\", "a\\b", "c0", "t"),
    *("file_row_number", "rowid", "a.b", "main.a", "..", "../up", "a/b", "/etc/passwd", "CON", "1"),
    *("[x]", "é" * 31, "x" * 63, "Case", "CASE", "case", "p0"),
]


def statements(sqlite: bool) -> list[str]:
    """Tables called as above, each with a key and a column of the same name that points at the
    first; SQLite has no two names that differ by case alone."""
    names = HOSTILE
    if sqlite:
        names = list({n.casefold(): n for n in HOSTILE}.values())
    made = [
        'CREATE TABLE victim ("a key" INTEGER PRIMARY KEY)',
        "INSERT INTO victim VALUES (7), (9)",
    ]
    for i, name in enumerate(names):
        made += [
            f'CREATE TABLE {quote(name)} ({quote(name)} INTEGER REFERENCES victim ("a key"), '
            f'"its key" TEXT PRIMARY KEY, {quote("2" + name)} TEXT)',
            f"INSERT INTO {quote(name)} VALUES (9, 'k{i}', '; DROP TABLE victim'), (7, 'j{i}', '')",
        ]
    return made


def check(database: Database, names: list[str]) -> None:
    check_database(database)
    assert len(database.tables) == len(names) + 1
    files = [path.name for path in (database.folder / "db").iterdir()]
    assert len({name.casefold() for name in files}) == len(files)
    assert len(list(database.folder.parent.glob("*"))) == 1  # nothing beside it
    parents = 0
    for name, table in database.tables.items():
        if name == "victim":
            continue
        rows = pq.read_table(table.path)
        (link,) = table.foreign_keys
        assert rows[link].to_pylist() == [0, 1]
        assert table.primary_key == "its key"
        keys = pq.read_table(database.folder / "keys" / f"{name}.parquet")
        assert [key[0] for key in keys["its key"].to_pylist()] == ["j", "k"]
        parents += 1
    assert parents == len(names)


def test_hostile_names_in_sqlite(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "hostile.db") as connection:
        for statement in statements(sqlite=True):
            connection.execute(statement)
    connection.close()
    out = tmp_path / "out" / "database"
    import_database(str(tmp_path / "hostile.db"), out, ImportConfig())
    check(open_database(out), list({n.casefold() for n in HOSTILE}))


def test_hostile_names_in_postgresql(tmp_path: Path, postgres: Any, adbc: bool) -> None:
    import psycopg

    url = postgres.create("hostile")
    with psycopg.connect(url) as connection:
        for statement in statements(sqlite=False):
            connection.execute(statement.encode())
    out = tmp_path / "out" / "database"
    import_database(url, out, ImportConfig())
    check(open_database(out), HOSTILE)


def test_hostile_names_of_files_and_columns(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s; a "folder"'
    folder.mkdir()
    for i, name in enumerate(n for n in HOSTILE if "/" not in n):
        pa_table = {"id": [1, 2], name + "'": ["x", "y"]}
        pq.write_table(pa.table(pa_table), folder / f"{i}{name}.parquet")
        (folder / f"{i}{name} text.csv").write_text('id,"a""b;--"\n1,x\n2,y\n', encoding="utf-8")
    done = import_database(str(folder), tmp_path / "out", ImportConfig())
    assert done.database is not None
    check_database(done.database)
    assert len(done.database.tables) == len(list(folder.iterdir()))


def test_a_sqlite_file_is_not_changed_and_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (1), (5)")
    connection.close()
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    import_database(str(path), tmp_path / "out", ImportConfig())
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.db"]
    source = SQLSource(parse_url("sqlite:///").set(database=str(path)))
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        source._cursor().execute("DELETE FROM t")
    source.close()


def test_nothing_is_left_beside_a_sqlite_file_with_a_log(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (1), (5)")
    connection.close()
    import_database(str(path), tmp_path / "out", ImportConfig())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.db"]
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO t VALUES (7)")
    connection.commit()  # in the log, while the connection is open
    done = import_database(str(path), tmp_path / "other", ImportConfig())
    connection.close()
    assert done.counts == {"t": 3}


def test_a_sqlite_file_that_is_written_meanwhile_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (1), (5)")
    connection.close()
    source = SQLSource(parse_url("sqlite:///").set(database=str(path)))
    (table,) = source.tables([], False)
    connection = sqlite3.connect(path)
    connection.execute("INSERT INTO t SELECT id + 10 FROM t")
    connection.commit()
    connection.close()
    with pytest.raises(ValueError, match="written meanwhile"):
        list(source.read(table, "", 0))
    source.close()


def test_postgresql_is_not_changed_and_cannot_be(tmp_path: Path, postgres: Any, adbc: bool) -> None:
    import psycopg

    url = postgres.create("untouched")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (5)")
        connection.execute(
            "CREATE FUNCTION spoil() RETURNS boolean LANGUAGE sql AS "
            "$$ DELETE FROM t RETURNING true $$"
        )
    with psycopg.connect(url) as connection:
        before = _state(connection)
    import_database(url, tmp_path / "out", ImportConfig())
    options = ImportConfig(where={"t": "spoil()"})
    with pytest.raises(ValueError, match="read-only transaction"):
        import_database(url, tmp_path / "other", options)
    assert not (tmp_path / "other").exists()
    with psycopg.connect(url) as connection:
        assert _state(connection) == before


def _state(connection: Any) -> Any:
    relations = "SELECT relname, relfilenode FROM pg_class ORDER BY oid"
    rows = "SELECT xmin, xmax, ctid, id FROM t ORDER BY id"
    return [connection.execute(sql).fetchall() for sql in (relations, rows)]


@pytest.mark.parametrize("opened", [True, False])
def test_a_dropped_connection_leaves_nothing(
    tmp_path: Path, postgres: Any, adbc: bool, opened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    url = postgres.create("dropped")
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE a (id int PRIMARY KEY, note text); "
            "INSERT INTO a SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 100000) i"
        )
    read, seen = SQLSource.read, []

    def cut(
        self: SQLSource, table: SourceTable, where: str, limit: int
    ) -> Iterator[pa.RecordBatch]:
        for batch in read(self, table, where, limit):
            seen.append(len(batch))
            if len(seen) == 1:
                assert (self._adbc is not None) == adbc
                with psycopg.connect(postgres.url(), autocommit=True) as other:
                    other.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = 'dropped'"
                    )
            yield batch

    def rows() -> int:
        if not opened:
            return import_database(url, tmp_path / "out", ImportConfig()).counts["a"]
        return open_database(url).tables["a"].num_rows

    cache = tmp_path / "imported"
    monkeypatch.setenv("RFM_CACHE", str(tmp_path))
    with monkeypatch.context() as patched:
        patched.setattr(SQLSource, "read", cut)
        with pytest.raises(ValueError, match=r"reading public\.a: .*run it again"):
            rows()
    assert 0 < sum(seen) < 100_000
    assert [path for path in tmp_path.rglob("*") if path != cache] == []
    assert rows() == 100_000


def test_a_failed_import_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        connection.execute("INSERT INTO t VALUES (1), (5)")
    connection.close()
    source, out = str(tmp_path / "x.db"), tmp_path / "out"
    import_database(source, out, ImportConfig())
    before = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}

    def fail(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rfm.data.import_sql._draw", fail)
    with pytest.raises(KeyboardInterrupt):
        import_database(source, out, ImportConfig(overwrite=True))
    assert {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.db"]


@pytest.mark.parametrize("kind", ["csv", "duckdb", "sqlite"])
def test_a_condition_cannot_begin_another_statement(tmp_path: Path, kind: str) -> None:
    source, written = tmp_path / "source", tmp_path / "written.csv"
    if kind == "csv":
        source.mkdir()
        (source / "t.csv").write_text("id\n1\n5\n")
    else:
        create: Any = {"duckdb": duckdb.connect, "sqlite": sqlite3.connect}[kind]
        with create(str(source)) as connection:
            connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
            connection.execute("INSERT INTO t VALUES (1), (5)")
        connection.close()
    for end in ("--", "SELECT (1"):
        options = ImportConfig(where={"t": f"1=1); COPY (SELECT 1) TO '{written}'; {end}"})
        refused = r"one condition|one statement at a time|syntax error"
        with pytest.raises(ValueError, match=refused):
            import_database(str(source), tmp_path / "out", options)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    done = import_database(str(source), tmp_path / "out", ImportConfig(where={"t": "id > 2 -- 5"}))
    assert done.counts == {"t": 1}


def test_a_condition_cannot_leave_the_transaction(
    tmp_path: Path, postgres: Any, adbc: bool
) -> None:
    import psycopg

    url = postgres.create("left")
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (5)")
    for begun in ("1=1); COMMIT; DELETE FROM t; --", "1=1); COMMIT; DELETE FROM t; SELECT (1"):
        with pytest.raises(ValueError, match=r"multiple commands|syntax error"):
            import_database(url, tmp_path / "out", ImportConfig(where={"t": begun}))
    done = import_database(url, tmp_path / "out", ImportConfig(where={"t": "id::text LIKE '%5'"}))
    assert done.counts == {"t": 1}
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (2,)


def test_tables_without_the_right_to_read_and_with_heirs(
    tmp_path: Path, postgres: Any, adbc: bool
) -> None:
    import psycopg

    url = postgres.create("rights")
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TABLE city (id int PRIMARY KEY, pay int); CREATE TABLE secret (id int); "
            "CREATE TABLE capital (of text) INHERITS (city); "
            "INSERT INTO city VALUES (1, 7), (5, 8); INSERT INTO capital VALUES (9, 7, 'Peru'); "
            "INSERT INTO secret VALUES (1); "
            "CREATE TABLE visit (id int PRIMARY KEY, city int REFERENCES city); "
            "INSERT INTO visit VALUES (2, 5), (3, 1); "
            "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN; "
            "GRANT SELECT (id) ON city TO guest; GRANT SELECT ON capital TO guest; "
            "GRANT SELECT (city) ON visit TO guest"
        )
    for name in ("out", "some"):
        where = {"city": "id > 0"} if name == "some" else {}
        done = import_database(
            url.replace("//rfm@", "//guest@"), tmp_path / name, ImportConfig(where=where)
        )
        assert done.counts == {"city": 2, "capital": 1, "visit": 2}
        assert any("secret: no column can be read" in warning for warning in done.warnings)
        assert done.database is not None
        assert done.database.tables["visit"].foreign_keys == {"city": "city"}
        assert pq.read_schema(tmp_path / name / "db" / "city.parquet").names == ["id"]
    with psycopg.connect(url) as connection:
        connection.execute("DROP OWNED BY guest; DROP ROLE guest")
