"""What a batch must not know of the links that it cuts, and what its counts may count."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from rfm.data.database import Database
from rfm.data.degrees import count_children
from rfm.data.sampler import Seeds
from rfm.data.store import RowStore
from tests.batches import Component, Drawn
from tests.corpora import Corpus, components


def each_edge(
    corpus: Corpus, drawn: Drawn, component: Component
) -> Iterator[tuple[int, int, int, int, bool, float]]:
    """Foreign key, child node, parent node, asking node, whether f2p, and count of each edge."""
    used = sorted({c.source for c in drawn.components()})
    first = sum(
        len(corpus.mixture.stores[s].graph.foreign_keys) for s in used if s < component.source
    )
    batch = drawn.batch
    for e in component.edges:
        source, asker = batch.edge_index[:, e].tolist()
        relation, p2f = divmod(int(batch.edge_type[e]), 2)
        child, parent = (asker, source) if p2f else (source, asker)
        yield relation - first, child, parent, asker, not p2f, float(batch.edge_count[e])


class Truth:
    """Links and times as the database's files say them, without a graph."""

    def __init__(self, database: Database, store: RowStore) -> None:
        starts = store.graph.table_start
        self.keys = []
        for key in store.graph.foreign_keys:
            parents = database.parents(store.graph.tables[key.child], key.column).astype(np.int64)
            rows = starts[key.child] + np.arange(parents.size)
            self.keys.append((rows, np.where(parents < 0, -1, parents + starts[key.parent])))
        self.time = np.concatenate([database.times(t) for t in store.graph.tables])

    def parent(self, f: int, row: int) -> int:
        rows, parents = self.keys[f]
        return int(parents[row - rows[0]])

    def children(self, f: int, parent: int, time: int, without: set[int]) -> int:
        """How many rows point at ``parent`` and are there at ``time``."""
        rows, parents = self.keys[f]
        return len(set(rows[(parents == parent) & (self.time[rows] <= time)].tolist()) - without)


@pytest.fixture(scope="module")
def truths(corpus: Corpus) -> list[Truth]:
    return [Truth(d, s) for d, s in zip(corpus.databases, corpus.mixture.stores, strict=True)]


def test_every_edge_is_a_link_within_its_component_and_none_is_cut(
    corpus: Corpus, drawn: list[Drawn], truths: list[Truth]
) -> None:
    edges = 0
    for batch, component in components(drawn):
        row = dict(zip(component.nodes.tolist(), component.rows.tolist(), strict=True))
        for f, child, parent, _, _, _ in each_edge(corpus, batch, component):
            assert truths[component.source].parent(f, row[child]) == row[parent]
            assert not (f == component.cut and child == component.nodes[0])
            edges += 1
    assert edges > 5000


def test_a_cut_link_is_reached_by_no_single_edge(
    corpus: Corpus, drawn: list[Drawn], truths: list[Truth]
) -> None:
    """Edges between a query and its true parent come from other foreign keys only."""
    queries = others = 0
    for batch, component in components(drawn, "queries"):
        truth, seed = truths[component.source], int(component.rows[0])
        parent = truth.parent(component.cut, seed)
        assert parent >= 0
        assert component.cut == component.draw.foreign_key
        row = dict(zip(component.nodes.tolist(), component.rows.tolist(), strict=True))
        for f, child, above, _, _, _ in each_edge(corpus, batch, component):
            if {row[child], row[above]} == {seed, parent}:
                assert f != component.cut or row[child] != seed
                others += 1
        queries += 1
    assert queries > 100
    assert others > 0  # the shop has two foreign keys to one parent


def test_candidates_see_no_query(drawn: list[Drawn]) -> None:
    hidden = 0
    for _, component in components(drawn, "candidates"):
        queries = set(component.draw.queries.row.tolist()) - {int(component.rows[0])}
        assert component.hidden == queries
        assert not queries & set(component.rows.tolist())
        hidden += len(queries)
    assert hidden > 500


def test_edge_counts_are_the_visible_children(
    corpus: Corpus, drawn: list[Drawn], truths: list[Truth]
) -> None:
    capped = blind = 0
    for batch, component in components(drawn):
        row = dict(zip(component.nodes.tolist(), component.rows.tolist(), strict=True))
        for f, _, _, asker, f2p, count in each_edge(corpus, batch, component):
            if not f2p:
                assert count == 1
                continue
            without = component.hidden
            if f == component.cut:
                without = without | {int(component.rows[0])}
            truth, time = truths[component.source], component.time
            assert count == truth.children(f, row[asker], time, without)
            capped += count > 4  # the largest fan-out
            blind += count < truth.children(f, row[asker], time, set())
    assert capped > 100
    assert blind > 20


def test_counts_leave_out_the_cut_link(corpus: Corpus, truths: list[Truth]) -> None:
    """Of the true parent of each query, with the query's own cut and without it."""
    store, truth = corpus.mixture.stores[0], truths[0]
    for f in range(len(truth.keys)):
        rows, parents = truth.keys[f]
        rows, parents = rows[parents >= 0], parents[parents >= 0]
        time = int(store.test_timestamp)
        seeds = Seeds.at(rows, time)
        seeds.cut[:] = f
        counts = count_children(
            store.graph, seeds, np.arange(rows.size), parents, np.full(rows.size, f)
        )
        expected = [
            truth.children(f, int(p), time, {int(r)}) for r, p in zip(rows, parents, strict=True)
        ]
        assert counts.tolist() == expected


def test_popularity_counts_no_query(drawn: list[Drawn], truths: list[Truth]) -> None:
    lower = 0
    for batch in drawn:
        for source, link in batch.links:
            truth = truths[source]
            for i, (row, time) in enumerate(
                zip(link.candidates.row.tolist(), link.candidates.time.tolist(), strict=True)
            ):
                without = set(link.queries.row.tolist()) - {row}
                count = truth.children(link.foreign_key, row, time, without)
                assert link.popularity[i] == count
                lower += count < truth.children(link.foreign_key, row, time, set())
    assert lower > 50


def test_the_chance_of_a_candidate_does_not_tell_whose_parent_it_is(drawn: list[Drawn]) -> None:
    """It hangs on its visible children, and on standing in some query's component, alone."""
    told = 0
    for batch in drawn:
        for _, link in batch.links:
            near = np.isin(link.candidates.row, link.query_graph.row)
            known = np.stack([link.popularity, near], axis=1)
            kinds = np.unique(known, axis=0)
            both = np.unique(np.column_stack([known, link.log_chance]), axis=0)
            assert len(kinds) == len(both)
            told += len(link.candidates.row) - len(kinds)
    assert told > 50


def test_negatives_are_not_true_parents(
    drawn: list[Drawn], truths: list[Truth], corpus: Corpus
) -> None:
    for batch in drawn:
        for source, link in batch.links:
            truth = truths[source]
            for q, row in enumerate(link.queries.row.tolist()):
                parent = truth.parent(link.foreign_key, row)
                assert link.candidates.row[link.positive[q]] == parent
                assert link.allowed[q, link.positive[q]]
                assert np.unique(link.candidates.row).size == link.candidates.row.size
                if parent != row:
                    own = np.flatnonzero(link.candidates.row == row)
                    assert not link.allowed[q, own].any()
