"""Questions that must not see some rows, against stores in which these rows never come."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rfm.data.batch import TOLD_KINDS
from rfm.data.generated import GeneratedTask
from rfm.data.hidden import NOTHING, Hidden
from rfm.data.label_history import LabelHistory
from rfm.data.laid import LaidTask
from rfm.data.sampler import Seeds
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints
from rfm.data.told import Told
from rfm.eval.zero_shot import ContextConfig
from tests.busy_shop import Busy
from tests.data.test_told import at_random, drawn

NEVER = np.iinfo(np.int64).max // 4


def without(store: RowStore, rows: Ints) -> RowStore:
    """The store in which global rows never come: all lists of children in a new order."""
    graph = store.graph
    time, child = np.array(graph.row_time), np.array(graph.child)
    time[rows] = NEVER
    for f, key in enumerate(graph.foreign_keys):
        size = int(graph.table_start[key.parent + 1] - graph.table_start[key.parent])
        first = int(graph.child_ptr_start[f])
        for start, end in zip(
            graph.child_ptr[first : first + size],
            graph.child_ptr[first + 1 : first + size + 1],
            strict=True,
        ):
            own = child[start:end]
            child[start:end] = own[np.argsort(time[own], kind="stable")]
    return replace(store, graph=replace(graph, row_time=time, child=child))


def told_without(told: Told, task: GeneratedTask, rows: Ints) -> Told:
    """What is told where rows never come; all labels still count in their mean."""
    label, store = task.rows.label.copy(), told.store
    label[rows[rows >= store.num_rows] - store.num_rows] = np.nan
    other = Told(without(store, rows[rows < store.num_rows]), task.relabelled_as(label))
    other.known, other.sums = told.known, told.sums
    return other


@pytest.mark.parametrize("classes", [2, 0, 3])
def test_nothing_is_told_of_hidden_rows(busy: Busy, classes: int) -> None:
    task = drawn(busy, classes)
    told, (number, cutoff) = Told(busy.store, task), at_random(task)
    rng = np.random.default_rng(2)
    total = busy.store.num_rows + len(task.rows)
    hidden = [rng.choice(total, share * total // 10, replace=False) for share in range(1, 7)] * 5
    hidden[3] = hidden[3][:0]
    before, found = told(number, cutoff), told(number, cutoff, Hidden.of(hidden))
    moved = np.zeros(told.kinds.size, dtype=bool)
    for i, rows in enumerate(hidden):
        wanted = told_without(told, task, np.unique(rows))(number[[i]], cutoff[[i]])[0]
        np.testing.assert_allclose(found[i], wanted, atol=1e-5)
        moved |= np.abs(wanted - before[i]) > 1e-3
    kinds = {TOLD_KINDS[kind] for kind in told.kinds[moved]}
    assert {"cell", "last 3 labels", "child count", "last 16 children", "label count"} <= kinds
    np.testing.assert_array_equal(found[3], before[3])


def test_subjects_are_as_many_as_numbers(busy: Busy) -> None:
    """And each is a column that is at the end of its path."""
    task = drawn(busy, 3)
    told, store = Told(busy.store, task), busy.store
    assert len(told.subjects) == told.kinds.size
    for (path, column), kind in zip(told.subjects, told.kinds, strict=True):
        name, table = TOLD_KINDS[kind], task.entity_table
        if path in ((), (-1,)):
            assert name in ("cell", "age") if not path else name.startswith(("time", "stale"))
        for edge in path if path != (-1,) else ():
            if edge == 2 * len(store.graph.foreign_keys):
                assert "label" in name
                break
            key = store.graph.foreign_keys[edge // 2]
            assert (key.child if edge % 2 else key.parent) == table
            table = key.parent if edge % 2 else key.child
        else:
            assert ("parents" in name) == (len(path) == 2)
            assert column < len(store.tables[table].columns)
            assert column < 0 or store.tables[table].is_value[column]


def test_what_is_hidden_is_in_no_component(busy: Busy) -> None:
    task = drawn(busy, 2)
    laid = LaidTask(busy.store, task, busy.store.val_timestamp, busy.tokenizer, 2, ContextConfig())
    number, cutoff = at_random(task)
    seen = laid.sample(number, cutoff, 0, 0, NOTHING)[1]
    rows = [seen.row[(seen.seed == i) & (seen.hop == 2)][::2] for i in range(number.size)]
    assert sum(own.size for own in rows) > 50
    seeds, left = laid.sample(number, cutoff, 0, 0, Hidden.of(rows))
    assert (
        not Hidden.of(rows)
        .has(np.where(left.seed[:, None] == np.arange(30), left.row[:, None], -1).T)
        .any()
    )
    np.testing.assert_array_equal(seeds.row, laid.first + number)
    batch = laid.batch(number, cutoff, 0, 0, Hidden.of(rows))
    assert batch.row.numel() == left.row.size
    np.testing.assert_array_equal(batch.told, laid.told(number, cutoff, Hidden.of(rows)))


def test_seeds_stay_blind_to_what_they_did_not_see_before() -> None:
    seeds = replace(Seeds.at([5, 6], 0), hidden_ptr=np.array([0, 1, 3]), hidden=np.array([2, 1, 9]))
    blind = Hidden.of([np.array([7, 5, 2]), np.array([9, 4])]).blind(seeds)
    np.testing.assert_array_equal(blind.hidden_ptr, [0, 2, 5])
    np.testing.assert_array_equal(blind.hidden, [2, 7, 1, 4, 9])
    assert NOTHING.blind(seeds) is seeds


def test_rows_are_hidden_from_their_own_question_alone() -> None:
    hidden = Hidden.of([np.array([3, 1]), np.array([2])])
    np.testing.assert_array_equal(
        hidden.has(np.array([[1, 2, 3, -1], [1, 2, 3, -1]])),
        [[True, False, True, False], [False, True, False, False]],
    )
    assert hidden.most == 2
    assert not NOTHING.has(np.array([1, 2])).any()


def test_hidden_labels_leave_the_others_of_their_group() -> None:
    history = LabelHistory(
        np.array([0, 0, 0, 1]), np.array([1, 2, 3, 1]), np.zeros(4, int), np.arange(4.0)[:, None]
    )
    row, group = np.array([10, 11, 12, 13]), np.array([0, 1, -1, 0])
    hidden = Hidden.of([np.array([11]), np.array([13]), np.array([10]), np.array([13])])
    left, own = hidden.history(history, row, group, np.array([3, 3, 3, 2]))
    start, end = left.visible(own, np.array([3, 3, 3, 2]))
    found = [left.outcome[a:b, 0].tolist() for a, b in zip(start, end, strict=True)]
    assert found == [[0, 2], [], [], [0, 1]]
