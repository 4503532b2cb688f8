"""Preparing a database: what the store holds (when it is written: test_prepare_files)."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.data import prepare as prepare_module
from rfm.data.column_stats import MAX_Z
from rfm.data.prepare import MAX_CELL_CHARS, MAX_CELL_TOKENS
from rfm.data.tokenizer import Tokenizer
from tests.shop import Shop, prepare_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return prepare_shop(tmp_path_factory.mktemp("shop"))


def one_table(folder: Path, columns: dict[str, Any], **more: Any) -> Shop:
    """A database of one table ``t`` without keys."""
    return prepare_shop(folder, {"t": pd.DataFrame(columns)}, {}, **more)


def days(times: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    seconds = pd.Series(times).astype("datetime64[s]").astype("int64")
    return np.asarray(seconds / 86_400, dtype=np.float64)


# What the store holds.


@pytest.mark.parametrize(
    ("table", "column"),
    [("orders", "amount"), ("products", "price"), ("reviews", "stars")],
)
def test_numbers_come_back(shop: Shop, table: str, column: str) -> None:
    expected = shop.tables[table][column].astype(float).to_numpy()
    stored = shop.values(table, column)
    assert np.array_equal(np.isnan(stored), np.isnan(expected))
    scale = shop.column(table, column).stats.scale
    assert np.nanmax(np.abs(stored - expected)) < 1e-6 * scale * 10


def test_booleans_and_datetimes_come_back(shop: Shop) -> None:
    paid = shop.values("orders", "paid")
    assert np.allclose(paid, shop.tables["orders"]["paid"], atol=1e-6)
    for column in ("at", "due"):
        difference = shop.values("orders", column) - days(shop.tables["orders"][column])
        assert np.abs(difference).max() < 1e-4  # days


@pytest.mark.parametrize(
    ("table", "column"),
    [("orders", "note"), ("orders", "status"), ("customers", "name"), ("reviews", "body")],
)
def test_texts_come_back(shop: Shop, table: str, column: str) -> None:
    assert shop.texts(table, column) == shop.tables[table][column].fillna("").tolist()


def test_keys_are_no_cells_and_the_time_column_is_marked(shop: Shop) -> None:
    names = [c.name for c in shop.table("orders").columns]
    assert names == ["at", "note", "amount", "paid", "due", "status"]
    assert shop.table("orders").is_time.tolist() == [True, *[False] * 5]
    assert shop.table("orders").is_value.tolist() == [True, False, True, True, True, False]


def test_words_of_tables_columns_and_foreign_keys(shop: Shop) -> None:
    decode = shop.tokenizer.decode
    assert decode(shop.table("orders").name_tokens) == "orders"
    assert decode(shop.column("orders", "amount").name_tokens) == "amount"
    keys = [k.column for k in shop.store.graph.foreign_keys]
    spoken = [decode(tokens) for tokens in shop.store.relation_tokens]
    assert spoken == [key.replace("_", " ") for key in keys]
    assert "best review" in spoken


def test_each_distinct_text_of_a_table_is_tokenised_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: Counter[str] = Counter()
    encode = Tokenizer.encode

    def count(self: Tokenizer, texts: list[str]) -> list[list[int]]:
        encoded.update(texts)
        return encode(self, texts)

    monkeypatch.setattr(Tokenizer, "encode", count)
    monkeypatch.setattr(prepare_module, "_TOKENISE_BATCH", 7)
    batches = prepare_module.Database.batches
    monkeypatch.setattr(  # several record batches: a text may come back in a later one
        prepare_module.Database, "batches", lambda self, t, c: batches(self, t, c, rows=16)
    )
    values = [f"text {i % 10}" for i in range(100)]
    shop = one_table(tmp_path, {"a": values, "b": list(reversed(values))})
    assert encoded == {"t": 1, "a": 1, "b": 1, **{f"text {i}": 1 for i in range(10)}}
    assert shop.texts("t", "a") == values
    assert shop.texts("t", "b") == values[::-1]


def test_null_and_blank_texts_are_null(tmp_path: Path) -> None:
    given = ["a", None, "", "   ", "\t\n", " b \n c ", "a"]
    shop = one_table(tmp_path, {"x": given, "only": [None] * 7})
    assert shop.texts("t", "x") == ["a", "", "", "", "", "b c", "a"]
    cells = shop.table("t").cells
    assert cells[:, 0].tolist() == [0, -1, -1, -1, -1, 1, 0]
    assert (cells[:, 1] == -1).all()


def test_extreme_numbers(tmp_path: Path) -> None:
    ordinary = np.linspace(-1, 1, 50)
    given = np.concatenate([ordinary, [np.nan, np.inf, -np.inf, 1e300, -1e300]])
    shop = one_table(tmp_path, {"x": given})
    stored, stats = shop.values("t", "x"), shop.column("t", "x").stats
    assert np.isnan(stored[50])
    assert np.allclose(stored[:50], ordinary, atol=1e-6)
    cells = shop.table("t").values(np.arange(55), 0)
    assert cells[51:].tolist() == [MAX_Z, -MAX_Z, MAX_Z, -MAX_Z]
    assert np.isfinite(stats.knot_z).all()
    assert np.isfinite([stats.center, stats.scale]).all()


def test_huge_integers(tmp_path: Path) -> None:
    biggest = np.iinfo(np.int64).max
    shop = one_table(tmp_path, {"x": [biggest, -biggest, 0, 1, 10**18], "y": [biggest] * 5})
    assert np.allclose(shop.values("t", "x") / biggest, [1, -1, 0, 0, 10**18 / biggest], atol=1e-5)
    assert np.allclose(shop.values("t", "y") / biggest, 1)


def test_a_megabyte_in_one_cell_is_cut(tmp_path: Path) -> None:
    text = "word é " * 150_000
    shop = one_table(tmp_path, {"x": [text, "short", text]})
    cells = shop.table("t")
    assert len(cells.text(0, 0)) == MAX_CELL_TOKENS
    assert text.startswith(shop.tokenizer.decode(cells.text(0, 0).tolist())[:-1])
    assert cells.cells[0, 0] == cells.cells[2, 0]
    assert shop.texts("t", "x")[1] == "short"
    assert cells.text_tokens.size < MAX_CELL_TOKENS + MAX_CELL_CHARS


def test_booleans_of_every_spelling(tmp_path: Path) -> None:
    shop = one_table(
        tmp_path,
        {
            "plain": [True, False, True],
            "nullable": pd.array([True, None, False], dtype="boolean"),
            "digits": [0, 1, 1],
            "words": ["Yes", "No", None],
        },
    )
    kinds = shop.database.kinds["t"]
    assert set(kinds.values()) == {"boolean"}
    for column, expected in [
        ("plain", [1, 0, 1]),
        ("nullable", [1, np.nan, 0]),
        ("digits", [0, 1, 1]),
        ("words", [1, 0, np.nan]),
    ]:
        stored = shop.values("t", column)
        assert np.allclose(stored, expected, atol=1e-6, equal_nan=True), column


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_of_any_unit_and_zone(tmp_path: Path, unit: str) -> None:
    local = pd.Series(pd.date_range("2019-03-01 09:30", periods=6, freq="37h", tz="Asia/Tokyo"))
    shop = one_table(
        tmp_path,
        {
            "zoned": local.dt.as_unit(unit),
            "plain": local.dt.tz_convert(None).dt.as_unit(unit),
            "missing": local.dt.as_unit(unit).where([True, True, False, True, True, True]),
        },
    )
    expected = days(local.dt.tz_convert(None))
    assert np.allclose(shop.values("t", "zoned"), expected, atol=1e-5)
    assert np.allclose(shop.values("t", "plain"), expected, atol=1e-5)
    assert np.flatnonzero(np.isnan(shop.values("t", "missing"))).tolist() == [2]


def test_row_times_are_unix_seconds(shop: Shop) -> None:
    graph = shop.store.graph
    t = graph.tables.index("orders")
    times = graph.row_time[graph.table_start[t] : graph.table_start[t + 1]]
    expected = [int(x.timestamp()) for x in shop.tables["orders"]["at"]]
    assert times.tolist() == expected


def test_text_serialisation_spells_everything_out(tmp_path: Path) -> None:
    shop = one_table(
        tmp_path,
        {
            "number": [1234567.891, 0.5, np.nan],
            "whole": [10**15, 7, -3],
            "flag": [True, False, True],
            "when": [datetime(2019, 1, 2), datetime(2019, 1, 2, 3, 4), None],
            "name": ["a", "b", None],
        },
        serialisation="text",
    )
    assert not shop.table("t").is_value.any()
    assert shop.texts("t", "number") == ["1.23457e+06", "0.5", ""]
    assert shop.texts("t", "whole") == [str(10**15), "7", "-3"]
    assert [t.lower() for t in shop.texts("t", "flag")] == ["true", "false", "true"]
    when = shop.texts("t", "when")
    assert when[0] == "2019-01-02"
    assert when[1].startswith("2019-01-02 03:04")
    assert when[2] == ""
    assert shop.texts("t", "name") == ["a", "b", ""]


# Shapes that databases come in.


def test_a_bridge_of_keys_alone(shop: Shop) -> None:
    bridge = shop.table("items")
    assert (bridge.columns, bridge.cells.shape) == ((), (120, 0))
    f = [k.column for k in shop.store.graph.foreign_keys].index("order")
    key = shop.store.graph.foreign_keys[f]
    assert shop.store.graph.tables[key.child] == "items"
    start = shop.store.graph.parent_start[f]
    parents = shop.store.graph.parent[start : start + 120]
    assert (parents - shop.row("orders", 0)).tolist() == shop.tables["items"]["order"].tolist()


def test_self_references_and_cycles(shop: Shop) -> None:
    graph = shop.store.graph
    pairs = {(graph.tables[k.child], graph.tables[k.parent]) for k in graph.foreign_keys}
    assert {("customers", "customers"), ("reviews", "reviews")} <= pairs
    assert {("orders", "reviews"), ("reviews", "orders")} <= pairs


def test_five_hundred_columns(tmp_path: Path) -> None:
    columns = {f"column {i}": [i, i + 0.5, np.nan] for i in range(500)}
    shop = one_table(tmp_path, columns)
    assert shop.table("t").cells.shape == (3, 500)
    assert np.allclose(shop.values("t", "column 499")[:2], [499, 499.5])


def test_unusual_names(tmp_path: Path) -> None:
    tables = {
        "items": pd.DataFrame({"type": [0, 1], "größe [cm]": ["x", "y"], "items": [1.5, 2.5]}),
        "my table.v2": pd.DataFrame({"a.b": [1, 0], "a": ["p", "q"], "表": ["值", "värde"]}),
    }
    keys = {"items": {"pkey": "type"}, "my table.v2": {"fkeys": {"a.b": "items"}}}
    shop = prepare_shop(tmp_path, tables, keys)
    assert shop.store.graph.tables == ("items", "my table.v2")
    assert np.allclose(shop.values("items", "items"), [1.5, 2.5])
    assert shop.texts("items", "größe [cm]") == ["x", "y"]
    assert shop.texts("my table.v2", "表") == ["值", "värde"]
    assert shop.tokenizer.decode(shop.store.relation_tokens[0]) == "a b"
