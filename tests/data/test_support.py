"""Which rows become examples."""

from __future__ import annotations

import numpy as np
import pytest

from rfm.data.generated import Labelled
from rfm.data.support import SupportMix, draw_support, parents_of
from rfm.data.task_rows import Ints
from tests.busy_shop import Busy

ENTITIES, ROWS = 20, 600
PARENT = np.arange(ENTITIES) // 4  # four entities each
ASKED = np.array([0, 5])


def rows() -> Labelled:
    entity = np.arange(ROWS) % ENTITIES
    return Labelled(entity, np.arange(ROWS), np.zeros(ROWS))


def draw(mix: SupportMix, size: int = 40, known: Ints | None = None) -> Ints:
    known = np.arange(ROWS) if known is None else known
    return draw_support(rows(), known, size, mix, ASKED, [PARENT], np.random.default_rng(0))


def test_half_of_the_examples_are_recent() -> None:
    support = draw(SupportMix())
    assert np.unique(support).size == 40
    assert (support >= ROWS - 160).sum() >= 20
    assert (support < ROWS - 160).sum() >= 5


def test_examples_of_the_entities_asked_about_and_of_their_kin() -> None:
    entity = rows().entity
    own = draw(SupportMix(recent=0, own=0.5))
    assert np.isin(entity[own], ASKED).sum() >= 20
    kin = np.flatnonzero(np.isin(PARENT, PARENT[ASKED]))
    near = draw(SupportMix(recent=0, near=0.5))
    assert (np.isin(entity[near], kin) & ~np.isin(entity[near], ASKED)).sum() >= 20


def test_fewer_rows_than_wanted_are_all_taken() -> None:
    known = np.array([3, 9, 12])
    assert draw(SupportMix(0.4, 0.3, 0.3), 40, known).tolist() == [3, 9, 12]
    assert draw(SupportMix(), 0).size == 0
    assert draw(SupportMix(), 5, known[:0]).size == 0


def test_only_known_rows_are_drawn() -> None:
    known = np.arange(0, ROWS, 3)
    assert np.isin(draw(SupportMix(0.3, 0.3, 0.3), 100, known), known).all()


def test_shares_beyond_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"own=0\.4 and near=0\.2 come to more than 1"):
        SupportMix(0.5, 0.4, 0.2)


def test_parents_are_those_of_the_graph(busy: Busy) -> None:
    graph = busy.store.graph
    for table, name in enumerate(graph.tables):
        keys = [f for f, key in enumerate(graph.foreign_keys) if key.child == table]
        parents = parents_of(busy.store, table)
        assert [p.size for p in parents] == [len(graph.rows_of(name))] * len(keys)
        for f, parent in zip(keys, parents, strict=True):
            start = int(graph.parent_start[f])
            np.testing.assert_array_equal(parent, graph.parent[start : start + parent.size])
        rows = graph.rows_of(name)
        until = busy.store.val_timestamp
        late = np.asarray(graph.row_time[rows.start : rows.stop]) > until
        for parent, known in zip(parents, parents_of(busy.store, table, until), strict=True):
            np.testing.assert_array_equal(known, np.where(late, -1, parent))
