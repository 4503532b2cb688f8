"""Names of a query -> tables, columns and paths over foreign keys of a database."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.database import Database, Table
from rfm.data.query.bound import Hop, Route, Type
from rfm.data.query.errors import QueryError
from rfm.data.query.syntax import Column, Name, Span, Step
from rfm.data.schema import is_text, suggest

LONGEST_PATH = 4  # foreign keys in a row


class Names:
    """Tables and columns of a database, found for one query."""

    def __init__(self, database: Database, text: str) -> None:
        self.database, self.text = database, text

    def wrong(self, problem: str, span: Span) -> QueryError:
        return QueryError(problem, self.text, span)

    def table(self, name: Name) -> Table:
        """
        Raises:
            QueryError: if there is none of that name, with the closest.
        """
        tables = self.database.tables
        if name.text not in tables:
            raise self.wrong(
                f"{self.database.name} has no table {name.text!r}; {_similar(name.text, tables)}",
                name.span,
            )
        for other in tables:
            self._tell_apart(name, other, "table")
        if name.text.casefold() == "timestamps":
            raise self.wrong(
                "a table called 'timestamps' cannot be asked about, RelBench keeps this name for "
                "the anchor times; rename it",
                name.span,
            )
        return tables[name.text]

    def column(self, table: Table, name: Name) -> str:
        """
        Raises:
            QueryError: if the table has none of that name, with the closest.
        """
        if name.text not in table.columns:
            elsewhere = [t.name for t in self.database.tables.values() if name.text in t.columns]
            also = f"; {', '.join(elsewhere[:3])} has one" if elsewhere else ""
            raise self.wrong(
                f"table {table.name} has no column {name.text!r}; "
                f"{_similar(name.text, table.columns)}{also}",
                name.span,
            )
        for other in table.columns:
            self._tell_apart(name, other, "column")
        return name.text

    def _tell_apart(self, name: Name, other: str, what: str) -> None:
        if other != name.text and other.casefold() == name.text.casefold():
            raise self.wrong(
                f"the {what}s {name.text!r} and {other!r} differ in case alone, which SQL cannot "
                "tell apart; rename one of them",
                name.span,
            )
        if "{timedelta}" in name.text:
            raise self.wrong(
                f"the {what} {name.text!r} holds {{timedelta}}, which RelBench replaces in "
                "queries; rename it",
                name.span,
            )

    def primary_key(self, table: Table, span: Span) -> str:
        if table.primary_key is None:
            tables = [self.database.tables[parent] for parent in table.foreign_keys.values()]
            keys = [f"{quoted(t.name)}.{quoted(t.primary_key)}" for t in tables if t.primary_key]
            others = f"; write a table that it points at: {' or '.join(keys)}" if keys else ""
            raise self.wrong(f"table {table.name} has no primary key{others}", span)
        return table.primary_key

    def type(self, table: Table, column: str) -> Type:
        """Of a column's values, by its type in the file; keys hold rows."""
        if column in table.keys:
            return "key"
        if column == table.time_column:
            return "datetime"
        return type_of(schema(table).field(column).type)

    def follow(self, column: Column) -> tuple[Table, Route, Table]:
        """The table that a written path begins at, the path, and the table that it leads to."""
        last = self.table(column.table)
        if not column.steps:
            return last, (), last
        path = self._walk(column.steps, last)
        return self.database.tables[path[0].table], path, last

    def _walk(self, steps: Sequence[Step], last: Table) -> Route:
        """The foreign keys that written steps take, the last of them to ``last``."""
        tables = [self.table(step.table) for step in steps]
        hops = []
        for step, table, parent in zip(steps, tables, [*tables[1:], last], strict=True):
            keys = [c for c, p in table.foreign_keys.items() if p == parent.name]
            if step.key.text:
                key = self.column(table, step.key)
                if key not in keys:
                    raise self.wrong(
                        f"{table.name}.{key} is no foreign key to {parent.name}; "
                        f"{_keys(table, keys)}",
                        step.key.span,
                    )
            elif len(keys) == 1:
                key = keys[0]
            else:
                raise self.wrong(
                    f"{table.name} has {len(keys) or 'no'} foreign keys to {parent.name}; "
                    f"{_keys(table, keys)}",
                    step.table.span,
                )
            hops.append(Hop(table.name, key, parent.name))
        return tuple(hops)

    def via(self, steps: Sequence[Step], base: Table, entity: Table) -> Route:
        """The path that VIA names, from the rows that are counted to the entity."""
        first = self.table(steps[0].table)
        if first.name != base.name:
            raise self.wrong(
                f"VIA begins at the table whose rows are taken, {base.name}, not at {first.name}",
                steps[0].table.span,
            )
        return self._walk(steps, entity)

    def path(self, base: Table, goal: Table, span: Span, how: Callable[[Route], str]) -> Route:
        """The shortest path over foreign keys from one table to another, one hop at least.

        Raises:
            QueryError: if there is none, or several equally short ones, with how to choose.
        """
        paths = shortest(self.database, base.name, goal.name)
        if len(paths) == 1:
            return paths[0]
        if not paths:
            raise self.wrong(self._unreached(base, goal), span)
        ways = " or ".join(how(path) for path in paths[:4])
        raise self.wrong(
            f"{base.name} reaches {goal.name} in {len(paths)} ways; write {ways}", span
        )

    def _unreached(self, base: Table, goal: Table) -> str:
        said = f"no foreign keys lead from {base.name} to {goal.name}"
        tables = self.database.tables
        near = [t for t in tables if t != goal.name and shortest(self.database, t, goal.name)]
        both = [t for t in near if shortest(self.database, t, base.name)]
        if both:
            return f"{said}; but {both[0]} has both: write {both[0]} -> {base.name}.<column>"
        return f"{said}; those that have some: {', '.join(near) or 'none'}"


def shortest(database: Database, base: str, goal: str) -> list[Route]:
    """All shortest paths over foreign keys, of one hop to ``LONGEST_PATH``."""
    ends: list[tuple[str, Route]] = [(base, ())]
    for _ in range(LONGEST_PATH):
        ends = [
            (parent, (*path, Hop(table, column, parent)))
            for table, path in ends
            for column, parent in database.tables[table].foreign_keys.items()
            if all(hop.table != parent for hop in path) or parent == goal
        ]
        found = [path for end, path in ends if end == goal]
        if found:
            return found
    return []


def spell(path: Route) -> str:
    """A path as it is written before a column: ``results.raceId -> ``."""
    return "".join(f"{quoted(hop.table)}.{quoted(hop.column)} -> " for hop in path)


def keys(path: Route) -> str:
    """A path as it is written after VIA."""
    return spell(path).removesuffix(" -> ")


def quoted(name: str) -> str:
    """A name as a query spells it."""
    plain = name.replace("_", "a").isalnum() and not name[0].isdigit()
    return name if plain else "`" + name.replace("`", "``") + "`"


@cache
def _read_schema(path: str, changed: int) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a whole parquet file, write it again: {error}") from None


def schema(table: Table) -> pa.Schema:
    """Of the table's file, remembered while it does not change."""
    return _read_schema(str(table.path), table.path.stat().st_mtime_ns)


def type_of(kind: pa.DataType) -> Type:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "datetime"
    return "text" if is_text(kind) else "other"


def _similar(name: str, known: Iterable[str]) -> str:
    """The closest of the known names, and some of them: those of a wide table are too many."""
    names = list(known)
    same = [n for n in names if n.casefold() == name.casefold()]
    if same:
        return f"did you mean {same[0]!r}? (names are case-sensitive)"
    close = difflib.get_close_matches(name, names, n=12, cutoff=0.0) if len(names) > 12 else names
    return suggest(name, close)


def _keys(table: Table, keys: Sequence[str]) -> str:
    there = keys or list(table.foreign_keys)
    said = ", ".join(f"{table.name}.{key}" for key in there) or "it has none"
    return f"there are: {said}" if there else said
