"""Rows of a table and of the parents that they point at, as SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa

from rfm.data.database import Database, Table
from rfm.data.query.bound import Route
from rfm.data.query.names import schema
from rfm.data.sql_quoting import identifier


@dataclass
class Source:
    """Rows of ``table`` called ``alias``, joined with the parents that are asked for.

    until: SQL of the time up to which parents are known; "" while it does not matter.
    """

    database: Database
    table: Table
    alias: str
    until: str
    joins: dict[Route, str] = field(default_factory=dict)

    def cell(self, path: Route, spell: Callable[[str], str]) -> str:
        """What ``spell`` makes of the alias of the row that a path leads to, NULL where that row is
        not known yet."""
        spelled = spell(self._join(path))
        checks = [
            f"{time_of(self.database, parent, self.joins[path[: i + 1]])} <= {self.until}"
            for i, hop in enumerate(path)
            if (parent := self.database.tables[hop.parent]).time_column is not None
        ]
        return f"CASE WHEN {' AND '.join(checks)} THEN {spelled} END" if checks else spelled

    def raw(self, path: Route, column: str) -> str:
        """The same, known or not."""
        return f"{self._join(path)}.{identifier(column)}"

    @property
    def first(self) -> str:
        return f"{identifier(self.table.name)} AS {self.alias}"

    @property
    def parents(self) -> str:
        """The joins that follow ``first`` after FROM."""
        parts = []
        for path, alias in self.joins.items():
            hop = path[-1]
            parent = self.database.tables[hop.parent]
            assert parent.primary_key is not None, parent.name
            child = self.joins.get(path[:-1], self.alias)
            on = f"{alias}.{identifier(parent.primary_key)} = {child}.{identifier(hop.column)}"
            parts.append(f"\n  LEFT JOIN {identifier(parent.name)} AS {alias} ON {on}")
        return "".join(parts)

    @property
    def timed(self) -> bool:
        """Whether which rows there are, or what they say, depends on the anchor time."""
        parents = [self.database.tables[path[-1].parent] for path in self.joins]
        return any(t.time_column is not None for t in (self.table, *parents))

    def _join(self, path: Route) -> str:
        for end in range(1, len(path) + 1):
            self.joins.setdefault(path[:end], f"{self.alias}{len(self.joins) + 1}")
        return self.joins[path] if path else self.alias


def time_of(database: Database, table: Table, alias: str) -> str:
    """The time column as whole seconds in UTC, rounded down as ``Database.times`` has it."""
    assert table.time_column is not None, table.name
    return moment(table, table.time_column, alias)


def moment(table: Table, column: str, alias: str) -> str:
    spelled = f"{alias}.{identifier(column)}"
    kind = schema(table).field(column).type
    if pa.types.is_date(kind):
        return f"CAST({spelled} AS TIMESTAMP)"
    if pa.types.is_timestamp(kind):
        if kind.tz is not None:
            spelled = f"timezone('UTC', {spelled})"
        elif kind.unit == "s":
            return spelled
        return f"date_trunc('second', {spelled})"
    text = f"TRY_CAST({spelled} AS TIMESTAMPTZ)"
    return f"date_trunc('second', timezone('UTC', {text}))"
