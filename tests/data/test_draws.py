"""What a batch asks: seed rows, their times and masks, links and their negatives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.draws import (
    LinkDraw,
    Sampling,
    draw_context_masks,
    draw_link,
    draw_masked,
    draw_masks,
    present_cells,
    seed_times,
    softened,
    some_time,
)
from rfm.data.sampler import fan_outs
from rfm.data.serialise import MASKED, VISIBLE
from rfm.data.times import Split, TimeIndex
from tests.shop import TEST_SECONDS, VAL_SECONDS, Shop, prepare_shop

SPLITS = pytest.mark.parametrize("split", ["train", "val"])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return prepare_shop(tmp_path_factory.mktemp("shop"))


def sampling(shop: Shop, hops: tuple[int, ...] = (3, 2)) -> Sampling:
    return Sampling(fan_outs(shop.store.graph, hops), "last", 30)


def key(shop: Shop, child: str, column: str) -> int:
    graph = shop.store.graph
    names = [(graph.tables[k.child], k.column) for k in graph.foreign_keys]
    return names.index((child, column))


def link(
    shop: Shop, f: int, split: Split = "train", queries: int = 6, negatives: int = 5, seed: int = 0
) -> LinkDraw:
    rng = np.random.default_rng(seed)
    return draw_link(TimeIndex(shop.store), f, queries, negatives, split, sampling(shop), rng)


def test_softened() -> None:
    assert softened([1, 3], 1).tolist() == [0.25, 0.75]
    assert softened([1, 900], 0).tolist() == [0.5, 0.5]
    assert np.allclose(softened([4, 0, 16], 0.5), [1 / 3, 0, 2 / 3])
    assert softened([0, 0], 0.5).tolist() == [0, 0]


# Masked rows.


@SPLITS
def test_seeds_are_distinct_rows_of_their_split(shop: Shop, split: Split) -> None:
    index, tables = TimeIndex(shop.store), shop.store.graph.tables
    probability = np.array([t in ("orders", "reviews") for t in tables]) / 2
    for seed in range(5):
        rng = np.random.default_rng(seed)
        draw = draw_masked(index, range(5), probability, 12, split, sampling(shop), rng)
        rows = draw.seeds.row
        assert rows.size == np.unique(rows).size == draw.fate.shape[0] == 12
        assert np.array_equal(draw.seeds.time, shop.store.graph.row_time[rows])
        low, high = (-1, VAL_SECONDS) if split == "train" else (VAL_SECONDS, TEST_SECONDS)
        assert ((draw.seeds.time > low) & (draw.seeds.time <= high)).all()
        assert {tables[t] for t in shop.store.graph.table_of(rows)} <= {"orders", "reviews"}
        assert np.array_equal(draw.subgraph.row[:12], rows)


def test_a_small_table_gives_no_row_twice(shop: Shop) -> None:
    tables = shop.store.graph.tables
    probability = np.array([t == "customers" for t in tables], dtype=float)
    draw = draw_masked(
        TimeIndex(shop.store), range(5), probability, 50, "train", sampling(shop),
        np.random.default_rng(0),
    )  # fmt: skip
    assert sorted(draw.seeds.row) == [shop.row("customers", i) for i in range(12)]


@SPLITS
def test_static_rows_are_asked_about_at_the_time_of_a_row_of_the_split(
    shop: Shop, split: Split
) -> None:
    index = TimeIndex(shop.store)
    rows = np.array([shop.row("customers", i % 12) for i in range(300)])
    times = seed_times(index, rows, split, np.random.default_rng(0))
    all_times = np.concatenate([shop.database.times(t) for t in ("orders", "products", "reviews")])
    low, high = (-1, VAL_SECONDS) if split == "train" else (VAL_SECONDS, TEST_SECONDS)
    within = set(all_times[(all_times > low) & (all_times <= high)].tolist())
    assert set(times.tolist()) <= within
    assert len(set(times.tolist())) > len(within) / 2


def test_without_times_the_time_is_the_end_of_the_split(tmp_path: Path) -> None:
    shop = prepare_shop(tmp_path, {"t": pd.DataFrame({"x": [1.0, 2.0]})}, {})
    index, rng = TimeIndex(shop.store), np.random.default_rng(0)
    assert some_time(index, "train", rng) == VAL_SECONDS
    assert some_time(index, "val", rng) == TEST_SECONDS


def test_a_drawn_share_of_the_cells_is_masked_at_times_all(shop: Shop) -> None:
    rows = np.tile([shop.row("orders", i) for i in range(90)], 40)
    fate = draw_masks(shop.store, rows, np.random.default_rng(0))
    t = shop.store.graph.tables.index("orders")
    present = present_cells(shop.store, t, rows)
    assert set(np.unique(fate)) == {VISIBLE, MASKED}
    masked = fate == MASKED
    assert not (masked & ~present).any()
    assert (masked.sum(1)[present.any(1)] >= 1).all()
    share = masked.sum(1) / present.sum(1)
    everything = np.mean(share == 1)
    assert 0.2 < everything < 0.4  # 0.2, and where rounding up makes it all
    assert len(np.unique(np.round(share, 2))) >= 5
    per_column = masked.sum(0)[present.any(0)] / present.sum(0)[present.any(0)]
    assert per_column.max() - per_column.min() < 0.05  # no column is preferred


def test_present_cells(shop: Shop) -> None:
    rows = np.array([shop.row("orders", i) for i in range(90)])
    present = present_cells(shop.store, shop.store.graph.tables.index("orders"), rows)
    frame = shop.tables["orders"]
    assert not present[:, 0].any()  # the row's time
    assert np.array_equal(present[:, 1], frame["note"].notna())
    assert np.array_equal(present[:, 2], frame["amount"].notna())
    assert present[:, 3:].all()


def test_rows_of_narrow_and_wide_tables_together(shop: Shop) -> None:
    rows = np.array([shop.row(t, 0) for t in ("customers", "orders", "items", "reviews")])
    for fate in (
        draw_masks(shop.store, rows, np.random.default_rng(0)),
        draw_context_masks(shop.store, rows, 0.9, np.random.default_rng(0)),
    ):
        assert fate.shape == (4, 6)
        assert (fate[0, 2:] == VISIBLE).all()
        assert (fate[2] == VISIBLE).all()


def test_context_masks_take_a_share_of_the_values_and_no_texts(shop: Shop) -> None:
    rows = np.tile([shop.row("orders", i) for i in range(90)], 30)
    fate = draw_context_masks(shop.store, rows, 0.3, np.random.default_rng(0))
    present = present_cells(shop.store, shop.store.graph.tables.index("orders"), rows)
    masked = fate == MASKED
    assert not masked[:, [0, 1, 5]].any()  # time, note, status
    assert not (masked & ~present).any()
    shares = masked[:, [2, 3, 4]].sum(0) / present[:, [2, 3, 4]].sum(0)
    assert np.allclose(shares, 0.3, atol=0.04)
    assert draw_context_masks(shop.store, rows, 0.0, np.random.default_rng(0)).shape[1] == 0


# Links.


@SPLITS
@pytest.mark.parametrize(
    ("child", "column"),
    [
        ("orders", "customer"),
        ("orders", "gift_to"),
        ("reviews", "product"),
        ("reviews", "reply_to"),
    ],
)
def test_queries_are_close_in_time_and_asked_at_the_latest(
    shop: Shop, split: Split, child: str, column: str
) -> None:
    f, graph = key(shop, child, column), shop.store.graph
    total = 0
    for seed in range(10):
        draw = link(shop, f, split, seed=seed)
        rows, time = draw.queries.row, draw.queries.time
        total += rows.size
        if rows.size == 0:
            continue
        local = rows - graph.table_start[graph.foreign_keys[f].child]
        parents = shop.tables[child][column].to_numpy()[local]
        table = graph.foreign_keys[f].parent
        assert (draw.candidates.row[draw.positive] - graph.table_start[table] == parents).all()
        assert (draw.queries.cut == f).all()
        assert np.unique(time).size == 1
        assert (np.asarray(graph.row_time[rows]) <= time).all()
        assert np.asarray(draw.candidates.time).tolist() == [time[0]] * draw.candidates.row.size
        assert (np.asarray(graph.row_time[draw.candidates.row]) <= time[0]).all()
        low, high = (-1, VAL_SECONDS) if split == "train" else (VAL_SECONDS, TEST_SECONDS)
        assert low < time[0] <= high
        assert (np.asarray(graph.row_time[rows]) > low).all()
        window = np.sort(shop.database.times(child))
        span = np.searchsorted(window, [graph.row_time[rows].min(), graph.row_time[rows].max()])
        assert span[1] - span[0] < 4 * 6
    assert total > 5


def test_links_of_a_static_child_are_asked_at_a_time_of_the_split(shop: Shop) -> None:
    draw = link(shop, key(shop, "items", "order"), queries=50)
    assert draw.queries.row.size > 0
    assert (draw.queries.time <= VAL_SECONDS).all()
    orders = shop.store.graph.row_time[draw.candidates.row]
    assert (orders <= draw.queries.time[0]).all()  # orders to come are no candidates


def test_parents_that_are_not_there_yet_are_not_asked_for(tmp_path: Path) -> None:
    day = pd.Timestamp("2019-01-01")
    parents = pd.DataFrame({"id": [0, 1, 2], "at": [day, day, day + pd.Timedelta("300D")]})
    children = pd.DataFrame(
        {"at": [day + pd.Timedelta(f"{i}D") for i in range(1, 9)], "p": [0, 2] * 4}
    )
    keys = {
        "p": {"pkey": "id", "time_col": "at"},
        "c": {"time_col": "at", "fkeys": {"p": "p"}},
    }
    shop = prepare_shop(tmp_path, {"p": parents, "c": children}, keys)
    draw = link(shop, 0, queries=50)
    assert sorted(draw.queries.row - shop.row("c", 0)) == [0, 2, 4, 6]
    assert draw.candidates.row.tolist() == [shop.row("p", 0), shop.row("p", 1)]


def test_without_another_parent_there_is_nothing_to_ask(tmp_path: Path) -> None:
    """A row of a table that refers to itself does not count: it is not its own parent."""
    alone = pd.DataFrame({"id": [0, 1], "boss": pd.array([1, None], dtype="Int64")})
    three = pd.DataFrame({"id": [0, 1, 2], "boss": pd.array([1, None, 1], dtype="Int64")})
    for table, queries in ((alone, []), (three, [0, 2])):
        keys = {"t": {"pkey": "id", "fkeys": {"boss": "t"}}}
        shop = prepare_shop(tmp_path / str(len(table)), {"t": table}, keys)
        for split in ("train", "val"):
            found = [link(shop, 0, split, seed=seed) for seed in range(4)]
            assert {int(r) for draw in found for r in draw.queries.row} <= set(queries)
            assert all((draw.allowed.sum(1) > 1).all() for draw in found)


def test_training_negatives_are_all_candidates_some_of_them_near(shop: Shop) -> None:
    """Half as many again as those drawn come from the components of the queries."""
    f = key(shop, "reviews", "order")
    near = 0
    for seed in range(40):
        draw = link(shop, f, queries=6, negatives=4, seed=seed)
        assert draw.allowed.all()
        assert (np.diff(draw.candidates.row) > 0).all()
        parents = np.unique(draw.candidates.row[draw.positive])
        assert draw.candidates.row.size <= parents.size + 4 + 2
        near += np.isin(np.setdiff1d(draw.candidates.row, parents), draw.query_graph.row).sum()
    assert near > 20


@pytest.mark.parametrize(("queries", "negatives"), [(6, 3), (12, 24)])
def test_weighed_by_their_chance_the_negatives_stand_for_all_rows(
    shop: Shop, queries: int, negatives: int
) -> None:
    """About, as in Horvitz and Thompson's estimate of how many there are, although a draw has a
    few, among which parents of the other queries and rows of their components are too many. The
    shop's rows choose their parents regardless of when they come."""
    index, graph = TimeIndex(shop.store), shop.store.graph
    for f, foreign_key in enumerate(graph.foreign_keys):
        estimate = there = counted = 0.0
        for seed in range(100):
            draw = link(shop, f, queries=queries, negatives=negatives, seed=seed)
            assert (draw.log_chance <= 0).all()
            weight = np.exp(-draw.log_chance.astype(float))
            for own in draw.positive:
                estimate += weight.sum() - weight[own]
                counted += weight.size - 1
                there += index.visible(foreign_key.parent, int(draw.queries.time[0])) - 1
        assert 0.9 < estimate / there < 1.4
        assert counted <= there
        if queries == 6:
            assert counted / there < 0.7  # what it would be without weights


def test_of_two_candidates_the_popular_one_is_likelier(shop: Shop) -> None:
    f = key(shop, "items", "order")
    likelier = 0
    for seed in range(30):
        draw = link(shop, f, queries=12, negatives=8, seed=seed)
        near = np.isin(draw.candidates.row, draw.query_graph.row)
        for group in (near, ~near):
            order = np.argsort(draw.popularity[group], kind="stable")
            steps = np.diff(draw.log_chance[group][order])
            assert (steps >= 0).all()
            likelier += (steps > 0).sum()
    assert likelier > 10


def test_a_row_is_never_a_candidate_for_its_own_parent(shop: Shop) -> None:
    f, own = key(shop, "reviews", "reply_to"), 0
    for seed in range(20):
        draw = link(shop, f, queries=12, negatives=12, seed=seed)
        for q, row in enumerate(draw.queries.row):
            at = np.flatnonzero(draw.candidates.row == row)
            if at.size and at[0] != draw.positive[q]:
                own += 1
                assert not draw.allowed[q, at[0]]
    assert own > 5


def test_validation_negatives_are_exactly_so_many_and_uniform(shop: Shop) -> None:
    f = key(shop, "orders", "customer")
    counts: Counter[int] = Counter()
    for seed in range(400):
        draw = link(shop, f, "val", queries=2, negatives=4, seed=seed)
        assert (draw.allowed.sum(1) == 5).all()
        assert not draw.log_chance.any()
        assert draw.allowed[np.arange(draw.positive.size), draw.positive].all()
        for q in range(draw.positive.size):
            negatives = set(draw.candidates.row[draw.allowed[q]]) - {
                draw.candidates.row[draw.positive[q]]
            }
            counts.update(int(n) for n in negatives)
    share = np.array([counts[shop.row("customers", i)] for i in range(12)]) / counts.total()
    assert np.abs(share - 1 / 12).max() < 0.03


def test_validation_takes_what_there_is_where_rows_are_few(shop: Shop) -> None:
    draw = link(shop, key(shop, "orders", "customer"), "val", negatives=63)
    assert draw.queries.row.size > 0
    assert (draw.allowed.sum(1) == 12).all()


def test_draws_are_functions_of_the_generator(shop: Shop) -> None:
    f = key(shop, "reviews", "product")
    a, b, c = (link(shop, f, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.candidates.row, b.candidates.row)
    assert np.array_equal(a.query_graph.row, b.query_graph.row)
    assert not np.array_equal(a.queries.row, c.queries.row)


def test_a_foreign_key_without_links(tmp_path: Path) -> None:
    tables = {
        "p": pd.DataFrame({"id": [0, 1, 2]}),
        "c": pd.DataFrame({"x": [1.0, 2.0], "p": pd.array([None, None], dtype="Int64")}),
    }
    shop = prepare_shop(tmp_path, tables, {"p": {"pkey": "id"}, "c": {"fkeys": {"p": "p"}}})
    draw = link(shop, 0)
    assert draw.queries.row.size == 0
    assert draw.allowed.shape == (0, draw.candidates.row.size)
