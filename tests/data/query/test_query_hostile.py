"""Names and texts that look like SQL, like the language itself, or like nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database, open_database
from rfm.data.query import QueryError, compile_text, entities, labels, parse, write_task
from rfm.data.query.spelling import constant
from tests.data.query.made import seconds
from tests.folders import write_folder

_HOSTILE = [
    "'", "''", '"', '""', "`", "``", "\\", "\\\\", "\\'", "'; DROP TABLE people; --", "--", "/*",
    "*/", "/* x */", ";", "; SELECT 1", "' OR '1'='1", '" OR ""="', "x' || chr(0) || 'y", "$1",
    "?", ":name", "%", "_", "%s", "{timedelta}", "{0}", "{}", "${x}", "timestamps", "NULL", "NaN",
    "select", "where", "*", ".", "a.b", "a,b", "(", ")", "# not a remark", "\n", "\r\n", "\t",
    "\x00", "\x01", "\x1b[31m", "\x7f", "\u0085", "\u2028", "\u202e", "\ufeff", "é", "日本", "😀",
    "a\u0301", "ﷺ" * 30, " ", "  x ", "FOR EACH", "PREDICT COUNT(x.*, 0, 1)", "1", "-1", "1e5",
    "2020-01-01", "E'\\x41'", "x" * 5000, "U&'\\0041'", "$$x$$", "\\u0041", "\\x41",
    "read_csv('/etc/passwd')", "people",
]  # fmt: skip
_AT = "2019-06-01"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def notes(folder: Path) -> Database:
    """Each person wrote one of the texts a week after the anchor, and the same before it."""
    count = len(_HOSTILE)
    week = pd.to_timedelta(7, "D")
    at = np.repeat([pd.Timestamp(_AT) - week, pd.Timestamp(_AT) + week], count)
    frames = {
        "people": pd.DataFrame({"id": np.arange(count), "motto": _HOSTILE}),
        "notes": pd.DataFrame(
            {"at": at, "who": np.tile(np.arange(count), 2), "text": _HOSTILE * 2}
        ),
    }
    keys = {"people": {"pkey": "id"}, "notes": {"time_col": "at", "fkeys": {"who": "people"}}}
    return open_database(write_folder(folder / "notes", frames, keys))


def _single(text: str) -> str:
    """In single quotes, with doubled quotes and backslashes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


@pytest.mark.parametrize("spell", [_single, json.dumps])
def test_texts_are_themselves_and_nothing_else(
    spell: Callable[[str], str], notes: Database
) -> None:
    assert len(set(_HOSTILE)) == len(_HOSTILE) >= 50
    for start in range(10):
        rows = list(range(start, len(_HOSTILE), 10))
        listed = ", ".join(spell(_HOSTILE[row]) for row in rows)
        query = (
            f"PREDICT COUNT(notes.* WHERE notes.text = {spell(_HOSTILE[start])}, 0, 30, days) > 0 "
            f"FOR EACH people.id WHERE people.motto IN ({listed}) "
            f"AND COUNT(notes.* WHERE notes.text IN ({listed})) > 0"
        )
        compiled = compile_text(query, notes)
        found = labels(compiled, notes, [seconds(_AT)])
        assert found.entity.tolist() == rows
        assert found.label.to_pylist() == [1] + [0] * (len(rows) - 1)
        assert entities(compiled, notes, seconds(_AT)).row.tolist() == rows


@pytest.mark.slow
@pytest.mark.parametrize("operator", ["LIKE", "CONTAINS", "STARTS WITH", "ENDS WITH"])
def test_texts_in_other_operators(operator: str, notes: Database) -> None:
    """As Python has it; in LIKE % and _ stand for anything."""
    for text in _HOSTILE:
        query = f"PREDICT COUNT(notes.*, 0, 9) FOR EACH people.id WHERE people.motto {operator} "
        found = entities(compile_text(query + _single(text), notes), notes, seconds(_AT))
        if operator == "LIKE" and ("%" in text or "_" in text):
            assert _HOSTILE.index(text) in found.row
            continue
        expected = {
            "LIKE": lambda m, t=text: m == t,
            "CONTAINS": lambda m, t=text: t in m,
            "STARTS WITH": lambda m, t=text: m.startswith(t),
            "ENDS WITH": lambda m, t=text: m.endswith(t),
        }[operator]
        assert found.row.tolist() == [i for i, m in enumerate(_HOSTILE) if expected(m)], text


def test_what_is_written_survives_the_manifest(notes: Database) -> None:
    """RelBench, too, reads each text back from the manifest's SQL, although it replaces
    ``{timedelta}`` there."""
    import duckdb

    for text in _HOSTILE:
        sql = f"SELECT {constant(text)}".replace("{timedelta}", "30 days")
        assert duckdb.sql(sql).fetchall() == [(text,)]
        assert sql.isprintable()


def test_a_hostile_text_in_a_task_folder(notes: Database, tmp_path: Path) -> None:
    import relbench

    text = "{timedelta}'; DROP TABLE people; --\n\x01"
    at = seconds(_AT)
    query = f"PREDICT COUNT(notes.* WHERE notes.text != {_single(text)}, 0, 9) FOR EACH people.id"
    compiled = compile_text(query, notes)
    times = {
        "train": np.array([at]),
        "val": np.array([seconds("2020-01-01")]),
        "test": np.array([seconds("2020-07-01")]),
    }
    with pytest.raises(ValueError, match="anchor times of test"):
        write_task(compiled, notes, notes.folder, times)  # type: ignore[arg-type]
    manifest = compiled.manifest()
    manifest.save(tmp_path / "manifest.yaml")
    read = type(manifest).load(tmp_path / "manifest.yaml")
    assert read.sql == compiled.sql
    assert "DROP TABLE" in read.description
    task = relbench.load_dataset(str(notes.folder))
    assert "people" in task.get_db().table_dict


def _back(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _double(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_NAMES = [
    name
    for name in _HOSTILE
    if "\x00" not in name and "{timedelta}" not in name and name.strip(". ") and name != "*"
]
_TABLES = [n for n in _NAMES if "/" not in n and len(n.encode()) < 200 and n.isprintable()]


@pytest.mark.parametrize("quote", [_back, _double])
def test_columns_of_any_name(quote: Callable[[str], str], tmp_path: Path) -> None:
    names = [n for n in _NAMES if n not in ("at", "who")]
    values = {name: [float(i), 100.0 + i] for i, name in enumerate(names)}
    at = pd.to_datetime(["2019-06-02", "2019-06-03"])
    frames = {
        "people": pd.DataFrame({"id": [0, 1]}),
        "notes": pd.DataFrame({"at": at, "who": [0, 1], **values}),
    }
    keys = {"people": {"pkey": "id"}, "notes": {"time_col": "at", "fkeys": {"who": "people"}}}
    database = open_database(write_folder(tmp_path / "odd", frames, keys))
    assert len(names) >= 50
    for start in range(10):
        own = names[start::10]
        total = " + ".join(f"notes.{quote(name)}" for name in own)
        target = f"notes.{quote(own[0])}"
        query = (
            f"PREDICT SUM({total}, 0, 30, days) / MAX({target}, 0, 30, days) * "
            f"LAST({target}, 0, 30, days) FOR EACH people.id"
        )
        compiled = compile_text(query, database)
        found = labels(compiled, database, [seconds(_AT)])
        expected = [
            sum(values[name][row] for name in own) for row in range(2) if values[own[0]][row]
        ]
        assert found.label.to_pylist() == pytest.approx(expected), own
        assert compiled.manifest().target_col.startswith("sum_")


@pytest.mark.parametrize("quote", [_back, _double])
def test_tables_and_keys_of_any_name(quote: Callable[[str], str], tmp_path: Path) -> None:
    """Each of them a child of the next, which has its name for a primary key."""
    names = [name for name in _TABLES if name != "timestamps"]
    assert len(names) >= 45
    keys, frames = {}, {}
    for name in names:
        keys[name] = {"pkey": name}
        frames[name] = pd.DataFrame({name: [0, 1], "x": [1, 2]})
        keys[f"{name} child"] = {"time_col": "at", "fkeys": {name: name}}
        at = pd.to_datetime(["2019-06-02"] * 3)
        frames[f"{name} child"] = pd.DataFrame({"at": at, name: [1, 1, 0]})
    database = open_database(write_folder(tmp_path / "odd", frames, keys))
    for name in names[:: 1 if quote is _back else 5]:
        table, key, counted = quote(name), quote(name), quote(f"{name} child")
        query = (
            f"PREDICT COUNT({counted}.* VIA {counted}.{key}, 0, 30, days) FOR EACH {table}.{key} "
            f"WHERE {table}.x >= 1 ASSUMING COUNT({counted} -> {table}.x, 0, 30, days) > 0"
        )
        found = labels(compile_text(query, database), database, [seconds(_AT)])
        assert found.label.to_pylist() == [1.0, 2.0], name


def test_a_table_called_timestamps(tmp_path: Path) -> None:
    frames = {"timestamps": pd.DataFrame({"id": [0], "x": [1]})}
    database = open_database(write_folder(tmp_path / "odd", frames, {"timestamps": {"pkey": "id"}}))
    with pytest.raises(QueryError, match="RelBench keeps this name"):
        compile_text("PREDICT timestamps.x FOR EACH timestamps.id", database)


def test_names_that_sql_cannot_tell_apart(tmp_path: Path) -> None:
    frames = {
        "people": pd.DataFrame({"id": [0, 1]}),
        "notes": pd.DataFrame({"at": pd.to_datetime(["2019-06-02"]), "who": [0], "X": 1, "x": 2,
                               "{timedelta}": 3}),
    }  # fmt: skip
    keys = {"people": {"pkey": "id"}, "notes": {"time_col": "at", "fkeys": {"who": "people"}}}
    database = open_database(write_folder(tmp_path / "odd", frames, keys))
    for column, said in [("X", "in case alone"), ("`{timedelta}`", "RelBench replaces")]:
        with pytest.raises(QueryError, match=said):
            compile_text(f"PREDICT SUM(notes.{column}, 0, 3) FOR EACH people.id", database)


def test_the_grammar_takes_any_text() -> None:
    """Random characters are refused, or read, but nothing else happens."""
    chance = np.random.default_rng(0)
    alphabet = [*"PREDICT FOR EACH a.b,()'\"`\\;-*/#\n\t\x00é😀0159<>=!%", "WHERE ", "COUNT("]
    for _ in range(3000):
        text = "".join(chance.choice(alphabet, chance.integers(1, 40)))
        with pytest.raises(QueryError) as caught:
            parse(text)
        assert 0 <= caught.value.start <= len(text)
