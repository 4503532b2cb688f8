"""Small databases of a shop, written to SQLite and imported."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from rfm.data.checks import check_database
from rfm.data.import_sql import Import, ImportConfig, import_database

DAYS = [f"2020-01-{d:02d} 00:00:00" for d in range(1, 31)]
SHOP = """
CREATE TABLE products (id INTEGER PRIMARY KEY, price REAL);
CREATE TABLE customers (id INTEGER PRIMARY KEY, city TEXT);
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer_id INTEGER NOT NULL REFERENCES customers,
    ordered_at TIMESTAMP);
CREATE TABLE lines (id INTEGER PRIMARY KEY, order_id INTEGER REFERENCES orders,
    product_id INTEGER NOT NULL REFERENCES products, pieces INTEGER);
CREATE TABLE details (line_id INTEGER NOT NULL REFERENCES lines, note TEXT);
"""


def shop_rows() -> dict[str, list[tuple[Any, ...]]]:
    return {
        "products": [(i, i / 2) for i in range(1, 6)],
        "customers": [(i, "Oslo") for i in range(1, 8)],
        # keys fall as times rise, and are no count
        "orders": [(900 - 7 * i, i % 7 + 1, day) for i, day in enumerate(DAYS)],
        "lines": [(i + 1, 900 - 7 * (i // 2), i % 5 + 1, i) for i in range(60)],
        "details": [(i % 60 + 1, f"n{i}") for i in range(90)],
    }


def source(folder: Path, made: str, rows: Mapping[str, Sequence[tuple[Any, ...]]]) -> str:
    folder.mkdir(exist_ok=True)
    path = folder / "source.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(made)
        for table, values in rows.items():
            marks = ", ".join("?" * len(values[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", values)
    connection.close()
    return str(path)


def imported(
    folder: Path,
    made: str,
    rows: Mapping[str, Sequence[tuple[Any, ...]]],
    said: Mapping[str, Any] | None = None,
    **options: Any,
) -> Import:
    place = source(folder, made, rows)
    if said is not None:
        options["overrides"] = folder / "said.yaml"
        options["overrides"].write_text(yaml.safe_dump({"tables": said}))
    done = import_database(place, folder / "out", ImportConfig(**options))
    if done.database is not None:
        check_database(done.database)
    return done


def column(done: Import, table: str, name: str) -> list[Any]:
    assert done.database is not None
    found: list[Any] = pq.read_table(done.database.tables[table].path)[name].to_pylist()
    return found


def inherited(done: Import) -> dict[str, list[str]]:
    return {
        name: [time.link.parent for time in plan.inherited]
        for name, plan in done.plan.tables.items()
        if plan.inherited
    }
