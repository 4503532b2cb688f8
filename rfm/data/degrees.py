"""How many children a row has at a seed time: counts that sampling alone would lose."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rfm.data.compiled import compiled
from rfm.data.graph import EntityGraph
from rfm.data.sampler import Seeds, Subgraph


def count_children(
    graph: EntityGraph,
    seeds: Seeds,
    component: npt.NDArray[np.integer],
    parent: npt.NDArray[np.int64],
    foreign_key: npt.NDArray[np.integer],
) -> npt.NDArray[np.float32]:
    """Children [n] that each global row ``parent`` [n] has through ``foreign_key`` [n], as its
    ``component`` [n] may see them: not later than the seed time, neither hidden nor cut."""
    table = np.array([key.parent for key in graph.foreign_keys], dtype=np.int64)
    first = np.array([graph.table_start[key.child] for key in graph.foreign_keys], dtype=np.int64)
    size = np.array(
        [graph.table_start[k.child + 1] - graph.table_start[k.child] for k in graph.foreign_keys],
        dtype=np.int64,
    )
    counts = _count(
        graph.row_time, graph.parent, graph.parent_start, graph.child_ptr, graph.child_ptr_start,
        graph.child, np.asarray(graph.table_start), table, first, size,
        seeds.row, seeds.time, seeds.cut, seeds.hidden_ptr, seeds.hidden,
        component.astype(np.int64), parent, foreign_key.astype(np.int64),
    )  # fmt: skip
    return np.asarray(counts, dtype=np.float32)


def edge_counts(graph: EntityGraph, seeds: Seeds, subgraph: Subgraph) -> npt.NDArray[np.float32]:
    """For each edge [E], how many neighbours of its type the asking row has; 1 towards parents."""
    counts = np.ones(subgraph.edge_type.size, dtype=np.float32)
    f2p = np.flatnonzero(subgraph.edge_type % 2 == 0)
    asker = subgraph.edge_index[1, f2p]
    counts[f2p] = count_children(
        graph, seeds, subgraph.seed[asker], subgraph.row[asker], subgraph.edge_type[f2p] // 2
    )
    return counts


@compiled
def _count(  # type: ignore[no-untyped-def]
    row_time, parents, parent_start, child_ptr, child_ptr_start, child, table_start, table, first,
    size, seed_row, seed_time, seed_cut, hidden_ptr, hidden, component, parent, foreign_key,
):  # fmt: skip
    out = np.zeros(parent.size, dtype=np.int64)
    for i in range(parent.size):
        f, p, s = foreign_key[i], parent[i], component[i]
        base = child_ptr_start[f] + p - table_start[table[f]]
        low, high, start = child_ptr[base], child_ptr[base + 1], child_ptr[base]
        time = seed_time[s]
        while low < high:
            middle = (low + high) // 2
            if row_time[child[middle]] <= time:
                low = middle + 1
            else:
                high = middle
        count = low - start
        for h in range(hidden_ptr[s], hidden_ptr[s + 1]):
            r = hidden[h] - first[f]
            inside = 0 <= r < size[f]
            if inside and row_time[hidden[h]] <= time and parents[parent_start[f] + r] == p:
                count -= 1
        if seed_cut[s] == f and count > 0:
            r = seed_row[s] - first[f]
            if parents[parent_start[f] + r] == p and row_time[seed_row[s]] <= time:
                count -= 1
        out[i] = count
    return out
