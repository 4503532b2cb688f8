"""Rows that a frozen row encoder has seen before: their states, and those of their cells."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import CachedRows, cat, pad_tokens
from rfm.data.serialise import NUM_FEATURES, value_features
from rfm.data.targets import Source
from rfm.data.task_rows import Ints


class EncodedRows(NamedTuple):
    """state [n, D] float32. Of K visible cells, in any order: row [K] (index into n), column [K]
    within the row's table, cell [K, D] float32."""

    state: npt.NDArray[np.float32]
    row: Ints
    column: Ints
    cell: npt.NDArray[np.float32]

    @classmethod
    def of_tables(
        cls, size: int, width: int, tables: Iterable[tuple[Ints, npt.NDArray[np.floating[Any]]]]
    ) -> EncodedRows:
        """``size`` rows, table by table: which of them [m], and the states [m, 1 + C, D] of these
        and of their cells, NaN where one is not visible."""
        state = np.empty((size, width), dtype=np.float32)
        row, column = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        cell = [np.zeros((0, width), np.float32)]
        for here, states in tables:
            state[here] = states[:, 0]
            at, c = np.nonzero(~np.isnan(states[:, 1:, 0]))
            row.append(here[at])
            column.append(c)
            cell.append(states[at, 1 + c].astype(np.float32))
        return cls(state, np.concatenate(row), np.concatenate(column), np.concatenate(cell))


class RowStates(Protocol):
    """States of rows that a frozen row encoder has seen."""

    @property
    def width(self) -> int: ...

    def __call__(self, source: int, rows: Ints) -> EncodedRows:
        """Of global rows [n] of a database, all of which it must have."""
        ...

    def has(self, source: int, rows: Ints) -> npt.NDArray[np.bool_]:
        """[n]: which rows it has; others are to be encoded."""
        ...


def gather(
    sources: Sequence[Source], cache: RowStates | None, which: tuple[Ints, Ints], pad: int
) -> CachedRows:
    """The cached rows of a batch, in order.

    Args:
        which: database and global row [n] of each.
    """
    source, rows = which
    width = 1 if cache is None else cache.width
    state = np.zeros((rows.size, width), dtype=np.float32)
    row, cell, feature, name = [], [np.zeros((0, width), np.float32)], [], []
    names: list[tuple[int, ...]] = []
    for s in np.unique(source):
        assert cache is not None
        here = np.flatnonzero(source == s)
        encoded = cache(int(s), rows[here])
        state[here] = encoded.state
        row.append(here[encoded.row])
        cell.append(encoded.cell)
        described, named = _describe(sources[s], rows[here[encoded.row]], encoded.column, names)
        feature.append(described)
        name.append(named)
    order = np.argsort(np.concatenate([np.zeros(0, np.int64), *row]), kind="stable")
    features = np.concatenate([np.zeros((0, NUM_FEATURES), np.float32), *feature])
    return CachedRows(
        state=torch.from_numpy(state),
        cell_row=cat(row, np.int64)[order],
        cell_state=torch.from_numpy(np.concatenate(cell)[order]),
        cell_feature=torch.from_numpy(features[order]),
        cell_name=cat(name, np.int64)[order],
        name=pad_tokens(names, pad),
    )


def _describe(
    source: Source, rows: Ints, column: Ints, names: list[tuple[int, ...]]
) -> tuple[npt.NDArray[np.float32], Ints]:
    """Value features [K, NUM_FEATURES] (0 of texts) of cells, and the numbers [K] of their columns'
    names, of which new ones are added to ``names``."""
    store = source.store
    feature = np.zeros((rows.size, NUM_FEATURES), dtype=np.float32)
    name = np.zeros(rows.size, dtype=np.int64)
    table = store.graph.table_of(rows)
    for t in np.unique(table):
        cells, at = store.tables[t], np.flatnonzero(table == t)
        local = rows[at] - int(store.graph.table_start[t])
        name[at] = len(names) + column[at]
        names.extend(c.name_tokens for c in cells.columns)
        value = cells.is_value[column[at]]
        at, local = at[value], local[value]
        z = np.ascontiguousarray(cells.cells[local, column[at]]).view(np.float32)
        feature[at] = value_features(cells, z, column[at])
    return feature, name
