"""Counts of late children and the numbers of their other parents, against loops over all rows."""

from __future__ import annotations

import numpy as np
import pytest

from rfm.data.child_means import ChildMeans
from rfm.data.lately import Lately
from rfm.data.serialise import value_ranks
from tests.busy_shop import Busy

DAY = 86_400
DELTA = 20 * DAY


def test_against_loops(busy: Busy) -> None:
    store, graph = busy.store, busy.store.graph
    checked = through = 0
    for entity_table, name in enumerate(graph.tables):
        lately = Lately(ChildMeans(store, entity_table, DELTA))
        rng, entities = np.random.default_rng(0), graph.rows_of(name)
        entity = rng.integers(0, len(entities), 20)
        now = rng.integers(store.first_time, store.test_timestamp, 20)
        cutoff = now - rng.integers(0, 3, 20) * 15 * DAY
        found, column = lately.features(entity, now, cutoff), 0
        assert found.shape == (20, len(lately.kinds))
        for f, others in lately.others.items():
            child_table = graph.foreign_keys[f].child
            rows = graph.rows_of(graph.tables[child_table])
            parent = np.asarray(graph.parent[graph.parent_start[f] :][: len(rows)])
            time = np.asarray(graph.row_time[rows.start : rows.stop])
            for i in range(20):
                there = graph.row_time[entities[entity[i]]] <= cutoff[i]
                mine = (parent == entities[entity[i]]) & (time <= cutoff[i])
                late = [(mine & (time > cutoff[i] - n * DELTA)).sum() for n in (1, 4)]
                age = (now[i] - time[mine].max()) / DELTA if mine.any() else np.inf
                wanted = [*np.log1p(late), 1 / (1 + age)] if there else [0, 0, 0]
                wanted = [] if store.is_static[child_table] else wanted
                at = column + len(wanted)
                np.testing.assert_allclose(found[i, column:at], wanted, rtol=1e-5)
                checked += int(mine.sum())
                latest = np.flatnonzero(mine)[np.argsort(time[mine], kind="stable")][::-1][:16]
                for g in others:
                    table = store.tables[graph.foreign_keys[g].parent]
                    start = int(graph.table_start[graph.foreign_keys[g].parent])
                    up = np.asarray(graph.parent[graph.parent_start[g] :][: len(rows)])[latest]
                    up = up[up >= 0]
                    up = up[np.asarray(graph.row_time[up]) <= cutoff[i]] - start
                    for c, one in enumerate(table.columns):
                        if not one.is_value or one.kind == "datetime":
                            continue
                        z = table.values(up, c)
                        z = z[~np.isnan(z)]
                        rank = 2 * value_ranks(table, z, np.full(z.size, c)) - 1
                        mean = rank.mean() if rank.size and there else 0.0
                        tied = mine.sum() > 16  # of equal times others may be the latest
                        assert tied or found[i, at] == pytest.approx(mean, abs=1e-5)
                        through += int(rank.size > 0)
                        at += 1
            column = at
        assert column == found.shape[1]
    assert checked > 200
    assert through > 10
