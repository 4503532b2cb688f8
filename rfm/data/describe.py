"""A database as printable text: what every column was taken for.

    rfm describe <spec> [data.root=<folder>] [data.kinds=<yaml>] [check=true]

A kind says how a model reads a column. Nulls and distinct values are counted in a sample of the
rows up to the validation timestamp, as kinds are inferred from no later ones.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from rfm.config import setting
from rfm.data.checks import check_database
from rfm.data.database import ColumnProfile, Database, SourceConfig, Table, open_source
from rfm.data.first_question import next_steps
from rfm.data.schema import shown_time


@dataclass(frozen=True)
class DescribeConfig:
    database: str = setting(
        help="a RelBench folder, a name under data.root or on the Hub, or what `rfm import` takes"
    )
    data: SourceConfig = setting(factory=SourceConfig)
    check: bool = setting(False, help="also read all keys and times and check them")


def describe_spec(config: DescribeConfig) -> Mapping[str, Any]:
    """Print what a database's columns were taken for."""
    database = open_source(config.database, config.data.root, config.data.kinds)
    if config.check:
        check_database(database)
    print(f"{describe(database)}\n\n{next_steps(database)}")
    kinds = [kind for columns in database.kinds.values() for kind in columns.values()]
    return {
        "database": database.name,
        "folder": str(database.folder),
        "tables": len(database.tables),
        "rows": sum(t.num_rows for t in database.tables.values()),
        "foreign_keys": sum(len(t.foreign_keys) for t in database.tables.values()),
        "kinds": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "checked": config.check,
    }


def describe(database: Database) -> str:
    """Tables, rows, keys, time columns and kinds; nulls and distinct values of the sample."""
    rows = sum(table.num_rows for table in database.tables.values())
    out = io.StringIO()
    console = Console(file=out, width=110, no_color=True, highlight=False, emoji=False)
    console.print(
        f"{database.name}: {len(database.tables)} tables, {rows:,} rows, validation from "
        f"{shown_time(database.val_timestamp)}, test from {shown_time(database.test_timestamp)}",
        markup=False,
    )
    for table in database.tables.values():
        time = f", time column {table.time_column}" if table.time_column else ", no time column"
        counted = _counted(database, table)
        console.print(f"\n{table.name}: {table.num_rows:,} rows{time}{counted}", markup=False)
        grid = Grid(box=None, pad_edge=False, padding=(0, 3, 0, 0))
        for heading, justify in [("column", "left"), ("kind", "left"), ("null", "right")]:
            grid.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
        grid.add_column("distinct", justify="right")
        grid.add_column("")
        for column, profile in database.profiles[table.name].items():
            grid.add_row(*map(Text, _row(table, column, profile)))
        console.print(grid)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def _counted(database: Database, table: Table) -> str:
    """Of which rows nulls and distinct values are counted, where it is not all of them."""
    rows = next((profile.rows for profile in database.profiles[table.name].values()), 0)
    if rows == table.num_rows:
        return ""
    until = f" up to {shown_time(database.val_timestamp)}" if table.time_column else ""
    return f"; null and distinct of {rows:,} rows{until}"


def _row(table: Table, column: str, profile: ColumnProfile) -> tuple[str, str, str, str, str]:
    nulls = f"{profile.nulls / profile.rows:.0%}" if profile.rows else "-"
    distinct = "-" if profile.distinct is None else f"{profile.distinct:,}"
    notes = [
        "primary key" if column == table.primary_key else "",
        "time column" if column == table.time_column else "",
        f"-> {table.foreign_keys[column]}" if column in table.foreign_keys else "",
    ]
    return column, profile.kind, nulls, distinct, ", ".join(filter(None, notes))
