"""Names in words, and what a column is taken for."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rfm.data.schema import check_kind, infer_kind, read_overrides, to_seconds, words


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("driverStandingsId", "driver standings id"),
        ("did_not_finish", "did not finish"),
        ("HTTPServer2", "http server 2"),
        ("x2_b", "x 2 b"),
        ("w_1stIn", "w 1st in"),
        ("Order Date (UTC)", "order date utc"),
        ("db.schema.table", "db schema table"),
        ("  Name  ", "name"),
        ("ID", "id"),
        ("straßenName", "straßen name"),
        ("ÉtatCivil", "état civil"),
        ("E\u0301tat", "état"),
        ("имяКлиента", "имя клиента"),
        ("商品名", "商品名"),
        ("नाम", "नाम"),
        ("2024", "2024"),
        ("___", "___"),
        ("%", "%"),
    ],
)
def test_words(name: str, expected: str) -> None:
    assert words(name) == expected


def infer(values: list[Any], type_: pa.DataType | None = None) -> str:
    return infer_kind(pa.chunked_array([pa.array(values, type_)]), "t.c")


names = [f"name {i}" for i in range(60)]


@pytest.mark.parametrize(
    ("values", "type_", "kind"),
    [
        ([True, None], None, "boolean"),
        ([0, 1, None], None, "boolean"),
        ([0.0, 1.0, float("nan"), None], None, "boolean"),
        ([0] * 2000 + [1], None, "boolean"),
        ([0, 1] * 600 + [2], None, "number"),
        ([1, 1], None, "number"),
        ([0, 1, 2], None, "number"),
        ([0, 1, 0.5], None, "number"),
        ([None, None], pa.float64(), "number"),
        ([Decimal("1.50")], None, "number"),
        ([date(2020, 1, 1)], None, "datetime"),
        ([datetime(2020, 1, 1, tzinfo=timezone.utc)], None, "datetime"),
        (["2020-01-01", None, "2020-02-01 10:00:00.5+02:00"], None, "datetime"),
        (["2020-01-01"] * 99 + ["unknown"], None, "datetime"),
        (["2020-01-01"] * 98 + ["unknown"] * 2, None, "category"),
        (["2020-13-45"] * 9, None, "category"),
        (["2020", "2021"] * 9, None, "category"),
        (["10:30:00"] * 9, None, "category"),
        (["Yes", "no"], None, "boolean"),
        (["Y", "N", None], None, "boolean"),
        (["0", "1"], None, "boolean"),
        (["False", "False"], None, "boolean"),
        (["Y", "Y", None], None, "category"),
        (["a", "b"] * 10, None, "category"),
        (names, None, "text"),
        (names * 20, None, "category"),
        ([f"{'long ' * 20}{i % 3}" for i in range(30)], None, "text"),
        ([str(i % 1200) for i in range(200_000)], None, "text"),
        (["only"], None, "text"),
        ([None], pa.string(), "text"),
        ([None], pa.null(), "text"),
        ([["a"], ["b"]], None, "text"),
        ([{"a": 1}], None, "text"),
        ([time(10, 30)], None, "text"),
        ([timedelta(days=1)], None, "text"),
        (["a", "b"] * 10, pa.dictionary(pa.int8(), pa.string()), "category"),
        (["a", "b"] * 10, pa.large_string(), "category"),
        (["a", "b"] * 10, pa.string_view(), "category"),
    ],
)
def test_infer_kind(values: list[Any], type_: pa.DataType | None, kind: str) -> None:
    assert infer(values, type_) == kind


def test_binary_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"t\.c: columns of type binary .* drop it, or convert"):
        infer([b"\x00"])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_seconds_of_any_unit_and_zone(unit: str) -> None:
    moments = [datetime(2020, 1, 1, 12), datetime(1871, 5, 4), None]
    expected = [1577880000, -3113510400, -(2**63)]
    naive = pa.array(moments, pa.timestamp(unit))
    assert to_seconds(naive).tolist() == expected
    zoned = naive.cast(pa.timestamp(unit, tz="UTC")).cast(pa.timestamp(unit, tz="Asia/Tokyo"))
    assert to_seconds(pa.chunked_array([zoned])).tolist() == expected


def test_seconds_of_dates_and_texts() -> None:
    assert to_seconds(pa.array([date(1969, 12, 31), None])).tolist() == [-86400, -(2**63)]
    assert to_seconds(pa.array([date(1970, 1, 2)], pa.date64())).tolist() == [86400]
    texts = ["1970-01-01T02:00:00+02:00", "1970-01-02", "soon", None, "1969-12-31 23:59:59.5"]
    assert to_seconds(pa.array(texts)).tolist() == [0, 86400, -(2**63), -(2**63), -1]
    assert to_seconds(pa.nulls(2)).tolist() == [-(2**63)] * 2


@pytest.mark.parametrize(
    ("values", "kind", "example"),
    [
        (["1", "2.5e3", "many"], "number", "'many'"),
        (["1", "nan"], "number", "'nan'"),
        (["yes", "perhaps"], "boolean", "'perhaps'"),
        ([0, 1, 7], "boolean", "7"),
        (["2020-01-01", "soon"], "datetime", "'soon'"),
        ([1577880000], "datetime", "int64"),
        ([date(2020, 1, 1)], "number", "date32"),
        ([["a"]], "number", "list"),
    ],
)
def test_impossible_kinds_are_refused_with_an_example(
    values: list[Any], kind: Any, example: str
) -> None:
    with pytest.raises(
        ValueError, match=rf"t\.c: cannot be of kind '{kind}', it holds .*{example}"
    ):
        check_kind(pa.chunked_array([values]), kind, "t.c")


def test_possible_kinds_pass() -> None:
    for values, kinds in [
        (["1", "0", None], ["number", "boolean", "category", "text"]),
        ([1, 0, None], ["number", "boolean", "category", "text"]),
        ([True], ["boolean", "number", "text"]),
        (["2020-01-01", None], ["datetime", "text"]),
    ]:
        for kind in kinds:
            check_kind(pa.chunked_array([values]), kind, "t.c")


def test_read_overrides(tmp_path: Path) -> None:
    assert read_overrides(None) == {}
    file = tmp_path / "kinds.yaml"
    file.write_text("items: {type: text}")
    assert read_overrides(file) == {"items": {"type": "text"}}
    with pytest.raises(ValueError, match="unknown kind 'numbr'; did you mean 'number'"):
        read_overrides({"a": {"b": "numbr"}})
    with pytest.raises(ValueError, match="unknown kind 'key'"):
        read_overrides({"a": {"b": "key"}})
    for bad in ["a: [1]", "- 1", "a"]:
        file.write_text(bad)
        with pytest.raises(ValueError, match="wanted"):
            read_overrides(file)
    with pytest.raises(ValueError, match="cannot read the kinds"):
        read_overrides(tmp_path / "none.yaml")
