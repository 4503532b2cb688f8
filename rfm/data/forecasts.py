"""Forecasts made from a schema alone: random predictive queries about what will happen to entities.

A forecast asks, of entities that were active lately, what the rows that will point at them within
a window of time come to: how many there will be, the sum or mean of one of their columns, whether
there is any of a kind. It is drawn from a database's prepared store and labelled there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.events import Aggregate, Events, aggregate, events_of
from rfm.data.generated import (
    MIN_ROWS,
    MOST_ROWS,
    GeneratedTask,
    Labelled,
    by_frequency,
    draw_threshold,
)
from rfm.data.label_history import Floats
from rfm.data.store import RowStore, TableStore
from rfm.data.task_rows import Ints

DAY = 86_400
_MIN_ENTITIES, _MIN_EVENTS, _MIN_TIMES = 20, 200, 3
_SPANS = (8, 500)  # the window is at most, at least, this part of the time that there is
_PER_TIME = (16, 256)  # questions per seed time
_LOOKBACK = 16  # windows, at most, within which an entity counts as active
_SAMPLE = 5_000  # rows that conditions are chosen by
_FREQUENT = 12  # texts of a column that a condition may ask for
_NUMBERS: tuple[Aggregate, ...] = ("sum", "avg", "min", "max")
_ONE_HOP, _FILTERED, _OF_NUMBERS, _COUNTED, _BINARY = 0.7, 0.4, 0.6, 0.5, 0.6  # shares


@dataclass(frozen=True)
class Condition:
    """Rows whose cell of a column is one text (its index), or lies in [low, high] (as z)."""

    column: int
    text: int = -1
    low: float = -np.inf
    high: float = np.inf

    def holds(self, table: TableStore, rows: Ints) -> npt.NDArray[np.bool_]:
        """[n] of local rows [n]; not where the cell is null."""
        if self.text >= 0:
            return np.asarray(table.cells[rows, self.column] == self.text)
        z = table.values(rows, self.column)
        return np.asarray((z >= self.low) & (z <= self.high))


@dataclass(frozen=True)
class Forecast:
    """``aggregate`` of ``column`` over the rows at the end of ``path`` that ``where`` holds for, in
    (t, t + window], for entities with any row there in (t - active, t].

    column: -1 counts rows. window, active: seconds.
    """

    path: tuple[int, ...]
    aggregate: Aggregate
    column: int
    where: Condition | None
    window: int
    active: int


def paths(store: RowStore, until: int) -> Iterator[tuple[int, ...]]:
    """Paths of one or two foreign keys from tables to those with events to foretell, as of a time
    in unix seconds."""
    graph, timed = store.graph, ~store.is_static
    there = np.concatenate([[0], np.cumsum(np.asarray(graph.row_time) <= until)])
    size = np.diff(there[np.asarray(graph.table_start)])
    for f, key in enumerate(graph.foreign_keys):
        if size[key.parent] < _MIN_ENTITIES:
            continue
        if timed[key.child] and size[key.child] >= _MIN_EVENTS:
            yield (f,)
        for g, second in enumerate(graph.foreign_keys):
            through = second.parent == key.child and second.child != key.parent
            dated = timed[second.child] or timed[key.child]
            if through and dated and size[second.child] >= _MIN_EVENTS:
                yield (f, g)


class ForecastMaker:
    """Draws forecasts of one database and labels them.

    Args:
        until: unix seconds; no label says anything of what is later.
    """

    def __init__(self, store: RowStore, until: int) -> None:
        self.store, self.until = store, until
        self.paths = tuple(paths(store, until))
        self._events: dict[tuple[int, ...], Events] = {}

    def __reduce__(self) -> tuple[type[ForecastMaker], tuple[RowStore, int]]:
        return ForecastMaker, (self.store, self.until)  # another process sorts by itself

    def draw(self, rng: np.random.Generator) -> GeneratedTask | None:
        """A forecast with its rows; nothing where the one drawn has too few."""
        single = [path for path in self.paths if len(path) == 1]
        pool = single if single and rng.random() < _ONE_HOP else self.paths
        if not pool:
            return None
        path = pool[int(rng.integers(len(pool)))]
        events = self.events(path)
        if events.time.size < _MIN_EVENTS:
            return None
        forecast = self._draw(path, events, rng)
        rows = None if forecast is None else self._rows(forecast, events, rng)
        if forecast is None or rows is None or len(rows) < MIN_ROWS:
            return None
        return self._task(forecast, rows, rng)

    def events(self, path: tuple[int, ...]) -> Events:
        """Those that labels may tell, sorted once."""
        if path not in self._events:
            found = events_of(self.store, path)
            self._events[path] = found.take(found.time <= self.until)
        return self._events[path]

    def _table(self, path: tuple[int, ...]) -> TableStore:
        return self.store.tables[self.store.graph.foreign_keys[path[-1]].child]

    def _draw(
        self, path: tuple[int, ...], events: Events, rng: np.random.Generator
    ) -> Forecast | None:
        span = int(events.time.max() - events.time.min())
        longest, shortest = (max(DAY, span / part) for part in _SPANS)
        if span < 4 * _SPANS[0] * DAY:
            return None
        window = int(np.exp(rng.uniform(np.log(shortest), np.log(longest))) // DAY) * DAY
        table = self._table(path)
        where = draw_condition(table, events.row, rng) if rng.random() < _FILTERED else None
        numbers = np.flatnonzero(table.is_value & ~table.is_datetime)
        kind: Aggregate = "count" if rng.random() < _COUNTED else "exists"
        column = -1
        if numbers.size and rng.random() < _OF_NUMBERS:
            column, kind = int(rng.choice(numbers)), _NUMBERS[int(rng.integers(len(_NUMBERS)))]
        active = window * np.exp(rng.uniform(0, np.log(_LOOKBACK)))
        return Forecast(path, kind, column, where, max(window, DAY), int(active))

    def _rows(
        self, forecast: Forecast, events: Events, rng: np.random.Generator
    ) -> Labelled | None:
        """At seed times spread evenly over what there is, entities that are active, and what the
        forecast comes to for each."""
        last = min(self.until, int(events.time.max())) - forecast.window
        step = forecast.window * int(rng.integers(1, 3))
        times = np.arange(last, int(np.quantile(events.time, 0.05)), -step, dtype=np.int64)
        per_time = int(np.exp(rng.uniform(*np.log(_PER_TIME))))
        times = times[: max(_MIN_TIMES, MOST_ROWS // per_time)][::-1]
        if times.size < _MIN_TIMES:
            return None
        active = [_active(events, int(t), forecast.active, per_time, rng) for t in times]
        entity = np.concatenate(active)
        time = np.repeat(times, [who.size for who in active])
        table = self._table(forecast.path)
        counted = events
        if forecast.where is not None:
            counted = events.take(forecast.where.holds(table, events.row))
        value = np.ones(counted.row.size)
        if forecast.column >= 0:
            z = table.values(counted.row, forecast.column)
            value = table.columns[forecast.column].stats.raw(z)
        start, end = counted.within(entity, time, time + forecast.window)
        label = rounded(aggregate(forecast.aggregate, value, start, end))
        return Labelled(entity, time, label).take(np.flatnonzero(np.isfinite(label)))

    def _task(
        self, forecast: Forecast, rows: Labelled, rng: np.random.Generator
    ) -> GeneratedTask | None:
        """The numbers as they are, or whether they are above one of them."""
        classes, label = 0, rows.label
        if forecast.aggregate == "exists" or rng.random() < _BINARY:
            if np.unique(label).size < 2:
                return None
            classes, label = 2, (label > draw_threshold(label, rng)).astype(np.float64)
        key, table = self.store.graph.foreign_keys[forecast.path[0]], self._table(forecast.path)
        column = table.columns[forecast.column].name if forecast.column >= 0 else table.name
        where = "" if forecast.where is None else f" {forecast.where}"
        parent = self.store.tables[key.parent].name
        return GeneratedTask(
            name=f"{parent} {forecast.path} {forecast.aggregate} {column} {forecast.window}{where} "
            f"{classes}",
            table=f"{parent} {table.name}",
            target=f"{forecast.aggregate} {column}",
            key=key.column,
            entity_table=key.parent,
            classes=classes,
            timedelta=forecast.window,
            rows=Labelled(rows.entity, rows.time, label),
        )


def _active(events: Events, time: int, lookback: int, most: int, rng: np.random.Generator) -> Ints:
    """Some of the entities with an event in (time - lookback, time]."""
    found = np.unique(events.owner[(events.time > time - lookback) & (events.time <= time)])
    if found.size > most:
        found = rng.choice(found, most, replace=False)
    return np.asarray(found)


def rounded(number: Floats) -> Floats:
    """Numbers [n] to six significant digits, as many as cells have: sums that are the same are
    equal, whatever order they were taken in."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        digits = 5 - np.floor(np.log10(np.abs(number)))
        power = 10.0 ** np.abs(digits)
        fine, coarse = np.round(number * power) / power, np.round(number / power) * power
        out = np.where(digits >= 0, fine, coarse)
    return np.asarray(np.where(np.isfinite(out), out, number))


def draw_condition(table: TableStore, rows: Ints, rng: np.random.Generator) -> Condition | None:
    """One of a column's frequent texts in rows [n], or the lower or upper part of its numbers;
    nothing where the column drawn always holds the same."""
    columns = np.flatnonzero(~table.is_datetime & table.can_be_masked)
    if not columns.size:
        return None
    column = int(rng.choice(columns))
    rows = rows[:: -(-rows.size // _SAMPLE)]
    if table.is_value[column]:
        z = table.values(rows, column)
        z = z[~np.isnan(z)]
        if not z.size or z.min() == z.max():
            return None
        at = draw_threshold(z.astype(np.float64), rng)
        if rng.random() < 0.5:
            return Condition(column, high=at)
        return Condition(column, low=float(np.nextafter(np.float32(at), np.float32(np.inf))))
    text = table.cells[rows, column]
    distinct, counts = by_frequency(text[text >= 0])
    if distinct.size < 2 or counts[0] < 0.01 * rows.size:
        return None
    return Condition(column, text=int(rng.choice(distinct[:_FREQUENT])))
