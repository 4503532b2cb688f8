"""Features of questions from their database, as of each question's cutoff.

The columns of the entity and of its parents as they are; everything else along foreign keys, up to
two hops, aggregated in duckdb: a question is joined with the rows of a way (``benchmarks.paths``)
that were there by its cutoff and within the longest window before it, once for all its aggregates.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from benchmarks.columns import BEGINNING, NumberColumn, NumberTable
from benchmarks.paths import ManyRows, OneRow
from rfm.data.label_history import found_until
from rfm.data.task_rows import Ints

Floats32 = npt.NDArray[np.float32]
DAY = 86_400
SHARES = 5
"""Of so many of the commonest categories of a column the share is taken."""
_AT_ONCE = 32  # aggregates; of many more the states no longer fit the caches, five times as slow
_log = logging.getLogger("rfm")


@dataclass(frozen=True, eq=False)
class Questions:
    """entity [n]: rows of the entity table. time [n], cutoff [n]: unix seconds, when they are
    asked and until when they see anything."""

    entity: Ints
    time: Ints
    cutoff: Ints


@dataclass(frozen=True, eq=False)
class Features:
    """values [n, F], NaN for null; names [F]; those of ``categories`` hold places of categories."""

    values: Floats32
    names: tuple[str, ...]
    categories: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Window:
    """The last ``seconds`` before a cutoff; 0: all that was before it."""

    name: str
    seconds: int


def joined(parts: Sequence[Features]) -> Features:
    return Features(
        np.concatenate([p.values for p in parts], axis=1),
        tuple(name for p in parts for name in p.names),
        frozenset().union(*(p.categories for p in parts)),
    )


def own_columns(way: OneRow, table: NumberTable, asked: Questions, always: bool) -> Features:
    """The columns of the one row at the end of a way; all times as days before the seed time.

    Args:
        always: the row is there even after the cutoff (a row whose cell is asked for).
    """
    row = way.row[asked.entity]
    seen = (row >= 0) & ((way.time[asked.entity] <= asked.cutoff) | always)
    values, names, categories = [np.zeros((row.size, 0), np.float32)], [], []
    if table.table.time_column is not None:
        age = np.where(seen, (asked.time - table.time[row]) / DAY, np.nan)
        values.append(age.astype(np.float32)[:, None])
        names.append(f"{way.name}: {table.table.name}.{table.table.time_column}")
    for column in table.columns:
        found = np.where(seen, column.values[row], np.nan)
        if column.kind == "datetime":
            found = asked.time / DAY - found
        names.append(f"{way.name}: {column.name}")
        if column.kind == "category":
            categories.append(names[-1])
        values.append(found.astype(np.float32)[:, None])
    return Features(np.concatenate(values, axis=1), tuple(names), frozenset(categories))


def aggregated(
    way: ManyRows,
    table: NumberTable,
    asked: Questions,
    windows: Sequence[Window],
) -> Features:
    """Counts, statistics of every column and the time since the last row, per window.

    Args:
        windows: growing, the last of them unlimited.
    """
    pairs, back = _distinct(way, asked)
    asks = pa.table({"question": np.arange(len(pairs)), "key": pairs[:, 0], "cutoff": pairs[:, 1]})
    facts = {"key": way.key, "time": way.time, "place": np.arange(way.key.size)}
    cells = {
        f"c{i}": pa.array(column.values[way.row], from_pandas=True)
        for i, column in enumerate(table.columns)
    }
    wanted = list(_aggregates(way, table.columns, windows))
    values = np.tile(np.array([a.without for a in wanted], np.float32), (len(pairs), 1))
    # with one thread floats are added up in one order, so that they come out the same every time
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.register("asks", asks)
        connection.register("facts", pa.table({**facts, **cells}))
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            found = connection.sql(_query([a.sql for a in part], windows[-1])).fetchnumpy()
            for i in range(len(part)):
                column = np.ma.asarray(found[f"a{i}"], np.float64)
                values[found["question"], start + i] = np.ma.filled(column, np.nan)
    return Features(values[back], tuple(aggregate.name for aggregate in wanted))


def _query(aggregates: Sequence[str], longest: Window) -> str:
    """The SQL of aggregates a0, a1, ... per question, over the longest of the windows."""
    columns = ", ".join(f"{sql} AS a{i}" for i, sql in enumerate(aggregates))
    within = f"AND f.time > q.cutoff - {longest.seconds}" if longest.seconds else ""
    return (
        f"SELECT q.question, {columns} FROM asks q JOIN facts f "
        f"ON f.key = q.key AND f.time <= q.cutoff {within} GROUP BY q.question, q.cutoff"
    )


def affordable(
    way: ManyRows, asked: Questions, windows: Sequence[Window], budget: int
) -> tuple[Window, ...]:
    """The windows of a way that join at most ``budget`` rows with the questions, the longest left
    out first; of rows without times only the unlimited one."""
    if way.is_static:
        windows = windows[-1:]
    pairs, _ = _distinct(way, asked)
    _, end = found_until(way.key, way.time, pairs[:, 0], pairs[:, 1])
    while windows:
        seconds = windows[-1].seconds
        since = pairs[:, 1] - seconds if seconds else np.full(len(pairs), BEGINNING - 1)
        _, start = found_until(way.key, way.time, pairs[:, 0], since)
        rows = int((end - start).sum())
        if rows <= budget:
            break
        _log.warning(
            "%s: %d rows in %s, more than %d: left out", way.name, rows, windows[-1].name, budget
        )
        windows = windows[:-1]
    return tuple(windows)


def _distinct(way: ManyRows, asked: Questions) -> tuple[Ints, Ints]:
    """The different (anchor, cutoff) [m, 2] of questions [n], and which one each has [n]."""
    known = way.since[asked.entity] <= asked.cutoff
    pairs = np.stack([np.where(known, way.anchor[asked.entity], -1), asked.cutoff], axis=1)
    distinct, back = np.unique(pairs, axis=0, return_inverse=True)
    return distinct, back.ravel()


@dataclass(frozen=True)
class Aggregate:
    """without: its value where nothing is aggregated."""

    name: str
    sql: str
    without: float = np.nan


def _aggregates(
    way: ManyRows, columns: Sequence[NumberColumn], windows: Sequence[Window]
) -> Iterator[Aggregate]:
    if not way.is_static:
        yield Aggregate(f"{way.name}: days since", f"(q.cutoff - max(f.time)) / {DAY}.0")
        for i, column in enumerate(columns):
            last = f"arg_max(f.c{i}, f.place)"
            if column.kind == "datetime":
                last = f"q.cutoff / {DAY}.0 - {last}"
            yield Aggregate(f"{way.name}: last {column.name}", last)
    for window in windows:
        within = f"FILTER (WHERE f.time > q.cutoff - {window.seconds})" if window.seconds else ""
        name = f"{way.name}, {window.name}:"
        yield Aggregate(f"{name} count", f"count(*) {within}", 0.0)
        for i, column in enumerate(columns):
            for statistic, sql in _statistics(column, f"f.c{i}"):
                yield Aggregate(f"{name} {statistic} {column.name}", sql.format(within))


def _statistics(column: NumberColumn, cell: str) -> Iterator[tuple[str, str]]:
    """(name, SQL with a place for the window's filter)."""
    if column.kind == "category":
        for place in range(min(SHARES, int(np.nanmax(column.values, initial=0)) + 1)):
            yield f"share of {place} in", f"avg(({cell} = {place})::INT) {{}}"
    elif column.kind == "boolean":
        yield "share of", f"avg({cell}) {{}}"
    elif column.kind == "datetime":
        yield "mean age of", f"q.cutoff / {DAY}.0 - avg({cell}) {{}}"
    else:
        for function in ("avg", "min", "max", "sum"):
            yield function, f"{function}({cell}) {{}}"
