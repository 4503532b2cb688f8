"""Subgraph sampling: what a seed may see at its seed time.

Every seed gets its own component, grown hop by hop. Each row that was added at the last hop asks,
along each edge type of its table, for neighbours: a parent row for up to `fan_out` children, a
child row for its parent. Only rows with `row_time <= seed time` (STATIC rows always) can be
neighbours, and neither hidden rows nor the cut link can. A neighbour that the component already
has, the seed included, adds an edge but no second node.

Two interchangeable backends give identical results: a numba kernel (`sampler_numba`) and its
vectorised numpy twin (`sampler_numpy`), which is used where numba is not.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rfm.data.compiled import HAS_NUMBA
from rfm.data.graph import EntityGraph, Int32, Int64
from rfm.data.sampler_numpy import sample_arrays as _sample_numpy

if HAS_NUMBA:
    from rfm.data.sampler_numba import sample_arrays as _sample_numba
else:
    warnings.warn("numba is not there: batches are the same, but drawn slowly", stacklevel=2)

Strategy: TypeAlias = Literal["last", "uniform"]
Backend: TypeAlias = Literal["auto", "numba", "numpy"]


@dataclass(frozen=True, eq=False)
class Seeds:
    """S rows, each of which gets a component, and what it may see.

    Seed s never sees the rows hidden[hidden_ptr[s]:hidden_ptr[s+1]] (sorted global ids). With
    cut[s] = f, the seed row does not see its parent along foreign key f, nor that parent the seed
    row; other foreign keys of the same row to the same parent stay.
    """

    row: Int64  # [S] global row ids
    time: Int64  # [S] unix seconds; rows at this very second are visible
    cut: Int32  # [S] foreign key of the seed row's own table, or -1
    hidden_ptr: Int64  # [S+1]
    hidden: Int64  # flat

    @classmethod
    def at(cls, row: npt.ArrayLike, time: npt.ArrayLike) -> "Seeds":
        """Seeds with nothing cut and nothing hidden; row [S], time [S] or one time for all."""
        rows = np.atleast_1d(np.asarray(row, dtype=np.int64))
        return cls(
            row=rows,
            time=np.broadcast_to(np.asarray(time, dtype=np.int64), rows.shape).copy(),
            cut=np.full(rows.shape, -1, dtype=np.int32),
            hidden_ptr=np.zeros(rows.size + 1, dtype=np.int64),
            hidden=np.zeros(0, dtype=np.int64),
        )


@dataclass(frozen=True, eq=False)
class Subgraph:
    """S disjoint components in one, R rows and E edges, in canonical order.

    Rows 0..S-1 are the seeds; then come the rows of hop 1, 2, ..., each hop ordered by seed, then
    by the row that asked first, its edge type, and time. Edges are ordered in the same way: by
    hop, seed, row that asked, edge type, time.
    """

    row: Int64  # [R] global row ids
    seed: Int32  # [R] component
    hop: Int32  # [R] 0 for the seed
    edge_index: Int64  # [2, E] positions in `row`: neighbour -> row that asked
    edge_type: Int32  # [E]


def fan_outs(
    graph: EntityGraph,
    per_hop: Sequence[int],
    overrides: Mapping[str, Sequence[int]] | None = None,
) -> Int32:
    """[H, 2F] neighbours per row, hop and edge type: `per_hop` children along f2p, 1 parent.

    overrides: "child_table.column" -> children per hop along that foreign key. Raises ValueError
    for an unknown foreign key, a negative number, or a number of hops other than `per_hop` has.
    """
    names = [f"{graph.tables[key.child]}.{key.column}" for key in graph.foreign_keys]
    out = np.ones((len(per_hop), graph.num_edge_types), dtype=np.int32)
    out[:, 0::2] = np.asarray(per_hop, dtype=np.int32)[:, None]
    for name, children in (overrides or {}).items():
        if name not in names:
            raise ValueError(f"unknown foreign key {name!r} in fan-outs; known: {names}")
        if len(children) != len(per_hop):
            raise ValueError(
                f"fan-outs of {name}: got {len(children)} hops, wanted {len(per_hop)} "
                "(one number per hop)"
            )
        out[:, 2 * names.index(name)] = children
    if out.size and out.min() < 0:
        raise ValueError(
            f"fan-outs must be 0 or more, got {list(per_hop)}, {dict(overrides or {})}"
        )
    return out


def sample(
    graph: EntityGraph,
    seeds: Seeds,
    fan_out: Int32,
    strategy: Strategy = "last",
    max_rows: int = 0,
    rng_seed: int = 0,
    backend: Backend = "auto",
) -> Subgraph:
    """Sample the component of each seed.

    fan_out: [H, 2F], neighbours that a row asks for, per hop and edge type (`fan_outs` makes it);
        0 closes an edge type, and a child asks for one parent at most.
    strategy: of the visible children of a parent, take the latest, or a uniform choice without
        replacement that depends on (rng_seed, position of the seed, parent row, edge type) only.
    max_rows: rows per component, the seed included; once it is full, later rows are left out
        along with their edges. 0 means no limit.

    Raises ValueError for seeds or fan-outs that do not fit the graph.
    """
    _check(graph, seeds, fan_out)
    if strategy not in ("last", "uniform"):
        raise ValueError(f"strategy must be 'last' or 'uniform', got {strategy!r}")
    if max_rows < 0:
        raise ValueError(f"max_rows must be 0 (no limit) or more, got {max_rows}")
    if backend not in ("auto", "numba", "numpy"):
        raise ValueError(f"backend must be 'auto', 'numba' or 'numpy', got {backend!r}")
    if backend == "numba" and not HAS_NUMBA:
        raise ValueError("backend 'numba' cannot be used here: install numba, or use 'auto'")
    run = _sample_numpy if backend == "numpy" or not HAS_NUMBA else _sample_numba
    return Subgraph(*run(graph, seeds, fan_out, strategy == "uniform", max_rows, rng_seed))


def _check(graph: EntityGraph, seeds: Seeds, fan_out: Int32) -> None:
    size = seeds.row.size
    if fan_out.ndim != 2 or fan_out.shape[1] != graph.num_edge_types:
        raise ValueError(
            f"fan_out has shape {fan_out.shape}, wanted [hops, {graph.num_edge_types}] "
            "(one column per edge type)"
        )
    if fan_out.size and fan_out.min() < 0:
        raise ValueError(f"fan_out must be 0 or more, got {fan_out.min()}")
    shapes = {"row": (size,), "time": (size,), "cut": (size,), "hidden_ptr": (size + 1,)}
    for name, shape in shapes.items():
        if getattr(seeds, name).shape != shape:
            raise ValueError(f"seeds.{name} has shape {getattr(seeds, name).shape}, wanted {shape}")
    _check_range("seeds.row", seeds.row, 0, graph.num_rows)
    _check_range("seeds.cut", seeds.cut, -1, len(graph.foreign_keys))
    if (seeds.cut >= 0).any():
        child = np.array([key.child for key in graph.foreign_keys])
        wrong = (seeds.cut >= 0) & (child[seeds.cut] != graph.table_of(seeds.row))
        if wrong.any():
            s = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"seed {s} (row {seeds.row[s]}) cuts foreign key {seeds.cut[s]} "
                f"of table {graph.tables[child[seeds.cut[s]]]}, which is not its own table"
            )
    _check_hidden(graph, seeds)


def _check_hidden(graph: EntityGraph, seeds: Seeds) -> None:
    """Hidden rows exist, are sorted within each seed, and are not the seed itself."""
    ptr, hidden = seeds.hidden_ptr, seeds.hidden
    if ptr[0] != 0 or ptr[-1] != hidden.size or (np.diff(ptr) < 0).any():
        raise ValueError(f"seeds.hidden_ptr must rise from 0 to {hidden.size}, got {ptr}")
    if hidden.size == 0:
        return
    _check_range("seeds.hidden", hidden, 0, graph.num_rows)
    owner = np.repeat(np.arange(seeds.row.size), np.diff(ptr))
    if ((np.diff(hidden) < 0) & (owner[1:] == owner[:-1])).any():
        raise ValueError("seeds.hidden must be sorted within each seed")
    if (hidden == seeds.row[owner]).any():
        s = int(owner[hidden == seeds.row[owner]][0])
        raise ValueError(f"seed {s} (row {seeds.row[s]}) is among its own hidden rows")


def _check_range(name: str, values: Int64 | Int32, low: int, high: int) -> None:
    if values.size and (values.min() < low or values.max() >= high):
        raise ValueError(f"{name} must be in [{low}, {high}), got {values.min()} to {values.max()}")
