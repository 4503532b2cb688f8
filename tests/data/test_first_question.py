"""The question that a database is asked first, and the commands that ask it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
import pytest

from rfm.data.database import Database, open_database
from rfm.data.describe import describe
from rfm.data.first_question import first_question, next_steps
from rfm.data.query import compile_text
from tests.folders import write_folder


def shop(folder: Path, days: int, orders: str = "orders") -> Database:
    tables = {
        "customers": pd.DataFrame({"id": range(3), "name": ["ann", "bob", "cy"]}),
        "sessions": pd.DataFrame(
            {"id": range(40), "at": pd.date_range("2020-01-01", periods=40, freq="D")}
        ),
        orders: pd.DataFrame(
            {
                "customer": [i % 3 for i in range(20)],
                "session": range(20),
                "at": pd.to_datetime("2020-01-01")
                + pd.to_timedelta([days * i / 19 for i in range(20)], unit="D"),
            }
        ),
    }
    keys = {
        "customers": {"pkey": "id"},
        "sessions": {"pkey": "id", "time_col": "at"},
        orders: {"time_col": "at", "fkeys": {"session": "sessions", "customer": "customers"}},
    }
    return open_database(write_folder(folder, tables, keys, "2020-01-02", "2020-01-03"))


@pytest.mark.parametrize(
    ("days", "window"), [(1000, "30, days"), (100, "7, days"), (20, "1, days"), (2, "1, hours")]
)
def test_it_asks_about_things_in_windows_that_fit(days: int, window: str, tmp_path: Path) -> None:
    database = shop(tmp_path / "shop", days)
    asked = f"PREDICT COUNT(orders.*, 0, {window}) > 0 FOR EACH customers.id"
    assert first_question(database) == asked
    compile_text(asked, database)


def test_it_has_both_answers_where_any_has(tmp_path: Path) -> None:
    """Every product is sold in every window, of customers some buy."""
    days = pd.to_datetime("2020-01-01") + pd.to_timedelta(range(400), unit="D")
    tables = {
        "products": pd.DataFrame({"id": range(2)}),
        "customers": pd.DataFrame({"id": range(50)}),
        "lines": pd.DataFrame({"product": [i % 2 for i in range(800)], "at": days.repeat(2)}),
        "orders": pd.DataFrame({"customer": [i % 50 for i in range(400)], "at": days}),
    }
    keys = {
        "products": {"pkey": "id"},
        "customers": {"pkey": "id"},
        "lines": {"time_col": "at", "fkeys": {"product": "products"}},
        "orders": {"time_col": "at", "fkeys": {"customer": "customers"}},
    }
    folder = write_folder(tmp_path / "shop", tables, keys, "2020-06-01", "2020-09-01")
    asked = "PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id"
    assert first_question(open_database(folder)) == asked


def test_names_are_quoted_for_the_language_and_for_the_shell(tmp_path: Path) -> None:
    database = shop(tmp_path / "Ann's shop", 1000, 'the "orders"')
    command = next_steps(database).splitlines()[-1]
    words = shlex.split(command)
    assert words[:2] == ["rfm", "predict"]
    assert f"database={database.folder}" in words
    assert compile_text(words[2], database).entity_table == "customers"


def test_without_times_there_is_nothing_to_ask(tmp_path: Path) -> None:
    tables = {"towns": pd.DataFrame({"id": [0, 1], "name": ["Aa", "Bb"]})}
    keys = {"towns": {"pkey": "id"}}
    database = open_database(write_folder(tmp_path / "map", tables, keys, "2020", "2021"))
    assert first_question(database) == ""
    assert "nothing to foretell" in next_steps(database)


def test_it_is_said_of_which_rows_a_description_counts(tmp_path: Path) -> None:
    text = describe(shop(tmp_path / "shop", 1000))
    assert "sessions: 40 rows, time column at; null and distinct of 2 rows up to 2020-01-02" in text
    assert "customers: 3 rows, no time column\n" in text
