"""What a question must not know: what is later than its cutoff, hidden columns, its own label."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import relbench

from rfm.data.batch import RecommendBatch
from rfm.data.child_means import ChildMeans, Floats
from rfm.data.graph import STATIC
from rfm.data.questions import NUM_CALENDAR
from rfm.data.store import Serialisation, column_entry
from rfm.data.task_rows import SPLITS, TaskSplit
from rfm.data.tasks import Regime, Task
from tests.asked import AnyBatch, Asker, ask, known_rows
from tests.batches import bits, differing, shown_rows
from tests.shop import TEST_SECONDS, VAL_SECONDS
from tests.task_folders import ONE_OF_EACH_TYPE, TASKS
from tests.task_noise import noisy_task, replace_labels
from tests.tiny_tuning import predicted, tune_task

every_task = pytest.mark.parametrize("name", sorted(TASKS))
ANSWERS = (".label", ".positive")


def changed(a: list[AnyBatch], b: list[AnyBatch]) -> list[str]:
    """Where two lists of batches differ, apart from the answers."""
    assert len(a) == len(b) > 0
    return sorted(
        {at for x, y in zip(a, b, strict=True) for at in differing(x, y) if at not in ANSWERS}
    )


def in_split(split: TaskSplit) -> Callable[[TaskSplit, Any], Any]:
    return lambda s, time: np.full(time.size, s == split)


@every_task
@pytest.mark.parametrize("serialisation", ["compact", "text"])
def test_frozen_what_is_after_the_cutoff_changes_nothing(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str, serialisation: Serialisation
) -> None:
    before = ask(task_shop, name, task_cache, serialisation=serialisation)
    for split, moment in (("val", VAL_SECONDS), ("test", TEST_SECONDS)):
        noisy = tmp_path / split / "shop"
        assert noisy_task(task_shop, noisy, name, moment, in_split(split)) >= 4
        after = ask(noisy, name, task_cache, before.tokenizer, serialisation)
        assert before.attached.database.kinds == after.attached.database.kinds
        asked = [a.asked(split, "frozen") for a in (before, after)]
        assert np.array_equal(asked[0].cutoff, np.minimum(asked[0].now, moment))
        a, b = (x.batches(q) for x, q in zip((before, after), asked, strict=True))
        assert changed(a, b) == []
        assert not all(bits(x) == bits(y) for x, y in zip(a, b, strict=True))  # answers did change
        if split == "val":
            stale = before.task.staleness()
            for late in (stale[:0], stale):
                a, b = (x.training(late, 4) for x in (before, after))
                assert [differing(x, y) for x, y in zip(a, b, strict=True)] == [[]] * 4


@every_task
def test_rolling_what_is_after_a_rows_seed_time_changes_nothing(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    before = ask(task_shop, name, task_cache)
    for split in ("val", "test"):
        times = np.unique(before.task.rows(split).time)
        moment = int(times[times.size // 2])
        noisy = tmp_path / split / "shop"
        noisy_task(task_shop, noisy, name, moment, lambda s, time, now=moment: time <= now)
        after = ask(noisy, name, task_cache, before.tokenizer)
        seen = 0
        for s in ("val", "test"):
            asked = [a.asked(s, "rolling") for a in (before, after)]
            here = np.flatnonzero(asked[0].now <= moment)
            assert np.array_equal(here, np.flatnonzero(asked[1].now <= moment))
            asked = [q.take(here) for q in asked]
            for i in range(here.size):
                a, b = (x.batch(q, i) for x, q in zip((before, after), asked, strict=True))
                assert changed([a], [b]) == []
                seen += 1
        assert seen >= 1


@every_task
def test_what_is_before_the_cutoff_does_change_batches(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    """The comparisons above can fail: earlier labels and rows are no longer the future."""
    before = ask(task_shop, name, task_cache)
    moment = VAL_SECONDS - 120 * 86_400
    noisy_task(task_shop, tmp_path / "shop", name, moment, in_split("val"))
    after = ask(tmp_path / "shop", name, task_cache, before.tokenizer)
    a, b = (x.batches(x.asked("val", "frozen")) for x in (before, after))
    parts = changed(a, b)
    assert any(".age" in at for at in parts)
    assert (".seen" if before.task.top_k else ".told") in parts
    if before.task.kind == "forecast" and not before.task.top_k:
        a, b = (means(x) for x in (before, after))
        assert (a != b).any()


def means(asker: Asker) -> Floats:
    """What the children of entities say, of validation questions."""
    asked = asker.asked("val", "frozen")
    found = ChildMeans.of(asker.attached, asker.store)
    return found.features(asked.entity, asked.now, asked.cutoff)


@every_task
@pytest.mark.parametrize("regime", ["frozen", "rolling"])
def test_a_questions_own_label_changes_nothing(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str, regime: Regime
) -> None:
    before = ask(task_shop, name, task_cache)
    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        times = before.task.rows(split).time
        now = int(np.sort(times)[times.size // 2])
        folder = tmp_path / split / "shop"
        shutil.copytree(task_shop, folder)
        path = folder / "tasks" / name / f"{split}.parquet"
        frame = replace_labels(pd.read_parquet(path), before.task, times == now, rng)
        frame.to_parquet(path, index=False)
        after = ask(folder, name, task_cache, before.tokenizer)
        at = np.flatnonzero(times == now)
        a, b = (x.batches(x.asked(split, regime).take(at)) for x in (before, after))
        assert changed(a, b) == []
        differ = {part for x, y in zip(a, b, strict=True) for part in differing(x, y)}
        assert differ == {".positive" if before.task.top_k else ".label"}


@pytest.mark.parametrize("name", ["next", "likes"])
def test_the_key_that_is_asked_for_appears_in_neither_direction(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache)
    rows = asker.task.rows("val")
    cut = asker.sampler.cut
    first = np.concatenate([[0], np.cumsum(np.maximum(1, np.diff(rows.start)))])
    start = int(asker.attached.questions["val"][0])
    for regime in ("frozen", "rolling"):
        questions = asker.asked("val", regime)
        for i in range(len(questions)):
            batch, component = asker.component(questions, i)
            nodes = component.row.size
            here = batch.edge_index[:, (batch.edge_index < nodes).all(0)]
            types = batch.edge_type[: here.shape[1]]
            touches = (here == 0).any(0)
            assert cut not in (types[touches] // 2).tolist()
            # nor do the rows of its other destinations appear
            own = set(asker.own_rows(component.row).tolist())
            mine = set(range(start + int(first[i]), start + int(first[i + 1])))
            assert own & mine == {start + int(first[i])}


# the task that hides a text, the text, and a task that does not hide it
HIDDEN_TEXTS = {
    "spend": ("orders", "note", "buys"),
    "rating": ("reviews", "body", "status"),
}


@pytest.mark.parametrize("name", ["spend", "rating", "status", "tier"])
@pytest.mark.parametrize("serialisation", ["compact", "text"])
def test_hidden_columns_change_nothing(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str, serialisation: Serialisation
) -> None:
    before = ask(task_shop, name, task_cache, serialisation=serialisation)
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    hidden = before.task.hidden
    assert len(hidden) >= 1
    hide_by_noise(before.task, folder)
    after = ask(folder, name, task_cache, before.tokenizer, serialisation)
    for table, column in hidden:
        assert column not in after.attached.database.kinds[table]
        assert column not in after.attached.database.tables[table].columns
        assert column not in after.attached.database.tables[table].foreign_keys
    assert before.attached.database.kinds == after.attached.database.kinds
    for a, b in zip(before.store.tables, after.store.tables, strict=True):
        assert [column_entry(c) for c in a.columns] == [column_entry(c) for c in b.columns]
    for split in SPLITS:
        for regime in ("frozen", "rolling"):
            x, y = (a.batches(a.asked(split, regime)) for a in (before, after))
            assert [differing(p, q) for p, q in zip(x, y, strict=True)] == [[]] * len(x)


def hide_by_noise(task: Task, folder: Path) -> None:
    """Replace the content of the task's hidden columns in a copy of its database."""
    rng = np.random.default_rng(0)
    for table, column in task.hidden:
        path = folder / "db" / f"{table}.parquet"
        frame = pd.read_parquet(path)
        keys = task.database.tables[table].foreign_keys
        frame[column] = hidden_noise(rng, frame[column], column in keys)
        frame.to_parquet(path, index=False)


def hidden_noise(rng: np.random.Generator, values: Any, key: bool) -> Any:
    if key:
        return pd.Series(rng.integers(0, 10, len(values)), dtype="Int64")
    if values.dtype == bool:
        return ~values
    if pd.api.types.is_float_dtype(values.dtype):
        return rng.normal(1e5, 1e6, len(values))
    return pd.Series([f"secret {i} {w}" for i, w in enumerate(rng.integers(0, 10**9, len(values)))])


@pytest.mark.parametrize("name", sorted(HIDDEN_TEXTS))
def test_no_token_of_a_hidden_column_appears(task_shop: Path, task_cache: Path, name: str) -> None:
    table, column, another = HIDDEN_TEXTS[name]
    secret = {
        str(text).split()[0]
        for text in pd.read_parquet(task_shop / "db" / f"{table}.parquet")[column].dropna()
    }
    for task, expected in ((name, False), (another, True)):
        asker = ask(task_shop, task, task_cache, children=20, max_rows=0)
        found = " ".join(
            asker.tokenizer.decode(row.tokens)
            for batch in asker.batches(asker.asked("test", "rolling"))
            for row in shown_rows(batch)
        )
        assert any(word in found for word in secret) == expected


@every_task
def test_a_label_is_visible_from_the_second_it_is_known(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache, max_rows=0, means=False)
    known, asked = known_rows(asker.task), asker.asked("test", "rolling")
    tried = 0
    for i in range(len(asked) - 1, -1, -1):
        own = asker.own_rows(asker.component(asked, i)[1].row)
        past = own[known[own] <= asked.cutoff[i]]
        if past.size == 0:
            continue
        row = int(past[np.argmax(known[past])])
        moment = int(known[row])
        just, before = (
            asker.component(replace(asked, cutoff=np.full_like(asked.cutoff, t)), i)
            for t in (moment, moment - 1)
        )
        assert row not in asker.own_rows(before[1].row)
        if row not in asker.own_rows(just[1].row):
            continue  # the row that both belong to was not there yet
        # nothing else is later than the cutoff either
        late = known[asker.own_rows(before[1].row)[1:]] > moment - 1
        assert not late.any()
        assert told(just[0]) != told(before[0])
        tried += 1
    assert tried >= 3


def test_a_child_counts_from_the_second_it_is_there(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache)
    graph, means = asker.store.graph, ChildMeans.of(asker.attached, asker.store)
    entities = graph.rows_of(asker.task.entity_table)
    tried = 0
    for key in means.tables:
        children = np.asarray(graph.rows_of(graph.tables[graph.foreign_keys[key].child]))
        start = int(graph.parent_start[key])
        parent = np.asarray(graph.parent[start : start + children.size])
        time = np.asarray(graph.row_time[children])
        for i in np.flatnonzero((parent >= 0) & (time != STATIC))[:20]:
            moment = np.array([time[i] - 1, time[i]])
            entity = np.full(2, parent[i] - entities.start)
            # asked later than the child was there, but as of the moment before it was
            before, just = means.features(entity, moment[[1, 1]], moment)
            assert (before != just).any()
            tried += 1
    assert tried >= 10


def told(batch: AnyBatch) -> list[float]:
    """What past labels say, without how long ago the cutoff is; of a sampler without means."""
    if isinstance(batch, RecommendBatch):
        return batch.seen[0, :, :3].flatten().tolist()
    return batch.told[0, NUM_CALENDAR:].tolist()


@every_task
def test_the_frozen_test_cutoff_is_that_of_relbench(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache)
    cutoff = asker.asked("test", "frozen").cutoff
    assert (cutoff == TEST_SECONDS).all()
    theirs = relbench.load_dataset(task_shop).load_task(name).get_db().table_dict
    graph, tables = asker.store.graph, asker.attached.database.tables
    assert set(tables) == {*theirs, asker.attached.table}
    for t, table in enumerate(asker.store.tables):
        times = np.asarray(graph.row_time[graph.table_start[t] : graph.table_start[t + 1]])
        visible = int(((times == STATIC) | (times <= TEST_SECONDS)).sum())
        if table.name == asker.attached.table:
            assert visible == (known_rows(asker.task) <= TEST_SECONDS).sum()
            assert 0 < visible < table.num_rows
        else:
            assert visible == len(theirs[table.name].df)
            assert set(tables[table.name].columns) == set(theirs[table.name].df.columns)
    val = asker.asked("val", "frozen")
    assert (val.cutoff == VAL_SECONDS).all()
    rolling = asker.asked("test", "rolling")
    assert np.array_equal(rolling.cutoff, asker.task.rows("test").time)
    train = asker.asked("train", "frozen")
    assert np.array_equal(train.cutoff, asker.task.rows("train").time)


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize("name", ONE_OF_EACH_TYPE)
def test_a_tuned_model_predicts_the_same_whatever_comes_after_the_test_timestamp(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    noisy = tmp_path / "noise" / "shop"
    noisy_task(task_shop, noisy, name, TEST_SECONDS, in_split("test"))
    for run, folder in (("a", task_shop), ("b", noisy)):
        tune_task(folder, name, task_cache, tmp_path / run, "regime=frozen")
    for split in ("val", "test"):
        a, b = (predicted(tmp_path / run, split).map(str) for run in ("a", "b"))
        assert a.equals(b)


@pytest.mark.usefixtures("no_trace")
@pytest.mark.parametrize("name", ["spend", "rating", "status"])
def test_a_tuned_model_predicts_the_same_whatever_is_hidden(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    """The vocabulary included, which is made of this database alone."""
    shutil.copytree(task_shop, tmp_path / "shop")
    hide_by_noise(ask(task_shop, name, task_cache).task, tmp_path / "shop")
    for run, folder in (("a", task_shop), ("b", tmp_path / "shop")):
        tune_task(folder, name, task_cache, tmp_path / run)
    a, b = (predicted(tmp_path / run).map(str) for run in ("a", "b"))
    assert a.equals(b)
