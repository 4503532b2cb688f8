"""Counts of children on a graph small enough to count by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfm.data.degrees import count_children, edge_counts
from rfm.data.graph import EntityGraph, build_graph
from rfm.data.sampler import Seeds, fan_outs, sample


@pytest.fixture
def graph(tmp_path: Path) -> EntityGraph:
    """Parents p0, p1 (rows 0, 1); children at times 10..50 (rows 2..6), two foreign keys."""
    return build_graph(
        tmp_path / "graph",
        {"p": 2, "c": 5},
        [("c", "a", "p"), ("c", "b", "p")],
        [np.array([0, 0, 0, 1, -1], np.int32), np.array([0, 1, -1, 1, 0], np.int32)],
        [None, np.array([10, 20, 30, 40, 50], np.int64)],
    )


def seeds(row: int, time: int, cut: int = -1, hidden: tuple[int, ...] = ()) -> Seeds:
    return Seeds(
        np.array([row], np.int64),
        np.array([time], np.int64),
        np.array([cut], np.int32),
        np.array([0, len(hidden)], np.int64),
        np.array(hidden, np.int64),
    )


@pytest.mark.parametrize(
    ("seed", "parent", "key", "expected"),
    [
        (seeds(0, 9), 0, 0, 0),
        (seeds(0, 10), 0, 0, 1),
        (seeds(0, 29), 0, 0, 2),
        (seeds(0, 99), 0, 0, 3),
        (seeds(0, 99), 1, 0, 1),
        (seeds(0, 99), 0, 1, 2),
        (seeds(0, 99), 1, 1, 2),
        (seeds(3, 99, cut=0), 0, 0, 2),  # row 3 is the child at time 20 of p0
        (seeds(3, 99, cut=0), 1, 1, 2),  # its other key stays
        (seeds(3, 99, cut=1), 1, 1, 1),
        (seeds(3, 99, cut=1), 0, 0, 3),
        (seeds(5, 30, cut=0), 1, 0, 0),  # a seed later than its time was never counted
        (seeds(6, 99, cut=0), 0, 0, 3),  # nothing to cut
        (seeds(0, 99, hidden=(2, 4)), 0, 0, 1),
        (seeds(0, 20, hidden=(2, 4)), 0, 0, 1),  # row 4 was not there yet
        (seeds(0, 99, hidden=(5, 6)), 0, 0, 3),
        (seeds(3, 99, cut=0, hidden=(2,)), 0, 0, 1),
    ],
)
def test_count(graph: EntityGraph, seed: Seeds, parent: int, key: int, expected: int) -> None:
    counts = count_children(graph, seed, np.zeros(1, int), np.array([parent]), np.array([key]))
    assert (counts.dtype, counts.tolist()) == (np.float32, [expected])


def test_edges_carry_the_count_of_the_row_that_asked(graph: EntityGraph) -> None:
    both = Seeds.at([0, 0], [99, 20])
    found = sample(graph, both, fan_outs(graph, [1]), "last")
    counts = edge_counts(graph, both, found)
    f2p = found.edge_type % 2 == 0
    by_edge = {
        (int(s), int(t)): float(c)
        for s, t, c in zip(
            found.seed[found.edge_index[1][f2p]], found.edge_type[f2p], counts[f2p], strict=True
        )
    }
    assert by_edge == {(0, 0): 3, (0, 2): 2, (1, 0): 2, (1, 2): 1}
    up = sample(graph, Seeds.at([2], [99]), fan_outs(graph, [1]), "last")
    p2f = up.edge_type % 2 == 1
    assert p2f.any()
    assert (edge_counts(graph, Seeds.at([2], [99]), up)[p2f] == 1).all()
