"""Which labelled rows of a task are shown as examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rfm.config import setting
from rfm.data.generated import Labelled
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints

_EVER = int(np.iinfo(np.int64).max)
_RECENT = 4  # times as many as there are examples: those that recent ones are drawn from


@dataclass(frozen=True)
class SupportMix:
    """Shares of the examples; the others are drawn at random."""

    recent: float = setting(0.5, ge=0, le=1, help="share of the examples, of the latest")
    own: float = setting(0.0, ge=0, le=1, help="share, of the entities that are asked about")
    near: float = setting(0.0, ge=0, le=1, help="share, of entities that share a parent with them")

    def __post_init__(self) -> None:
        if self.recent + self.own + self.near > 1:
            raise ValueError(
                f"recent={self.recent}, own={self.own} and near={self.near} come to more than 1"
            )


def draw_support(
    rows: Labelled,
    known: Ints,
    size: int,
    mix: SupportMix,
    asked: Ints,
    parents: Sequence[Ints],
    rng: np.random.Generator,
) -> Ints:
    """Examples [K] among the known rows, which are in the order of time; no row twice.

    Args:
        asked: entities that questions are about.
        parents: of each entity, by foreign key of its table, -1 for none, or none that anybody
            knows of by then (``parents_of``).
    """
    size = min(size, known.size)
    own = np.isin(rows.entity[known], asked)
    near = np.zeros(known.size, dtype=np.bool_)
    for parent in parents if mix.near else ():
        kin = parent[asked]
        near |= np.isin(parent[rows.entity[known]], kin[kin >= 0])
    recent = np.arange(known.size) >= known.size - _RECENT * size
    left = np.ones(known.size, dtype=np.bool_)
    for among, share in ((recent, mix.recent), (own, mix.own), (near & ~own, mix.near)):
        pool = np.flatnonzero(among & left)
        left[rng.choice(pool, min(int(share * size), pool.size), replace=False)] = False
    rest = np.flatnonzero(left)
    left[rng.choice(rest, size - int((~left).sum()), replace=False)] = False
    return known[~left]


def parents_of(store: RowStore, table: int, until: int = _EVER) -> list[Ints]:
    """By foreign key of a table, the parent of each of its rows, -1 for none.

    Args:
        until: unix seconds; of rows that are not there by then nothing is known.
    """
    graph = store.graph
    first, end = (int(x) for x in graph.table_start[table : table + 2])
    there = np.asarray(graph.row_time[first:end]) <= until
    starts = [int(graph.parent_start[f]) for f in range(len(graph.foreign_keys))]
    return [
        np.where(there, graph.parent[start : start + end - first], -1).astype(np.int64)
        for start, key in zip(starts, graph.foreign_keys, strict=True)
        if key.child == table
    ]
