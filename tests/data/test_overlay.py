"""A task laid over a store in memory is what attaching and preparing it on disk would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfm.data.attach import visible_database
from rfm.data.generated import GeneratedTask, Labelled
from rfm.data.overlay import overlay
from rfm.data.prepare import prepare
from rfm.data.task_rows import SPLITS
from tests.asked import ask


@pytest.mark.parametrize("name", ["buys", "spend"])
def test_the_same_rows_cells_and_links_as_on_disk(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache)
    task, attached = asker.task, asker.sampler.store
    store = prepare(visible_database(task), asker.tokenizer, task_cache)
    rows = [task.rows(split) for split in SPLITS]
    label = np.concatenate([r.label[:, 0] for r in rows])
    laid = overlay(
        store,
        GeneratedTask(
            name=name,
            table=asker.attached.table,
            target=task.target,
            key=task.entity_column,
            entity_table=list(task.database.tables).index(task.entity_table),
            classes=2 if name == "buys" else 0,
            timedelta=task.timedelta,
            rows=Labelled(
                np.concatenate([r.entity for r in rows]),
                np.concatenate([r.time for r in rows]),
                label,
            ),
        ),
        task.database.val_timestamp,
        asker.tokenizer,
    )
    assert laid.relation_tokens == attached.relation_tokens
    assert [t.name for t in laid.tables] == [t.name for t in attached.tables]
    ours, theirs = laid.tables[-1], attached.tables[-1]
    assert ours.name_tokens == theirs.name_tokens
    for a, b in zip(ours.columns, theirs.columns, strict=True):
        assert (a.name, a.kind, a.is_value, a.is_time) == (b.name, b.kind, b.is_value, b.is_time)
        assert a.name_tokens == b.name_tokens
        assert (a.stats.center, a.stats.scale) == (b.stats.center, b.stats.scale)
        np.testing.assert_array_equal(a.stats.knot_u, b.stats.knot_u)
    np.testing.assert_array_equal(ours.cells, theirs.cells)
    a, b = laid.graph, attached.graph
    assert (a.tables, a.foreign_keys) == (b.tables, b.foreign_keys)
    for array in ("table_start", "row_time", "parent", "parent_start", "child_ptr",
                  "child_ptr_start", "child"):  # fmt: skip
        np.testing.assert_array_equal(getattr(a, array), getattr(b, array), err_msg=array)
