"""Labels of a compiled query at anchor times, and the entities that it asks about at one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rfm.data.database import Database
from rfm.data.original_keys import find_row, is_missing, key_of_row, keys_of_rows
from rfm.data.query.compiled import CompiledQuery, label_sql, pieces, select
from rfm.data.query.run import LIMITS, Limits, run, tables_of
from rfm.data.query.sql import WhereAt
from rfm.data.schema import shown_time
from rfm.data.task_rows import Ints


@dataclass(frozen=True)
class Counts:
    """Of each anchor time [t] (static targets: the last alone), how many entities there were.

    there: existed by then. asked: of these, fulfilled WHERE. unassumed: of these, did not fulfil
    ASSUMING. empty: of the rest, had no label (an empty window, a missing value). labelled: the
    rest. positive: of these, the label is 1 (binary), true or not zero (regression), or lists
    something.
    """

    time: Ints
    there: Ints
    asked: Ints
    unassumed: Ints
    empty: Ints
    labelled: Ints
    positive: Ints

    def words(self) -> str:
        """The sums in one line."""
        there, asked, unassumed, empty, labelled, positive = (
            int(getattr(self, name).sum())
            for name in ("there", "asked", "unassumed", "empty", "labelled", "positive")
        )
        dropped = [
            f"{there - asked} not by WHERE" * (there > asked),
            f"{unassumed} not by ASSUMING" * (unassumed > 0),
            f"{empty} without a value" * (empty > 0),
        ]
        said = ", ".join(part for part in dropped if part)
        share = f"{positive / labelled:.1%}" if labelled else "none"
        return (
            f"{labelled} labelled ({positive} positive, {share}) at {self.time.size} anchor "
            f"time{'s' * (self.time.size != 1)}, {there - labelled} dropped"
            + (f" ({said})" if said else "")
        )


@dataclass(frozen=True)
class Labels:
    """Rows in order of time and entity.

    entity [n]: rows of the entity table. time [n]: seed times, unix seconds. label [n]: int64 of 0
    and 1 (binary), double (regression), strings or numbers (multiclass), lists of int64 (rows of
    the destination table, or 0 and 1 per class).
    """

    entity: Ints
    time: Ints
    label: pa.Array
    counts: Counts

    def __len__(self) -> int:
        return int(self.entity.size)


@dataclass(frozen=True)
class Entities:
    """Those to be predicted. row [n]: of the entity table. time [n]: seed times, unix seconds: the
    anchor time, or the entity's own for a static target. left_out: keys that were asked for, and
    why they are not among them."""

    row: Ints
    time: Ints
    left_out: Mapping[Any, str]

    def __len__(self) -> int:
        return int(self.row.size)


def labels(
    compiled: CompiledQuery,
    database: Database,
    times: npt.ArrayLike,
    limits: Limits = LIMITS,
    where_at: WhereAt = "seed",
) -> Labels:
    """The labels at anchor times [t] (unix seconds), of all entities that the query is about,
    whichever of them it names after FOR.

    A static target has one label per entity, at its own time: the anchor times only say by when
    (the last of them) labels must be known.

    Args:
        where_at: of a static target, WHERE is decided at each entity's own time (``seed``, so that
            an example tells nothing later), or at the last anchor time (``anchor``, by all that is
            known then). That of a forecast is decided at each anchor time.

    Raises:
        ValueError: see ``run``.
    """
    anchors = np.unique(np.asarray(times, dtype=np.int64))
    tables = tables_of(compiled.bound)
    spelled = label_sql(compiled, database, where_at=where_at)
    if anchors.size == 0:
        found = run(f"{spelled}\nLIMIT 0", database, tables, anchors, limits)
    else:
        sql = f"{spelled}\nORDER BY 1, 2"
        found = run(sql, database, tables, anchors, limits)
    time, entity, label = (column.combine_chunks() for column in found.columns)
    return Labels(
        np.asarray(entity.to_numpy(zero_copy_only=False), dtype=np.int64),
        _seconds(time),
        label,
        count(compiled, database, anchors, limits, where_at),
    )


def count(
    compiled: CompiledQuery,
    database: Database,
    times: npt.ArrayLike,
    limits: Limits = LIMITS,
    where_at: WhereAt = "seed",
) -> Counts:
    """How many examples there are at anchor times [t] (unix seconds), how many are dropped, why,
    and how many are positive; ``where_at`` as in ``labels``."""
    anchors = np.unique(np.asarray(times, dtype=np.int64))
    static = compiled.kind != "forecast"
    parts = pieces(compiled, database, False, where_at=where_at)
    asked, kept = f"({parts.where}) IS TRUE", f"({parts.assuming}) IS TRUE"
    labelled = f"({parts.label}) IS NOT NULL"
    positive = {
        "recommendation": "TRUE",
        "multilabel_classification": "TRUE",
        "multiclass_classification": "TRUE",
    }.get(compiled.task_type, f"({parts.label}) <> 0")
    columns = [
        "any_value(NULL)" if static else parts.time,
        f"count_if({asked})",
        f"count_if({asked} AND NOT ({kept}))",
        f"count_if({asked} AND {kept} AND NOT ({labelled}))",
        f"count_if({asked} AND {kept} AND {labelled})",
        f"count_if({asked} AND {kept} AND {labelled} AND {positive})",
    ]
    exists = [c for c in (parts.exists,) if c != "TRUE"]
    sql = select(parts, ",\n  ".join(columns), exists) + ("" if static else "\nGROUP BY 1")
    found = run(sql, database, tables_of(compiled.bound), anchors, limits)
    time = anchors[-1:] if static else anchors
    counted = np.zeros((5, time.size), np.int64)
    at = np.zeros(1, np.int64) if static else np.searchsorted(time, _seconds(found.column(0)))
    if time.size and found.num_rows:
        for i in range(5):
            # without GROUP BY there is a row even of nobody, and it counts NULL
            counted[i, at] = found.column(i + 1).fill_null(0).to_numpy()
    begun = np.sort(database.times(compiled.entity_table))
    return Counts(time, np.searchsorted(begun, time, side="right"), *counted)


def entities(
    compiled: CompiledQuery,
    database: Database,
    time: int,
    keys: Sequence[Any] = (),
    limits: Limits = LIMITS,
    where_at: WhereAt = "seed",
) -> Entities:
    """The entities to be predicted at an anchor time (unix seconds): those there by then that
    fulfil WHERE, as far as is known then. ASSUMING is taken for granted.

    Args:
        keys: of the entities (original keys, or row numbers; see ``find_row``), instead of those
            that the query names after FOR; empty: these, or all if it names none.
        where_at: as in ``labels``.

    Raises:
        ValueError: for a key that is missing or that no row has, and see ``run``.
    """
    bound = compiled.bound
    wanted = [_row(database, bound.entity, key) for key in keys] or list(bound.rows)
    parts = pieces(compiled, database, False, where_at=where_at)
    exists = "" if parts.exists == "TRUE" else parts.exists
    columns = f"{parts.entity} AS row, {parts.time} AS seed, ({parts.where}) IS TRUE AS asked"
    sql = select(parts, columns, [c for c in (exists,) if c]) + "\nORDER BY 1"
    anchors = np.array([time], dtype=np.int64)
    found = run(sql, database, tables_of(bound), anchors, limits)
    row = np.asarray(found.column(0).to_numpy(), dtype=np.int64)
    seed, asked = _seconds(found.column(1)), found.column(2).to_numpy()
    if not wanted:
        return Entities(row[asked], seed[asked], {})
    at = {int(r): i for i, r in enumerate(row)}
    out = [r for r in dict.fromkeys(wanted) if r not in at or not asked[at[r]]]
    left_out = {
        key: "does not fulfil WHERE" if r in at else f"is not there by {shown_time(time)}"
        for r, key in zip(out, keys_of_rows(database, bound.entity, out), strict=True)
    }
    kept = np.array([at[r] for r in dict.fromkeys(wanted) if r in at and asked[at[r]]], np.int64)
    return Entities(row[kept], seed[kept], left_out)


def _row(database: Database, table: str, key: Any) -> int:
    if is_missing(key):
        raise ValueError(
            f"a key of {table} is missing ({key!r}), nobody can be found by it; drop such rows"
        )
    row = find_row(database, table, key)
    if row < 0:
        raise ValueError(
            f"{table} has no row with the key {key!r}; its keys are such as "
            f"{key_of_row(database, table, 0)!r}"
        )
    return row


def _seconds(values: pa.ChunkedArray | pa.Array) -> Ints:
    array = values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(False)
    return np.asarray(array.astype("datetime64[s]").astype("int64"))
