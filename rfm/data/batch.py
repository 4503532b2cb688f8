"""What crosses from the loader to the model: each distinct row once, in length buckets.

Legend: R nodes, U distinct rows, E edges, F relations, V values, M masked values, X masked texts,
Q link queries, P link candidates. Every array may be empty, none is ever ``None``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from typing_extensions import Self

from rfm.data.column_stats import LEVELS as LEVELS
from rfm.data.serialise import NUM_FEATURES as NUM_FEATURES
from rfm.data.serialise import NUM_ROLES as NUM_ROLES
from rfm.data.serialise import ROLE_MASK as ROLE_MASK
from rfm.data.serialise import ROLE_NAME as ROLE_NAME
from rfm.data.serialise import ROLE_TEXT as ROLE_TEXT
from rfm.data.serialise import ROLE_VALUE as ROLE_VALUE
from rfm.data.serialise import TokenRows

SEEN_FEATURES = (
    "met_1", "met_3", "met", "near", "near_lately", "share_1", "share_3", "share",
    "children_lately", "children",
)  # fmt: skip
"""Of an entity and a destination, see ``rfm.data.seen_before``: how often the two came together in
three windows of past labels, how often and how lately around the entity; of the destination alone:
its share of the labels of each window, and its children, the latest and all."""
NUM_SEEN_FEATURES = len(SEEN_FEATURES)
MAX_CLASSES = 10
NUM_CALENDAR = 5
TOLD_KINDS = (
    "time of year", "time of week", "staleness", "cell", "age",
    "last 3 labels", "last 10 labels", "labels", "label count", "label age",
    "last label", "2nd last label", "3rd last label", "4th last label",
    "last 3 labels of the parent", "last 10 labels of the parent", "labels of the parent",
    "label count of the parent", "label age of the parent",
    "child count", "child age", "last 4 children", "last 16 children", "last 64 children",
    "children of a timedelta", "children of 4 timedeltas", "child lateness",
    "parents of children",
)  # fmt: skip
"""What the questions of an episode are told, see ``rfm.data.told``."""
_PAD_TO = 2


@dataclass(frozen=True)
class TensorRecord:
    """A frozen dataclass whose tensors move together."""

    def map(self, move: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, **{f.name: _map(getattr(self, f.name), move) for f in fields(self)})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        return self.map(lambda tensor: tensor.pin_memory())


def _map(value: Any, move: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return move(value)
    if isinstance(value, TensorRecord):
        return value.map(move)
    if isinstance(value, tuple):
        return tuple(_map(item, move) for item in value)
    return value


@dataclass(frozen=True)
class Bucket(TensorRecord):
    """Rows of similar length. token, role [B, L] int64; value [V, NUM_FEATURES] float32 at the
    flat positions value_at [V] of [B, L]; real [B, L] bool where a token is; cell [B, L] int64 flat
    position of the first token of the cell that a token belongs to (its own where it is no cell's);
    mask_at [M]: flat positions of the masks."""

    token: Tensor
    role: Tensor
    real: Tensor
    value: Tensor
    value_at: Tensor
    cell: Tensor
    mask_at: Tensor


@dataclass(frozen=True)
class CachedRows(TensorRecord):
    """Rows that a frozen row encoder has encoded before. state [n, D]; of their K visible cells, by
    row: cell_row [K], cell_state [K, D], cell_feature [K, NUM_FEATURES] (0 of texts), cell_name [K]
    among name [columns, W], the token ids of the columns' names, padded."""

    state: Tensor
    cell_row: Tensor
    cell_state: Tensor
    cell_feature: Tensor
    cell_name: Tensor
    name: Tensor


@dataclass(frozen=True)
class Batch(TensorRecord):
    """Components, one per seed, seeds first within their group.

    buckets: the distinct rows; the first bucket holds the rows with masked cells (perhaps none).
    cached: rows that a frozen row encoder encoded before; they follow the buckets' rows in the
    numbering of ``row``.
    row [R] int64: each node's distinct row. age [R] float32: days from the row to the seed time
    (0 for static rows). static [R] bool. hop [R] int64. component [R] int64: its seed's number.
    mask_node [M] int64: a node that shows each mask, in the order of the buckets' ``mask_at``.
    edge_index [2, E] int64: from neighbour to the node that asked. edge_type [E] int64:
    2 * relation + (0 f2p | 1 p2f). edge_count [E] float32: how many such neighbours the node has at
    the seed time, sampled or not. relation [F, W] int64: token ids of the foreign keys' names,
    padded. num_seeds: int.
    """

    buckets: tuple[Bucket, ...]
    cached: CachedRows
    row: Tensor
    age: Tensor
    static: Tensor
    hop: Tensor
    component: Tensor
    mask_node: Tensor
    edge_index: Tensor
    edge_type: Tensor
    edge_count: Tensor
    relation: Tensor
    num_seeds: int

    def alone(self) -> Tensor:
        """Components [R] in which every node is by itself."""
        return torch.arange(self.row.shape[0], device=self.row.device)

    def without_edges(self) -> Self:
        """The same batch with no relational context."""
        return replace(
            self,
            component=self.alone(),
            edge_index=self.edge_index[:, :0],
            edge_type=self.edge_type[:0],
            edge_count=self.edge_count[:0],
        )


@dataclass(frozen=True)
class ValueTargets(TensorRecord):
    """Masked values. mask [V]: which of the batch's masks; node [V]: one that shows the row; rank
    [V] float32 the target u; weight [V] float32: of the loss; marginal [V, levels] the training
    quantiles; column [V] id within the mixture."""

    mask: Tensor
    node: Tensor
    rank: Tensor
    weight: Tensor
    marginal: Tensor
    column: Tensor


@dataclass(frozen=True)
class TextTargets(TensorRecord):
    """Masked texts. mask [X]: which of the batch's masks; row [X]: where in the first bucket; node
    [X]: one that shows the row; given [X, L] int64: decoder input (end of sequence, the column's
    name, the text); label [X, L] int64: the text and its end, -100 elsewhere; marginal [X] float32:
    nats of the labels under the column's token marginals (NaN in training, where nobody asks);
    column [X] id within the mixture."""

    mask: Tensor
    row: Tensor
    node: Tensor
    given: Tensor
    label: Tensor
    marginal: Tensor
    column: Tensor


@dataclass(frozen=True)
class LinkTargets(TensorRecord):
    """Cut links. query [Q], candidate [P]: nodes; relation [Q] within the batch; allowed [Q, P]
    bool: the true parent and its negatives; positive [Q]: index into candidate; popularity [P]
    float32: children that the candidate has at its seed time; log_chance [P] float32: logarithm of
    about the chance that a training draw has the candidate, 0 in validation; kind [Q]: the foreign
    key's id within the mixture."""

    query: Tensor
    candidate: Tensor
    relation: Tensor
    allowed: Tensor
    positive: Tensor
    popularity: Tensor
    log_chance: Tensor
    kind: Tensor


@dataclass(frozen=True)
class PretrainBatch(Batch):
    """A batch and what was hidden from it; and episodes, each a batch of its own."""

    values: ValueTargets
    texts: TextTargets
    links: LinkTargets
    episodes: tuple[EpisodeBatch, ...] = ()

    def without_edges(self) -> Self:
        alone = super().without_edges()
        unknown = torch.zeros_like(self.links.popularity)  # counting children takes edges
        return replace(alone, links=replace(self.links, popularity=unknown))


@dataclass(frozen=True)
class TaskBatch(Batch):
    """Questions, one per seed: question [S] int64, their numbers among all that are asked; told
    [S, H]: what is known without a model, see ``QuestionSampler``; label [S, C] float32 (NaN: null;
    see ``TaskRows``)."""

    question: Tensor
    told: Tensor
    label: Tensor


@dataclass(frozen=True)
class EpisodeBatch(TaskBatch):
    """One task: examples with labels, then queries, S questions in all, told F numbers each.

    kind [F] int64: of the numbers told, among ``TOLD_KINDS``. database: its number in the mixture,
    -1 where it does not count. num_support: the first so many are examples. classes: at most
    MAX_CLASSES, or 0 where labels [S, 1] are numbers, standardised by those of the examples. Labels
    of queries are for the loss alone, as is rank [S] float32, each label's among those that are
    known; marginal [levels] the quantiles of these. named: whether the cell of the label has such
    ranks, and its name says what they are of; else the examples alone do.
    """

    kind: Tensor
    rank: Tensor
    marginal: Tensor
    named: bool
    database: int
    num_support: int
    classes: int

    def cells(self) -> ValueTargets:
        """The cells [S] of all labels."""
        each = torch.arange(self.num_seeds, device=self.label.device)
        marginal = self.marginal.expand(self.num_seeds, -1)
        return ValueTargets(each, each, self.rank, torch.ones_like(self.rank), marginal, each)

    @property
    def expectable(self) -> Tensor:
        """[S]: whose labels can be foretold without examples."""
        return torch.isfinite(self.rank) & self.named

    def without_edges(self) -> Self:
        """Nor is anything told of entities, past labels or children, which only edges lead to."""
        told = self.told.clone()
        told[:, NUM_CALENDAR:] = 0
        return replace(super().without_edges(), told=told)


@dataclass(frozen=True)
class RecommendBatch(Batch):
    """Questions and destinations of one moment [2] (seed time, cutoff; unix seconds).

    question [Q]: numbers among all that are asked; query [Q]: their nodes. destination [P]: rows of
    the destination table; candidate [P]: their nodes. key [Q]: the foreign key that is asked for,
    among the batch's relations. seen [Q, P, NUM_SEEN_FEATURES]:
    what is known of each pair. positive [Q, P] bool: the answer.
    log_chance [P]: logarithm of the chance that a training batch has the candidate.
    """

    question: Tensor
    query: Tensor
    candidate: Tensor
    destination: Tensor
    key: Tensor
    seen: Tensor
    positive: Tensor
    log_chance: Tensor
    moment: Tensor


def make_buckets(
    rows: TokenRows, num_masked: int, min_rows: int
) -> tuple[tuple[Bucket, ...], npt.NDArray[np.int64]]:
    """Buckets of serialised rows, and each row's place in their numbering.

    The first ``num_masked`` rows make the first bucket, in order; the others are bucketed by
    length rounded up to an even number, a bucket of fewer than ``min_rows`` joining the next
    longer one.
    """
    rest = np.arange(num_masked, rows.length.size)
    width = -(-rows.length[rest] // _PAD_TO) * _PAD_TO
    order = rest[np.argsort(width, kind="stable")]
    groups: list[npt.NDArray[np.int64]] = [np.arange(num_masked)]
    groups += _split(order, rows.length, min_rows)
    place = np.empty(rows.length.size, dtype=np.int64)
    place[np.concatenate(groups)] = np.arange(rows.length.size)
    return tuple(_bucket(rows, group) for group in groups), place


def _split(
    order: npt.NDArray[np.int64], length: npt.NDArray[np.int32], min_rows: int
) -> list[npt.NDArray[np.int64]]:
    width = -(-length[order] // _PAD_TO)
    ends = [*np.flatnonzero(np.diff(width)) + 1, order.size]
    groups, start = [], 0
    for end in ends:
        if end - start >= min_rows or (end == order.size and end > start):
            groups.append(order[start:end])
            start = end
    return groups


def _bucket(rows: TokenRows, group: npt.NDArray[np.int64]) -> Bucket:
    width = int(rows.length[group].max(initial=1))
    feature = rows.feature[group, :width].reshape(-1)
    at = np.flatnonzero(feature >= 0)
    token = rows.token[group, :width]
    real = np.arange(width) < rows.length[group][:, None]
    return Bucket(
        token=torch.from_numpy(token.astype(np.int64)),
        role=torch.from_numpy(rows.role[group, :width].astype(np.int64)),
        real=torch.from_numpy(real),
        value=torch.from_numpy(rows.features[feature[at]]),
        value_at=torch.from_numpy(at),
        cell=torch.from_numpy(_first_of_cell(rows.column[group, :width])),
        mask_at=torch.from_numpy(np.flatnonzero(rows.role[group, :width] == ROLE_MASK)),
    )


def _first_of_cell(column: npt.NDArray[np.int16]) -> npt.NDArray[np.int64]:
    """[B, L] flat position of the first token of each token's cell: cells are runs of a column."""
    flat = np.arange(column.size).reshape(column.shape)
    starts = np.ones(column.shape, dtype=np.bool_)
    starts[:, 1:] = (column[:, 1:] != column[:, :-1]) | (column[:, 1:] < 0)
    return np.asarray(np.maximum.accumulate(np.where(starts, flat, 0), axis=1), dtype=np.int64)


def pad_tokens(sequences: Sequence[Sequence[int]], fill: int) -> Tensor:
    """Token ids [n, longest] int64 of ragged sequences, at least one column."""
    width = max((len(s) for s in sequences), default=0)
    out = torch.full((len(sequences), max(width, 1)), fill, dtype=torch.int64)
    for i, sequence in enumerate(sequences):
        out[i, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.int64)
    return out


def cat(arrays: Sequence[npt.NDArray[Any]], dtype: type[np.generic]) -> Tensor:
    """One tensor of arrays of any number, none included."""
    return torch.from_numpy(np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype))
