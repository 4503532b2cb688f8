"""Batches of the from-scratch GraphSAGE: sampled rows by table, with their cells and edges.

Unlike the pretrained model's, this network has weights for each table and foreign key, so that its
batches are dictionaries by table ``t<number>`` and by edge type (source, ``e<number>``, target).

Legend: S seeds, N nodes of a table, U distinct rows of a table (and one without any cell, the
last), V value columns, C category columns, X text columns, K tokens, E edges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rfm.data.batch import TensorRecord
from rfm.data.graph import STATIC
from rfm.data.sampler import Seeds, Strategy, Subgraph, sample
from rfm.data.serialise import NUM_FEATURES, value_features
from rfm.data.store import RowStore, TableStore, filled

Ints = npt.NDArray[np.int64]
EdgeType = tuple[str, str, str]
TEXT_BUCKETS = 4_096
_SECONDS_PER_DAY = 86_400.0
_HASH = 1_000_003


@dataclass(frozen=True)
class TableBatch(TensorRecord):
    """value [U, V, NUM_FEATURES] float32, 0 where null; given [U, V] bool; category [U, C] int64, 0
    for null and for what no training row has; token [K] int64, buckets of the texts' tokens; start
    [U * X] int64: where each text begins in ``token``. node [N]: each node's distinct row. age [N]
    float32: days from the row to the seed time. timed [N] float32: 0 where the row has no time."""

    value: Tensor
    given: Tensor
    category: Tensor
    token: Tensor
    start: Tensor
    node: Tensor
    age: Tensor
    timed: Tensor


@dataclass(frozen=True)
class HeteroBatch:
    """tables: by table. edges: by edge type [2, E], from neighbour to the node that asked. within:
    by table, how many nodes [hops + 1] are at most so many hops away: they come first. asked: by
    edge type, how many edges [hops] nodes at most so many hops away asked for: they come first."""

    tables: Mapping[str, TableBatch]
    edges: Mapping[EdgeType, Tensor]
    within: Mapping[str, Sequence[int]]
    asked: Mapping[EdgeType, Sequence[int]]

    def to(self, device: torch.device) -> HeteroBatch:
        return replace(
            self,
            tables={name: table.to(device) for name, table in self.tables.items()},
            edges={key: edge.to(device) for key, edge in self.edges.items()},
        )


@dataclass(frozen=True, eq=False)
class TableColumns:
    """Which columns of a table are values, categories and texts, and the numbers of its categories
    (``code`` [texts], 0 for those that no training row has, ``sizes`` [C] with 0 counted)."""

    store: TableStore
    value: Ints
    category: Ints
    text: Ints
    code: tuple[Ints, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(code.max(initial=0)) + 1 for code in self.code)

    @classmethod
    def of(cls, table: TableStore, training: Ints) -> TableColumns:
        """training [n]: local rows whose categories are numbered, in the order of their tokens: the
        numbers do not depend on later rows."""
        kinds = np.array([c.kind for c in table.columns])
        category = np.flatnonzero(~table.is_value & (kinds == "category"))
        texts = max(0, table.text_ptr.size - 1)
        codes = []
        for column in category:
            seen = np.unique(table.cells[training, column])
            spelled = sorted(
                (table.text_tokens[table.text_ptr[i] : table.text_ptr[i + 1]].tolist(), int(i))
                for i in seen[seen >= 0]
            )
            code = np.zeros(texts, dtype=np.int64)
            code[[i for _, i in spelled]] = np.arange(1, len(spelled) + 1)
            codes.append(code)
        text = np.flatnonzero(~table.is_value & (kinds != "category"))
        return cls(table, np.flatnonzero(table.is_value), category, text, tuple(codes))

    def inputs(self, rows: Ints) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """value, given, category, token and start (see ``TableBatch``) of local rows [U - 1], and
        of one without any cell."""
        table = self.store
        nothing = np.where(table.is_value, np.float32(np.nan).view(np.int32), np.int32(-1))
        cells = np.concatenate([table.cells[rows], nothing[None].astype(np.int32)])
        given = filled(cells, table.is_value)[:, self.value]
        z = np.ascontiguousarray(cells[:, self.value]).view(np.float32)[given]
        value = np.zeros((*given.shape, NUM_FEATURES), dtype=np.float32)
        value[given] = value_features(table, z, self.value[np.nonzero(given)[1]])
        category = np.zeros((cells.shape[0], len(self.category)), dtype=np.int64)
        for i, (column, code) in enumerate(zip(self.category, self.code, strict=True)):
            index = cells[:, column]
            category[:, i] = np.where(index < 0, 0, code[np.maximum(index, 0)] if code.size else 0)
        token, start = self._tokens(cells[:, self.text])
        arrays = (value, given, category, token, start)
        return tuple(torch.from_numpy(a) for a in arrays)  # type: ignore[return-value]

    def _tokens(self, cells: npt.NDArray[np.int32]) -> tuple[Ints, Ints]:
        """Buckets [K] of the tokens of texts [U, X], which a column shares with no other on
        purpose, and where each text begins [U * X]."""
        pointer, there = np.asarray(self.store.text_ptr), (cells >= 0).ravel()
        index = np.maximum(cells, 0).ravel().astype(np.int64)
        if not there.any():
            return np.zeros(0, np.int64), np.zeros(index.size, np.int64)
        length = np.where(there, pointer[index + 1] - pointer[index], 0)
        start = np.cumsum(length) - length
        column = np.tile(self.text, cells.shape[0])
        at = np.repeat(pointer[index] - start, length) + np.arange(int(length.sum()))
        token = self.store.text_tokens[at].astype(np.int64)
        return (token + _HASH * np.repeat(column, length)) % TEXT_BUCKETS, start


@dataclass(frozen=True, eq=False)
class Sampling:
    """What is sampled from a prepared store. fan_out [hops, edge types], see ``fan_outs``. A seed
    row that is later than its cutoff shows nothing but its table, unless ``seeds_are_given``: the
    row of an autocomplete task is part of the question."""

    store: RowStore
    fan_out: npt.NDArray[np.int32]
    strategy: Strategy
    seeds_are_given: bool = False

    @cached_property
    def columns(self) -> dict[str, TableColumns]:
        graph, until = self.store.graph, self.store.val_timestamp
        found = {}
        for t, table in enumerate(self.store.tables):
            time = graph.row_time[graph.table_start[t] : graph.table_start[t + 1]]
            found[f"t{t}"] = TableColumns.of(table, np.flatnonzero(np.asarray(time) <= until))
        return found

    @cached_property
    def edge_types(self) -> dict[int, EdgeType]:
        """The edge types that are sampled at any hop, by number."""
        found: dict[int, EdgeType] = {}
        for e in np.flatnonzero(self.fan_out.any(axis=0)).tolist():
            key = self.store.graph.foreign_keys[e // 2]
            ends = (key.child, key.parent) if e % 2 == 0 else (key.parent, key.child)
            found[e] = (f"t{ends[0]}", f"e{e}", f"t{ends[1]}")
        return found

    def batch(self, rows: Ints, cutoff: Ints, time: Ints, rng_seed: int) -> HeteroBatch:
        """The components of global rows [S], which see rows up to ``cutoff`` [S] and are asked
        about at ``time`` [S] (unix seconds), from which ages are counted."""
        graph = self.store.graph
        sub = sample(graph, Seeds.at(rows, cutoff), self.fan_out, self.strategy, rng_seed=rng_seed)
        row_time = np.asarray(graph.row_time[sub.row])
        unseen = np.zeros(sub.row.size, dtype=np.bool_)
        if not self.seeds_are_given:
            unseen[: rows.size] = row_time[: rows.size] > cutoff
        fixed = (row_time == STATIC) | unseen
        behind = time[sub.seed] - np.where(fixed, time[sub.seed], row_time)
        age = np.maximum(behind, 0) / _SECONDS_PER_DAY  # a row given as a seed may be later
        table, place = graph.table_of(sub.row), np.zeros(sub.row.size, dtype=np.int64)
        tables, within = {}, {}
        for t, (name, columns) in enumerate(self.columns.items()):
            at = np.flatnonzero(table == t)
            place[at] = np.arange(at.size)
            distinct, node = np.unique(sub.row[at], return_inverse=True)
            inputs = columns.inputs(distinct - graph.table_start[t])
            node = np.where(unseen[at], distinct.size, node)
            tables[name] = TableBatch(
                *inputs,
                node=torch.from_numpy(node),
                age=torch.from_numpy(age[at].astype(np.float32)),
                timed=torch.from_numpy((~fixed[at]).astype(np.float32)),
            )
            hops = np.arange(self.fan_out.shape[0] + 1)
            within[name] = np.searchsorted(sub.hop[at], hops, side="right").tolist()
        edges, asked = self._edges(sub, place, unseen[: rows.size])
        return HeteroBatch(tables, edges, within, asked)

    def _edges(
        self, sub: Subgraph, place: Ints, unseen: npt.NDArray[np.bool_]
    ) -> tuple[dict[EdgeType, Tensor], dict[EdgeType, list[int]]]:
        """Edges by type, none in the components of seeds that are not to be seen: what such a row
        points at is its content."""
        source, target = sub.edge_index
        kept = ~unseen[sub.seed[target]]
        hops, edges, asked = np.arange(self.fan_out.shape[0]), {}, {}
        for e, name in self.edge_types.items():
            at = np.flatnonzero((sub.edge_type == e) & kept)
            both = np.stack([place[source[at]], place[target[at]]])
            edges[name] = torch.from_numpy(both)
            asked[name] = np.searchsorted(sub.hop[target[at]], hops, side="right").tolist()
        return edges, asked
