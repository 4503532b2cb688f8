"""Columns as files hold them: times and keys in all their types, missing values of both kinds."""

from __future__ import annotations

import decimal
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.database import Database, open_database
from rfm.data.query import QueryError, compile_text, entities, labels
from tests.data.query.made import seconds
from tests.folders import write_folder

_AT = "2019-06-01"
_MOMENTS = ["2019-05-31 23:30:00", "2019-06-01 00:00:00", "2019-06-01 00:30:00", "2019-06-11"]


def _database(folder: Path, events: dict[str, Any], people: int = 2) -> Database:
    """Events of people, the columns as they are given."""
    frames = {"people": pd.DataFrame({"id": range(people)}), "events": pd.DataFrame({"at": [1]})}
    keys = {"people": {"pkey": "id"}, "events": {"time_col": "at", "fkeys": {"who": "people"}}}
    written = write_folder(folder / "typed", frames, keys)
    pq.write_table(pa.table(events), written / "db" / "events.parquet")
    return open_database(written)


def _values(target: str, database: Database) -> list[Any]:
    compiled = compile_text(f"PREDICT {target} FOR EACH people.id", database)
    return list(labels(compiled, database, [seconds(_AT)]).label.to_pylist())


def _times(kind: str) -> pa.Array:
    moments = pd.to_datetime(_MOMENTS, format="ISO8601")
    if kind == "text":
        return pa.array([str(m) for m in moments])
    if kind == "text with T":
        return pa.array([m.isoformat() for m in moments])
    if kind == "text with a zone":
        return pa.array(
            [m.tz_localize("UTC").tz_convert("Asia/Tokyo").isoformat() for m in moments]
        )
    if kind == "dictionary":
        return pa.array([str(m) for m in moments]).dictionary_encode()
    if kind == "date":
        return pa.array([m.date() for m in moments])
    if kind == "zone":
        zoned = moments.tz_localize("UTC").tz_convert("America/Lima")
        return pa.array(zoned)
    return pa.array(moments).cast(pa.timestamp(kind))


@pytest.mark.parametrize(
    "kind",
    [
        "s",
        "ms",
        "us",
        "ns",
        "zone",
        "date",
        "text",
        "text with T",
        "text with a zone",
        "dictionary",
    ],
)
def test_times_are_those_of_the_database(kind: str, tmp_path: Path) -> None:
    database = _database(tmp_path, {"at": _times(kind), "who": [0, 0, 0, 0]})
    times, at = database.times("events"), seconds(_AT)
    inside = ((times > at) & (times <= at + 10 * 86_400)).sum()
    assert inside == (1 if kind == "date" else 2)
    assert _values("COUNT(events.*, 0, 10, days)", database) == [inside, 0]
    past = compile_text(
        "PREDICT COUNT(events.*, 0, 1) FOR EACH people.id WHERE MAX(events.at, -9, 0) = "
        f"{pd.Timestamp(times[times <= at].max(), unit='s')}",
        database,
    )
    assert entities(past, database, at).row.tolist() == [0]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint32(), pa.float64()])
def test_keys_of_any_type_and_none(kind: pa.DataType, tmp_path: Path) -> None:
    who = pa.array([0, 1, None, 1]).cast(kind)
    at = pa.array(pd.to_datetime(["2019-06-02"] * 4))
    database = _database(tmp_path, {"at": at, "who": who, "x": [1, 2, 3, 4]})
    assert _values("SUM(events.x, 0, 10, days)", database) == [1.0, 6.0]
    assert _values("COUNT(events.* WHERE events.who = 1, 0, 10, days)", database) == [0.0, 2.0]
    assert _values("COUNT(events.* WHERE events.who IN (0, 1), 0, 10)", database) == [1.0, 2.0]


def test_missing_numbers_of_both_kinds(tmp_path: Path) -> None:
    at = pa.array(pd.to_datetime(["2019-06-02"] * 5))
    x = pa.array([1.0, float("nan"), None, float("nan"), 5.0])
    database = _database(tmp_path, {"at": at, "who": [0, 0, 0, 1, 0], "x": x})
    assert _values("SUM(events.x, 0, 10, days)", database) == [6.0, 0.0]
    assert _values("AVG(events.x, 0, 10, days)", database) == [3.0]
    assert _values("MAX(events.x, 0, 10, days)", database) == [5.0]
    assert _values("COUNT(events.x, 0, 10, days)", database) == [2.0, 0.0]
    assert _values("COUNT(events.* WHERE events.x IS NULL, 0, 10, days)", database) == [2.0, 1.0]
    assert _values("AVG(events.x > 2, 0, 10, days)", database) == [0.25, 0.0]  # unknown: does not


def test_first_and_last_pass_over_missing_values(tmp_path: Path) -> None:
    """They are NULL where there is no value at all."""
    at = pa.array(pd.to_datetime([f"2019-06-0{day}" for day in (2, 3, 4, 5)]))
    events = {"at": at, "who": [0, 0, 0, 1], "x": [None, 2.0, None, None]}
    database = _database(tmp_path, events)
    assert _values("LAST(events.x, 0, 10, days)", database) == [2.0]
    assert _values("FIRST(events.x, 0, 10, days)", database) == [2.0]
    assert _values("LAST(events.x, 0, 10, days) IS NULL", database) == [0, 1]
    assert _values("SUM(events.x, 0, 10, days)", database) == [2.0, 0.0]


def test_what_is_divided_by_zero_is_missing(tmp_path: Path) -> None:
    """Within an aggregation it is passed over; a target drops out."""
    at = pa.array(pd.to_datetime(["2019-06-02", "2019-06-03", "2019-06-04"]))
    events = {"at": at, "who": [0, 0, 1], "x": [6, 1, 1], "y": [3, 0, 0]}
    database = _database(tmp_path, events)
    assert _values("SUM(events.x / events.y, 0, 10, days)", database) == [2.0, 0.0]
    assert _values("AVG(events.x / events.y, 0, 10, days)", database) == [2.0]
    whole = "SUM(events.x, 0, 10, days) / SUM(events.y, 0, 10, days)"
    assert _values(whole, database) == [7 / 3]


def test_numbers_and_conditions_of_any_type(tmp_path: Path) -> None:
    events = {
        "at": pa.array(pd.to_datetime(["2019-06-02", "2019-06-03", "2019-06-04"])),
        "who": [0, 0, 1],
        "price": pa.array([decimal.Decimal("1.50"), decimal.Decimal("2.25"), None]),
        "flag": pa.array([True, None, False]),
        "bit": pa.array([1, 0, 0], pa.int8()),
        "kind": pa.array(["a", "b", "a"]).dictionary_encode(),
        "tags": pa.array([["x"], None, []]),
        "big": pa.array([2**62, 2**62, 1]),
        "day": pa.array([date(2019, 1, 1), date(2020, 1, 1), None]),
    }
    database = _database(tmp_path, events)
    assert _values("SUM(events.price, 0, 10, days)", database) == [3.75, 0.0]
    assert _values("AVG(events.flag, 0, 10, days)", database) == [1.0, 0.0]
    assert _values("MAX(events.flag, 0, 10, days)", database) == [1, 0]
    assert _values("SUM(events.flag = true, 0, 10, days)", database) == [1.0, 0.0]
    assert _values("SUM(events.bit = true, 0, 10, days)", database) == [1.0, 0.0]
    assert _values("MAX(events.bit, 0, 10, days)", database) == [1, 0]  # 0 and 1: a condition
    assert _values("COUNT(events.* WHERE events.flag = 0, 0, 10, days)", database) == [0.0, 1.0]
    assert _values("COUNT(events.tags, 0, 10, days)", database) == [1.0, 1.0]
    assert _values("COUNT_DISTINCT(events.kind, 0, 10, days)", database) == [2.0, 1.0]
    assert _values("SUM(events.big, 0, 10, days)", database) == [2.0**63, 1.0]
    assert _values("COUNT(events.* WHERE events.day < 2019-06-01, 0, 10)", database) == [1.0, 0.0]
    assert _values("COUNT(events.* WHERE events.day < '2019-06-01', 0, 10)", database) == [1.0, 0]
    for target, said in [
        ("SUM(events.tags, 0, 10)", "neither number, text nor time"),
        ("COUNT(events.* WHERE events.tags = 'x', 0, 10) > 0", "only be compared with NULL"),
        ("MAX(events.kind, 0, 10)", "is for numbers"),
    ]:
        with pytest.raises(QueryError, match=said):
            _values(target, database)


def test_first_and_last_of_equal_times_are_always_the_same(tmp_path: Path) -> None:
    count = 5000
    rng = np.random.default_rng(0)
    events = {
        "at": pa.array(pd.to_datetime(["2019-06-02"] * count)),
        "who": rng.integers(0, 2, count),
        "x": rng.normal(size=count),
    }
    database = _database(tmp_path, events)
    target = "LAST(events.x, 0, 10, days) + FIRST(events.x, 0, 10, days)"
    assert {tuple(_values(target, database)) for _ in range(5)} == {
        tuple(_values(target, database))
    }


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    at = pa.array(pd.to_datetime(["2019-06-02"] * 4))
    database = _database(tmp_path, {"at": at, "who": [0, 1, 0, 1]})
    path = database.tables["events"].path
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="events"):
        _values("COUNT(events.*, 0, 10, days)", database)
