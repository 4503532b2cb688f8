"""``Query`` -> ``BoundQuery``: the clauses, each with what may stand in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rfm.data.database import Database, Table
from rfm.data.original_keys import find_row, key_of_row, key_parts
from rfm.data.query.bound import Aggregate, Apply, BoundQuery, Cell, Route, Target, Value
from rfm.data.query.expressions import Scope, bind_condition, bind_value
from rfm.data.query.names import Names, quoted, shortest
from rfm.data.query.names import keys as spelled_keys
from rfm.data.query.syntax import (
    ALL,
    Aggregation,
    Column,
    Constant,
    Expression,
    Listing,
    Operation,
    Query,
    Span,
)

DEFAULT_TOP = 10
MOST_TOP = 10_000


def bind(query: Query, database: Database) -> BoundQuery:
    """Find the tables, columns and paths that a query names, and check its types.

    Raises:
        QueryError: for what the database does not have (with the closest it has), several equal
            paths (with how to choose), types that do not fit, and static targets that an entity
            may have several of.
    """
    names = Names(database, query.text)
    entity = _entity(query, names)
    target = _bind_target(query, names, entity)
    ranking, top = _ranking(query, names, target.value)
    past = Scope(names, entity, entity, "past")
    future = Scope(names, entity, entity, "future")
    return BoundQuery(
        query,
        database.name,
        target.kind,
        entity.name,
        target.value,
        target.child,
        target.via,
        tuple(bind_condition(w, past) for w in query.where),
        tuple(_assumed(a, future, target.kind) for a in query.assuming),
        tuple(_rows(query, names, entity)),
        ranking,
        top,
    )


def _assumed(assuming: Expression, scope: Scope, kind: Target) -> Value:
    if kind != "forecast":
        raise scope.names.wrong(
            "ASSUMING is about a window after the anchor time, which a target without a window "
            "does not have; write WHERE",
            assuming.span,
        )
    return bind_condition(assuming, scope)


def _entity(query: Query, names: Names) -> Table:
    column = query.entity
    if column.steps:
        raise names.wrong("entities are the rows of one table, without a path", column.span)
    table = names.table(column.table)
    key = names.primary_key(table, column.table.span)
    if column.column.text != key:
        raise names.wrong(
            "entities are given by the primary key of their table; write "
            f"{quoted(table.name)}.{quoted(key)}",
            column.column.span,
        )
    names.column(table, column.column)
    return table


def _rows(query: Query, names: Names, entity: Table) -> list[int]:
    """The rows of the entities asked for, each once."""
    rows = []
    for keys in query.keys:
        if keys.operator.text not in ("=", "IN"):
            raise names.wrong(
                f"entities are given with = or IN, not with {keys.operator.text}; a condition "
                "stands after WHERE",
                keys.operator.span,
            )
        for key, span in _keys(keys.value, names, entity):
            row = find_row(names.database, entity.name, key)
            if row < 0:
                raise names.wrong(
                    f"{entity.name} has no row with the key {key!r}; its keys are such as "
                    f"{key_of_row(names.database, entity.name, 0)!r}",
                    span,
                )
            rows.append(row)
    return list(dict.fromkeys(rows))


def _keys(value: Expression, names: Names, entity: Table) -> list[tuple[Any, Span]]:
    """The keys that are listed; those of several columns are lists themselves."""
    parts = key_parts(names.database, entity.name)
    items = list(value.items) if isinstance(value, Listing) else [value]
    if parts > 1 and len(items) == parts and not any(isinstance(i, Listing) for i in items):
        items = [value]
    found: list[tuple[Any, Span]] = []
    for item in items:
        own = item.items if parts > 1 and isinstance(item, Listing) else (item,)
        key = [part.value for part in own if isinstance(part, Constant) and part.value is not None]
        if len(key) != len(own) or len(key) != parts:
            such = "(1, 2, 3)" if parts == 1 else f"((1, 2), (3, 4)), of {parts} parts each"
            raise names.wrong(f"expected the keys of entities, such as {such}", item.span)
        found.append((key[0] if parts == 1 else tuple(key), item.span))
    return found


@dataclass(frozen=True)
class _Bound:
    kind: Target
    value: Value
    child: str
    via: Route


def _bind_target(query: Query, names: Names, entity: Table) -> _Bound:
    target = query.target
    if _aggregates(target):
        return _Bound(
            "forecast", bind_value(target, Scope(names, entity, entity, "target")), "", ()
        )
    columns = _columns(target)
    if not columns:
        raise names.wrong("a target needs a column or an aggregation", target.span)
    child = _child(columns, names, entity)
    if child is None:
        value = bind_value(target, Scope(names, entity, entity, "static"))
        _check_static(value, names)
        return _Bound("own", value, "", ())
    table, first = child
    via = names.path(
        table,
        entity,
        first.span,
        lambda path: f"an aggregation with VIA {spelled_keys(path)}",
    )
    value = bind_value(target, Scope(names, table, table, "static"))
    _check_static(value, names)
    _check_single(target, first, via, names)
    return _Bound("child", value, table.name, via)


def _child(columns: list[Column], names: Names, entity: Table) -> tuple[Table, Column] | None:
    """The child of the entity that a static target is of, with the column that says so; none for
    the entity's own."""
    for column in columns:
        first, _, last = names.follow(column)
        table = last if not column.steps else first
        if column.column.text != ALL:
            names.column(last, column.column)
        if table.name == entity.name:
            continue
        if shortest(names.database, table.name, entity.name):
            return table, column
        if shortest(names.database, entity.name, table.name):
            raise names.wrong(
                f"{table.name} is a parent of {entity.name}, its rows are not to be predicted for "
                f"each of these; write FOR EACH {table.name}.{table.primary_key}",
                column.span,
            )
        names.path(table, entity, column.span, spelled_keys)
    return None


def _check_static(value: Value, names: Names) -> None:
    """A static target is a value of one row of its own; of a parent it would be given away."""
    for cell in cells(value):
        if cell.path:
            raise names.wrong(
                f"a target without aggregation is of one row's own columns; {cell.table} is "
                "another table",
                cell.span,
            )
    if isinstance(value, Cell) and value.type == "key":
        raise names.wrong(
            f"{value.table}.{value.column} is a key; which rows an entity will be linked to is "
            "asked by LIST_DISTINCT(..., 0, 30, days) RANK TOP 10",
            value.span,
        )


def _check_single(target: Expression, column: Column, via: Route, names: Names) -> None:
    """Whether each entity has one row at most in the child table."""
    database = names.database
    rows = np.arange(database.tables[via[0].table].num_rows)
    for hop in via:
        parents = database.parents(hop.table, hop.column)
        rows = np.where(rows >= 0, parents[rows], -1)
    counts = np.bincount(rows[rows >= 0], minlength=1)
    if counts.max() <= 1:
        return
    entity, child = via[-1].parent, database.tables[via[0].table]
    key = key_of_row(database, entity, int(counts.argmax()))
    said = (
        f"{entity} {key!r} has {counts.max()} rows in {child.name}, so this is not one value; "
        "write an aggregation that makes it one"
    )
    if child.time_column is None:
        raise names.wrong(
            f"{said}; but {child.name} has no time column, so nothing of it can be forecast",
            column.span,
        )
    written = names.text[column.span.start : column.span.end]
    many = names.text[target.span.start : target.span.end]
    last = f"LAST({written}, 0, 365, days)"
    if isinstance(target, Operation):
        some = f"COUNT({child.name}.* WHERE {many}, 0, 365, days) > 0"
        last = f"{some} or {many.replace(written, last, 1)}"
    raise names.wrong(f"{said}, such as {last}", column.span)


def _ranking(
    query: Query, names: Names, target: Value
) -> tuple[Literal["", "RANK", "CLASSIFY"], int]:
    listed = isinstance(target, Aggregate) and target.function == "LIST_DISTINCT"
    rows = listed and isinstance(target, Aggregate) and target.key_of != ""
    if not query.ranking:
        return ("RANK", DEFAULT_TOP) if rows else ("CLASSIFY" if listed else "", 0)
    ranking = query.ranking[0]
    if ranking.kind == "FORECAST":
        raise names.wrong(
            "FORECAST ... TIMEFRAMES is not known here; ask for each window on its own",
            ranking.span,
        )
    if ranking.kind == "TOP":
        raise names.wrong(f"write RANK TOP {ranking.number}", ranking.span)
    if ranking.kind == "CLASSIFY":
        if ranking.number:
            raise names.wrong("CLASSIFY has no TOP; write RANK TOP", ranking.span)
        numeric = isinstance(target, Aggregate | Apply | Cell) and target.type == "number"
        if numeric:
            raise names.wrong("the target is a number, there are no classes", ranking.span)
        return "CLASSIFY", 0
    if not rows:
        raise names.wrong(
            "RANK is for LIST_DISTINCT of a foreign key, such as LIST_DISTINCT(orders.product_id, "
            "0, 30, days) RANK TOP 10",
            ranking.span,
        )
    written = names.text[ranking.span.start : ranking.span.end].upper()
    if "TOP" in written and not 1 <= ranking.number <= MOST_TOP:
        raise names.wrong(f"expected RANK TOP 1 to {MOST_TOP}", ranking.span)
    return "RANK", ranking.number or DEFAULT_TOP


def cells(value: Value) -> list[Cell]:
    """The cells of an expression, outside of aggregates."""
    if isinstance(value, Cell):
        return [value]
    return [c for v in value.operands for c in cells(v)] if isinstance(value, Apply) else []


def _parts(node: Expression) -> tuple[Expression, ...]:
    if isinstance(node, Operation):
        return node.operands
    return node.items if isinstance(node, Listing) else ()


def _aggregates(node: Expression) -> bool:
    return isinstance(node, Aggregation) or any(_aggregates(part) for part in _parts(node))


def _columns(node: Expression) -> list[Column]:
    if isinstance(node, Column):
        return [node]
    return [column for part in _parts(node) for column in _columns(part)]
