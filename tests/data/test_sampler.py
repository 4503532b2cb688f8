"""The sampler against hand-made graphs, a plain Python reference, and its own other backend."""

from pathlib import Path

import numpy as np
import pytest

from rfm.data.compiled import HAS_NUMBA
from rfm.data.graph import STATIC, EntityGraph
from rfm.data.sampler import Seeds, Subgraph, fan_outs, sample
from tests.graphs import FIELDS, assert_same, make_graph, make_seeds
from tests.sampler_reference import candidates, reference

BACKENDS = ["numpy", *(["numba"] if HAS_NUMBA else [])]
backends = pytest.mark.parametrize("backend", BACKENDS)
strategies = pytest.mark.parametrize("strategy", ["last", "uniform"])


def edges_of(subgraph: Subgraph) -> list[tuple[int, int, int]]:
    """(neighbour, row that asked, edge type), as global rows."""
    ends = subgraph.row[subgraph.edge_index]
    return list(zip(*ends.tolist(), subgraph.edge_type.tolist(), strict=True))


def check_properties(graph: EntityGraph, seeds: Seeds, fan_out: np.ndarray, out: Subgraph) -> None:
    """What must hold for any strategy."""
    size = seeds.row.size
    assert [getattr(out, f).dtype for f in FIELDS] == [
        np.int64, np.int32, np.int32, np.int64, np.int32,
    ]  # fmt: skip
    np.testing.assert_array_equal(out.row[:size], seeds.row)
    np.testing.assert_array_equal(out.seed[:size], np.arange(size))
    keys = out.seed * np.int64(graph.num_rows) + out.row
    assert np.unique(keys).size == keys.size, "a row twice in a component"
    assert (graph.row_time[out.row[size:]] <= seeds.time[out.seed[size:]]).all(), "a future row"
    order = np.lexsort((out.seed, out.hop))
    np.testing.assert_array_equal(order, np.arange(order.size), "not by hop and seed")
    source, target = out.edge_index
    assert (out.seed[source] == out.seed[target]).all()
    assert (out.hop[source] <= out.hop[target] + 1).all()
    assert (out.hop[target] < len(fan_out)).all(), "the last hop asked"
    assert np.isin(np.arange(size, out.row.size), source).all(), "a row nobody asked for"
    triples = np.stack([source, target, out.edge_type])
    assert np.unique(triples, axis=1).shape == triples.shape, "an edge twice"
    seen: dict[tuple[int, int], set[int]] = {}
    for a, b, e in triples.T.tolist():
        seen.setdefault((b, e), set()).add(int(out.row[a]))
    for (b, e), chosen in seen.items():
        allowed = candidates(graph, seeds, int(out.seed[b]), int(out.row[b]), e)
        assert chosen <= set(allowed)
        assert len(chosen) <= fan_out[out.hop[b], e]


def random_case(out: Path, number: int) -> tuple[EntityGraph, Seeds, np.ndarray]:
    """A schema with self-reference, two keys between the same tables, a cycle and nulls."""
    rng = np.random.default_rng(number)
    sizes = {"a": 12, "b": 30, "c": 90, "empty": 0}
    tables = {
        "a": 12,
        "b": rng.integers(0, 40, 30),
        "c": rng.integers(0, 40, 90),
        "empty": np.zeros(0),
    }
    ends = ["b.x>a", "b.y>a", "c.b>b", "c.a>a", "b.self>b", "a.b>b", "c.e>empty", "empty.a>a"]
    keys = {
        end: rng.integers(-1, sizes[end.split(">")[1]], sizes[end.split(".")[0]]) for end in ends
    }
    keys["c.b>b"][rng.random(90) < 0.4] = 2  # a hub
    graph = make_graph(out, tables, keys)
    rows = rng.integers(0, graph.num_rows, 25)
    table = graph.table_of(rows)
    own = [[f for f, k in enumerate(graph.foreign_keys) if k.child == t] for t in table]
    cut = [rng.choice([-1, *fs]) for fs in own]
    hidden = [
        sorted(set(rng.integers(0, graph.num_rows, rng.integers(0, 60)).tolist()) - {int(r)})
        if rng.random() < 0.6
        else []
        for r in rows
    ]
    seeds = make_seeds(rows, rng.integers(5, 45, 25), cut, hidden)
    fan_out = rng.integers(0, 6, (rng.integers(1, 4), graph.num_edge_types)).astype(np.int32)
    return graph, seeds, fan_out


@backends
@pytest.mark.parametrize("number", range(12))
def test_last_agrees_with_the_reference(tmp_path, backend, number):
    graph, seeds, fan_out = random_case(tmp_path, number)
    for max_rows in (0, 1, 2, 17):
        out = sample(graph, seeds, fan_out, "last", max_rows, backend=backend)
        assert_same(out, reference(graph, seeds, fan_out, max_rows))
        check_properties(graph, seeds, fan_out, out)


@backends
@pytest.mark.parametrize("number", range(6))
def test_uniform_takes_exactly_k_of_the_allowed(tmp_path, backend, number):
    graph, seeds, fan_out = random_case(tmp_path, number)
    out = sample(graph, seeds, fan_out, "uniform", rng_seed=number, backend=backend)
    check_properties(graph, seeds, fan_out, out)
    counts: dict[tuple[int, int], int] = {}
    for target, e in zip(out.edge_index[1].tolist(), out.edge_type.tolist(), strict=True):
        counts[target, e] = counts.get((target, e), 0) + 1
    ptr, asks = graph.asks
    for at in np.flatnonzero(out.hop < len(fan_out)).tolist():
        row, s = int(out.row[at]), int(out.seed[at])
        table = int(graph.table_of(row))
        for e in asks[ptr[table] : ptr[table + 1]].tolist():
            allowed = candidates(graph, seeds, s, row, e)
            assert counts.get((at, e), 0) == min(fan_out[out.hop[at], e], len(allowed))


@pytest.mark.skipif(not HAS_NUMBA, reason="numba cannot be used")
@strategies
@pytest.mark.parametrize("number", range(20, 30))
def test_backends_agree(tmp_path, strategy, number):
    graph, seeds, fan_out = random_case(tmp_path, number)
    for max_rows in (0, 9):
        args = (graph, seeds, fan_out, strategy, max_rows, number)
        assert_same(sample(*args, backend="numba"), sample(*args, backend="numpy"))


# One rule each, by hand. Parents p0, p1, ... come first, so that global ids are easy to read.


@backends
@strategies
def test_time_is_inclusive_and_static_rows_are_visible(tmp_path, backend, strategy):
    graph = make_graph(
        tmp_path,
        {"p": 1, "c": [10, 20, 20, 30], "s": 2},
        {"c.p>p": [0, 0, 0, 0], "s.p>p": [0, -1]},
    )
    out = sample(graph, Seeds.at([0], 20), fan_outs(graph, [9]), strategy, backend=backend)
    assert out.row.tolist() == [0, 1, 2, 3, 5]
    assert out.hop.tolist() == [0, 1, 1, 1, 1]
    assert edges_of(out) == [(1, 0, 0), (2, 0, 0), (3, 0, 0), (5, 0, 2)]
    assert graph.row_time[5] == STATIC


@backends
def test_last_takes_the_latest_in_time_order(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 1, "c": [40, 10, 30, 20]}, {"c.p>p": [0, 0, 0, 0]})
    out = sample(graph, Seeds.at([0], 35), fan_outs(graph, [2]), backend=backend)
    assert out.row.tolist() == [0, 4, 3]  # times 20, 30


@backends
def test_a_parent_later_than_its_child_is_not_seen(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": [50, 5], "c": [10, 10]}, {"c.p>p": [0, 1]})
    out = sample(graph, Seeds.at([2, 3], 10), fan_outs(graph, [9]), backend=backend)
    assert out.row.tolist() == [2, 3, 1]
    assert out.seed.tolist() == [0, 1, 1]


@backends
def test_null_parents(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 1, "c": 2}, {"c.p>p": [-1, -1]})
    out = sample(graph, Seeds.at([0, 1], 0), fan_outs(graph, [9, 9]), backend=backend)
    assert out.row.tolist() == [0, 1]
    assert out.edge_index.shape == (2, 0)


@backends
def test_walking_back_adds_an_edge_and_no_node(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 1, "c": [1, 2]}, {"c.p>p": [0, 0]})
    out = sample(graph, Seeds.at([1], 2), fan_outs(graph, [9, 9, 9]), backend=backend)
    assert out.row.tolist() == [1, 0, 2]
    assert edges_of(out) == [(0, 1, 1), (1, 0, 0), (2, 0, 0), (0, 2, 1)]
    assert out.edge_index.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]


@backends
def test_a_seed_later_than_its_time_is_no_neighbour(tmp_path, backend):
    # A row of a task table is asked about before its label, and with it the row, is visible.
    graph = make_graph(tmp_path, {"p": 1, "c": [1, 9]}, {"c.p>p": [0, 0]})
    out = sample(graph, Seeds.at([2], 2), fan_outs(graph, [9, 9]), backend=backend)
    assert edges_of(out) == [(0, 2, 1), (1, 0, 0)]


@backends
def test_cut_in_both_directions_and_only_that_key(tmp_path, backend):
    tables, both = {"p": 1, "c": 2}, {"c.x>p": [0, 0], "c.y>p": [0, -1]}
    graph = make_graph(tmp_path, tables, both)
    fan_out = fan_outs(graph, [9, 9])
    cut_x = sample(graph, make_seeds([1], 0, cut=[0]), fan_out, backend=backend)
    assert edges_of(cut_x) == [(0, 1, 3), (2, 0, 0), (1, 0, 2)]
    cut_y = sample(graph, make_seeds([1], 0, cut=[1]), fan_out, backend=backend)
    assert edges_of(cut_y) == [(0, 1, 1), (1, 0, 0), (2, 0, 0)]
    other = sample(graph, make_seeds([2], 0, cut=[0]), fan_out, backend=backend)
    assert other.row.tolist() == [2]  # its y is null


@backends
@strategies
def test_a_cut_row_takes_no_fan_out(tmp_path, backend, strategy):
    # c0 reaches p0 through q0; p0 then sees the other two children, although c0 is the latest.
    graph = make_graph(
        tmp_path,
        {"p": 1, "q": 1, "c": [9, 1, 2]},
        {"c.p>p": [0, 0, 0], "q.p>p": [0], "c.q>q": [0, -1, -1]},
    )
    fan_out = fan_outs(graph, [2, 2, 2])
    out = sample(graph, make_seeds([2], 9, cut=[0]), fan_out, strategy, backend=backend)
    asked_by_p = [e for e in edges_of(out) if e[1] == 0 and e[2] == 0]
    assert asked_by_p == [(3, 0, 0), (4, 0, 0)]


@backends
@strategies
def test_hidden_rows_are_nowhere_and_take_no_fan_out(tmp_path, backend, strategy):
    graph = make_graph(tmp_path, {"p": 2, "c": [1, 2, 3, 4]}, {"c.p>p": [0, 0, 0, 0]})
    seeds = make_seeds([0, 2, 0], 9, hidden=[[2, 4], [0], [3]])
    out = sample(graph, seeds, fan_outs(graph, [2]), strategy, backend=backend)
    assert out.row[out.seed == 0].tolist() == [0, 3, 5]
    assert out.row[out.seed == 1].tolist() == [2]
    assert not np.isin(3, out.row[out.seed == 2])
    assert (out.seed == 2).sum() == 3


@backends
def test_self_reference_and_cycle(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 3}, {"p.boss>p": [0, 2, 1]})
    out = sample(graph, Seeds.at([0], 0), fan_outs(graph, [9, 9]), backend=backend)
    assert edges_of(out) == [(0, 0, 0), (0, 0, 1)]
    cut = sample(graph, make_seeds([0], 0, cut=[0]), fan_outs(graph, [9, 9]), backend=backend)
    assert edges_of(cut) == []
    cycle = sample(graph, Seeds.at([1], 0), fan_outs(graph, [9, 9, 9]), backend=backend)
    assert cycle.row.tolist() == [1, 2]
    assert edges_of(cycle) == [(2, 1, 0), (2, 1, 1), (1, 2, 0), (1, 2, 1)]


@backends
def test_max_rows_drops_rows_in_order_and_keeps_edges_between_the_rest(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 1, "c": [1, 2, 3]}, {"c.p>p": [0, 0, 0]})
    seeds, fan_out = Seeds.at([0, 1], 9), fan_outs(graph, [3, 3])
    out = sample(graph, seeds, fan_out, max_rows=3, backend=backend)
    assert out.row[out.seed == 0].tolist() == [0, 1, 2]
    assert out.row[out.seed == 1].tolist() == [1, 0, 2]
    assert (1, 0, 0) in edges_of(out)
    alone = sample(graph, seeds, fan_out, max_rows=1, backend=backend)
    assert alone.row.tolist() == [0, 1]
    assert alone.edge_type.size == 0


@backends
def test_components_do_not_see_each_other(tmp_path, backend):
    graph, seeds, fan_out = random_case(tmp_path, 3)
    whole = sample(graph, seeds, fan_out, backend=backend)
    for s in (0, 7, 24):
        one = Seeds(
            seeds.row[[s]],
            seeds.time[[s]],
            seeds.cut[[s]],
            np.array([0, seeds.hidden_ptr[s + 1] - seeds.hidden_ptr[s]]),
            seeds.hidden[seeds.hidden_ptr[s] : seeds.hidden_ptr[s + 1]],
        )
        alone = sample(graph, one, fan_out, backend=backend)
        assert alone.row.tolist() == whole.row[whole.seed == s].tolist()
        assert edges_of(alone) == [
            edge
            for edge, target in zip(edges_of(whole), whole.edge_index[1], strict=True)
            if whole.seed[target] == s
        ]


@backends
def test_large_components_and_nothing_at_all(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 1, "c": 30_000}, {"c.p>p": np.zeros(30_000)})
    out = sample(graph, Seeds.at([0, 0], 0), fan_outs(graph, [10**9, 1]), backend=backend)
    assert out.row.size == 2 * 30_001
    assert out.edge_type.size == 2 * 2 * 30_000
    nothing = sample(graph, Seeds.at([], 0), fan_outs(graph, [2]), backend=backend)
    assert nothing.row.size == nothing.edge_type.size == 0
    no_hops = sample(graph, Seeds.at([5], 0), fan_outs(graph, []), backend=backend)
    assert no_hops.row.tolist() == [5]
    lone = make_graph(tmp_path / "lone", {"p": 4}, {})
    assert sample(lone, Seeds.at([2], 0), fan_outs(lone, [2]), backend=backend).row.tolist() == [2]


@backends
def test_uniform_is_uniform(tmp_path, backend):
    # 12 children, 1 in the future, 2 hidden: each of the other 9 with probability 4/9, and each
    # pair with probability 4/9 * 3/8.
    graph = make_graph(tmp_path, {"p": 1, "c": [*range(11), 99]}, {"c.p>p": [0] * 12})
    size = 9000
    seeds = make_seeds([0] * size, 50, hidden=[[3, 8]] * size)
    out = sample(graph, seeds, fan_outs(graph, [4]), "uniform", rng_seed=5, backend=backend)
    chosen = np.zeros((size, 13), dtype=bool)
    chosen[out.seed[size:], out.row[size:]] = True
    assert (chosen.sum(axis=1) == 4).all()
    allowed = [1, 2, 4, 5, 6, 7, 9, 10, 11]
    both = chosen[:, allowed].T.astype(float) @ chosen[:, allowed]
    assert both.trace() == 4 * size
    sigma = np.sqrt(size * 4 / 9 * 5 / 9)
    assert (abs(np.diag(both) - size * 4 / 9) < 4 * sigma).all()
    pairs = both[np.triu_indices(9, k=1)]
    sigma = np.sqrt(size * 1 / 6 * 5 / 6)
    assert (abs(pairs - size / 6) < 4.5 * sigma).all()
    assert ((pairs - size / 6) ** 2 / sigma**2).sum() < 90  # mean 36, 36 pairs


@backends
def test_uniform_is_deterministic_and_depends_on_seed_and_position(tmp_path, backend):
    graph = make_graph(tmp_path, {"p": 1, "c": 1000}, {"c.p>p": [0] * 1000})
    fan_out = fan_outs(graph, [20])

    def rows(rng_seed: int, times: list[int]) -> list[list[int]]:
        seeds = Seeds.at([0] * len(times), times)
        out = sample(graph, seeds, fan_out, "uniform", rng_seed=rng_seed, backend=backend)
        return [out.row[out.seed == s].tolist() for s in range(len(times))]

    assert rows(1, [0, 0]) == rows(1, [0, 0])
    assert rows(1, [0])[0] == rows(1, [0, 0])[0]  # whatever else is in the batch
    assert rows(1, [0, 0])[0] != rows(1, [0, 0])[1]
    assert rows(1, [0]) != rows(2, [0])
    assert rows(-1, [0]) != rows(2**70, [0])  # any integer
    assert all(r == sorted(r) for r in rows(3, [0, 0]))


def test_fan_outs(tmp_path):
    graph = make_graph(tmp_path, {"p": 1, "c": 1}, {"c.x>p": [0], "c.y>p": [0]})
    assert fan_outs(graph, [8, 4]).tolist() == [[8, 1, 8, 1], [4, 1, 4, 1]]
    assert fan_outs(graph, [8, 4], {"c.y": [2, 0]}).tolist() == [[8, 1, 2, 1], [4, 1, 0, 1]]
    with pytest.raises(ValueError, match=r"known: \['c.x', 'c.y'\]"):
        fan_outs(graph, [8], {"c.z": [2]})
    with pytest.raises(ValueError, match="2 hops, wanted 1"):
        fan_outs(graph, [8], {"c.x": [2, 2]})
    with pytest.raises(ValueError, match="0 or more"):
        fan_outs(graph, [-1])


def test_what_does_not_fit_is_refused(tmp_path):
    graph = make_graph(tmp_path, {"p": 1, "c": 2}, {"c.p>p": [0, 0]})
    fan_out = fan_outs(graph, [2])
    bad = {
        r"seeds.row must be in \[0, 3\)": make_seeds([3], 0),
        "not its own table": make_seeds([0], 0, cut=[0]),
        r"seeds.cut must be in \[-1, 1\)": make_seeds([1], 0, cut=[1]),
        "sorted within each seed": make_seeds([0], 0, hidden=[[2, 1]]),
        "own hidden rows": make_seeds([0, 1], 0, hidden=[[1], [1]]),
        r"seeds.hidden must be in": make_seeds([0], 0, hidden=[[7]]),
    }
    for message, seeds in bad.items():
        with pytest.raises(ValueError, match=message):
            sample(graph, seeds, fan_out)
    seeds = Seeds.at([0], 0)
    with pytest.raises(ValueError, match=r"wanted \[hops, 2\]"):
        sample(graph, seeds, fan_out[:, :1])
    with pytest.raises(ValueError, match="strategy"):
        sample(graph, seeds, fan_out, "first")
    with pytest.raises(ValueError, match="max_rows"):
        sample(graph, seeds, fan_out, max_rows=-1)
    with pytest.raises(ValueError, match="backend"):
        sample(graph, seeds, fan_out, backend="cuda")
