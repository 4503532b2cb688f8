import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from rfm.data import graph as graph_module
from rfm.data.graph import STATIC, EntityGraph, ForeignKey, build_graph, open_graph

TABLES = {"driver": 3, "race": 2, "result": 5}
KEYS = [
    ("result", "driver_id", "driver"),
    ("result", "race_id", "race"),
    ("driver", "mate", "driver"),
]
PARENTS = [[0, 1, 0, -1, 0], [1, 1, 0, 0, 1], [1, -1, 2]]
TIMES = [None, [10, 20], [30, 30, 10, 5, 20]]


def int32(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def build(out: Path, parents: list[list[int]] = PARENTS) -> EntityGraph:
    times = (None if t is None else np.array(t, dtype=np.int64) for t in TIMES)
    return build_graph(out, TABLES, KEYS, (int32(p) for p in parents), times)


def children(graph: EntityGraph, f: int, local_parent: int) -> list[int]:
    i = graph.child_ptr_start[f] + local_parent
    return graph.child[graph.child_ptr[i] : graph.child_ptr[i + 1]].tolist()


def test_arrays(tmp_path):
    graph = build(tmp_path)
    assert graph.tables == ("driver", "race", "result")
    assert graph.num_rows == 10
    assert graph.num_edge_types == 6
    assert graph.table_start.tolist() == [0, 3, 5, 10]
    assert graph.row_time.tolist() == [STATIC] * 3 + [10, 20, 30, 30, 10, 5, 20]
    assert graph.foreign_keys[0] == ForeignKey(child=2, column="driver_id", parent=0)
    start = graph.parent_start
    assert graph.parent[start[0] : start[1]].tolist() == [0, 1, 0, -1, 0]
    assert graph.parent[start[1] : start[2]].tolist() == [4, 4, 3, 3, 4]
    assert graph.parent[start[2] :].tolist() == [1, -1, 2]
    assert graph.table_of([0, 2, 3, 9]).tolist() == [0, 0, 1, 2]


def test_children_are_sorted_by_time_then_row(tmp_path):
    graph = build(tmp_path)
    assert children(graph, 0, 0) == [7, 9, 5]  # times 10, 20, 30
    assert children(graph, 0, 1) == [6]
    assert children(graph, 0, 2) == []
    assert children(graph, 1, 0) == [8, 7]  # times 5, 10
    assert children(graph, 1, 1) == [9, 5, 6]  # times 20, 30, 30
    assert children(graph, 2, 2) == [2]  # refers to itself
    assert graph.child.size == graph.child_ptr[-1] == 4 + 5 + 2


def test_what_a_table_asks_along(tmp_path):
    graph = build(tmp_path)
    ptr, edge_types = graph.asks
    asks = [edge_types[ptr[t] : ptr[t + 1]].tolist() for t in range(3)]
    assert asks == [[0, 4, 5], [2], [1, 3]]


def test_opening_maps_and_pickling_stores_only_the_folder(tmp_path):
    build(tmp_path)
    graph = open_graph(tmp_path)
    for array in (graph.row_time, graph.parent, graph.child_ptr, graph.child):
        assert isinstance(array.base, np.memmap)
        assert type(array) is np.ndarray
        assert not array.flags.writeable
    stored = pickle.dumps(graph)
    assert len(stored) < 500
    assert pickle.loads(stored).child.tolist() == graph.child.tolist()


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_pieces_and_chunks_do_not_change_the_graph(tmp_path, monkeypatch, piece):
    rng = np.random.default_rng(0)
    sizes = {"a": 40, "b": 0, "c": 700}
    parent = rng.integers(-1, 40, 700).astype(np.int32)
    parent[rng.random(700) < 0.4] = 3  # a hub, larger than a piece
    time = rng.integers(0, 50, 700)
    monkeypatch.setattr(graph_module, "_PIECE", piece)
    monkeypatch.setattr(graph_module, "_CHUNK", 64)
    keys = [("c", "a", "a"), ("b", "c", "c"), ("c", "b", "b")]
    parents = [parent, int32([]), np.full(700, -1, dtype=np.int32)]
    graph = build_graph(tmp_path, sizes, keys, parents, [None, None, time])
    for p in range(40):
        rows = np.flatnonzero(parent == p)
        wanted = 40 + rows[np.lexsort((rows, time[rows]))]
        assert children(graph, 0, p) == wanted.tolist()
    assert graph.child.size == (parent >= 0).sum()
    assert graph.table_of(40) == 2  # table b is empty


def test_empty_database(tmp_path):
    graph = build_graph(tmp_path, {"a": 0}, [], [], [None])
    assert graph.num_rows == 0
    assert graph.num_edge_types == 0
    assert graph.child.size == 0


def test_too_many_rows(tmp_path):
    with pytest.raises(ValueError, match="2147483648 rows"):
        build_graph(tmp_path, {"a": 2**31 - 1, "b": 1}, [], [], [None, None])


@pytest.mark.parametrize("bad", [[0, 1, 3, -1, 0], [0, -2, 0, -1, 0], [0, 1]])
def test_parents_that_do_not_fit(tmp_path, bad):
    with pytest.raises(ValueError, match=r"result\.driver_id"):
        build(tmp_path, [bad, *PARENTS[1:]])


def test_unknown_table(tmp_path):
    with pytest.raises(ValueError, match=r"unknown tables.*'b'"):
        build_graph(tmp_path, {"a": 1}, [("a", "x", "b")], [int32([0])], [None])


def test_row_times_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="row times of a"):
        build_graph(tmp_path, {"a": 2}, [], [], [np.zeros(3, dtype=np.int64)])
    with pytest.raises(ValueError, match="row times of a"):
        build_graph(tmp_path, {"a": 2}, [], [], [np.zeros(2)])


def test_damaged_folders(tmp_path):
    with pytest.raises(ValueError, match=r"graph\.json is missing"):
        open_graph(tmp_path)
    build(tmp_path)
    (tmp_path / "child.i32").write_bytes(b"1234")
    with pytest.raises(ValueError, match="damaged"):
        open_graph(tmp_path)
    description = json.loads((tmp_path / "graph.json").read_text())
    (tmp_path / "graph.json").write_text(json.dumps({**description, "version": 0}))
    with pytest.raises(ValueError, match="version 0"):
        open_graph(tmp_path)


def test_a_failed_build_leaves_nothing_to_open(tmp_path):
    build(tmp_path)
    with pytest.raises(ValueError):
        build(tmp_path, [[0], *PARENTS[1:]])
    with pytest.raises(ValueError, match=r"graph\.json is missing"):
        open_graph(tmp_path)
