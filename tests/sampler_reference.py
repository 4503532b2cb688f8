"""The sampler as its words say it, in plain Python, one row at a time."""

import numpy as np

from rfm.data.graph import EntityGraph
from rfm.data.sampler import Seeds, Subgraph


def links(graph: EntityGraph, f: int) -> np.ndarray:
    """[rows of the child table] global parent row, or -1."""
    child = graph.foreign_keys[f].child
    size = graph.table_start[child + 1] - graph.table_start[child]
    return graph.parent[graph.parent_start[f] : graph.parent_start[f] + size]


def candidates(graph: EntityGraph, seeds: Seeds, s: int, row: int, edge_type: int) -> list[int]:
    """What `row` may see along `edge_type`, in time order, by looking at every link."""
    f = edge_type // 2
    start = int(graph.table_start[graph.foreign_keys[f].child])
    if edge_type % 2:
        pairs = [(row, int(links(graph, f)[row - start]))]
        found = [p for _, p in pairs if p >= 0]
    else:
        pairs = [(start + int(c), row) for c in np.flatnonzero(links(graph, f) == row)]
        found = sorted((c for c, _ in pairs), key=lambda c: (graph.row_time[c], c))
    hidden = set(seeds.hidden[seeds.hidden_ptr[s] : seeds.hidden_ptr[s + 1]].tolist())
    seed = int(seeds.row[s])
    if seeds.cut[s] == f:
        found = [] if edge_type % 2 and row == seed else found
        found = [c for c in found if edge_type % 2 or c != seed]
    return [r for r in found if graph.row_time[r] <= seeds.time[s] and r not in hidden]


def reference(graph: EntityGraph, seeds: Seeds, fan_out: np.ndarray, max_rows: int) -> Subgraph:
    """Strategy `last` as the words say it, one row at a time."""
    place = {(s, int(r)): s for s, r in enumerate(seeds.row)}
    rows = [(int(r), s, 0) for s, r in enumerate(seeds.row)]
    size, edges = [1] * seeds.row.size, []
    ptr, asks = graph.asks
    low = 0
    for hop in range(len(fan_out)):
        high = len(rows)
        for asker in range(low, high):
            row, s, _ = rows[asker]
            table = int(graph.table_of(row))
            for edge_type in asks[ptr[table] : ptr[table + 1]].tolist():
                k = int(fan_out[hop, edge_type])
                allowed = candidates(graph, seeds, s, row, edge_type)
                for other in allowed[len(allowed) - min(k, len(allowed)) :]:
                    if (s, other) not in place:
                        if max_rows and size[s] >= max_rows:
                            continue
                        size[s] += 1
                        place[s, other] = len(rows)
                        rows.append((other, s, hop + 1))
                    edges.append((place[s, other], asker, edge_type))
        low = high
    row, seed, hop_of = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    table_of_edges = np.array(edges, dtype=np.int64).reshape(-1, 3).T
    return Subgraph(row, seed, hop_of, table_of_edges[:2], table_of_edges[2])
