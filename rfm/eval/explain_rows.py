"""Where the states of a question's component stand: which rows, which columns, reached how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from rfm.data.batch import EpisodeBatch
from rfm.data.cached import EncodedRows, RowStates
from rfm.data.laid import LaidTask
from rfm.data.sampler import Subgraph
from rfm.data.serialise import REMOVED, VISIBLE, TokenIds, serialise
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints
from rfm.eval.row_cache import encode_rows
from rfm.nn.backbone import Rows
from rfm.nn.row_encoder import RowEncoder

EdgePath: TypeAlias = tuple[int, ...]
"""Types of the edges walked from the entity, as ``Told.subjects`` has it."""
QUESTION: EdgePath = (-1,)
KNOWN, LABEL = 0, 1  # columns of the task's own table


class SomeRows:
    """States of a database's rows (``RowStates``): those that are kept on disk, or encoded anew,
    perhaps with some cells out of sight.

    Args:
        kept: states, and the database's number there; none: all rows are encoded.
        removed: (global row, column) of cells that are out of sight.
    """

    def __init__(
        self,
        encoder: RowEncoder,
        store: RowStore,
        ids: TokenIds,
        max_tokens: int,
        kept: tuple[RowStates, int] | None,
        removed: tuple[tuple[int, int], ...] = (),
    ) -> None:
        self.encoder, self.store, self.ids, self.max_tokens = encoder, store, ids, max_tokens
        self.kept, self.removed = kept, removed

    def without(self, rows: Ints, column: int) -> SomeRows:
        """The same, with one column of some more global rows out of sight."""
        more = (*self.removed, *((row, column) for row in rows.tolist()))
        return SomeRows(self.encoder, self.store, self.ids, self.max_tokens, self.kept, more)

    @property
    def width(self) -> int:
        return self.encoder.width

    def has(self, source: int, rows: Ints) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        return np.ones(rows.size, dtype=np.bool_)

    def __call__(self, source: int, rows: Ints) -> EncodedRows:
        anew = np.isin(rows, [row for row, _ in self.removed])
        if self.kept is None:
            anew[:] = True
        parts = list[tuple[Ints, EncodedRows]]()
        if self.kept is not None and not anew.all():
            at = np.flatnonzero(~anew)
            parts.append((at, self.kept[0](self.kept[1], rows[at])))
        table = self.store.graph.table_of(rows)
        for t in np.unique(table[anew]):
            at = np.flatnonzero(anew & (table == t))
            parts.append((at, self._encode(int(t), rows[at])))
        state = np.zeros((rows.size, self.width), dtype=np.float32)
        for at, part in parts:
            state[at] = part.state
        return EncodedRows(
            state,
            np.concatenate([np.zeros(0, np.int64), *(at[part.row] for at, part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.column for _, part in parts)]),
            np.concatenate([np.zeros((0, self.width), np.float32), *(p.cell for _, p in parts)]),
        )

    @torch.no_grad()
    def _encode(self, table: int, rows: Ints) -> EncodedRows:
        """Global rows of one table."""
        columns = len(self.store.tables[table].columns)
        fate = np.full((rows.size, columns), VISIBLE, dtype=np.uint8)
        for row, column in self.removed:
            if (rows == row).any():  # else it may be of a table with fewer columns
                fate[rows == row, column] = REMOVED
        tokens = serialise(self.store, rows, fate, self.ids, self.max_tokens, 0)
        device = next(self.encoder.parameters()).device
        states = encode_rows(self.encoder, tokens, columns, device)
        at, where = np.nonzero(~np.isnan(states[:, 1:, 0]))
        cell = states[at, 1 + where].astype(np.float32)
        return EncodedRows(states[:, 0].astype(np.float32), at, where, cell)


@dataclass(frozen=True, eq=False)
class Layout:
    """Of a batch: the global row [U] and table [U] of each distinct row, -1 of the questions
    themselves; and the column [C] of each visible cell."""

    row: Ints
    table: Ints
    column: Ints

    @classmethod
    def of(cls, laid: LaidTask, batch: EpisodeBatch, rows: Rows, seen: Subgraph) -> Layout:
        place = batch.row.cpu().numpy()
        row = np.zeros(rows.row.shape[0], dtype=np.int64)
        row[place] = seen.row
        encoded = sum(bucket.token.shape[0] for bucket in batch.buckets)
        owner = rows.cells.row.cpu().numpy()
        column = np.full(owner.size, KNOWN, dtype=np.int64)
        own = np.flatnonzero(owner < encoded)  # the task's rows: when the label was known, and it
        column[own[np.append(owner[own][1:] != owner[own][:-1], True)[: own.size]]] = LABEL
        assert laid.cache is not None
        if row.size > encoded:
            cached = laid.cache(0, row[encoded:])
            column[own.size :] = cached.column[np.argsort(cached.row, kind="stable")]
        table = laid.store.graph.table_of(row)
        table[: batch.num_seeds] = -1
        return cls(row, table, column)


@dataclass(frozen=True, eq=False)
class MeanStates:
    """Means over the examples' components: of the rows of each table, and of the cells of each
    column, [D] and [D], [NUM_FEATURES]."""

    row: dict[int, Tensor]
    cell: dict[tuple[int, int], tuple[Tensor, Tensor]]

    @classmethod
    def over(cls, parts: Iterable[tuple[Layout, Rows]]) -> MeanStates:
        rows: dict[int, list[Tensor]] = defaultdict(list)
        cells: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for layout, found in parts:
            for t in np.unique(layout.table[layout.table >= 0]).tolist():
                rows[t].append(found.row[torch.from_numpy(layout.table == t)])
            owner = layout.table[found.cells.row.cpu().numpy()]
            for t, c in np.unique(np.stack([owner, layout.column]), axis=1).T.tolist():
                at = torch.from_numpy((owner == t) & (layout.column == c))
                cells[t, c].append((found.cells.state[at], found.cells.feature[at]))
        return cls(
            {t: torch.cat(own).mean(0) for t, own in rows.items()},
            {
                key: (
                    torch.cat([s for s, _ in own]).mean(0),
                    torch.cat([f for _, f in own]).mean(0),
                )
                for key, own in cells.items()
            },
        )

    def like(self, layout: Layout, rows: Rows) -> Rows:
        """Rows in which every state is the mean; 0 of what no example has seen."""
        row = torch.zeros_like(rows.row)
        for t in np.unique(layout.table).tolist():
            if t in self.row:
                row[torch.from_numpy(layout.table == t)] = self.row[t]
        state, feature = torch.zeros_like(rows.cells.state), torch.zeros_like(rows.cells.feature)
        owner = layout.table[rows.cells.row.cpu().numpy()]
        for t, c in np.unique(np.stack([owner, layout.column]), axis=1).T.tolist():
            if (t, c) in self.cell:
                at = torch.from_numpy((owner == t) & (layout.column == c))
                state[at], feature[at] = self.cell[t, c]
        return replace(rows, row=row, cells=replace(rows.cells, state=state, feature=feature))


def leads_to_labels(laid: LaidTask, path: EdgePath) -> bool:
    """Whether the rows at the end of a path are those of past labels."""
    own = laid.store.graph.num_edge_types - 2
    return bool(laid.task.key) and path not in ((), QUESTION) and path[-1] == own


def walk(seen: Subgraph) -> list[EdgePath]:
    """How each row [R] of one question's component was reached from the entity."""
    paths: list[EdgePath] = [QUESTION for _ in range(seen.row.size)]
    asker, first = seen.edge_index[1].tolist(), set[int]()
    for e, row in enumerate(seen.edge_index[0].tolist()):
        if row and row not in first:
            first.add(row)
            before = paths[asker[e]]
            paths[row] = () if asker[e] == 0 else (*before, int(seen.edge_type[e]))
    return paths
