"""Small entity graphs and seeds, and whether two subgraphs are the same."""

import itertools
from pathlib import Path

import numpy as np

from rfm.data.graph import EntityGraph, build_graph
from rfm.data.sampler import Seeds, Subgraph

FIELDS = ("row", "seed", "hop", "edge_index", "edge_type")


def make_graph(out: Path, tables: dict, keys: dict) -> EntityGraph:
    """tables: name -> times, or a number of static rows. keys: "child.column>parent" -> parents."""
    sizes = {name: t if isinstance(t, int) else len(t) for name, t in tables.items()}
    names = [tuple(key.replace(">", ".").split(".")) for key in keys]
    parents = [np.array(p, dtype=np.int32) for p in keys.values()]
    times = [None if isinstance(t, int) else np.array(t, dtype=np.int64) for t in tables.values()]
    return build_graph(out, sizes, names, parents, times)


def make_seeds(rows, times, cut=None, hidden=None) -> Seeds:
    plain = Seeds.at(rows, times)
    lists = hidden or [[] for _ in range(plain.row.size)]
    return Seeds(
        row=plain.row,
        time=plain.time,
        cut=plain.cut if cut is None else np.array(cut, dtype=np.int32),
        hidden_ptr=np.cumsum([0, *map(len, lists)], dtype=np.int64),
        hidden=np.array(list(itertools.chain(*lists)), dtype=np.int64),
    )


def assert_same(first: Subgraph, second: Subgraph) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), field)
