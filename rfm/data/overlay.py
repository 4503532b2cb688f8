"""A prepared store with the rows of one more task, in memory: what attaching and preparing a task
on disk comes to (``rfm.data.attach``, ``rfm.data.prepare``), for tasks that live for one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from rfm.data.attach import KNOWN, LABEL
from rfm.data.column_stats import fit_column_stats
from rfm.data.generated import GeneratedTask
from rfm.data.graph import EntityGraph, ForeignKey
from rfm.data.label_history import Floats
from rfm.data.schema import Kind, words
from rfm.data.store import CellColumn, RowStore, TableStore
from rfm.data.task_rows import Ints
from rfm.data.tokenizer import Tokenizer

_SECONDS_PER_DAY = 86_400.0


def overlay(store: RowStore, task: GeneratedTask, until: int, tokenizer: Tokenizer) -> RowStore:
    """The store with the task's rows as its last table, in order, each visible when its label is
    known.

    Args:
        until: unix seconds; the statistics of its cells are those of labels known by then.
    """
    known, label = task.known, f"{LABEL} {task.target}"
    said = tokenizer.encode([words(text) for text in (task.table, KNOWN, label, task.key)])
    kind: Kind = "boolean" if task.classes == 2 else "number"
    names = tokenizer.encode(list(task.names)) if task.classes > 2 else []
    cells = (
        _column(KNOWN, "datetime", known / _SECONDS_PER_DAY, known <= until, said[1]),
        _texts(label, task.rows.label, said[2])
        if names
        else _column(label, kind, task.rows.label, known <= until, said[2]),
    )
    table = TableStore(
        name=task.table,
        key="",
        name_tokens=tuple(said[0]),
        columns=tuple(column for column, _ in cells),
        cells=np.stack([cell for _, cell in cells], axis=1),
        text_ptr=np.cumsum([0, *(len(name) for name in names)]),
        text_tokens=np.array([token for name in names for token in name], dtype=np.uint16),
    )
    return replace(
        store,
        tables=(*store.tables, table),
        graph=_extended(store.graph, task, known),
        relation_tokens=(*store.relation_tokens, tuple(said[3])),
    )


def _column(
    name: str, kind: Kind, value: Floats, told: npt.NDArray[np.bool_], tokens: Sequence[int]
) -> tuple[CellColumn, npt.NDArray[np.int32]]:
    """A column of values [n], of which some [n] make its statistics, and its cells [n]."""
    stats = fit_column_stats(value[told])
    column = CellColumn(name, kind, True, name == KNOWN, tuple(tokens), stats, True)
    return column, stats.standardise(value).view(np.int32)


def _texts(
    name: str, label: Floats, tokens: Sequence[int]
) -> tuple[CellColumn, npt.NDArray[np.int32]]:
    """A column of the names of classes [n], and its cells [n]: -1 is null."""
    stats = fit_column_stats(np.zeros(0))
    column = CellColumn(name, "category", False, False, tuple(tokens), stats, True)
    return column, np.nan_to_num(label, nan=-1.0).astype(np.int32)


def _extended(graph: EntityGraph, task: GeneratedTask, known: Ints) -> EntityGraph:
    """The graph with one more table, whose rows are there from times [n] on."""
    entity, first = task.rows.entity, graph.num_rows
    parent_first, parent_end = graph.table_start[task.entity_table : task.entity_table + 2]
    count = np.bincount(entity, minlength=int(parent_end - parent_first))
    key = ForeignKey(len(graph.tables), task.key, task.entity_table)
    return EntityGraph(
        folder=graph.folder,
        tables=(*graph.tables, task.table),
        table_start=np.append(graph.table_start, first + entity.size),
        row_time=np.concatenate([graph.row_time, known]),
        foreign_keys=(*graph.foreign_keys, key),
        parent=np.concatenate([graph.parent, (parent_first + entity).astype(np.int32)]),
        parent_start=np.append(graph.parent_start, graph.parent.size),
        child_ptr=np.concatenate(
            [graph.child_ptr, graph.child.size + np.append(0, count.cumsum())]
        ),
        child_ptr_start=np.append(graph.child_ptr_start, graph.child_ptr.size),
        child=np.concatenate([graph.child, (first + np.lexsort((known, entity))).astype(np.int32)]),
    )
