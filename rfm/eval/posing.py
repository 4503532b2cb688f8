"""A query at an anchor time becomes a task: what is known of the past are its training rows, whom
it asks about its test rows, which have no labels yet.

Of a static target everything is as of the anchor time: known values are examples, and questions are
about those whose value is missing, unless others are asked for; these are no examples then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from rfm.data.database import Database
from rfm.data.query import (
    CompiledQuery,
    Counts,
    Entities,
    Labels,
    compile_text,
    entities,
    labels,
)
from rfm.data.query.answers import count_entities
from rfm.data.query.compiled import aggregates
from rfm.data.schema import MAX_CATEGORIES, shown_time
from rfm.data.task_rows import Ints, TaskRows, TaskSplit, class_name, class_names
from rfm.data.tasks import Task
from rfm.eval.fitted import NOTHING_LEARNT, Learnt

MOST_ANCHORS = 40  # where they hold enough labels
_ENOUGH = 2_000  # labels
_MOST_ROWS = 1_000_000  # entities at all anchors


@dataclass(frozen=True, eq=False)
class Posed:
    """A query at an anchor time.

    task: its training rows have labels that are known by then, its test rows [n] are asked.
    at: the anchor, unix seconds. counts: of the past. left_out: keys of entities that were asked
    for and are not answered -> why. learnt: how the model to be asked was fitted to it.
    """

    compiled: CompiledQuery
    task: Task
    at: int
    counts: Counts
    left_out: Mapping[Any, str]
    learnt: Learnt


def as_of(database: Database, at: int) -> Database:
    """A database with the timestamps that an anchor (unix seconds) goes with: statistics and kinds
    stay those of the training period, unless the anchor lies within it."""
    val, test = min(database.val_timestamp, at), max(database.test_timestamp, at)
    if (val, test) == (database.val_timestamp, database.test_timestamp):
        return database
    return database.with_timestamps(val, test)


def pose(
    compiled: CompiledQuery,
    database: Database,
    at: int,
    keys: Sequence[Any] | None = None,
    learnt: Learnt = NOTHING_LEARNT,
) -> Posed:
    """
    Args:
        compiled, database: both ``as_of`` the anchor time.
        at: the anchor time, unix seconds; nothing later is seen.
        keys: of the entities to be asked about; without: those that the query names, or all (of a
            static target: those without a value).

    Raises:
        ValueError: if there is nobody to ask about, no label is known by then, or the answers would
            be lists of labels.
    """
    check_single(compiled)
    if keys is not None and not len(keys):
        raise ValueError("nobody to ask about: entities is empty; leave it out to ask about all")
    past = past_labels(compiled, database, at, learnt)
    asked = entities(compiled, database, at, keys or (), where_at=learnt.where_at)
    if is_static(compiled) and keys is None and not compiled.bound.rows:
        missing = ~np.isin(asked.row, past.entity)
        if asked.row.size and not missing.any():
            raise ValueError(
                f"nobody to ask about: no value of {compiled.target_column} is missing at "
                f"{shown_time(at)}; name those to be asked about all the same (entities=, or FOR "
                f"{compiled.entity_table}.{compiled.entity_column} IN (...))"
            )
        asked = replace(asked, row=asked.row[missing], time=asked.time[missing])
    if not asked.row.size:
        raise ValueError(
            f"nobody to ask about at {shown_time(at)}: no row of {compiled.entity_table} is there "
            f"by then and fits the query{_why(asked)}"
        )
    return pose_rows(compiled, database, at, asked, past, learnt)


def check_single(compiled: CompiledQuery) -> None:
    """
    Raises:
        ValueError: if the answers would be lists of labels.
    """
    if compiled.task_type == "multilabel_classification":
        asking = "CLASSIFY" if compiled.bound.query.ranking else "LIST_DISTINCT of no foreign key"
        raise ValueError(
            f"{asking} asks for lists of labels, which are not answered: ask about one of them at "
            "a time (COUNT(... WHERE ... = 'x', 0, 30, days) > 0), or RANK TOP k of a foreign key"
        )


def check_classes(classes: Sequence[str], target: str) -> None:
    """
    Raises:
        ValueError: for more than a category may have (``MAX_CATEGORIES``).
    """
    if len(classes) > MAX_CATEGORIES:
        raise ValueError(
            f"{target} has {len(classes)} classes, at most {MAX_CATEGORIES} are answered: compare "
            "it with some of them, as in ... = 'x' or ... LIKE 'x%'"
        )


def pose_rows(
    compiled: CompiledQuery,
    database: Database,
    at: int,
    asked: Entities,
    past: Labels,
    learnt: Learnt,
) -> Posed:
    """The same about some rows of the entity table, from labels of the past; of a static target
    without their own ones."""
    entity, time, label, now = past.entity, past.time, past.label, asked.time
    if is_static(compiled):
        others = ~np.isin(entity, asked.row)
        entity, time, label = entity[others], time[others], label.filter(pa.array(others))
        if not learnt.fitted:
            time, now = np.full(entity.size, at - 1), np.full(asked.row.size, at)
    if not entity.size:
        raise ValueError(
            f"no label is known by {shown_time(at)}: {past.counts.words()}; ask at a later time "
            "(at=), or about more entities"
        )
    classes = learnt.classes
    if compiled.task_type == "multiclass_classification" and not classes:
        classes = class_names(label.to_pandas())
        check_classes(classes, compiled.target_column)
        if len(classes) == 1:
            raise ValueError(
                f"every known value of {compiled.target_column} is {classes[0]!r}: nothing tells "
                "them apart"
            )
    rows: dict[TaskSplit, TaskRows] = {
        "train": _rows(compiled, entity, time, label, classes),
        "val": _rows(compiled, entity[:0], time[:0], label[:0], classes),
        "test": _rows(compiled, asked.row, now, pa.nulls(now.size, label.type), classes),
    }
    task = _as_task(compiled, database, rows, classes, learnt)
    return Posed(compiled, task, at, past.counts, asked.left_out, learnt)


def plain_name(compiled: CompiledQuery) -> str:
    """What a query's table of labels is called, which a model reads: words alone."""
    return compiled.name.rpartition("-")[0]


def is_static(compiled: CompiledQuery) -> bool:
    """Whether the target is a value that is there, or missing; not one of a window of time."""
    return compiled.kind != "forecast"


def compiled_at(query: str, database: Database, at: Any) -> tuple[CompiledQuery, Database, int]:
    """A query, and its database, ``as_of`` its anchor time in unix seconds; see ``anchor_time``.
    Where a time is given, no later row says what a column holds, and so if it can be asked for.

    Raises:
        QueryError: for a query that cannot be read.
        ValueError: if it is no time.
    """
    compiled = None if at is not None else compile_text(query, database)
    moment = read_time(at) if compiled is None else anchor_time(compiled, database, None)
    seen = as_of(database, moment)
    if compiled is None or seen is not database:
        compiled = compile_text(query, seen)
    return compiled, seen, moment


def read_time(at: Any) -> int:
    """A time in unix seconds; times without a zone are UTC.

    Raises:
        ValueError: if it is none.
    """
    try:
        if isinstance(at, str) and not re.match(r"\s*\d{4}-\d{2}", at):
            raise ValueError(at)  # 01.02. is of January or of February
        moment = pd.Timestamp(at)
    except (ValueError, TypeError):
        moment = pd.NaT
    if moment is pd.NaT or not isinstance(at, str | date | np.datetime64):
        raise ValueError(f"at={at!r}: wanted a time such as 2024-01-31 or '2024-01-31 12:00'")
    if moment.tzinfo is not None:
        moment = moment.tz_convert(None)
    return int(moment.to_datetime64().astype("datetime64[s]").astype("int64"))


def anchor_time(compiled: CompiledQuery, database: Database, at: Any) -> int:
    """An anchor time in unix seconds. Where none is given: the latest time of the rows that the
    target aggregates, up to which it has been observed; of static targets, of all rows.

    Raises:
        ValueError: see ``read_time``.
    """
    if at is not None:
        return read_time(at)
    last = [last for _, last in _spans(compiled, database).values()]
    return max(last, default=database.test_timestamp)


def _spans(compiled: CompiledQuery, database: Database) -> dict[str, tuple[int, int]]:
    """First and last times of the tables that a target aggregates, or of all where none has any."""
    asked = {aggregate.table for aggregate in aggregates(compiled.bound.target)}
    return {n: span for n, span in database.spans.items() if n in asked} or database.spans


def observed_until(compiled: CompiledQuery, database: Database, at: int) -> int:
    """The latest time by ``at`` of the rows that a target aggregates, unix seconds; ``at`` where
    there are none. What happened later was not observed, and did not fail to happen."""
    found = []
    for name, (first, last) in _spans(compiled, database).items():
        if first <= at < last:
            times = database.times(name)
            last = int(times[times <= at].max())
        if first <= at:
            found.append(last)
    return max(found, default=at)


def check_observed(compiled: CompiledQuery, database: Database, at: int) -> tuple[str, ...]:
    """What a reader must know of an anchor time long after what has been observed."""
    if is_static(compiled):
        return ()
    last = observed_until(compiled, database, at)
    if at <= last + compiled.timedelta:
        return ()
    return (
        f"the latest that is known by {shown_time(at)} of what is asked is of {shown_time(last)}: "
        "nobody knows what has happened since, and answers are as if nothing had; ask as of that "
        "time (at=)",
    )


def past_labels(
    compiled: CompiledQuery, database: Database, at: int, learnt: Learnt = NOTHING_LEARNT
) -> Labels:
    """Labels that are known by an anchor, of as many earlier anchors as are worth while: windows
    that do not overlap, the last one ending there; more of them where they hold few labels."""
    if is_static(compiled):
        return labels(compiled, database, [at], where_at=learnt.where_at)
    times = earlier_anchors(compiled, database, at)
    there = max(1, int(count_entities(compiled, database, times[0])))
    most = min(times.size, max(1, _MOST_ROWS // there))
    taken = min(most, MOST_ANCHORS)
    found = labels(compiled, database, times[:taken])
    while taken < most and len(found) < _ENOUGH:
        taken = min(most, 4 * taken)
        found = labels(compiled, database, times[:taken])
    return found


def earlier_anchors(compiled: CompiledQuery, database: Database, at: int) -> Ints:
    """All anchor times whose labels are known by ``at``, latest first. There are none from before
    the tables that are asked about begin, nor from after their last row by then: that they hold
    nothing then says nothing.

    Raises:
        ValueError: if there is none between.
    """
    step = max(compiled.timedelta, 1)
    spans = _spans(compiled, database)
    first = min((first for first, _ in spans.values()), default=database.first_time)
    skipped = (at - observed_until(compiled, database, at)) // step
    count = (at - first) // step
    if count <= skipped:
        raise ValueError(
            f"no label is known by {shown_time(at)}: the first row of {' and '.join(spans)} is of "
            f"{shown_time(first)}, and labels are known {step / 86_400:g} days after they are "
            "asked for; ask at a later time (at=), or about a shorter window"
        )
    return at - step * np.arange(skipped + 1, count + 1, dtype=np.int64)


def _why(asked: Entities) -> str:
    reasons = [f"; {key!r} {why}" for key, why in asked.left_out.items()]
    return "".join(reasons[:3])


def _as_task(
    compiled: CompiledQuery,
    database: Database,
    rows: dict[TaskSplit, TaskRows],
    classes: Sequence[str],
    learnt: Learnt,
) -> Task:
    name, at_once = plain_name(compiled), is_static(compiled) and not learnt.fitted
    return Task(
        name=name,
        folder=database.folder / "tasks" / name,
        database=database,
        task_type=compiled.task_type,
        kind=compiled.kind,
        entity_table=compiled.entity_table,
        entity_column=compiled.entity_column,
        target=compiled.target_column,
        time_column=compiled.time_column,
        timedelta=1 if at_once else compiled.timedelta,
        hidden=(*compiled.hidden, *(() if learnt.fitted else _links(compiled))),
        destination_table=compiled.destination_table,
        top_k=compiled.top_k,
        given_rows=rows,
        given_classes=tuple(classes),
    )


def _links(compiled: CompiledQuery) -> tuple[tuple[str, str], ...]:
    """Of a child whose value is asked for, what links it to the entity: those whose value is not
    known have no such child, which would tell them apart from all examples."""
    if compiled.bound.kind != "child":
        return ()
    return tuple((hop.table, hop.column) for hop in compiled.bound.via)


def _rows(
    compiled: CompiledQuery, entity: Ints, time: Ints, label: pa.Array, classes: Sequence[str]
) -> TaskRows:
    size = entity.size
    start, destination = np.zeros(size + 1, np.int64), np.zeros(0, np.int64)
    if compiled.task_type == "recommendation":
        lengths = label.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        start = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        destination = label.flatten().to_numpy(zero_copy_only=False).astype(np.int64)
        return TaskRows(entity, time, np.zeros((size, 0)), start, destination)
    if compiled.task_type == "multiclass_classification":
        number = {name: float(i) for i, name in enumerate(classes)}
        named = [
            np.nan if v is None else number.get(class_name(v), -1.0) for v in label.to_pylist()
        ]
        return TaskRows(
            entity, time, np.array(named, np.float64).reshape(-1, 1), start, destination
        )
    values = label.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return TaskRows(entity, time, values[:, None], start, destination)
