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

MAX_NAME_TOKENS = 16  # of the column's name that the decoder starts from
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

    @property
    def longest_text(self) -> int:
        """Tokens of a masked text after its column's name."""
        return MAX_NAME_TOKENS + self.max_text_tokens


@dataclass(frozen=True)
class Masks:
    """Masked cells of the distinct rows, in the order in which the buckets list their masks.

    row [M]: distinct row; column [M] within its table; node [M]: one that shows the row; is_value
    [M]: whether the column's cells are values.
    """

    row: Ints
    column: Ints
    node: Ints
    is_value: npt.NDArray[np.bool_]


def find_masks(sources: Sequence[Source], which: Which, tokens: TokenRows, place: Ints) -> Masks:
    """The masks among the tokens of the first distinct rows.

    Args:
        place: [U] each distinct row's place in the numbering of the buckets' rows.
    """
    row, position = np.nonzero(tokens.role == ROLE_MASK)
    order = np.lexsort((position, place[row]))
    row, position = row[order], position[order]
    column = tokens.column[row, position].astype(np.int64)
    is_value = np.zeros(row.size, dtype=np.bool_)
    for s, t, at in _by_table(sources, which, row):
        is_value[at] = sources[s].store.tables[t].is_value[column[at]]
    return Masks(row, column, which[2][row], is_value)


def value_targets(
    sources: Sequence[Source], which: Which, masks: Masks, num_masked: int, context_weight: float
) -> ValueTargets:
    """Ranks of the masked value cells: of the first ``num_masked`` distinct rows, which weigh 1,
    and of context rows."""
    mask = np.flatnonzero(masks.is_value)
    row, column = masks.row[mask], masks.column[mask]
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
        mask=torch.from_numpy(mask),
        node=torch.from_numpy(masks.node[mask]),
        rank=torch.from_numpy(rank),
        weight=torch.from_numpy(np.where(row < num_masked, 1, context_weight).astype(np.float32)),
        marginal=torch.from_numpy(marginal),
        column=torch.from_numpy(mixture_column),
    )


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
    masks: Masks,
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
    mask = np.flatnonzero(~masks.is_value)
    assert (masks.row[mask] < num_masked).all()
    if mask.size > budget.max_texts:
        mask = np.sort(rng.choice(mask, budget.max_texts, replace=False))
    row = masks.row[mask]
    given, label, nats, mixture_column = [], [], [], []
    for r, c in zip(row, masks.column[mask], strict=True):
        source = sources[which[0][r]]
        graph = source.store.graph
        t = int(graph.table_of(which[1][r]))
        table = source.store.tables[t]
        text = table.text(int(which[1][r] - graph.table_start[t]), int(c)).tolist()
        name = list(table.columns[c].name_tokens[:MAX_NAME_TOKENS])
        target = [*text, end][: budget.max_text_tokens]
        given.append([end, *name, *target[:-1]])
        label.append([-100] * len(name) + target)
        nats.append(
            np.nan if marginals is None else marginals.nats(int(which[0][r]), t, int(c), target)
        )
        mixture_column.append(source.column_start[t] + int(c))
    return TextTargets(
        mask=torch.from_numpy(mask),
        row=torch.from_numpy(row),
        node=torch.from_numpy(masks.node[mask]),
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
    query, candidate, relation, positive, kind = [], [], [], [], []
    popularity, log_chance = [], []
    q = p = 0
    for i, (s, draw) in enumerate(links):
        nq, np_ = draw.queries.row.size, draw.candidates.row.size
        query.append(starts[2 * i] + np.arange(nq))
        candidate.append(starts[2 * i + 1] + np.arange(np_))
        relation.append(np.full(nq, offset[s] + draw.foreign_key))
        kind.append(np.full(nq, sources[s].relation_start + draw.foreign_key))
        positive.append(p + draw.positive)
        popularity.append(draw.popularity)
        log_chance.append(draw.log_chance)
        allowed[q : q + nq, p : p + np_] = draw.allowed
        q, p = q + nq, p + np_
    return LinkTargets(
        query=cat(query, np.int64),
        candidate=cat(candidate, np.int64),
        relation=cat(relation, np.int64),
        allowed=torch.from_numpy(allowed),
        positive=cat(positive, np.int64),
        popularity=cat(popularity, np.float32),
        log_chance=cat(log_chance, np.float32),
        kind=cat(kind, np.int64),
    )
