"""Draws from several databases -> one ``PretrainBatch``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import (
    Batch,
    Bucket,
    LinkTargets,
    PretrainBatch,
    TextTargets,
    ValueTargets,
    make_buckets,
    pad_tokens,
)
from rfm.data.degrees import edge_counts
from rfm.data.draws import Ints, LinkDraw, MaskedDraw
from rfm.data.graph import STATIC
from rfm.data.marginals import TokenMarginals
from rfm.data.sampler import Seeds, Subgraph
from rfm.data.serialise import ROLE_MASK, TokenIds, TokenRows, serialise
from rfm.data.store import RowStore

_SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class Source:
    """A database of the mixture, and where its columns and foreign keys stand in it."""

    store: RowStore
    column_start: tuple[int, ...]  # mixture-wide id of each table's first column
    relation_start: int  # mixture-wide id of the first foreign key


@dataclass(frozen=True)
class TokenBudget:
    """max_tokens: of a row. max_texts: masked texts decoded per batch, each of at most
    max_text_tokens. bucket_rows: smallest length bucket."""

    max_tokens: int
    max_texts: int
    max_text_tokens: int
    bucket_rows: int


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
    marginals: TokenMarginals | None = None,
    cache: RowStates | None = None,
) -> PretrainBatch:
    """The batch of some draws, each with the position of its database among ``sources``.

    Args:
        end: id of the end-of-sequence token, which also starts the decoder.
        shuffle: shuffle each row's columns.
        marginals: where given, masked texts carry their nats under the column's token marginals.
        cache: where given, unmasked rows come as cached states instead of tokens.
    """
    parts = [_Part(s, d.seeds, d.subgraph, True) for s, d in masked]
    for s, d in links:
        parts.append(_Part(s, d.queries, d.query_graph, False))
        parts.append(_Part(s, d.candidates, d.candidate_graph, False))
    nodes = _distinct(parts)
    fates = [d.fate for _, d in masked]
    encoded = np.arange(nodes.num_masked if cache is not None else nodes.source.size)
    key = int(rng.integers(1, 2**62)) if shuffle else 0
    tokens = _serialise(sources, nodes, encoded, fates, ids, budget.max_tokens, key)
    buckets, place = make_buckets(tokens, nodes.num_masked, budget.bucket_rows)
    rest = np.arange(encoded.size, nodes.source.size)
    place = np.concatenate([place, rest])
    base = _graph_part(sources, parts, nodes, place, buckets, _cached(cache, nodes, rest), ids.pad)
    values, texts = _cell_targets(sources, nodes, tokens, end, ids, budget, rng, marginals)
    used = sorted({part.source for part in parts})
    link_targets = _link_targets(sources, used, links, nodes.start[len(masked) :])
    return PretrainBatch(**vars(base), values=values, texts=texts, links=link_targets)


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
    keys, inverse = np.unique(source[plain] << 32 | rows[plain], return_inverse=True)
    row = np.empty(rows.size, dtype=np.int64)
    row[masked] = np.arange(masked.size)
    row[plain] = masked.size + inverse
    return _Nodes(
        source=np.concatenate([source[masked], keys >> 32]),
        global_row=np.concatenate([rows[masked], keys & 0xFFFFFFFF]),
        num_masked=masked.size,
        row=row,
        start=start.tolist(),
    )


def _serialise(
    sources: Sequence[Source],
    nodes: _Nodes,
    encoded: Ints,
    fates: Sequence[npt.NDArray[np.uint8]],
    ids: TokenIds,
    max_tokens: int,
    key: int,
) -> TokenRows:
    """Tokens of the first ``encoded`` distinct rows, in order; the masked ones by their fates."""
    width = max((fate.shape[1] for fate in fates), default=0)
    fate = np.zeros((nodes.num_masked, width), dtype=np.uint8)
    first = 0
    for block in fates:
        fate[first : first + block.shape[0], : block.shape[1]] = block
        first += block.shape[0]
    runs: list[tuple[Ints, TokenRows]] = []
    for s, source in enumerate(sources):
        here = encoded[nodes.source[encoded] == s]
        for at in (here[here < nodes.num_masked], here[here >= nodes.num_masked]):
            if at.size:
                own = fate[at] if at[0] < nodes.num_masked else np.zeros((at.size, 0), np.uint8)
                rows = serialise(source.store, nodes.global_row[at], own, ids, max_tokens, key)
                runs.append((at, rows))
    return _merge(runs, encoded.size, ids.pad)


def _merge(runs: Sequence[tuple[Ints, TokenRows]], total: int, pad: int) -> TokenRows:
    width = max((rows.token.shape[1] for _, rows in runs), default=1)
    token = np.full((total, width), pad, dtype=np.int32)
    role = np.zeros((total, width), dtype=np.uint8)
    column = np.full((total, width), -1, dtype=np.int16)
    feature = np.full((total, width), -1, dtype=np.int32)
    length = np.zeros(total, dtype=np.int32)
    features, count = [np.zeros((0, 1), dtype=np.float32)], 0
    for at, rows in runs:
        span = slice(0, rows.token.shape[1])
        token[at, span], role[at, span], column[at, span] = rows.token, rows.role, rows.column
        feature[at, span] = np.where(rows.feature >= 0, rows.feature + count, -1)
        length[at] = rows.length
        features.append(rows.features)
        count += rows.features.shape[0]
    stacked = np.concatenate(features[1:] or features)
    return TokenRows(token, role, column, feature, stacked, length)


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
    cached: torch.Tensor,
    pad: int,
) -> Batch:
    relations, offset = _relations(sources, sorted({part.source for part in parts}))
    age, static, edges, types, counts = [], [], [], [], []
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
    return Batch(
        buckets=buckets,
        cached=cached,
        row=torch.from_numpy(place[nodes.row]),
        age=_cat(age, np.float32),
        static=_cat(static, np.bool_),
        hop=_cat([part.subgraph.hop for part in parts], np.int64),
        edge_index=torch.from_numpy(np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1)),
        edge_type=_cat(types, np.int64),
        edge_count=_cat(counts, np.float32),
        relation=pad_tokens(relations, pad),
        num_seeds=sum(part.seeds.row.size for part in parts),
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


def _cat(arrays: Sequence[npt.NDArray[np.generic]], dtype: type[np.generic]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype))


def _cell_targets(
    sources: Sequence[Source],
    nodes: _Nodes,
    tokens: TokenRows,
    end: int,
    ids: TokenIds,
    budget: TokenBudget,
    rng: np.random.Generator,
    marginals: TokenMarginals | None,
) -> tuple[ValueTargets, TextTargets]:
    """What stood in the masked cells that made it into the tokens."""
    row, position = np.nonzero(tokens.role[: nodes.num_masked] == ROLE_MASK)
    column = tokens.column[row, position].astype(np.int64)
    node = np.empty(nodes.num_masked, dtype=np.int64)
    node[nodes.row[nodes.row < nodes.num_masked]] = np.flatnonzero(nodes.row < nodes.num_masked)
    is_value = np.zeros(row.size, dtype=np.bool_)
    rank = np.zeros(row.size, dtype=np.float32)
    marginal = np.zeros((row.size, 0), dtype=np.float32)
    mixture_column = np.zeros(row.size, dtype=np.int64)
    from rfm.data.column_stats import NUM_LEVELS

    marginal = np.zeros((row.size, NUM_LEVELS), dtype=np.float32)
    where: list[tuple[int, int, int]] = []  # source, table, local row
    for i in range(row.size):
        s = int(nodes.source[row[i]])
        graph = sources[s].store.graph
        t = int(graph.table_of(nodes.global_row[row[i]]))
        where.append((s, t, int(nodes.global_row[row[i]] - graph.table_start[t])))
        table, c = sources[s].store.tables[t], int(column[i])
        mixture_column[i] = sources[s].column_start[t] + c
        is_value[i] = table.columns[c].is_value
        if is_value[i]:
            z = table.values(np.array([where[i][2]]), c)
            rank[i] = table.columns[c].stats.rank(z)[0]
            marginal[i] = table.marginals[c]
    v, x = np.flatnonzero(is_value), np.flatnonzero(~is_value)
    if x.size > budget.max_texts:
        x = np.sort(rng.choice(x, budget.max_texts, replace=False))
    values = ValueTargets(
        row=torch.from_numpy(row[v]),
        position=torch.from_numpy(position[v]),
        node=torch.from_numpy(node[row[v]]),
        rank=torch.from_numpy(rank[v]),
        marginal=torch.from_numpy(marginal[v]),
        column=torch.from_numpy(mixture_column[v]),
    )
    given, label, nats = [], [], []
    for i in x:
        s, t, r = where[i]
        table, c = sources[s].store.tables[t], int(column[i])
        text = table.text(r, c).astype(np.int64).tolist()
        name = list(table.columns[c].name_tokens)
        target = (text + [end])[: budget.max_text_tokens]
        given.append([end, *name, *target[:-1]])
        label.append([-100] * len(name) + target)
        nats.append(marginals.nats(s, t, c, target) if marginals is not None else np.nan)
    texts = TextTargets(
        row=torch.from_numpy(row[x]),
        node=torch.from_numpy(node[row[x]]),
        given=pad_tokens(given, ids.pad),
        label=pad_tokens(label, -100),
        marginal=torch.tensor(nats, dtype=torch.float32),
        column=torch.from_numpy(mixture_column[x]),
    )
    return values, texts


def _link_targets(
    sources: Sequence[Source],
    used: Sequence[int],
    links: Sequence[tuple[int, LinkDraw]],
    starts: Sequence[int],
) -> LinkTargets:
    offset = _relations(sources, used)[1]
    queries = sum(d.queries.row.size for _, d in links)
    candidates = sum(d.candidates.row.size for _, d in links)
    allowed = np.zeros((queries, candidates), dtype=np.bool_)
    query, candidate, relation, positive, popularity, kind = [], [], [], [], [], []
    q = p = 0
    for i, (s, draw) in enumerate(links):
        nq, np_ = draw.queries.row.size, draw.candidates.row.size
        query.append(starts[2 * i] + np.arange(nq))
        candidate.append(starts[2 * i + 1] + np.arange(np_))
        relation.append(np.full(nq, offset[s] + draw.foreign_key))
        kind.append(np.full(nq, sources[s].relation_start + draw.foreign_key))
        positive.append(p + draw.positive)
        popularity.append(draw.popularity)
        allowed[q : q + nq, p : p + np_] = draw.allowed
        q, p = q + nq, p + np_
    return LinkTargets(
        query=_cat(query, np.int64),
        candidate=_cat(candidate, np.int64),
        relation=_cat(relation, np.int64),
        allowed=torch.from_numpy(allowed),
        positive=_cat(positive, np.int64),
        popularity=_cat(popularity, np.float32),
        kind=_cat(kind, np.int64),
    )
