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
from rfm.data.laid import LaidTask
from rfm.data.sampler import Subgraph
from rfm.data.task_rows import Ints
from rfm.nn.backbone import Rows

EdgePath: TypeAlias = tuple[int, ...]
"""Types of the edges walked from the entity, as ``Told.subjects`` has it."""
QUESTION: EdgePath = (-1,)
KNOWN, LABEL = 0, 1  # columns of the task's own table


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

    def take(self, row: Tensor, cell: Tensor) -> Layout:
        """Some of the rows, and of the cells."""
        at = row.cpu().numpy()
        return Layout(self.row[at], self.table[at], self.column[cell.cpu().numpy()])


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
    """How each row [R] of some questions' components was reached from its question's entity."""
    paths: list[EdgePath] = [QUESTION for _ in range(seen.row.size)]
    questions = int((seen.hop == 0).sum())
    asker, first = seen.edge_index[1].tolist(), set[int]()
    for e, row in enumerate(seen.edge_index[0].tolist()):
        if row >= questions and row not in first:
            first.add(row)
            before = paths[asker[e]]
            paths[row] = () if asker[e] < questions else (*before, int(seen.edge_type[e]))
    return paths
