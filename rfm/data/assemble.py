"""Draws from several databases -> one ``PretrainBatch``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import Batch, Bucket, PretrainBatch, cat, make_buckets, pad_tokens
from rfm.data.degrees import edge_counts
from rfm.data.draws import Ints, LinkDraw, MaskedDraw, draw_context_masks
from rfm.data.graph import STATIC
from rfm.data.marginals import TokenMarginals
from rfm.data.sampler import Seeds, Subgraph
from rfm.data.serialise import NUM_FEATURES, TokenIds, TokenRows, serialise
from rfm.data.targets import (
    Source,
    TokenBudget,
    find_masks,
    link_targets,
    text_targets,
    value_targets,
)

_SECONDS_PER_DAY = 86_400.0


class RowStates(Protocol):
    """States of rows that a frozen row encoder has seen: [n, D] float32."""

    width: int

    def __call__(self, source: int, rows: Ints) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True)
class _Part:
    source: int
    seeds: Seeds
    subgraph: Subgraph
    masked: bool


@dataclass(frozen=True)
class _Nodes:
    """Distinct rows (masked seeds first), and each node's among them."""

    source: Ints  # [U]
    global_row: Ints  # [U]
    num_masked: int
    row: Ints  # [R]
    node: Ints  # [U] the first node of each distinct row
    start: list[int]  # first node of each part


def assemble(
    sources: Sequence[Source],
    masked: Sequence[tuple[int, MaskedDraw]],
    links: Sequence[tuple[int, LinkDraw]],
    ids: TokenIds,
    end: int,
    budget: TokenBudget,
    rng: np.random.Generator,
    shuffle: bool = True,
    context_masking: float = 0.0,
    context_weight: float = 1.0,
    marginals: TokenMarginals | None = None,
    cache: RowStates | None = None,
) -> PretrainBatch:
    """The batch of some draws, each with the position of its database among ``sources``.

    Args:
        end: id of the end-of-sequence token, which also starts the decoder.
        shuffle: shuffle each row's columns.
        context_masking: share of the value cells of all other rows that are masked too: they cost
            nothing more to encode and teach as much.
        context_weight: what one of these weighs in the loss, beside 1 of a masked row's: which rows
            are sampled as context is no fair choice of a table's rows.
        marginals: where given, masked texts carry their nats under the column's token marginals.
        cache: where given, unmasked rows come as cached states instead of tokens.
    """
    parts = [_Part(s, d.seeds, d.subgraph, True) for s, d in masked]
    for s, d in links:
        parts.append(_Part(s, d.queries, d.query_graph, False))
        parts.append(_Part(s, d.candidates, d.candidate_graph, False))
    nodes = _distinct(parts)
    encoded = np.arange(nodes.num_masked if cache is not None else nodes.source.size)
    fates = [d.fate for _, d in masked]
    key = int(rng.integers(1, 2**62)) if shuffle else 0
    tokens = _serialise(
        sources, nodes, encoded, fates, context_masking, ids, budget.max_tokens, key, rng
    )
    buckets, place = make_buckets(tokens, nodes.num_masked, budget.bucket_rows)
    rest = np.arange(encoded.size, nodes.source.size)
    place = np.concatenate([place, rest])
    which = (nodes.source, nodes.global_row, nodes.node)
    masks = find_masks(sources, which, tokens, place)
    cached = _cached(cache, nodes, rest)
    base = _graph_part(sources, parts, nodes, place, buckets, masks.node, cached, ids.pad)
    used = sorted({part.source for part in parts})
    offset = _relations(sources, used)[1]
    return PretrainBatch(
        **vars(base),
        values=value_targets(sources, which, masks, nodes.num_masked, context_weight),
        texts=text_targets(
            sources, which, masks, nodes.num_masked, end, ids.pad, budget, rng, marginals
        ),
        links=link_targets(sources, offset, links, nodes.start[len(masked) :]),
    )


def context_batch(
    source: Source, seeds: Seeds, subgraph: Subgraph, ids: TokenIds, budget: TokenBudget
) -> Batch:
    """Components with nothing hidden: what the states of some seeds are made of."""
    parts = [_Part(0, seeds, subgraph, False)]
    nodes = _distinct(parts)
    every = np.arange(nodes.source.size)
    rng = np.random.default_rng(0)  # draws nothing
    tokens = _serialise([source], nodes, every, [], 0.0, ids, budget.max_tokens, 0, rng)
    buckets, place = make_buckets(tokens, 0, budget.bucket_rows)
    none = np.zeros(0, dtype=np.int64)
    return _graph_part([source], parts, nodes, place, buckets, none, torch.zeros(0, 1), ids.pad)


def _distinct(parts: Sequence[_Part]) -> _Nodes:
    """Give each masked seed a row of its own, all other nodes one per distinct row."""
    sizes = [part.subgraph.row.size for part in parts]
    start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    source = np.repeat([part.source for part in parts], sizes).astype(np.int64)
    rows = np.concatenate([np.zeros(0, np.int64), *(part.subgraph.row for part in parts)])
    is_masked = np.zeros(rows.size, dtype=np.bool_)
    for part, first in zip(parts, start, strict=False):
        is_masked[first : first + part.seeds.row.size] = part.masked
    masked, plain = np.flatnonzero(is_masked), np.flatnonzero(~is_masked)
    keys, first_at, inverse = np.unique(
        source[plain] << 32 | rows[plain], return_index=True, return_inverse=True
    )
    row = np.empty(rows.size, dtype=np.int64)
    row[masked] = np.arange(masked.size)
    row[plain] = masked.size + inverse
    return _Nodes(
        source=np.concatenate([source[masked], keys >> 32]),
        global_row=np.concatenate([rows[masked], keys & 0xFFFFFFFF]),
        num_masked=masked.size,
        row=row,
        node=np.concatenate([masked, plain[first_at]]),
        start=start.tolist(),
    )


def _serialise(
    sources: Sequence[Source],
    nodes: _Nodes,
    encoded: Ints,
    fates: Sequence[npt.NDArray[np.uint8]],
    context_masking: float,
    ids: TokenIds,
    max_tokens: int,
    key: int,
    rng: np.random.Generator,
) -> TokenRows:
    """Tokens of the first ``encoded`` distinct rows, in order; the masked ones by their fates."""
    width = max((fate.shape[1] for fate in fates), default=0)
    fate = np.zeros((nodes.num_masked, width), dtype=np.uint8)
    first = 0
    for block in fates:
        fate[first : first + block.shape[0], : block.shape[1]] = block
        first += block.shape[0]
    runs: list[tuple[Ints, TokenRows]] = []
    for s in np.unique(nodes.source[encoded]):
        store = sources[s].store
        here = encoded[nodes.source[encoded] == s]
        masked, plain = here[here < nodes.num_masked], here[here >= nodes.num_masked]
        context = draw_context_masks(store, nodes.global_row[plain], context_masking, rng)
        for at, own in ((masked, fate[masked]), (plain, context)):
            rows = serialise(store, nodes.global_row[at], own, ids, max_tokens, key)
            runs.append((at, rows))
    return _merge(runs, encoded.size, ids.pad)


def _merge(runs: Sequence[tuple[Ints, TokenRows]], total: int, pad: int) -> TokenRows:
    width = max((rows.token.shape[1] for _, rows in runs), default=1)
    token = np.full((total, width), pad, dtype=np.int32)
    role = np.zeros((total, width), dtype=np.uint8)
    column = np.full((total, width), -1, dtype=np.int16)
    feature = np.full((total, width), -1, dtype=np.int32)
    length = np.zeros(total, dtype=np.int32)
    features, count = [np.zeros((0, NUM_FEATURES), dtype=np.float32)], 0
    for at, rows in runs:
        span = slice(0, rows.token.shape[1])
        token[at, span], role[at, span], column[at, span] = rows.token, rows.role, rows.column
        feature[at, span] = np.where(rows.feature >= 0, rows.feature + count, -1)
        length[at] = rows.length
        features.append(rows.features)
        count += rows.features.shape[0]
    return TokenRows(token, role, column, feature, np.concatenate(features), length)


def _cached(cache: RowStates | None, nodes: _Nodes, rest: Ints) -> torch.Tensor:
    if cache is None:
        return torch.zeros(0, 1)
    states = np.zeros((rest.size, cache.width), dtype=np.float32)
    for s in np.unique(nodes.source[rest]):
        here = np.flatnonzero(nodes.source[rest] == s)
        states[here] = cache(int(s), nodes.global_row[rest[here]])
    return torch.from_numpy(states)


def _graph_part(
    sources: Sequence[Source],
    parts: Sequence[_Part],
    nodes: _Nodes,
    place: Ints,
    buckets: tuple[Bucket, ...],
    mask_node: Ints,
    cached: torch.Tensor,
    pad: int,
) -> Batch:
    relations, offset = _relations(sources, sorted({part.source for part in parts}))
    age, static, edges, types, counts, component = [], [], [], [], [], []
    num_seeds = 0
    for part, first in zip(parts, nodes.start, strict=False):
        graph, sub = sources[part.source].store.graph, part.subgraph
        time = np.asarray(graph.row_time[sub.row])
        fixed = time == STATIC
        behind = part.seeds.time[sub.seed] - np.where(fixed, part.seeds.time[sub.seed], time)
        assert (behind >= 0).all(), "a row later than its seed time"
        age.append((behind / _SECONDS_PER_DAY).astype(np.float32))
        static.append(fixed)
        edges.append(sub.edge_index + first)
        types.append(sub.edge_type.astype(np.int64) + 2 * offset[part.source])
        counts.append(edge_counts(graph, part.seeds, sub))
        component.append(num_seeds + sub.seed)
        num_seeds += part.seeds.row.size
    return Batch(
        buckets=buckets,
        cached=cached,
        row=torch.from_numpy(place[nodes.row]),
        age=cat(age, np.float32),
        static=cat(static, np.bool_),
        hop=cat([part.subgraph.hop for part in parts], np.int64),
        component=cat(component, np.int64),
        mask_node=torch.from_numpy(mask_node),
        edge_index=torch.from_numpy(np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1)),
        edge_type=cat(types, np.int64),
        edge_count=cat(counts, np.float32),
        relation=pad_tokens(relations, pad),
        num_seeds=num_seeds,
    )


def _relations(
    sources: Sequence[Source], used: Sequence[int]
) -> tuple[list[tuple[int, ...]], dict[int, int]]:
    """Names of the used databases' foreign keys, and where each database's begin."""
    relations: list[tuple[int, ...]] = []
    offset = {}
    for s in used:
        offset[s] = len(relations)
        relations.extend(sources[s].store.relation_tokens)
    return relations, offset
