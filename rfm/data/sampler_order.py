"""The order of a Subgraph, for the numba kernel of the sampler: hop by hop, seed by seed."""

from typing import Any

import numpy as np
import numpy.typing as npt

from rfm.data.compiled import compiled
from rfm.data.graph import Int32, Int64

_Array = npt.NDArray[Any]


@compiled
def reorder(
    rows: _Array, edges: _Array, answers: _Array, row_count: _Array, edge_count: _Array
) -> tuple[Int64, Int32, Int32, Int64, Int32]:
    """Seed-major rows and edges -> hop-major, and positions in components -> positions overall."""
    num_hops, num_seeds = edge_count.shape
    row, seed = np.empty(row_count.sum(), np.int64), np.empty(row_count.sum(), np.int32)
    hop_of = np.empty(row.size, np.int32)
    edge_index = np.empty((2, edge_count.sum()), np.int64)
    edge_type = np.empty(edge_index.shape[1], np.int32)
    row_end = np.cumsum(row_count).reshape(row_count.shape)  # hop-major, as row_count is
    edge_end = np.cumsum(edge_count).reshape(edge_count.shape)
    place = np.empty(row_count.sum(axis=0).max() if num_seeds else 0, np.int64)
    r, e, a = 0, 0, 0
    for s in range(num_seeds):
        i = 0
        for hop in range(num_hops + 1):
            for to in range(row_end[hop, s] - row_count[hop, s], row_end[hop, s]):
                row[to], seed[to], hop_of[to] = rows[r], s, hop
                place[i] = to
                i += 1
                r += 1
        for hop in range(num_hops):
            to = edge_end[hop, s] - edge_count[hop, s]
            while to < edge_end[hop, s]:
                asker, kind = place[answers[a]], answers[a + 1]
                for _ in range(answers[a + 2]):
                    edge_index[0, to], edge_index[1, to] = place[edges[e]], asker
                    edge_type[to] = kind
                    e += 1
                    to += 1
                a += 3
    return row, seed, hop_of, edge_index, edge_type
