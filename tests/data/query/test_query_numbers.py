"""Arithmetic on columns of every width, and numbers that are not finite."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.database import Database, open_database
from rfm.data.query import compile_text, entities, labels
from tests.data.query.made import seconds
from tests.folders import write_folder

_INTEGERS = [
    pa.int8(), pa.int16(), pa.int32(), pa.int64(),
    pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(),
]  # fmt: skip
_INF, _NAN = float("inf"), float("nan")


def _database(folder: Path, **columns: Any) -> Database:
    """Events of person 0, in the order given, one a day."""
    frames = {"people": pd.DataFrame({"id": [0]}), "events": pd.DataFrame({"at": [1]})}
    keys = {"people": {"pkey": "id"}, "events": {"time_col": "at", "fkeys": {"who": "people"}}}
    written = write_folder(folder / "numbers", frames, keys)
    count = len(next(iter(columns.values())))
    at = pa.array(pd.date_range("2019-06-02", periods=count).to_numpy())
    events = {"at": at, "who": [0] * count, **columns}
    pq.write_table(pa.table(events), written / "db" / "events.parquet")
    return open_database(written)


def _value(target: str, database: Database) -> Any:
    """The one label, None if there is none."""
    compiled = compile_text(f"PREDICT {target} FOR EACH people.id", database)
    found = labels(compiled, database, [seconds("2019-06-01")])
    return found.label[0].as_py() if len(found) else None


def _sum(of: str) -> str:
    return f"SUM({of}, 0, 9)"


@pytest.mark.parametrize("kind", _INTEGERS, ids=str)
def test_no_width_overflows(kind: pa.DataType, tmp_path: Path) -> None:
    limits = np.iinfo(kind.to_pandas_dtype())
    low, high = int(limits.min), int(limits.max)
    database = _database(tmp_path, v=pa.array([low, high], kind), x=[0.5, 2.0])
    both = [low, high]
    for target, expected in [
        (_sum("events.v"), sum(both)),
        (_sum("events.v * events.v"), sum(v * v for v in both)),
        (_sum("events.v * events.v * events.v * events.v"), sum(v**4 for v in both)),
        (_sum("events.v - 9"), sum(v - 9 for v in both)),
        (_sum("events.v * 100"), sum(v * 100 for v in both)),
        (_sum("0 - -events.v"), sum(both)),
        (_sum("events.v + events.v - 1"), sum(v + v - 1 for v in both)),
        (_sum("events.v / 0.5"), sum(v / 0.5 for v in both)),
        (_sum("events.v * events.x"), low * 0.5 + high * 2.0),
        ("LAST(events.v, 0, 9) - FIRST(events.v, 0, 9)", high - low),
        ("FIRST(events.v, 0, 9) - LAST(events.v, 0, 9)", low - high),
        ("MAX(events.v, 0, 9) * MAX(events.v, 0, 9) * COUNT(events.*, 0, 9)", high * high * 2),
        ("-MIN(events.v, 0, 9)", -low),
        ("AVG(events.v * 2, 0, 9)", low + high),
    ]:
        near = pytest.approx(expected, rel=1e-12, abs=high * 1e-15)  # SUM is of DOUBLE
        assert _value(target, database) == near, target


@pytest.mark.parametrize("kind", _INTEGERS, ids=str)
def test_whole_numbers_stay_exact(kind: pa.DataType, tmp_path: Path) -> None:
    """Also where a DOUBLE cannot tell neighbours apart, as long as 38 digits hold them."""
    high = int(np.iinfo(kind.to_pandas_dtype()).max)
    below = pa.array([high - 1, high - 1], kind)
    database = _database(tmp_path, v=pa.array([high, high - 1], kind), w=below)
    for same in (
        "events.v - 1 = events.w",
        "events.v * 2 - 2 = events.w + events.w",
        "events.v * 1000000 - 1000000 = events.w * 1000000",
    ):
        assert _value(f"COUNT(events.* WHERE {same}, 0, 9)", database) == 1.0, same


@pytest.mark.parametrize(("width", "scale"), [(4, 1), (18, 2), (38, 2), (38, 30), (38, 0)])
def test_decimals(width: int, scale: int, tmp_path: Path) -> None:
    high = Decimal("9" * (width - scale) + ("." + "9" * scale) * (scale > 0))
    tenth = Decimal("0.1") if scale else Decimal(1)
    v = pa.array([high, tenth], pa.decimal128(width, scale))
    database = _database(tmp_path, v=v, n=pa.array([100, 100], pa.int8()))
    for target, expected in [
        ("SUM(events.v * events.v, 0, 9)", high * high + tenth * tenth),
        ("SUM(events.v + events.v, 0, 9)", 2 * (high + tenth)),
        ("SUM(events.v * events.n, 0, 9)", 100 * (high + tenth)),
        ("SUM(-events.v, 0, 9)", -high - tenth),
        ("SUM(events.v / 2, 0, 9)", (high + tenth) / 2),
    ]:
        assert _value(target, database) == pytest.approx(float(expected), rel=1e-9), target


def test_sums_of_decimals_are_exact(tmp_path: Path) -> None:
    price = pa.array([Decimal("0.10"), Decimal("0.20")], pa.decimal128(18, 2))
    tax = pa.array([Decimal("0.20"), Decimal("0.20")], pa.decimal128(6, 3))
    database = _database(tmp_path, price=price, tax=tax)
    same = "COUNT(events.* WHERE events.price + events.tax = 0.3, 0, 9)"
    assert _value(same, database) == 1.0


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_infinite_values_are_missing(kind: pa.DataType, tmp_path: Path) -> None:
    x = pa.array([_INF, 1.0, None, -_INF, _NAN, 3.0, _INF], kind)
    database = _database(tmp_path, x=x)
    for target, expected in [
        ("SUM(events.x, 0, 9)", 4.0),
        ("AVG(events.x, 0, 9)", 2.0),
        ("MAX(events.x, 0, 9)", 3.0),
        ("MIN(events.x, 0, 9)", 1.0),
        ("FIRST(events.x, 0, 9)", 1.0),
        ("LAST(events.x, 0, 9)", 3.0),
        ("COUNT(events.x, 0, 9)", 2.0),
        ("COUNT_DISTINCT(events.x, 0, 9)", 2.0),
        ("COUNT(events.* WHERE events.x IS NULL, 0, 9)", 5.0),
        ("COUNT(events.* WHERE events.x > 2, 0, 9)", 1.0),
        ("SUM(events.x > 2, 0, 9)", 1.0),
        ("SUM(events.x - events.x, 0, 9)", 0.0),
        ("FIRST(events.x, 0, 1)", None),
        ("LIST_DISTINCT(events.x, 0, 9)", [1, 1]),
    ]:
        if kind == pa.float32() and target.startswith("LIST"):
            continue
        if target.startswith("LIST"):
            compiled = compile_text(f"PREDICT {target} FOR EACH people.id", database)
            assert compiled.classes == ("1.0", "3.0")
        assert _value(target, database) == expected, target


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_labels_are_finite(kind: pa.DataType, tmp_path: Path) -> None:
    """What is too large for a DOUBLE is missing; a FLOAT's overflow is none."""
    high = float(np.finfo(kind.to_pandas_dtype()).max)
    database = _database(tmp_path, x=pa.array([high, high], kind))
    large = kind == pa.float64()
    assert _value("SUM(events.x, 0, 9)", database) == (None if large else 2 * high)
    assert _value("SUM(events.x * 10, 0, 9)", database) == (0.0 if large else 20 * high)
    assert _value("MAX(events.x, 0, 9) * 10", database) == (None if large else 10 * high)
    assert _value("MAX(events.x, 0, 9)", database) == high
    assert _value("MAX(events.x, 0, 9) / (MAX(events.x, 0, 9) - MIN(events.x, 0, 9))",
                  database) is None  # fmt: skip
    assert _value("SUM(events.x / (events.x - events.x), 0, 9)", database) == 0.0


def test_infinite_values_of_entities_are_missing(tmp_path: Path) -> None:
    people = pd.DataFrame({"id": range(6), "size": [1.5, _INF, -_INF, _NAN, 2.5, 7.25]})
    database = open_database(
        write_folder(tmp_path / "people", {"people": people}, {"people": {"pkey": "id"}})
    )
    at = seconds("2019-06-01")
    sizes = compile_text("PREDICT people.size FOR EACH people.id", database)
    assert labels(sizes, database, [at]).entity.tolist() == [0, 4, 5]
    missing = compile_text(
        "PREDICT people.size > 2 FOR EACH people.id WHERE people.size IS NULL", database
    )
    assert entities(missing, database, at).row.tolist() == [1, 2, 3]


def test_nested_divisions_do_not_double(tmp_path: Path) -> None:
    """Neither in the SQL nor in what duckdb makes of it; zero at any depth is missing."""
    database = _database(tmp_path, x=[0.5, 0.0, 3.0])
    target, expected = "events.x", [0.5, 3.0]
    for level in range(20):
        target, expected = f"{level + 1} / ({target})", [(level + 1) / x for x in expected]
    found = _value(f"SUM({target}, 0, 9)", database)
    assert found == pytest.approx(sum(expected))
    compiled = compile_text(f"PREDICT SUM({target}, 0, 9) FOR EACH people.id", database)
    shallow = f"PREDICT SUM({'(' * 10}events.x{' / 2)' * 10}, 0, 9) FOR EACH people.id"
    assert len(compiled.sql) < 20 * len(compile_text(shallow, database).sql)
    assert _value("COUNT(events.* WHERE 1 / (1 / (1 / events.x)) > 0, 0, 9)", database) == 2.0
    assert _value("COUNT(events.* WHERE 1 / (1 / (0 * events.x)) IS NULL, 0, 9)", database) == 3.0
