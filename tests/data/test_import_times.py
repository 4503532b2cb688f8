"""When rows happened, where their table does not say it plainly: by their parents' times, in texts
that are not all times, beside dates that stand for never, in keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.import_media import write_sqlite
from rfm.data.database import open_database
from rfm.data.import_sql import ImportConfig, import_database
from rfm.data.query import compile_text, labels
from tests.imports import DAYS, SHOP, column, imported, inherited, shop_rows, source


def test_lines_and_their_details_have_the_time_of_their_order(tmp_path: Path) -> None:
    rows = shop_rows()
    done = imported(tmp_path, SHOP, rows)
    assert inherited(done) == {"lines": ["orders"], "details": ["lines"]}
    assert not done.warnings
    ordered = {key: pd.Timestamp(day) for key, _, day in rows["orders"]}
    wanted = [ordered[order] for _, order, *_ in rows["lines"]]
    assert column(done, "lines", "ordered_at") == wanted
    assert column(done, "details", "ordered_at") == [
        wanted[line - 1] for line, _ in rows["details"]
    ]
    assert "time column: ordered_at: inherited: of orders by order_id" in done.plan_text
    decided = yaml.safe_load((tmp_path / "out" / "import.yaml").read_text())
    assert decided["tables"]["details"]["time_col"]["column"] == "ordered_at"
    assert decided["tables"]["details"]["time_col"]["reason"] == "inherited: of lines by line_id"
    tables = done.database.tables if done.database else {}
    assert tables["products"].time_column is None
    assert tables["customers"].time_column is None


def test_without_inherited_times_tables_are_as_they_are(tmp_path: Path) -> None:
    done = imported(tmp_path, SHOP, shop_rows(), inherit_times=False)
    assert not inherited(done)
    (warning,) = done.warnings
    assert "`lines: {time_col: order_id.ordered_at}`" in warning
    assert done.database is not None
    assert done.database.tables["lines"].time_column is None


def test_entities_stay_without_a_time(tmp_path: Path) -> None:
    made = """
    CREATE TABLE staff (id INTEGER PRIMARY KEY, created_at TIMESTAMP);
    CREATE TABLE customers (id INTEGER PRIMARY KEY, staff_id INTEGER NOT NULL REFERENCES staff);
    CREATE TABLE products (id INTEGER PRIMARY KEY, staff_id INTEGER NOT NULL REFERENCES staff);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
        ordered_at TIMESTAMP);
    CREATE TABLE lines (order_id INTEGER NOT NULL REFERENCES orders,
        product_id INTEGER NOT NULL REFERENCES products);
    CREATE TABLE parts (line_id INTEGER, product_id INTEGER NOT NULL REFERENCES products);
    CREATE TABLE notes (id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders);
    CREATE TABLE pins (id INTEGER PRIMARY KEY, last_order_id INTEGER NOT NULL REFERENCES orders);
    """
    rows = {
        "staff": [(i + 1, DAYS[i]) for i in range(20)],
        "customers": [(i, i) for i in range(1, 10)],
        "products": [(i, i) for i in range(1, 10)],
        "orders": [(i, i % 9 + 1, DAYS[i]) for i in range(30)],
        "lines": [(i % 30, i % 9 + 1) for i in range(60)],
        "parts": [(i, i % 9 + 1) for i in range(40)],
        "notes": [(i, i if i < 20 else None) for i in range(30)],
        "pins": [(i, i) for i in range(30)],
    }
    done = imported(tmp_path, made, rows)
    assert inherited(done) == {"lines": ["orders"]}
    untimed = {w.split(":")[0] for w in done.warnings if "has no time of its own" in w}
    assert untimed == {"customers", "products", "notes", "pins"}


def test_the_latest_of_several_parents(tmp_path: Path) -> None:
    made = """
    CREATE TABLE users (id INTEGER PRIMARY KEY, joined_at TIMESTAMP);
    CREATE TABLE posts (id INTEGER PRIMARY KEY, posted_at TIMESTAMP);
    CREATE TABLE likes (user_id INTEGER NOT NULL REFERENCES users,
        post_id INTEGER NOT NULL REFERENCES posts, posted_at TEXT);
    """
    rows = {
        "users": [(i, DAYS[i]) for i in range(30)],
        "posts": [(i, DAYS[29 - i]) for i in range(30)],
        "likes": [(i, i, "so") for i in range(30)],
    }
    done = imported(tmp_path, made, rows)
    wanted = [pd.Timestamp(max(DAYS[i], DAYS[29 - i])) for i in range(30)]
    assert done.plan.tables["likes"].time_name == "joined_at"
    assert column(done, "likes", "joined_at") == wanted
    assert done.plan.tables["likes"].time.reason == (
        "inherited: the latest of users by user_id and posts by post_id"
    )
    other = imported(tmp_path / "b", made, rows, {"likes": {"time_col": "post_id.posted_at"}})
    assert other.plan.tables["likes"].time_name == "posted_at_2"  # there is one of that name
    assert column(other, "likes", "posted_at_2") == [pd.Timestamp(DAYS[29 - i]) for i in range(30)]


def test_rows_whose_parent_is_missing_are_never_early(tmp_path: Path) -> None:
    rows = shop_rows()
    rows["orders"][3] = (*rows["orders"][3][:2], None)
    rows["lines"][0] = (1, 77, 1, 0)
    done = imported(tmp_path, SHOP, rows)
    times = column(done, "lines", "ordered_at")
    assert times[0] == times[6] == times[7] == max(times) == pd.Timestamp(DAYS[-1])
    assert "lines.ordered_at: 3 of 60 rows have no time" in " ".join(done.warnings)
    decided = yaml.safe_load((tmp_path / "out" / "import.yaml").read_text())
    assert decided["tables"]["lines"]["time_col"]["rows_without"] == 3
    shown = imported(tmp_path / "dry", SHOP, rows, dry_run=True)
    assert "lines.ordered_at: 3 of 60 rows have no time" in " ".join(shown.warnings)
    lost = {"where": {"orders": "id > 690"}}  # no line's order is there
    rows["lines"] = [(i, 697 - 7 * (i % 3 + 1), 1, 1) for i in range(9)]
    none = imported(tmp_path / "none", SHOP, rows | {"details": [(1, "x")]}, **lost)
    assert set(column(none, "lines", "ordered_at")) == {pd.Timestamp(DAYS[-1])}


def test_composite_foreign_keys_and_parts_of_keys(tmp_path: Path) -> None:
    made = """
    CREATE TABLE orders (shop TEXT, no INTEGER, ordered_at TIMESTAMP, sent_at TIMESTAMP,
        PRIMARY KEY (shop, no));
    CREATE TABLE lines (shop TEXT, no INTEGER, line INTEGER, PRIMARY KEY (shop, no, line),
        FOREIGN KEY (shop, no) REFERENCES orders (shop, no));
    CREATE TABLE returns (shop TEXT, no INTEGER, line INTEGER, returned_at TIMESTAMP,
        FOREIGN KEY (shop, no, line) REFERENCES lines (shop, no, line));
    """
    orders = [("ab"[i % 2], i // 2, DAYS[i], DAYS[29 - i]) for i in range(20)]
    lines = [(shop, no, line) for shop, no, *_ in orders for line in (1, 2)]
    rows = {
        "orders": orders,
        "lines": lines,
        "returns": [(*line, "2021-01-01 00:00:00") for line in lines[::3]],
    }
    rows["returns"][0] = (*lines[0], "2021-02-01 00:00:00")
    ordered = {(shop, no): pd.Timestamp(day) for shop, no, day, _ in orders}
    done = imported(tmp_path, made, rows)
    assert inherited(done) == {"lines": ["orders"]}  # though returns point at them
    wanted = [ordered[shop, no] for shop, no, _ in sorted(lines)]
    assert column(done, "lines", "ordered_at") == wanted
    said = {"lines": {"time_col": "orders_key.sent_at"}}
    sent = {(shop, no): pd.Timestamp(day) for shop, no, _, day in orders}
    done = imported(tmp_path / "b", made, rows, said)
    assert column(done, "lines", "sent_at") == [sent[shop, no] for shop, no, _ in sorted(lines)]
    assert "time column: sent_at: given: of orders by orders_key" in done.plan_text
    done = imported(tmp_path / "c", made, rows, {"lines": {"time_col": None}})
    assert not inherited(done)
    assert not done.warnings  # it was said


def test_cycles_and_rows_that_point_at_each_other(tmp_path: Path) -> None:
    made = """
    CREATE TABLE events (id INTEGER PRIMARY KEY, happened_at TIMESTAMP);
    CREATE TABLE a (id INTEGER PRIMARY KEY, event_id INTEGER NOT NULL REFERENCES events,
        a_id INTEGER NOT NULL REFERENCES a, b_id INTEGER NOT NULL REFERENCES b);
    CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INTEGER NOT NULL REFERENCES a);
    CREATE TABLE x (id INTEGER PRIMARY KEY, y_id INTEGER NOT NULL REFERENCES y);
    CREATE TABLE y (id INTEGER PRIMARY KEY, x_id INTEGER NOT NULL REFERENCES x);
    """
    rows = {
        "events": [(i, DAYS[i]) for i in range(30)],
        "a": [(i, i, 29 - i, i) for i in range(30)],
        "b": [(i, i) for i in range(30)],
        "x": [(i, i) for i in range(30)],
        "y": [(i, i) for i in range(30)],
    }
    done = imported(tmp_path, made, rows)
    assert inherited(done) == {"a": ["events"], "b": ["a"]}
    assert column(done, "b", "happened_at") == [pd.Timestamp(day) for day in DAYS]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"lines": {"time_col": "orderid.ordered_at"}}, "did you mean 'order_id'"),
        ({"lines": {"time_col": "order_id.ordered"}}, "did you mean 'ordered_at'"),
        ({"lines": {"time_col": "product_id.price"}}, "products has no times"),
        ({"customers": {"time_col": "city.at"}}, "it has no foreign key"),
        ({"lines": {"time_col": "ordered_at"}}, "no column lines.ordered_at"),
    ],
)
def test_given_times_that_no_parent_has(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imported(tmp_path, SHOP, shop_rows(), said)


def test_days_of_a_calendar(tmp_path: Path) -> None:
    """A date that is a key is the time, too; sales have the time of their day, of the first of two;
    a calendar that goes on for years says nothing of when things happened."""
    made = """
    CREATE TABLE days (day DATE PRIMARY KEY, is_holiday BOOLEAN);
    CREATE TABLE sales (id INTEGER PRIMARY KEY, day DATE NOT NULL REFERENCES days,
        paid_day DATE NOT NULL REFERENCES days, due_day DATE NOT NULL REFERENCES days, n INTEGER);
    """
    days = [str(d.date()) for d in pd.date_range("2020-01-01", periods=3000)]
    sales = [(i, days[i], days[i + 5], days[i + 9], i) for i in range(100)]
    rows = {"days": [(day, 0) for day in days], "sales": sales}
    done = imported(tmp_path, made, rows)
    assert done.database is not None
    table = done.database.tables["days"]
    assert (table.primary_key, table.time_column) == ("days_key", "day")
    assert column(done, "days", "days_key") == list(range(3000))
    assert column(done, "sales", "day") == list(range(100))
    assert column(done, "sales", "day_2") == [pd.Timestamp(day) for day in days[:100]]
    assert done.splits == (days[79], days[89])
    keys = pq.read_table(tmp_path / "out" / "keys" / "days.parquet")
    assert keys["day"].to_pylist()[:2] == [pd.Timestamp(day) for day in days[:2]]
    assert "days.day -> " not in done.plan_text
    assert "time_col: null if its rows are known in advance" in done.plan_text
    done = imported(tmp_path / "b", made, rows, {"days": {"time_col": None}})
    assert done.database is not None
    table = done.database.tables["days"]
    assert (table.primary_key, table.time_column) == ("day", None)


ODD = "CREATE TABLE events (id INTEGER PRIMARY KEY, happened_at {}, total {})"


def odd_rows(times: Mapping[int, Any], totals: Mapping[int, Any]) -> dict[str, Any]:
    days = [str(d) for d in pd.date_range("2020-01-01", periods=100)]
    return {"events": [(i, times.get(i, days[i]), totals.get(i, str(i * 3))) for i in range(100)]}


def csv_folder(folder: Path, rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> str:
    files = folder / "files"
    files.mkdir(parents=True)
    frame = pd.DataFrame(rows["events"], columns=["id", "happened_at", "total"])
    frame.to_csv(files / "events.csv", index=False)
    return str(files)


@pytest.mark.parametrize("medium", ["sqlite", "text", "csv"])
@pytest.mark.parametrize("name", ["inferred", "given"])
def test_a_few_texts_among_times_are_none(tmp_path: Path, medium: str, name: str) -> None:
    rows = odd_rows({97: "n/a", 98: "2020-02-31"}, {})
    out, options = tmp_path / "out", {}
    if name == "given":
        options["overrides"] = tmp_path / "said.yaml"
        options["overrides"].write_text("tables: {events: {time_col: happened_at}}")
    if medium == "csv":
        place = csv_folder(tmp_path, rows)
    else:
        kind = "TIMESTAMP" if medium == "sqlite" else "TEXT"
        place = source(tmp_path, ODD.format(kind, "INTEGER"), rows)
    done = import_database(place, out, ImportConfig(**options))
    said = "events.happened_at: of 100 values 2 are no times, such as '2020-02-31'"
    assert said in done.warnings
    assert said in yaml.safe_load((out / "import.yaml").read_text())["warnings"]
    times = column(done, "events", "happened_at")
    assert times[97] == times[98] == max(times) == times[99] == pd.Timestamp("2020-04-09")
    assert "events.happened_at: 2 of 100 rows have no time" in " ".join(done.warnings)
    shown = import_database(place, out, ImportConfig(dry_run=True, **options))
    assert f"warning: {said}" in shown.plan_text
    assert "  2 rows without a time get the latest one" in shown.plan_text


@pytest.mark.parametrize(
    ("called", "odd", "wanted"),
    [("happened_at", 5, True), ("happened_at", 6, False), ("seen", 1, True), ("seen", 2, False)],
)
def test_how_many_texts_may_be_no_times(
    tmp_path: Path, called: str, odd: int, wanted: bool
) -> None:
    made = ODD.format("TEXT", "INTEGER").replace("happened_at", called)
    done = imported(tmp_path, made, odd_rows(dict.fromkeys(range(odd), "soon"), {}), dry_run=True)
    plan = done.plan.tables["events"]
    assert plan.time.column == (called if wanted else "")
    if not wanted:
        assert f"{odd} are no times, such as 'soon'" in plan.time.refused[called]
    assert any("are times, others are not" in note for note in plan.notes) == (
        called == "seen" and not wanted
    )


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TEXT"])
@pytest.mark.parametrize("never", ["9999-12-31 00:00:00", "0001-01-01 00:00:00"])
@pytest.mark.parametrize("name", ["inferred", "given"])
def test_dates_that_stand_for_never_are_none(
    tmp_path: Path, kind: str, never: str, name: str
) -> None:
    said = {"events": {"time_col": "happened_at"}} if name == "given" else None
    done = imported(tmp_path, ODD.format(kind, "INTEGER"), odd_rows({3: never, 4: None}, {}), said)
    times = column(done, "events", "happened_at")
    assert times[3] == times[4] == max(times) == pd.Timestamp("2020-04-09")
    assert min(times) == pd.Timestamp("2020-01-01")
    (first, second) = done.warnings
    assert first == (
        "events.happened_at: of 100 values 1 stand for never or not known, such as " + never
    )
    assert second.startswith("events.happened_at: 2 of 100 rows have no time")
    assert done.splits[1] < "2020-04-01"
    many = imported(
        tmp_path / "b",
        ODD.format(kind, "INTEGER"),
        odd_rows(dict.fromkeys(range(6), never), {}),
        said,
    )
    assert bool(many.plan.tables["events"].time.column) == (name == "given")


@pytest.mark.parametrize(
    ("said", "kind", "odd", "values"),
    [
        ("number", "number", "'n/a'", [3.0, None, 6.0]),
        ("number", "number", "'nan'", [3.0, None, 6.0]),
        ("datetime", "datetime", "'soon'", [pd.Timestamp("2020-01-01"), None]),
        ("boolean", "boolean", "'maybe'", [True, None, False]),
    ],
)
def test_what_a_given_kind_cannot_hold_is_null(
    tmp_path: Path, said: str, kind: str, odd: str, values: list[Any]
) -> None:
    texts = {"number": "3", "datetime": "2020-01-01", "boolean": "yes"}
    totals: dict[int, Any] = dict.fromkeys(range(100), texts[kind])
    totals |= {1: odd.strip("'"), 2: {"number": "6", "boolean": "no"}.get(kind, texts[kind])}
    done = imported(
        tmp_path, ODD.format("TIMESTAMP", "TEXT"), odd_rows({}, totals),
        {"events": {"columns": {"total": said}}},
    )  # fmt: skip
    assert column(done, "events", "total")[: len(values)] == values
    assert done.warnings == (
        f"events.total: 1 of 100 values cannot be read as {said}, such as {odd}; null now",
    )


@pytest.mark.parametrize("said", [{"columns": {"total": "number"}}, {"time_col": "total"}])
def test_a_kind_that_no_value_is_of_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    made, rows = ODD.format("TIMESTAMP", "TEXT"), odd_rows({}, dict.fromkeys(range(100), "x"))
    with pytest.raises(ValueError, match="0 of 100 values can be read"):
        imported(tmp_path, made, rows, {"events": said})


def test_numbers_with_a_few_texts_are_told(tmp_path: Path) -> None:
    rows = odd_rows({}, {7: "n/a", 50: "?"})
    done = import_database(csv_folder(tmp_path, rows), tmp_path / "out", ImportConfig())
    (note,) = done.plan.tables["events"].notes
    assert note == (
        "total: 98 of 100 texts are numbers, others are not, such as '?'; `columns: {total: "
        "number}` reads those as null"
    )
    codes = odd_rows({}, {i: f"0{i}" for i in range(100)})
    done = import_database(csv_folder(tmp_path / "b", codes), tmp_path / "o", ImportConfig())
    assert not done.plan.tables["events"].notes


@pytest.mark.realdata
def test_what_sells_can_be_asked_of_northwind(tmp_path: Path, real_data: Path) -> None:
    """Its lines have the order's date written to them; without it they inherit it."""
    place = write_sqlite(open_database(real_data / "northwind"), tmp_path / "n.sqlite", True)
    query = "PREDICT SUM(order_details.quantity, 0, 30, days) FOR EACH products.product_id"
    whole = import_database(place, tmp_path / "whole", ImportConfig()).database
    said = tmp_path / "said.yaml"
    said.write_text("tables: {order_details: {columns: {date: drop}}}")
    part = import_database(place, tmp_path / "part", ImportConfig(overrides=said))
    assert whole is not None
    assert part.database is not None
    assert inherited(part) == {"order_details": ["orders"]}
    anchors = [whole.val_timestamp - 40 * 86_400, whole.val_timestamp]
    known, same = (labels(compile_text(query, d), d, anchors) for d in (whole, part.database))
    assert len(known) > 100
    assert known.label.to_pylist() == same.label.to_pylist()
    assert (whole.val_timestamp, whole.test_timestamp) == (
        part.database.val_timestamp,
        part.database.test_timestamp,
    )


def test_unix_seconds_are_times_where_the_user_says_so(tmp_path: Path) -> None:
    """Whatever the column is called; a 0 among them is no time, and must be null."""
    made = """
    CREATE TABLE logs (id INTEGER PRIMARY KEY, noted INTEGER);
    CREATE TABLE lines (log_id INTEGER NOT NULL REFERENCES logs, n INTEGER);
    """
    rows: dict[str, list[tuple[Any, ...]]] = {
        "logs": [(i + 1, 1_600_000_000 + 86_400 * i) for i in range(20)],
        "lines": [(i % 20 + 1, i) for i in range(40)],
    }
    assert imported(tmp_path / "a", made, rows).plan.tables["logs"].time_name == ""
    done = imported(tmp_path / "b", made, rows, {"logs": {"time_col": "noted"}})
    assert done.database is not None
    assert done.database.times("logs").tolist() == [at for _, at in rows["logs"]]
    done = imported(tmp_path / "c", made, rows, {"lines": {"time_col": "log_id.noted"}})
    assert done.database is not None
    assert sorted(done.database.times("lines")) == sorted([at for _, at in rows["logs"]] * 2)
    rows["logs"][3] = (4, 0)
    with pytest.raises(ValueError, match="its numbers reach from 0 to 1601641600; wanted"):
        imported(tmp_path / "d", made, rows, {"logs": {"time_col": "noted"}})
