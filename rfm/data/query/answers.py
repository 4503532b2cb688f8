"""Labels of a compiled query at anchor times, and the entities that it asks about at one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rfm.data.database import Database
from rfm.data.original_keys import find_row, is_missing, key_of_row, keys_of_rows
from rfm.data.query.compiled import CompiledQuery, pieces, select
from rfm.data.query.counts import Counts, balance_of
from rfm.data.query.run import LIMITS, Limits, run, tables_of
from rfm.data.query.sql import WhereAt
from rfm.data.schema import shown_time
from rfm.data.task_rows import Ints

Flags: TypeAlias = npt.NDArray[np.bool_]


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
            known then, labels of children too, however late they came). That of a forecast is
            decided at each anchor time.

    Raises:
        ValueError: see ``run``.
    """
    anchors = np.unique(np.asarray(times, dtype=np.int64))
    parts = pieces(compiled, database, False, where_at=where_at)
    columns = (
        f"{parts.time} AS time, {parts.entity} AS entity, {parts.label} AS label, "
        f"({parts.assuming}) IS TRUE AS kept"
    )
    conditions = [c for c in (parts.exists, parts.where) if c != "TRUE"]
    sql = f"{select(parts, columns, conditions)}\nORDER BY 1, 2"
    found = run(sql, database, tables_of(compiled.bound), anchors, limits).combine_chunks()
    time, label = _seconds(found.column("time")), found.column("label").combine_chunks()
    kept = found.column("kept").to_numpy()
    labelled = kept & label.is_valid().to_numpy(zero_copy_only=False)
    entity = np.asarray(found.column("entity").to_numpy(), dtype=np.int64)[labelled]
    own = label.filter(pa.array(labelled))
    counts = _count(compiled, database, anchors, (time, kept, labelled), own)
    return Labels(entity, time[labelled], own, counts)


def _count(
    compiled: CompiledQuery,
    database: Database,
    anchors: Ints,
    asked: tuple[Ints, Flags, Flags],
    label: pa.Array,
) -> Counts:
    """Of those who fulfil WHERE, their times [n], whether they fulfil ASSUMING and whether they
    have a label besides; and the labels."""
    static, (seed, kept, labelled) = compiled.kind != "forecast", asked
    time = anchors[-1:] if static else anchors
    at = np.zeros(seed.size, np.int64) if static else np.searchsorted(time, seed)
    positive = np.zeros(seed.size, bool)
    if compiled.task_type == "binary_classification":
        positive[labelled] = label.to_numpy(zero_copy_only=False) != 0

    def counted(part: Flags) -> Ints:
        return np.bincount(at[part], minlength=time.size).astype(np.int64)

    return Counts(
        time,
        there=count_entities(compiled, database, time),
        asked=counted(np.ones(seed.size, bool)),
        unassumed=counted(~kept),
        empty=counted(kept & ~labelled),
        labelled=counted(labelled),
        positive=counted(positive),
        task_type=compiled.task_type,
        balance=balance_of(label, compiled.task_type, compiled.classes),
    )


def count_entities(compiled: CompiledQuery, database: Database, times: Ints) -> Ints:
    """How many rows the entity table has by times [t]."""
    begun = np.sort(database.times(compiled.entity_table))
    return np.asarray(np.searchsorted(begun, times, side="right"))


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
