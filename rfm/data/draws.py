"""Drawing what a pretraining batch asks: seed rows, masks, links and their negatives.

Everything is a function of its arguments and the generator handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rfm.data.degrees import count_children
from rfm.data.sampler import Seeds, Strategy, Subgraph, sample
from rfm.data.serialise import MASKED, VISIBLE
from rfm.data.store import RowStore, filled
from rfm.data.times import Split, TimeIndex

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sampling:
    """How components grow. ``fan_out``: [H, 2F] of one database (``fan_outs``)."""

    fan_out: npt.NDArray[np.int32]
    strategy: Strategy
    max_rows: int

    def __call__(self, store: RowStore, seeds: Seeds, rng: np.random.Generator) -> Subgraph:
        key = int(rng.integers(2**62))
        return sample(store.graph, seeds, self.fan_out, self.strategy, self.max_rows, key)


@dataclass(frozen=True)
class MaskedDraw:
    """S seed rows and their components. fate [S, C] uint8: what becomes of each seed's cells."""

    seeds: Seeds
    subgraph: Subgraph
    fate: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LinkDraw:
    """Q queries whose ``foreign_key`` is cut, P candidate parents; all at one seed time.

    positive [Q]: index of the true parent among the candidates. allowed [Q, P]: it and its
    negatives. popularity [P]: visible children of each candidate, the queries left out. log_chance
    [P]: logarithm of about the chance that a training draw has this candidate, 0 in validation.
    """

    foreign_key: int
    queries: Seeds
    query_graph: Subgraph
    candidates: Seeds
    candidate_graph: Subgraph
    positive: Ints
    allowed: npt.NDArray[np.bool_]
    popularity: npt.NDArray[np.float32]
    log_chance: npt.NDArray[np.float32]


def softened(sizes: Sequence[int], temperature: float) -> npt.NDArray[np.float64]:
    """Probabilities proportional to size ** temperature (0 where the size is 0)."""
    counts = np.asarray(sizes, dtype=np.float64)
    weights = np.where(counts > 0, np.power(np.maximum(counts, 1), temperature), 0.0)
    total = weights.sum()
    return weights / total if total > 0 else weights


def draw_masked(
    index: TimeIndex,
    tables: Sequence[int],
    probability: npt.NDArray[np.float64],
    num_seeds: int,
    split: Split,
    sampling: Sampling,
    rng: np.random.Generator,
) -> MaskedDraw:
    """Seed rows of some tables, each at its own time, with a drawn share of their cells masked.

    A row of a static table is asked about at the time of some row of the same split.
    """
    counts = rng.multinomial(num_seeds, probability)
    rows = np.concatenate(
        [
            index.rows(t, _choose(index.split(t, split), int(n), rng))
            for t, n in zip(tables, counts, strict=True)
        ]
    )
    seeds = Seeds.at(rows, seed_times(index, rows, split, rng))
    return MaskedDraw(seeds, sampling(index.store, seeds, rng), draw_masks(index.store, rows, rng))


def _choose(positions: Ints | range, count: int, rng: np.random.Generator) -> Ints:
    """Distinct positions, at most ``count``."""
    count = min(count, len(positions))
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    picked = np.sort(rng.choice(len(positions), count, replace=False))
    if isinstance(positions, range):
        return picked + positions.start
    return positions[picked]


def seed_times(index: TimeIndex, rows: Ints, split: Split, rng: np.random.Generator) -> Ints:
    """Seed time of each row: its own, or, if it has none, that of some timed row of the split."""
    store = index.store
    static = store.is_static[store.graph.table_of(rows)]
    times = np.array(store.graph.row_time[rows])
    times[static] = [some_time(index, split, rng) for _ in range(int(static.sum()))]
    return times


def some_time(index: TimeIndex, split: Split, rng: np.random.Generator) -> int:
    """Time of a row of the split drawn from all timed tables; the split's end if there is none."""
    store = index.store
    timed = np.flatnonzero(~store.is_static)
    ranges = [index.split(int(t), split) for t in timed]
    sizes = np.array([len(r) for r in ranges], dtype=np.int64)
    if sizes.sum() == 0:
        return store.val_timestamp if split == "train" else store.test_timestamp
    t = int(np.searchsorted(np.cumsum(sizes), rng.integers(sizes.sum()), side="right"))
    row = index.rows(int(timed[t]), _choose(ranges[t], 1, rng))
    return int(store.graph.row_time[row[0]])


def draw_masks(store: RowStore, rows: Ints, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """fate [n, C]: a drawn share of each row's cells is masked, at times all of them.

    Null cells and the cell of the time column (the row's age tells it) are never masked; every row
    with a cell to mask has at least one masked.
    """
    table_of = store.graph.table_of(rows)
    width = max((len(store.tables[t].columns) for t in np.unique(table_of)), default=0)
    fate = np.full((rows.size, width), VISIBLE, dtype=np.uint8)
    share = np.where(rng.random(rows.size) < 0.2, 1.0, rng.uniform(0.1, 0.8, rows.size))
    order = rng.random((rows.size, width))
    for t in np.unique(table_of):
        at = np.flatnonzero(table_of == t)
        present = present_cells(store, int(t), rows[at])
        number = np.ceil(present.sum(1) * share[at])
        score = np.where(present, order[at, : present.shape[1]], np.inf)
        ranked = np.argsort(np.argsort(score, axis=1), axis=1)
        masked = present & (ranked < number[:, None])
        fate[at[:, None], np.arange(masked.shape[1])] = np.where(masked, MASKED, VISIBLE)
    return fate


def draw_context_masks(
    store: RowStore, rows: Ints, share: float, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """fate [n, C] of context rows: each value cell is masked with probability ``share``."""
    if share == 0:
        return np.zeros((rows.size, 0), dtype=np.uint8)
    table_of = store.graph.table_of(rows)
    width = max((len(store.tables[t].columns) for t in np.unique(table_of)), default=0)
    fate = np.full((rows.size, width), VISIBLE, dtype=np.uint8)
    chosen = rng.random((rows.size, width)) < share
    for t in np.unique(table_of):
        at = np.flatnonzero(table_of == t)
        values = present_cells(store, int(t), rows[at]) & store.tables[t].is_value
        masked = values & chosen[at, : values.shape[1]]
        fate[at[:, None], np.arange(masked.shape[1])] = np.where(masked, MASKED, VISIBLE)
    return fate


def present_cells(store: RowStore, t: int, rows: Ints) -> npt.NDArray[np.bool_]:
    """[n, C]: cells of rows of table ``t`` that may be masked: not null, not the row's time, nor of
    a column that no training row has."""
    table = store.tables[t]
    cells = table.cells[rows - store.graph.table_start[t]]
    return filled(cells, table.is_value) & table.can_be_masked


def draw_link(
    index: TimeIndex,
    foreign_key: int,
    num_queries: int,
    num_negatives: int,
    split: Split,
    sampling: Sampling,
    rng: np.random.Generator,
) -> LinkDraw:
    """Child rows close in time, asked for their parents at the time of the latest of them.

    In training every candidate but the true parent is a negative: parents of other queries, rows
    drawn uniformly, and rows of the queries' own components (hard). In validation each query has
    its own true parent and ``num_negatives`` rows drawn uniformly from those there are.
    """
    store, graph = index.store, index.store.graph
    key = graph.foreign_keys[foreign_key]
    rows, parents, time = _draw_queries(index, foreign_key, num_queries, split, rng)
    queries = Seeds.at(rows, time)
    queries.cut[:] = foreign_key
    query_graph = sampling(store, queries, rng)
    spare = num_negatives + 1 if split == "val" else num_negatives
    drawn = index.rows(key.parent, _choose(range(index.visible(key.parent, time)), spare, rng))
    in_table, hard = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    if split == "train":
        in_table = np.unique(query_graph.row[graph.table_of(query_graph.row) == key.parent])
        hard = _choose(in_table, num_negatives // 2, rng)
    pool = np.unique(np.concatenate([parents, drawn, hard]))
    positive = np.searchsorted(pool, parents)
    allowed = np.ones((rows.size, pool.size), dtype=np.bool_)
    if split == "val":
        allowed = _exact_negatives(pool, rng.permutation(drawn), parents, num_negatives)
    allowed &= pool[None, :] != rows[:, None]  # a row of a self-referencing table is not its parent
    allowed[np.arange(rows.size), positive] = True
    candidates = hide(Seeds.at(pool, time), np.sort(rows))
    popularity = count_children(
        graph, candidates, np.arange(pool.size), pool, np.full(pool.size, foreign_key)
    )
    log_chance = np.zeros(pool.size, dtype=np.float32)
    if split == "train":
        visible = (index.visible(key.child, time), index.visible(key.parent, time))
        share_hard = np.isin(pool, in_table) * hard.size / max(1, in_table.size)
        log_chance = _log_chance(popularity, visible, rows.size, drawn.size, share_hard)
    candidate_graph = sampling(store, candidates, rng)
    return LinkDraw(
        foreign_key, queries, query_graph, candidates, candidate_graph, positive, allowed,
        popularity, log_chance,
    )  # fmt: skip


def _draw_queries(
    index: TimeIndex, foreign_key: int, num_queries: int, split: Split, rng: np.random.Generator
) -> tuple[Ints, Ints, int]:
    """Up to ``num_queries`` child rows of a window in time, their parents, and the seed time.

    Rows without a parent, or whose parent is not there yet at the seed time, are left out; and all
    of them, if there is no other row that they could have for a parent.
    """
    graph = index.store.graph
    key = graph.foreign_keys[foreign_key]
    positions = index.split(key.child, split)
    window = 4 * num_queries
    start = int(rng.integers(max(1, len(positions) - window + 1)))
    near = positions[start : start + window]
    rows = index.rows(key.child, np.asarray(near, dtype=np.int64))
    local = rows - int(graph.table_start[key.child])
    parents = graph.parent[graph.parent_start[foreign_key] + local].astype(np.int64)
    rows, parents = rows[parents >= 0], parents[parents >= 0]
    picked = _choose(range(rows.size), num_queries, rng)
    rows, parents = rows[picked], parents[picked]
    if index.store.is_static[key.child]:
        time = some_time(index, split, rng)
    else:
        time = int(graph.row_time[rows].max(initial=index.store.first_time))
    there = np.asarray(graph.row_time[parents]) <= time
    own = key.child == key.parent  # a row is not its own parent
    if index.visible(key.parent, time) < 2 + own:
        there[:] = False
    return rows[there], parents[there], time


def _log_chance(
    popularity: npt.NDArray[np.float32],
    visible: tuple[int, int],
    num_queries: int,
    num_drawn: int,
    share_hard: npt.NDArray[np.float64],
) -> npt.NDArray[np.float32]:
    """log of about the chance [P] that a candidate of a training draw is the parent of another
    query, is drawn uniformly, or is drawn as a hard negative.

    Parents of other queries are popular rows: without this correction (Bengio and Senécal 2008; Yi
    et al. 2019 for candidates shared by a batch) a model would learn to rank popular rows too low.
    Queries count as drawn from all children; those of one window, as they are, share parents more
    often. To correct for the very parents that were drawn would be exact, and was no better
    (benchmarks/RESULTS.md).

    Args:
        popularity: [P] children; a parent is taken to have one with a chance proportional to their
            number + 1.
        visible: child rows and parent rows there are.
        share_hard: [P] chance to be drawn as a hard negative.
    """
    children, parents = visible
    share = (popularity.astype(np.float64) + 1) / (children + parents)
    missed = (1 - share) ** max(0, num_queries - 1) * (1 - num_drawn / max(1, parents))
    return np.log1p(-missed * (1 - share_hard)).astype(np.float32)


def _exact_negatives(
    pool: Ints, drawn: Ints, parents: Ints, num_negatives: int
) -> npt.NDArray[np.bool_]:
    """[Q, P]: for each query the first ``num_negatives`` of ``drawn`` that are not its parent."""
    candidate = drawn[None, :] != parents[:, None]
    candidate &= np.cumsum(candidate, axis=1) <= num_negatives
    allowed = np.zeros((parents.size, pool.size), dtype=np.bool_)
    allowed[:, np.searchsorted(pool, drawn)] = candidate
    return allowed


def hide(seeds: Seeds, hidden: Ints) -> Seeds:
    """The same seeds, each blind to the same sorted rows (to all but itself)."""
    lists = [hidden[hidden != row] for row in seeds.row]
    ptr = np.concatenate([[0], np.cumsum([len(h) for h in lists])]).astype(np.int64)
    flat = np.concatenate([np.zeros(0, dtype=np.int64), *lists])
    return Seeds(seeds.row, seeds.time, seeds.cut, ptr, flat)
