"""A bound query as duckdb's SQL, over RelBench's ``timestamps`` and one view for every table.

One common table expression for each aggregate: over all anchor times and entities at once, grouped
by both. The rows of a parent that is later than the end of an aggregate's window (or the anchor
time) are taken for absent: at that time nobody knew them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from rfm.data.database import Database, Table
from rfm.data.query.bound import (
    Aggregate,
    Anchor,
    Apply,
    BoundQuery,
    Cell,
    Fixed,
    Frame,
    Interval,
    Route,
    Row,
    Value,
)
from rfm.data.query.names import schema
from rfm.data.query.spelling import constant, identifier, interval

ZERO = ("COUNT", "SUM", "COUNT_DISTINCT")  # of no rows; other aggregates have no value then
_COMPARED = {"=": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_TEXT: dict[str, str] = {
    "LIKE": "({0} LIKE {1})",
    "CONTAINS": "contains({0}, {1})",
    "STARTS WITH": "starts_with({0}, {1})",
    "ENDS WITH": "ends_with({0}, {1})",
}


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


@dataclass(frozen=True)
class Pieces:
    """A query in pieces: ``ctes``, ``tables`` (after FROM), ``time``, ``entity``, ``label`` and the
    conditions ``exists``, ``where`` and ``assuming``, each SQL; TRUE where there is none."""

    ctes: tuple[str, ...]
    tables: str
    time: str
    entity: str
    label: str
    exists: str
    where: str
    assuming: str


def forecast_pieces(
    bound: BoundQuery,
    database: Database,
    label: Callable[[Value, str], str],
    delta: Callable[[Frame], str],
    needed: bool,
) -> Pieces:
    """Of a forecast.

    Args:
        label: SQL of the target in the form that labels have, from that of its value.
        delta: SQL of the interval from the anchor to the end of a frame.
        needed: leave those out at once whose target has no value.
    """
    entity = database.tables[bound.entity]
    anchor = 't."timestamp"'
    rows = Source(database, entity, "e", anchor)
    writer = _Writer(database, rows, anchor, "timestamps", "", delta)
    where = _all(writer.value(w) for w in bound.where)
    assuming = _all(writer.value(a) for a in bound.assuming)
    value = label(bound.target, writer.value(bound.target))
    certain = [a for w in bound.where for a in _certain(w)]
    if needed:
        certain += [a for w in bound.assuming for a in _certain(w)] + _valued(bound.target)
    exists = "TRUE"
    if entity.time_column is not None:
        exists = f"{time_of(database, entity, 'e')} <= {anchor}"
    assert entity.primary_key is not None
    tables = f"timestamps AS t\n  CROSS JOIN {rows.first}{rows.parents}" + writer.joins(
        certain, entity
    )
    who = f"CAST(e.{identifier(entity.primary_key)} AS BIGINT)"
    return Pieces(tuple(writer.ctes), tables, anchor, who, value, exists, where, assuming)


def static_pieces(
    bound: BoundQuery, database: Database, label: Callable[[Value, str], str], timedelta: int
) -> Pieces:
    """Of a static target: each entity once, at its own time, or else that of its child's row, or
    else the last anchor time. Of a child whose row comes more than ``timedelta`` seconds later,
    nothing is known."""
    entity = database.tables[bound.entity]
    assert entity.primary_key is not None
    last = '(SELECT max("timestamp") FROM timestamps)'
    seeds, children = _free("seeds", database), _free("children", database)
    rows = Source(database, entity, "e", "s.seed")
    exists = f"s.seed <= {last}"
    child = ""
    seed = last
    value = "NULL"
    if bound.kind == "child":
        table = database.tables[bound.child]
        part = Source(database, table, "c", last)
        owner = part.raw(bound.via[:-1], bound.via[-1].column)
        own = _Writer(database, part, last, "", "", lambda frame: "")
        value = label(bound.target, own.value(bound.target))
        time = time_of(database, table, "c") if table.time_column is not None else last
        known = f"{time} <= {last}"
        seed = f"coalesce(c.known, {last})"
        child = (
            f"SELECT CAST({owner} AS BIGINT) AS who, {time} AS known, {value} AS label\n  "
            f"FROM {part.first}{part.parents}\n  WHERE {owner} IS NOT NULL AND {known}"
        )
        late = f"c.known > s.seed + {interval(timedelta, 'seconds')}"
        value = f"CASE WHEN {late} THEN NULL ELSE c.label END"
    if entity.time_column is not None:
        seed = time_of(database, entity, "e")
    who = f"CAST(e.{identifier(entity.primary_key)} AS BIGINT)"
    joined = f"{identifier(entity.name)} AS e"
    ctes = []
    if child:
        ctes.append(f"{children} AS (\n  {child}\n)")
        joined += f"\n  LEFT JOIN {children} AS c ON c.who = {who}"
    ctes.append(f"{seeds} AS (\n  SELECT {seed} AS seed, {who} AS who\n  FROM {joined}\n)")
    writer = _Writer(database, rows, "s.seed", seeds, "who", lambda frame: "")
    where = _all(writer.value(w) for w in bound.where)
    if bound.kind == "own":
        value = label(bound.target, writer.value(bound.target))
    key = f"e.{identifier(entity.primary_key)}"
    tables = f"{seeds} AS s\n  JOIN {rows.first} ON {key} = s.who{rows.parents}"
    if child:
        tables += f"\n  LEFT JOIN {children} AS c ON c.who = s.who"
    tables += writer.joins([a for w in bound.where for a in _certain(w)], entity)
    return Pieces((*ctes, *writer.ctes), tables, "s.seed", "s.who", value, exists, where, "TRUE")


class _Writer:
    """Values as SQL; collects the common table expressions of their aggregates."""

    def __init__(
        self,
        database: Database,
        rows: Source,
        anchor: str,
        anchors: str,
        who: str,
        delta: Callable[[Frame], str],
    ) -> None:
        self.database, self.rows, self.anchor = database, rows, anchor
        self.anchors, self.who, self.delta = anchors, who, delta
        self.ctes: list[str] = []
        self.aggregates: dict[Aggregate, tuple[str, bool]] = {}

    def value(self, value: Value) -> str:
        if isinstance(value, Aggregate):
            alias = self._aggregate(value)
            spelled = f'{alias}."value"'
            return f"coalesce({spelled}, 0)" if value.function in ZERO else spelled
        return _spell(value, self.rows, self.anchor, self.value)

    def joins(self, certain: Sequence[Aggregate], entity: Table) -> str:
        """The aggregates joined to anchors and entities; ``certain``: those that must be there."""
        said = ""
        for aggregate, (alias, timed) in self.aggregates.items():
            kind = "JOIN" if aggregate in certain else "LEFT JOIN"
            on = f"{alias}.who = e.{identifier(str(entity.primary_key))}"
            on += f" AND {alias}.seed = {self.anchor}" * timed
            said += f"\n  {kind} {alias} ON {on}"
        return said

    def _aggregate(self, aggregate: Aggregate) -> str:
        if aggregate not in self.aggregates:
            alias = _free(f"aggregate_{len(self.aggregates) + 1}", self.database)
            self.aggregates[aggregate] = (alias, False)  # its place, before those within it
            body, timed = self._body(aggregate)
            self.ctes.append(f"{alias} AS (\n  {body}\n)")
            self.aggregates[aggregate] = (alias, timed)
        return self.aggregates[aggregate][0]

    def _body(self, aggregate: Aggregate) -> tuple[str, bool]:
        """The SELECT of an aggregate, and whether it depends on the anchor time."""
        frame, table = aggregate.frame, self.database.tables[aggregate.table]
        anchor = 't."timestamp"' if self.anchors == "timestamps" else "t.seed"
        end = self._end(anchor, frame)
        source = Source(self.database, table, "b", end)
        hop = aggregate.via[-1]
        key = source.raw(aggregate.via[:-1], hop.column)
        known = source.cell(aggregate.via[:-1], lambda alias: f"{alias}.{identifier(hop.column)}")

        def inner(value: Value) -> str:
            return _spell(value, source, anchor, inner)

        conditions = [f"{known} IS NOT NULL", *(inner(c) for c in aggregate.condition)]
        spelled = _function(aggregate, inner, source)
        timed = source.timed
        time = []
        if table.time_column is not None:
            at = time_of(self.database, table, "b")
            time = [f"{at} <= {end}"]
            if frame.start != -float("inf"):
                start = interval(int(frame.start), frame.unit)
                time.append(f"{at} > {anchor} + {start}" if frame.start else f"{at} > {anchor}")
        who = f"CAST({key} AS BIGINT)"
        rows = f"FROM {source.first}{source.parents}"
        where = f"WHERE {' AND '.join(conditions)}"
        if not timed:
            return (
                f'SELECT {who} AS who, {spelled} AS "value"\n  {rows}\n  {where}\n  GROUP BY 1'
            ), False
        if self.who:
            time.append(f"t.{self.who} = {key}")
        return (
            f'SELECT {anchor} AS seed, {who} AS who, {spelled} AS "value"\n  {rows}\n  '
            f"JOIN {self.anchors} AS t ON {' AND '.join(time) or 'TRUE'}\n  {where}\n  "
            "GROUP BY 1, 2"
        ), True

    def _end(self, anchor: str, frame: Frame) -> str:
        if frame.end == 0:
            return anchor
        return f"{anchor} + {self.delta(frame) or interval(frame.end, frame.unit)}"


def _free(name: str, database: Database) -> str:
    """A name that no table has, however it is written."""
    taken = {table.casefold() for table in database.tables}
    while name in taken:
        name += "_"
    return name


def _function(aggregate: Aggregate, spell: Callable[[Value], str], source: Source) -> str:
    """The aggregate function over rows of ``source``."""
    function, argument = aggregate.function, aggregate.argument
    if isinstance(argument, Row):
        return "count(*)"
    value = spell(argument)
    if isinstance(argument, Apply) and argument.type == "boolean":
        value = f"coalesce({value}, FALSE)"  # as in WHERE, what is unknown does not hold
    if aggregate.key_of or argument.type == "key":
        value = f"CAST({value} AS BIGINT)"
    if function in ("SUM", "AVG"):
        value = f"CAST({value} AS DOUBLE)"
    if function in ("FIRST", "LAST"):
        table = source.table
        tie = identifier(table.primary_key) if table.primary_key is not None else ""
        order = f"row(b.{identifier(str(table.time_column))}, {f'b.{tie}' if tie else value})"
        return f"{'arg_min' if function == 'FIRST' else 'arg_max'}({value}, {order})"
    if function in ("MIN", "MAX") and argument.type == "boolean":
        return f"{'bool_and' if function == 'MIN' else 'bool_or'}({value})"
    if function == "COUNT_DISTINCT":
        return f"count(DISTINCT {value})"
    if function == "LIST_DISTINCT":
        return f"list(DISTINCT {value} ORDER BY {value}) FILTER (WHERE {value} IS NOT NULL)"
    return f"{function.lower()}({value})"


def _spell(value: Value, rows: Source, anchor: str, spell: Callable[[Value], str]) -> str:
    if isinstance(value, Cell):
        return _cell(value, rows)
    if isinstance(value, Fixed):
        assert value.value is not None, value
        return constant(value.value)
    if isinstance(value, Anchor):
        return anchor
    if isinstance(value, Interval):
        return interval(value.number, value.unit)
    assert isinstance(value, Apply), value
    return _operation(value, [spell(operand) for operand in value.operands])


def _cell(cell: Cell, rows: Source) -> str:
    table = rows.database.tables[cell.table]
    kind = schema(table).field(cell.column).type

    def spell(alias: str) -> str:
        if cell.type == "datetime":
            return moment(table, cell.column, alias)
        name = f"{alias}.{identifier(cell.column)}"
        floating = pa.types.is_floating(kind)
        return f"nullif({name}, CAST('nan' AS DOUBLE))" if floating else name

    return rows.cell(cell.path, spell)


def _operation(value: Apply, operands: Sequence[str]) -> str:
    operator = value.operator
    if operator in ("AND", "OR"):
        return "(" + f" {operator} ".join(operands) + ")"
    if operator == "NOT":
        return f"(NOT {operands[0]})"
    if operator in ("IS NULL", "IS NOT NULL"):
        return f"({operands[0]} {operator})"
    if operator == "AS TIME":
        return f"TRY_CAST({operands[0]} AS TIMESTAMP)"
    if operator in ("IN", "NOT IN"):
        return f"({operands[0]} {operator} ({', '.join(operands[1:])}))"
    if operator in _COMPARED:
        return f"({operands[0]} {_COMPARED[operator]} {operands[1]})"
    if operator.removeprefix("NOT ") in _TEXT:
        said = _TEXT[operator.removeprefix("NOT ")].format(*operands)
        return f"(NOT {said})" if operator.startswith("NOT ") else said
    if operator == "/":
        return f"({operands[0]} / nullif({operands[1]}, 0))"
    assert operator in ("+", "-", "*"), operator
    if len(operands) == 1:
        return f"(- {operands[0]})"
    return f"({operands[0]} {operator} {operands[1]})"


def _all(conditions: Iterable[str]) -> str:
    return " AND ".join(f"({c})" for c in conditions) or "TRUE"


def _certain(condition: Value) -> list[Aggregate]:
    """Aggregates without which a condition cannot hold, so that entities without rows can be left
    out early: COUNT(...) > 0, and all that have no value of no rows."""
    if not isinstance(condition, Apply):
        return []
    if condition.operator == "AND":
        return [a for operand in condition.operands for a in _certain(operand)]
    if condition.operator in ("=", ">", ">=") and len(condition.operands) == 2:
        left, right = condition.operands
        if isinstance(left, Aggregate) and isinstance(right, Fixed):
            number = right.value
            above = isinstance(number, int | float) and (
                number > 0 or (number == 0 and condition.operator == ">")
            )
            if left.function not in ZERO or above:
                return [left]
    return []


def _valued(target: Value) -> list[Aggregate]:
    """Aggregates without which a target has no value."""
    if isinstance(target, Aggregate):
        return [] if target.function in ZERO else [target]
    if isinstance(target, Apply) and target.operator in _COMPARED:
        return [a for operand in target.operands for a in _valued(operand)]
    return []
