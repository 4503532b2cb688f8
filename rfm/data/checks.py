"""Checks of a database's data that opening it does not make: they read every key and time."""

from __future__ import annotations

from rfm.data.database import Database


def check_database(database: Database) -> None:
    """Keys and times as RelBench wants them, in one streaming pass per key and time column.

    Primary keys are 0..n-1 in row order, foreign keys are rows of their parent table or null, and
    every row of a table with a time column has a time.

    Raises:
        ValueError: at the first violation; names database, table, column, row and the fix.
    """
    for name, table in database.tables.items():
        database.check_primary_key(name)
        for column in table.foreign_keys:
            database.parents(name, column)
        database.times(name)
