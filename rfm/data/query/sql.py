"""A bound query as duckdb's SQL, over RelBench's ``timestamps`` and one view for every table.

One common table expression for each aggregate: over all anchor times and entities at once, grouped
by both. The rows of a parent that is later than the end of an aggregate's window (or the anchor
time) are taken for absent: at that time nobody knew them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rfm.data.database import Database, Table
from rfm.data.query.bound import (
    Aggregate,
    Apply,
    BoundQuery,
    Fixed,
    Frame,
    Value,
)
from rfm.data.query.rows_sql import Source, time_of
from rfm.data.query.spelling import interval
from rfm.data.query.value_sql import COMPARED, spell_function, spell_value
from rfm.data.sql_quoting import identifier

WhereAt: TypeAlias = Literal["seed", "anchor"]

ZERO = ("COUNT", "SUM", "COUNT_DISTINCT")  # of no rows; other aggregates have no value then
_LAST = '(SELECT max("timestamp") FROM timestamps)'


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
    bound: BoundQuery,
    database: Database,
    label: Callable[[Value, str], str],
    timedelta: int,
    where_at: WhereAt,
) -> Pieces:
    """Of a static target: each entity once, at its own time, or else that of its child's row, or
    else the last anchor time.

    Args:
        where_at: WHERE is decided at that time, and of a child whose row comes more than
            ``timedelta`` seconds later nothing is known (``seed``); or all is as of the last anchor
            time (``anchor``).
    """
    entity = database.tables[bound.entity]
    assert entity.primary_key is not None
    key = f"e.{identifier(entity.primary_key)}"
    seeds, children = _free("seeds", database), _free("children", database)
    seed, joined, ctes = _LAST, f"{identifier(entity.name)} AS e", []
    if bound.kind == "child":
        ctes.append(f"{children} AS (\n  {_child(bound, database, label)}\n)")
        joined += f"\n  LEFT JOIN {children} AS c ON c.who = {key}"
        seed = f"coalesce(c.known, {_LAST})"
    if entity.time_column is not None:
        seed = time_of(database, entity, "e")
    decided = seed if where_at == "seed" else _LAST
    ctes.append(
        f"{seeds} AS (\n  SELECT {seed} AS own, {decided} AS seed, CAST({key} AS BIGINT) AS who\n  "
        f"FROM {joined}\n)"
    )
    rows = Source(database, entity, "e", "s.seed")
    writer = _Writer(database, rows, "s.seed", seeds, "who", lambda frame: "")
    where = _all(writer.value(w) for w in bound.where)
    value = "c.label"
    if where_at == "seed":
        late = f"c.known > s.own + {interval(timedelta, 'seconds')}"
        value = f"CASE WHEN {late} THEN NULL ELSE c.label END"
    if bound.kind == "own":
        own = _Writer(database, rows, "s.own", seeds, "who", lambda frame: "")
        value = label(bound.target, own.value(bound.target))
    tables = f"{seeds} AS s\n  JOIN {rows.first} ON {key} = s.who{rows.parents}"
    if bound.kind == "child":
        tables += f"\n  LEFT JOIN {children} AS c ON c.who = s.who"
    tables += writer.joins([a for w in bound.where for a in _certain(w)], entity)
    exists = f"s.own <= {_LAST}"
    return Pieces((*ctes, *writer.ctes), tables, "s.own", "s.who", value, exists, where, "TRUE")


def _child(bound: BoundQuery, database: Database, label: Callable[[Value, str], str]) -> str:
    """The SELECT of a child target: whose row it is, since when it is known, and its label."""
    table = database.tables[bound.child]
    rows = Source(database, table, "c", _LAST)
    owner = rows.raw(bound.via[:-1], bound.via[-1].column)
    writer = _Writer(database, rows, _LAST, "", "", lambda frame: "")
    value = label(bound.target, writer.value(bound.target))
    known = time_of(database, table, "c") if table.time_column is not None else _LAST
    return (
        f"SELECT CAST({owner} AS BIGINT) AS who, {known} AS known, {value} AS label\n  "
        f"FROM {rows.first}{rows.parents}\n  WHERE {owner} IS NOT NULL AND {known} <= {_LAST}"
    )


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
        return spell_value(value, self.rows, self.anchor, self.value)

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
            return spell_value(value, source, anchor, inner)

        conditions = [f"{known} IS NOT NULL", *(inner(c) for c in aggregate.condition)]
        spelled = spell_function(aggregate, inner, source)
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
    if isinstance(target, Apply) and target.operator in COMPARED:
        return [a for operand in target.operands for a in _valued(operand)]
    return []
