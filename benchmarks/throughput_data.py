"""Throughput of everything before the model: generator, sampler, tokens to batch, opening."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.timing import Contender, Runs, interleave, one_thread
from rfm.data.batch import make_buckets
from rfm.data.graph import EntityGraph
from rfm.data.mixture import Mixture
from rfm.data.sampler import Backend, Seeds, Strategy, Subgraph, fan_outs, sample
from rfm.data.serialise import serialise
from rfm.data.store import RowStore, open_store
from rfm.data.synthetic import SyntheticConfig, generate_database, read_record

FAN_OUT = (32, 16)
SEEDS = 512
_ROWS = 2_048
_STREAM = 3


def draw_seeds(store: RowStore, count: int, number: int) -> Seeds:
    """Rows drawn uniformly from all timed tables, each asked about at its own time (rows of a
    database without times: at its test timestamp)."""
    rng = np.random.default_rng([_STREAM, number])
    start, static = np.asarray(store.graph.table_start), store.is_static
    tables = np.arange(static.size) if static.all() else np.flatnonzero(~static)
    sizes = start[tables + 1] - start[tables]
    picked = rng.integers(sizes.sum(), size=count)
    which = np.searchsorted(np.cumsum(sizes), picked, side="right")
    rows = start[tables[which]] + picked - (np.cumsum(sizes) - sizes)[which]
    time = store.test_timestamp if static.all() else np.asarray(store.graph.row_time[rows])
    return Seeds.at(rows, time)


def race_samplers(store: RowStore, repeats: int) -> tuple[dict[str, Runs], dict[str, Runs]]:
    """numba beside its numpy twin on one thread, strategy ``last``: work in rows; and the same
    again with work in seeds."""
    fan_out = fan_outs(store.graph, FAN_OUT)

    def contender(backend: Backend) -> Contender[Seeds]:
        def run(seeds: Seeds) -> float:
            return sample(store.graph, seeds, fan_out, "last", backend=backend).row.size

        return Contender(lambda number: draw_seeds(store, SEEDS, number), run)

    with one_thread():
        runs = interleave(
            {"numba": contender("numba"), "numpy": contender("numpy")}, repeats, warm_up=2
        )
    by_seed = {
        name: Runs(r.number, r.seconds, [float(SEEDS)] * len(r.seconds)) for name, r in runs.items()
    }
    return runs, by_seed


def samplers_agree(store: RowStore, count: int = 128) -> bool:
    """Whether numba and numpy give the same subgraphs: both strategies, with and without a limit
    on rows, cut foreign keys and hidden rows."""
    fan_out = fan_outs(store.graph, FAN_OUT)
    strategies: tuple[Strategy, ...] = ("last", "uniform")
    for number, strategy in enumerate(strategies):
        for max_rows in (0, 64):
            plain = draw_seeds(store, count, 2 * number + (max_rows > 0))
            for seeds in (plain, obscured(store.graph, plain, number)):
                numba, numpy = (
                    sample(store.graph, seeds, fan_out, strategy, max_rows, number, backend)
                    for backend in ("numba", "numpy")
                )
                if not same_subgraph(numba, numpy):
                    return False
    return True


def same_subgraph(a: Subgraph, b: Subgraph) -> bool:
    """Rows, components, hops and edges, in the same order."""
    return all(np.array_equal(x, vars(b)[name]) for name, x in vars(a).items())


def obscured(graph: EntityGraph, seeds: Seeds, number: int) -> Seeds:
    """The seeds with one of their own foreign keys cut, each blind to a few other rows."""
    rng = np.random.default_rng([_STREAM, number, 1])
    child = np.array([key.child for key in graph.foreign_keys], dtype=np.int64)
    cut = np.full(seeds.row.size, -1, dtype=np.int32)
    hidden: list[npt.NDArray[np.int64]] = []
    for s, (row, table) in enumerate(zip(seeds.row, graph.table_of(seeds.row), strict=True)):
        own = np.flatnonzero(child == table)
        if own.size:
            cut[s] = rng.choice(own)
        blind = rng.integers(graph.num_rows, size=8)
        if own.size:  # a parent is a row that would be found
            f = int(rng.choice(own))
            local = int(row - graph.table_start[table])
            blind[0] = max(0, int(graph.parent[graph.parent_start[f] + local]))
        hidden.append(np.unique(blind[blind != row]))
    ptr = np.concatenate([[0], np.cumsum([len(h) for h in hidden])]).astype(np.int64)
    return Seeds(seeds.row, seeds.time, cut, ptr, np.concatenate(hidden))


def time_serialiser(mixture: Mixture, max_tokens: int, bucket_rows: int, repeats: int) -> Runs:
    """Rows to tokens to length buckets, on one thread; rows drawn anew, the largest database."""
    store = max(mixture.stores, key=lambda s: s.num_rows)

    def draw(number: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([_STREAM, number]).integers(store.num_rows, size=_ROWS)

    def run(rows: npt.NDArray[np.int64]) -> float:
        visible = np.zeros((rows.size, 0), dtype=np.uint8)
        make_buckets(serialise(store, rows, visible, mixture.ids, max_tokens, 1), 0, bucket_rows)
        return rows.size

    with one_thread():
        return interleave({"serialise": Contender(draw, run)}, repeats)["serialise"]


def time_generator(work: Path, rows: int, repeats: int) -> Runs:
    """Synthetic databases of so many rows, each another one."""

    def run(index: int) -> float:
        folder = generate_database(work, index, SyntheticConfig(rows=rows))
        return float(read_record(folder)["rows"])

    try:
        return interleave({"generator": Contender(lambda n: n, run)}, repeats)["generator"]
    finally:
        shutil.rmtree(work, ignore_errors=True)


def time_opening(folder: Path, repeats: int) -> Runs:
    """Opening a prepared store."""

    def run(path: Path) -> float:
        return open_store(path).num_rows

    return interleave({"open": Contender(lambda _: folder, run)}, repeats)["open"]
