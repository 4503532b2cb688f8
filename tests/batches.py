"""Batches taken apart: their tensors by name, the draws behind them, what each node shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from torch import Tensor

from rfm.data import mixture as mixture_module
from rfm.data.assemble import assemble
from rfm.data.batch import Batch, PretrainBatch
from rfm.data.draws import LinkDraw, MaskedDraw
from rfm.data.mixture import PretrainBatches
from rfm.data.sampler import Seeds, Subgraph
from rfm.data.times import Split


def tensors(value: Any, at: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors of nested dataclasses and tuples, with the path that leads there."""
    if isinstance(value, Tensor):
        yield at, value
    elif is_dataclass(value):
        for f in fields(value):
            yield from tensors(getattr(value, f.name), f"{at}.{f.name}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from tensors(item, f"{at}[{i}]")


def bits(value: Any) -> dict[str, tuple[Any, ...]]:
    """Type, shape and bytes of every tensor: NaN equals NaN, 0.0 is not -0.0."""
    return {
        at: (tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes())
        for at, tensor in tensors(value)
    }


def differing(a: Any, b: Any) -> list[str]:
    """Paths of the tensors that are not the same bit for bit."""
    left, right = bits(a), bits(b)
    return sorted(at for at in left.keys() | right.keys() if left.get(at) != right.get(at))


@dataclass(frozen=True)
class Component:
    """One seed's component. nodes [r]: its nodes in the batch, the seed first; rows [r] global;
    edges [e]: their positions in the batch; ``draw`` and ``part`` say what it belongs to."""

    source: int
    seeds: Seeds
    seed: int
    nodes: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    draw: MaskedDraw | LinkDraw
    part: str  # masked | queries | candidates

    @property
    def time(self) -> int:
        return int(self.seeds.time[self.seed])

    @property
    def hidden(self) -> set[int]:
        ptr = self.seeds.hidden_ptr
        return set(self.seeds.hidden[ptr[self.seed] : ptr[self.seed + 1]].tolist())

    @property
    def cut(self) -> int:
        return int(self.seeds.cut[self.seed])


@dataclass(frozen=True)
class Drawn:
    """A batch and the draws that it was assembled from."""

    split: Split
    batch: PretrainBatch
    masked: list[tuple[int, MaskedDraw]]
    links: list[tuple[int, LinkDraw]]

    def components(self) -> list[Component]:
        parts: list[tuple[int, Seeds, Subgraph, Any, str]] = []
        for s, draw in self.masked:
            parts.append((s, draw.seeds, draw.subgraph, draw, "masked"))
        for s, link in self.links:
            parts.append((s, link.queries, link.query_graph, link, "queries"))
            parts.append((s, link.candidates, link.candidate_graph, link, "candidates"))
        found, node, edge = [], 0, 0
        for s, seeds, graph, owner, part in parts:
            edge_seed = graph.seed[graph.edge_index[1]]
            for i in range(seeds.row.size):
                here, edges = np.flatnonzero(graph.seed == i), np.flatnonzero(edge_seed == i)
                found.append(
                    Component(s, seeds, i, node + here, graph.row[here], edge + edges, owner, part)
                )
            node, edge = node + graph.row.size, edge + edge_seed.size
        assert node == self.batch.row.numel()
        assert edge == self.batch.edge_type.numel()
        return found


def draw(batches: PretrainBatches, index: int) -> Drawn:
    """Batch ``index`` together with what it was assembled from."""
    with mock.patch.object(mixture_module, "assemble", wraps=assemble) as spy:
        batch = batches[index]
    masked, links = spy.call_args.args[1:3]
    return Drawn(batches.split, batch, list(masked), list(links))


@dataclass(frozen=True)
class Shown:
    """What the model reads of one distinct row: its tokens, their roles, its value features."""

    tokens: list[int]
    roles: list[int]
    features: npt.NDArray[np.float32]  # [v, NUM_FEATURES]

    def spells(self, text: list[int]) -> bool:
        """Whether the tokens hold ``text`` in one piece."""
        n = len(text)
        return any(self.tokens[i : i + n] == text for i in range(len(self.tokens) - n + 1))


def shown_rows(batch: Batch) -> list[Shown]:
    """Of every distinct row in the numbering of ``batch.row``."""
    rows = []
    for bucket in batch.buckets:
        width = bucket.token.shape[1]
        owner = bucket.value_at.numpy() // max(width, 1)
        for i, real in enumerate(bucket.real):
            rows.append(
                Shown(
                    bucket.token[i][real].tolist(),
                    bucket.role[i][real].tolist(),
                    bucket.value.numpy()[owner == i],
                )
            )
    return rows
