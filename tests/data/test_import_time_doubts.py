"""What an import says of times that may be others than it takes them for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.imports import DAYS, SHOP, imported, inherited, shop_rows

DATED = """
CREATE TABLE dim_date (date_key INTEGER PRIMARY KEY, full_date DATE, year INTEGER);
CREATE TABLE sales (id INTEGER PRIMARY KEY, ordered_key INTEGER NOT NULL REFERENCES dim_date,
    shipped_key INTEGER NOT NULL REFERENCES dim_date, n INTEGER);
"""


@pytest.mark.parametrize("unknown", [None, "9999-12-31", "1900-01-01"])
def test_a_calendar_with_an_unknown_day_is_one(tmp_path: Path, unknown: str | None) -> None:
    """Its years to come do not move the splits, and sales have the first of their days."""
    days = [str(d.date()) for d in pd.date_range("2020-01-01", periods=3000)]
    rows = {
        "dim_date": [(-1, unknown, 0), *((i, day, 2020) for i, day in enumerate(days))],
        "sales": [(i, i, i + 5 if i % 9 else -1, i) for i in range(100)],
    }
    done = imported(tmp_path, DATED, rows)
    assert inherited(done) == {"sales": ["dim_date"]}
    assert done.splits == (days[79], days[89])


def test_the_time_of_another_row_of_the_same_table(tmp_path: Path) -> None:
    made = """CREATE TABLE notes (id INTEGER PRIMARY KEY, first_id INTEGER REFERENCES notes,
        made_at TIMESTAMP)"""
    rows = {"notes": [(i, max(i - 1, 0), DAYS[i]) for i in range(30)]}
    said = {"notes": {"time_col": "first_id.made_at"}}
    assert (
        "given: of notes by first_id"
        in imported(tmp_path, made, rows, said, dry_run=True).plan_text
    )


def test_the_parent_that_is_said_is_the_one_that_happens(tmp_path: Path) -> None:
    """Whatever order keys are declared in, and not the last of something."""
    made = """
    CREATE TABLE drugs (id INTEGER PRIMARY KEY, approved_on TIMESTAMP);
    CREATE TABLE stays (id INTEGER PRIMARY KEY, admitted_at TIMESTAMP);
    CREATE TABLE views (id INTEGER PRIMARY KEY, seen_at TIMESTAMP);
    CREATE TABLE scripts (id INTEGER PRIMARY KEY, drug_id INTEGER NOT NULL,
        stay_id INTEGER NOT NULL, last_view_id INTEGER NOT NULL,
        FOREIGN KEY ({}) REFERENCES {}, FOREIGN KEY ({}) REFERENCES {},
        FOREIGN KEY (last_view_id) REFERENCES views);
    CREATE TABLE doses (id INTEGER PRIMARY KEY, script_id INTEGER NOT NULL REFERENCES scripts,
        given_at TIMESTAMP);
    """
    rows = {
        "drugs": [(i, DAYS[i]) for i in range(5)],
        "stays": [(i, DAYS[i]) for i in range(20)],
        "views": [(i, DAYS[i]) for i in range(30)],
        "scripts": [(i, i % 5, i % 20, i) for i in range(30)],
        "doses": [(i, i, DAYS[i]) for i in range(30)],
    }
    for i, (a, b) in enumerate([("drug", "stay"), ("stay", "drug")]):
        text = made.format(f"{a}_id", f"{a}s", f"{b}_id", f"{b}s")
        (warning,) = imported(tmp_path / str(i), text, rows, dry_run=True).warnings
        assert "`scripts: {time_col: stay_id.admitted_at}`" in warning


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("TEXT", [f"{i + 1:02d}.01.2020" for i in range(30)], "'01.01.2020' is not read as a time"),
        ("INTEGER", [20200101 + i for i in range(30)], "20200101 is not read as a time"),
        ("TIMESTAMP", [None] * 10 + DAYS[10:], "10 of 30 rows have none; if it is, say `orders: {"),
    ],
)
def test_a_column_that_may_be_the_time(
    tmp_path: Path, kind: str, values: list[Any], said: str
) -> None:
    """Though the orders are given their customer's time, which then is hardly theirs."""
    made = f"""
    CREATE TABLE customers (id INTEGER PRIMARY KEY, created_at TIMESTAMP);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
        order_date {kind}, due_date TEXT);
    """
    rows = {
        "customers": [(i, DAYS[i]) for i in range(30)],
        "orders": [(i, i, value, "soon") for i, value in enumerate(values)],
    }
    done = imported(tmp_path, made, rows, dry_run=True)
    assert inherited(done) == {"orders": ["customers"]}
    (warning,) = done.warnings
    assert warning.startswith("orders.order_date: is not taken as the time of orders")
    assert said in warning
    known = {"orders": {"time_col": None}}
    assert not imported(tmp_path / "said", made, rows, known, dry_run=True).warnings


def test_a_database_without_times(tmp_path: Path) -> None:
    rows = shop_rows()
    rows["orders"] = [(key, customer, None) for key, customer, _ in rows["orders"]]
    said = "no table has times: all rows are visible at any time, none can be forecast"
    assert said in imported(tmp_path / "a", SHOP, rows, dry_run=True).plan_text
    assert said not in imported(tmp_path / "b", SHOP, shop_rows(), dry_run=True).plan_text
