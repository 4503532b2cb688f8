"""Keys as callers hold them, in whatever type, find the rows that they name."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data import original_keys
from rfm.data.database import Database, open_database
from rfm.data.original_keys import find_row, key_of_row, keys_of_rows
from rfm.data.query import CompiledQuery, compile_text, entities
from tests.data.query.made import seconds
from tests.folders import write_folder

_AT = seconds("2019-06-01")
_NOON = datetime(2019, 3, 1, 12)


def _asked(folder: Path, *columns: pa.Array) -> tuple[CompiledQuery, Database]:
    """Three customers (the last comes later) with these original keys, none: row numbers."""
    frames = {
        "customers": pd.DataFrame(
            {
                "id": [0, 1, 2],
                "since": pd.to_datetime(["2019-01-01", "2019-02-01", "2019-07-01"]),
                "city": ["Oslo", "Lima", "Oslo"],
            }
        ),
        "orders": pd.DataFrame({"at": pd.to_datetime(["2019-06-02"]), "customer": [0]}),
    }
    keys = {
        "customers": {"pkey": "id", "time_col": "since"},
        "orders": {"time_col": "at", "fkeys": {"customer": "customers"}},
    }
    written = write_folder(folder / "keyed", frames, keys)
    if columns:
        (written / "keys").mkdir()
        table = pa.table({f"part{i}": column for i, column in enumerate(columns)})
        pq.write_table(table, written / "keys" / "customers.parquet")
    database = open_database(written)
    text = "PREDICT COUNT(orders.*, 0, 30, days) FOR EACH customers.id"
    return compile_text(f"{text} WHERE customers.city = 'Oslo'", database), database


_NUMBERS = [0, 17, 300]
_DAYS = [date(2019, 1, 1), date(2019, 3, 1), date(2020, 2, 29)]
_MOMENTS = [datetime(2019, 1, 1), _NOON, datetime(2020, 2, 29, 1, 2, 3)]
_ZONED = pd.Timestamp(_NOON, tz="UTC").tz_convert("Asia/Tokyo")


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (None, [1, 1.0, "1", np.int8(1), np.float32(1), np.uint64(1), Decimal("1.0")]),
        (pa.array(_NUMBERS, pa.int16()), [17, 17.0, "17", np.int64(17), np.float64(17)]),
        (pa.array(_NUMBERS, pa.uint64()), [17, 17.0, Decimal("17.00")]),
        (pa.array(["0", "17", "300"]), [17, 17.0, "17", np.str_("17"), np.float32(17)]),
        (pa.array([0.0, 17.0, 300.5]), [17, 17.0, "17", "17.0"]),
        (pa.array([Decimal("0"), Decimal("17"), Decimal("300")]), [17, 17.0, "17"]),
        (pa.array([Decimal("0.10"), Decimal("1.50"), Decimal("2.25")]), [1.5, "1.50", "1.5"]),
        (
            pa.array(_DAYS),
            [_DAYS[1], datetime(2019, 3, 1), pd.Timestamp(_DAYS[1]), np.datetime64("2019-03-01"),
             np.datetime64("2019-03-01", "ns"), "2019-03-01"],
        ),
        *(
            (
                pa.array(_MOMENTS, pa.timestamp(unit, zone)),
                [_NOON, pd.Timestamp(_NOON), _ZONED, _ZONED.to_pydatetime(), np.datetime64(_NOON),
                 np.datetime64(_NOON, "ns"), "2019-03-01 12:00:00"],
            )
            for unit, zone in [("s", None), ("us", None), ("ns", None), ("us", "UTC")]
        ),
        (pa.array(["2019-01-01", "2019-03-01", "x"]), [_DAYS[1], pd.Timestamp(_DAYS[1])]),
    ],
    ids=str,
)  # fmt: skip
def test_keys_of_all_types(column: pa.Array | None, found: list[Any], tmp_path: Path) -> None:
    compiled, database = _asked(tmp_path, *([] if column is None else [column]))
    for key in found:
        assert find_row(database, "customers", key) == 1, repr(key)
        asked = entities(compiled, database, _AT, keys=[key])
        assert list(asked.left_out) == [key_of_row(database, "customers", 1)], repr(key)
    series = pd.Series(found[:1] * 2, dtype=object)
    assert len(entities(compiled, database, _AT, keys=series).left_out) == 1  # type: ignore[arg-type]
    for key in (17.5, "nobody", 10**30, 1e300, "9" * 5000, True, pd.Timestamp("1999-01-01")):
        assert find_row(database, "customers", key) == -1, repr(key)


def test_a_midnight_is_found_by_its_date(tmp_path: Path) -> None:
    _, database = _asked(tmp_path, pa.array(_MOMENTS, pa.timestamp("us")))
    for key in (_DAYS[0], "2019-01-01", "2019-01-01 00:00:00", pd.Timestamp("2019-01-01")):
        assert find_row(database, "customers", key) == 0
    assert find_row(database, "customers", _DAYS[1]) == -1  # its noon is one


def test_the_text_of_a_key_comes_first(tmp_path: Path) -> None:
    _, database = _asked(tmp_path, pa.array(["17", "17.0", "017"]))
    assert [find_row(database, "customers", key) for key in ("17", "17.0", "017")] == [0, 1, 2]
    assert [find_row(database, "customers", key) for key in (17, 17.0)] == [0, 1]


@pytest.mark.parametrize("missing", [None, float("nan"), np.float64("nan"), pd.NaT, pd.NA], ids=str)
def test_a_missing_key_is_said(missing: Any, tmp_path: Path) -> None:
    """Also where a key is printed as a missing one is."""
    texts = pa.array([str(missing), "b", "c"])
    compiled, database = _asked(tmp_path, texts)
    with pytest.raises(ValueError, match=r"a key of customers is missing .*drop such rows"):
        entities(compiled, database, _AT, keys=["b", missing])
    assert find_row(database, "customers", missing) == -1
    assert find_row(database, "customers", str(missing)) == 0
    with pytest.raises(ValueError, match="is missing"):
        entities(compiled, database, _AT, keys=[("b", missing)])


def test_keys_of_several_columns(tmp_path: Path) -> None:
    parts = pa.array([7, 7, 8]), pa.array(_DAYS)
    compiled, database = _asked(tmp_path, *parts)
    for key in [(7.0, pd.Timestamp(_DAYS[0])), ["7", "2019-01-01"], np.array([7, _DAYS[0]])]:
        assert entities(compiled, database, _AT, keys=[key]).row.tolist() == [0]
    asked = entities(compiled, database, _AT, keys=[(8, _DAYS[2]), (7, _DAYS[1])])
    assert asked.left_out == {
        (8, _DAYS[2]): "is not there by 2019-06-01",
        (7, _DAYS[1]): "does not fulfil WHERE",
    }
    assert find_row(database, "customers", (8, _DAYS[0])) == -1


def test_keys_of_rows(tmp_path: Path) -> None:
    _, database = _asked(tmp_path, pa.array(["a", "b", "c"]))
    assert keys_of_rows(database, "customers", [2, 0, 2]) == ["c", "a", "c"]
    assert keys_of_rows(database, "customers", []) == []
    assert keys_of_rows(database, "orders", np.array([0])) == [0]


def test_those_left_out_are_looked_up_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 2000
    people = pd.DataFrame({"id": range(count), "age": range(count)})
    written = write_folder(tmp_path / "many", {"people": people}, {"people": {"pkey": "id"}})
    (written / "keys").mkdir()
    names = [f"person {i}" for i in range(count)]
    pq.write_table(pa.table({"name": names}), written / "keys" / "people.parquet")
    database = open_database(written)
    compiled = compile_text("PREDICT people.age FOR EACH people.id WHERE people.age < 5", database)
    read = original_keys.original_keys
    calls = []
    monkeypatch.setattr(original_keys, "original_keys", lambda *a: calls.append(a) or read(*a))
    asked = entities(compiled, database, _AT, keys=names)
    assert asked.row.tolist() == list(range(5))
    assert list(asked.left_out) == names[5:]
    assert len(calls) <= 2  # for the index, and for those left out
