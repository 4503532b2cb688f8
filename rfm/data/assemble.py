"""Draws -> batches: of several databases to pretrain on, or of one task's questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import (
    Batch,
    Bucket,
    CachedRows,
    PretrainBatch,
    cat,
    make_buckets,
    pad_tokens,
)
from rfm.data.cached import RowStates, gather
from rfm.data.degrees import edge_counts
from rfm.data.draws import Ints, LinkDraw, MaskedDraw, draw_context_masks
from rfm.data.graph import STATIC
from rfm.data.marginals import TokenMarginals
from rfm.data.sampler import Seeds, Subgraph
from rfm.data.serialise import NUM_FEATURES, TokenIds, TokenRows, serialise
from rfm.data.targets import (
    Masks,
    Source,
    TokenBudget,
    find_masks,
    link_targets,
    text_targets,
    value_targets,
)

_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class _Part:
    """now [S]: the moment that ages are counted back from; not before the seed time."""

    source: int
    seeds: Seeds
    subgraph: Subgraph
    masked: bool
    now: Ints

    @classmethod
    def of(cls, source: int, draw: tuple[Seeds, Subgraph], masked: bool = False) -> _Part:
        seeds, subgraph = draw
        return cls(source, seeds, subgraph, masked, seeds.time)


@dataclass(frozen=True)
class _Nodes:
    """Distinct rows (masked seeds first, cached ones last), and each node's among them."""

    source: Ints  # [U]
    global_row: Ints  # [U]
    num_masked: int
    num_encoded: int
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
        cache: where given, unmasked rows that it has come as its states instead of tokens.
    """
    parts = [_Part.of(s, (d.seeds, d.subgraph), masked=True) for s, d in masked]
    for s, d in links:
        parts.append(_Part.of(s, (d.queries, d.query_graph)))
        parts.append(_Part.of(s, (d.candidates, d.candidate_graph)))
    nodes = _distinct(parts, cache)
    fates = [d.fate for _, d in masked]
    key = int(rng.integers(1, 2**62)) if shuffle else 0
    tokens = _serialise(sources, nodes, fates, context_masking, ids, budget.max_tokens, key, rng)
    base, masks = _base(sources, parts, nodes, tokens, ids.pad, budget.bucket_rows, cache)
    which = (nodes.source, nodes.global_row, nodes.node)
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
    parts = [_Part.of(0, (seeds, subgraph))]
    nodes = _distinct(parts, None)
    rng = np.random.default_rng(0)  # draws nothing
    tokens = _serialise([source], nodes, [], 0.0, ids, budget.max_tokens, 0, rng)
    return _base([source], parts, nodes, tokens, ids.pad, budget.bucket_rows, None)[0]


def question_batch(
    source: Source,
    draw: MaskedDraw,
    now: Ints,
    ids: TokenIds,
    budget: TokenBudget,
    key: int,
    cache: RowStates | None = None,
    candidates: Sequence[tuple[Seeds, Subgraph, Ints]] = (),
) -> Batch:
    """Components of a task's questions, each mask in the order of its seed; then of candidates.

    Args:
        now: for each question [S] the moment that ages are counted back from: it may be later than
            what the question sees.
        key: shuffles each row's columns; 0 keeps them.
        cache: see ``assemble``.
        candidates: rows to be recommended, their components and moments.
    """
    parts = [_Part(0, draw.seeds, draw.subgraph, True, now)]
    parts += [_Part(0, seeds, subgraph, False, moment) for seeds, subgraph, moment in candidates]
    nodes = _distinct(parts, cache)
    rng = np.random.default_rng(0)  # draws nothing
    tokens = _serialise([source], nodes, [draw.fate], 0.0, ids, budget.max_tokens, key, rng)
    return _base([source], parts, nodes, tokens, ids.pad, budget.bucket_rows, cache)[0]


def _base(
    sources: Sequence[Source],
    parts: Sequence[_Part],
    nodes: _Nodes,
    tokens: TokenRows,
    pad: int,
    bucket_rows: int,
    cache: RowStates | None,
) -> tuple[Batch, Masks]:
    """The batch without what is asked of it, and where its masks are."""
    buckets, place = make_buckets(tokens, nodes.num_masked, bucket_rows)
    rest = np.arange(nodes.num_encoded, nodes.source.size)
    place = np.concatenate([place, rest])
    masks = find_masks(sources, (nodes.source, nodes.global_row, nodes.node), tokens, place)
    cached = gather(sources, cache, (nodes.source[rest], nodes.global_row[rest]), pad)
    return _graph_part(sources, parts, nodes, place, buckets, masks.node, cached, pad), masks


def _distinct(parts: Sequence[_Part], cache: RowStates | None) -> _Nodes:
    """Give each masked seed a row of its own, all other nodes one per distinct row; those that the
    cache has come last."""
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
    has = _has(cache, keys >> 32, keys & 0xFFFFFFFF)
    order = np.argsort(has, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    row = np.empty(rows.size, dtype=np.int64)
    row[masked] = np.arange(masked.size)
    row[plain] = masked.size + place[inverse]
    return _Nodes(
        source=np.concatenate([source[masked], keys[order] >> 32]),
        global_row=np.concatenate([rows[masked], keys[order] & 0xFFFFFFFF]),
        num_masked=masked.size,
        num_encoded=masked.size + int((~has).sum()),
        row=row,
        node=np.concatenate([masked, plain[first_at[order]]]),
        start=start.tolist(),
    )


def _serialise(
    sources: Sequence[Source],
    nodes: _Nodes,
    fates: Sequence[npt.NDArray[np.uint8]],
    context_masking: float,
    ids: TokenIds,
    max_tokens: int,
    key: int,
    rng: np.random.Generator,
) -> TokenRows:
    """Tokens of the distinct rows that are encoded, in order; the masked ones by their fates."""
    encoded = np.arange(nodes.num_encoded)
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


def _has(cache: RowStates | None, source: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
    """[n]: which rows the cache has."""
    has = np.zeros(rows.size, dtype=np.bool_)
    if cache is not None:
        for s in np.unique(source):
            here = source == s
            has[here] = cache.has(int(s), rows[here])
    return has


def _graph_part(
    sources: Sequence[Source],
    parts: Sequence[_Part],
    nodes: _Nodes,
    place: Ints,
    buckets: tuple[Bucket, ...],
    mask_node: Ints,
    cached: CachedRows,
    pad: int,
) -> Batch:
    relations, offset = _relations(sources, sorted({part.source for part in parts}))
    age, static, edges, types, counts, component = [], [], [], [], [], []
    num_seeds = 0
    for part, first in zip(parts, nodes.start, strict=False):
        graph, sub = sources[part.source].store.graph, part.subgraph
        time = np.asarray(graph.row_time[sub.row])
        fixed = time == STATIC
        late = ~fixed & (time > part.seeds.time[sub.seed])
        assert not late[part.seeds.row.size :].any(), "a row later than its seed time"
        now = part.now[sub.seed]
        behind = now - np.where(fixed | late, now, time)  # a question is known after it is asked
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
