"""What was hidden from a batch: masked values, masked texts, cut links."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.batch import LinkTargets, TextTargets, ValueTargets, cat, pad_tokens
from rfm.data.column_stats import NUM_LEVELS
from rfm.data.draws import Ints, LinkDraw
from rfm.data.marginals import TokenMarginals
from rfm.data.serialise import ROLE_MASK, TokenRows, value_ranks
from rfm.data.store import RowStore

Which: TypeAlias = tuple[Ints, Ints, Ints]
"""Of each distinct row [U]: its database, its global row, a node that shows it."""


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


def value_targets(
    sources: Sequence[Source], which: Which, tokens: TokenRows, place: Ints
) -> ValueTargets:
    """Ranks of the masked value cells, in the order in which the buckets list their masks.

    Args:
        place: [U] each distinct row's place in the numbering of the buckets' rows.
    """
    row, position = masked_cells(sources, which, tokens, values=True)
    order = np.lexsort((position, place[row]))
    row, position = row[order], position[order]
    column = tokens.column[row, position].astype(np.int64)
    rank = np.zeros(row.size, dtype=np.float32)
    marginal = np.zeros((row.size, NUM_LEVELS), dtype=np.float32)
    mixture_column = np.zeros(row.size, dtype=np.int64)
    for s, t, at in _by_table(sources, which, row):
        store, c = sources[s].store, column[at]
        table = store.tables[t]
        local = which[1][row[at]] - int(store.graph.table_start[t])
        z = np.ascontiguousarray(table.cells[local, c]).view(np.float32)
        rank[at] = value_ranks(table, z, c)
        marginal[at] = table.marginals[c]
        mixture_column[at] = sources[s].column_start[t] + c
    return ValueTargets(
        node=torch.from_numpy(which[2][row]),
        rank=torch.from_numpy(rank),
        marginal=torch.from_numpy(marginal),
        column=torch.from_numpy(mixture_column),
    )


def masked_cells(
    sources: Sequence[Source], which: Which, tokens: TokenRows, values: bool
) -> tuple[Ints, Ints]:
    """Distinct row and position of the masked cells: of value columns, or of text columns."""
    row, position = np.nonzero(tokens.role == ROLE_MASK)
    column = tokens.column[row, position]
    chosen = np.zeros(row.size, dtype=np.bool_)
    for s, t, at in _by_table(sources, which, row):
        chosen[at] = sources[s].store.tables[t].is_value[column[at]] == values
    return row[chosen], position[chosen]


def _by_table(
    sources: Sequence[Source], which: Which, row: Ints
) -> list[tuple[int, int, npt.NDArray[np.intp]]]:
    """(database, table, indices into ``row``) of each table that distinct rows belong to."""
    groups = []
    for s in np.unique(which[0][row]):
        here = np.flatnonzero(which[0][row] == s)
        table = sources[s].store.graph.table_of(which[1][row[here]])
        groups += [(int(s), int(t), here[table == t]) for t in np.unique(table)]
    return groups


def text_targets(
    sources: Sequence[Source],
    which: Which,
    tokens: TokenRows,
    num_masked: int,
    end: int,
    pad: int,
    budget: TokenBudget,
    rng: np.random.Generator,
    marginals: TokenMarginals | None,
) -> TextTargets:
    """Texts of the masked text cells, at most ``budget.max_texts`` of them, drawn at random.

    All stand in the first ``num_masked`` rows, which make the first bucket in this order.
    """
    row, position = masked_cells(sources, which, tokens, values=False)
    assert (row < num_masked).all()
    if row.size > budget.max_texts:
        keep = np.sort(rng.choice(row.size, budget.max_texts, replace=False))
        row, position = row[keep], position[keep]
    given, label, nats, mixture_column = [], [], [], []
    for r, c in zip(row, tokens.column[row, position].astype(np.int64), strict=True):
        source = sources[which[0][r]]
        graph = source.store.graph
        t = int(graph.table_of(which[1][r]))
        table = source.store.tables[t]
        text = table.text(int(which[1][r] - graph.table_start[t]), int(c)).tolist()
        name = list(table.columns[c].name_tokens)
        target = [*text, end][: budget.max_text_tokens]
        given.append([end, *name, *target[:-1]])
        label.append([-100] * len(name) + target)
        nats.append(
            np.nan if marginals is None else marginals.nats(int(which[0][r]), t, int(c), target)
        )
        mixture_column.append(source.column_start[t] + int(c))
    return TextTargets(
        row=torch.from_numpy(row),
        node=torch.from_numpy(which[2][row]),
        given=pad_tokens(given, pad),
        label=pad_tokens(label, -100),
        marginal=torch.tensor(nats, dtype=torch.float32),
        column=torch.tensor(mixture_column, dtype=torch.int64),
    )


def link_targets(
    sources: Sequence[Source],
    offset: Mapping[int, int],
    links: Sequence[tuple[int, LinkDraw]],
    starts: Sequence[int],
) -> LinkTargets:
    """Where the queries and candidates of the draws stand in the batch.

    Args:
        offset: the number of each database's first foreign key within the batch.
        starts: the first node of each draw's queries and candidates, in turn.
    """
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
        query=cat(query, np.int64),
        candidate=cat(candidate, np.int64),
        relation=cat(relation, np.int64),
        allowed=torch.from_numpy(allowed),
        positive=cat(positive, np.int64),
        popularity=cat(popularity, np.float32),
        kind=cat(kind, np.int64),
    )
