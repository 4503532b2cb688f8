"""States of rows as they are, and as they would be with one cell null."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from rfm.data.batch import CachedRows, EpisodeBatch
from rfm.data.cached import EncodedRows, RowStates, gather
from rfm.data.serialise import REMOVED, VISIBLE, TokenIds, serialise
from rfm.data.store import RowStore
from rfm.data.targets import Source
from rfm.data.task_rows import Ints
from rfm.eval.row_cache import encode_rows
from rfm.nn.row_encoder import RowEncoder


class SomeRows:
    """States of a database's rows (``RowStates``): those that are kept on disk, or encoded anew.

    Args:
        kept: states, and the database's number there; none: all rows are encoded.
    """

    def __init__(
        self,
        encoder: RowEncoder,
        store: RowStore,
        ids: TokenIds,
        max_tokens: int,
        kept: tuple[RowStates, int] | None,
    ) -> None:
        self.encoder, self.store, self.ids, self.max_tokens = encoder, store, ids, max_tokens
        self.kept = kept

    @property
    def width(self) -> int:
        return self.encoder.width

    def has(self, source: int, rows: Ints) -> npt.NDArray[np.bool_]:
        return np.ones(rows.size, dtype=np.bool_)

    def __call__(self, source: int, rows: Ints) -> EncodedRows:
        if self.kept is not None:
            return self.kept[0](self.kept[1], rows)
        return self.encode(rows, np.full(rows.size, -1))

    @torch.no_grad()
    def encode(self, rows: Ints, without: Ints) -> EncodedRows:
        """Global rows [n], each without one column [n] of its table, -1 for none."""
        table, device = self.store.graph.table_of(rows), next(self.encoder.parameters()).device

        def states() -> Iterator[tuple[Ints, npt.NDArray[np.floating[Any]]]]:
            for t in np.unique(table):
                here, columns = np.flatnonzero(table == t), len(self.store.tables[int(t)].columns)
                fate = np.full((here.size, columns), VISIBLE, dtype=np.uint8)
                less = np.flatnonzero(without[here] >= 0)
                fate[less, without[here[less]]] = REMOVED
                tokens = serialise(self.store, rows[here], fate, self.ids, self.max_tokens, 0)
                yield here, encode_rows(self.encoder, tokens, columns, device)

        return EncodedRows.of_tables(rows.size, self.width, states())


@dataclass(frozen=True, eq=False)
class _Less:
    """States (``RowStates``) of some rows [n], in this order, each without one column [n]."""

    rows: SomeRows
    without: Ints

    @property
    def width(self) -> int:
        return self.rows.width

    def has(self, source: int, rows: Ints) -> npt.NDArray[np.bool_]:
        return self.rows.has(source, rows)

    def __call__(self, source: int, rows: Ints) -> EncodedRows:
        return self.rows.encode(rows, self.without)


def blank(
    batch: EpisodeBatch, store: RowStore, rows: SomeRows, node: Ints, cells: tuple[Ints, Ints]
) -> EpisodeBatch:
    """A batch in which some nodes [n] show their rows without one cell each.

    Args:
        store: the database's, with the task laid over it. cells: the row and the column [n], [n].
    """
    (row, column), which = np.unique(np.stack(cells), axis=1, return_inverse=True)
    source = Source(store, tuple(0 for _ in store.tables), 0)
    less = gather([source], _Less(rows, column), (np.zeros_like(row), row), rows.ids.pad)
    shown, first = batch.row.clone(), sum(bucket.token.shape[0] for bucket in batch.buckets)
    first += batch.cached.state.shape[0]
    shown[torch.from_numpy(node)] = first + torch.from_numpy(which.reshape(-1))
    return replace(batch, row=shown, cached=_joined(batch.cached, less, rows.ids.pad))


def _joined(some: CachedRows, others: CachedRows, pad: int) -> CachedRows:
    width = max(some.name.shape[1], others.name.shape[1])
    names = [F.pad(own.name, (0, width - own.name.shape[1]), value=pad) for own in (some, others)]
    return CachedRows(
        state=torch.cat([some.state, others.state]),
        cell_row=torch.cat([some.cell_row, some.state.shape[0] + others.cell_row]),
        cell_state=torch.cat([some.cell_state, others.cell_state]),
        cell_feature=torch.cat([some.cell_feature, others.cell_feature]),
        cell_name=torch.cat([some.cell_name, some.name.shape[0] + others.cell_name]),
        name=torch.cat(names),
    )
