"""Questions of a task: the order they come in, the label that is masked, what they may see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfm.data.questions import NUM_CALENDAR, AskedQuestions, QuestionConfig, TrainingQuestions
from rfm.data.serialise import ROLE_MASK
from rfm.data.task_rows import SPLITS
from tests.asked import ask, known_rows
from tests.batches import differing
from tests.shop import TEST_SECONDS
from tests.task_folders import TASKS
from tests.task_noise import noisy_task

ENTITY_TASKS = [name for name, spec in TASKS.items() if spec["task_type"] != "recommendation"]


@pytest.mark.parametrize("name", ENTITY_TASKS)
def test_one_mask_per_question_and_its_label_beside_it(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache)
    for split in SPLITS:
        rows, asked = asker.task.rows(split), asker.asked(split, "rolling")
        every = AskedQuestions(asker.sampler, asked)
        assert len(every) == -(-len(rows) // 16)
        done = 0
        for i in range(len(every)):
            batch = every[i]
            size = batch.num_seeds
            assert batch.question.tolist() == list(range(done, done + size))
            np.testing.assert_array_equal(
                batch.label.numpy(), rows.label[done : done + size].astype(np.float32)
            )
            first = batch.buckets[0]
            assert first.token.shape[0] == size
            assert ((first.role == ROLE_MASK).sum(1) == 1).all()
            assert batch.mask_node.tolist() == list(range(size))
            assert not any((b.role == ROLE_MASK).any() for b in batch.buckets[1:])
            done += size
        assert done == len(rows)
        assert every[len(every)].num_seeds == 0


@pytest.mark.parametrize("name", ["buys", "tags"])
def test_ages_count_from_the_seed_time(task_shop: Path, task_cache: Path, name: str) -> None:
    """In the frozen regime the latest visible row is as old as the cutoff, or older."""
    asker = ask(task_shop, name, task_cache)
    asked = asker.asked("test", "frozen")
    graph, oldest = asker.store.graph, 0.0
    for i in range(len(asked)):
        batch, component = asker.component(asked, i)
        times = np.asarray(graph.row_time[component.row])
        timed = ~batch.static.numpy()
        timed[0] = False
        wanted = (asked.now[i] - times[timed]) / 86_400
        np.testing.assert_allclose(batch.age.numpy()[timed], wanted, rtol=1e-6)
        assert batch.age[0] == 0
        stale = (asked.now[i] - asked.cutoff[i]) / 86_400
        assert (batch.age.numpy()[timed] >= stale).all()
        oldest = max(oldest, stale)
    assert oldest > 30


def test_training_goes_through_all_labelled_questions(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "tier", task_cache, size=7)
    questions = asker.asked("train", "rolling")
    train = TrainingQuestions(asker.sampler, questions, np.zeros(0, np.int64), 0)
    labelled = int((~np.isnan(questions.label[:, 0])).sum())
    assert len(train.questions) == labelled < len(questions)
    batches = [train[i] for i in range(3 * labelled // 7)]
    assert not any(b.label.isnan().any() for b in batches)
    order = np.concatenate([b.question.numpy() for b in batches])
    epochs = [order[:labelled], order[labelled : 2 * labelled]]
    for epoch in epochs:
        assert np.array_equal(np.sort(epoch), np.arange(labelled))
    assert not np.array_equal(*epochs)
    again = TrainingQuestions(asker.sampler, questions, np.zeros(0, np.int64), 0)
    assert all(differing(batches[i], again[i]) == [] for i in range(3))
    other = TrainingQuestions(asker.sampler, questions, np.zeros(0, np.int64), 1)
    assert differing(batches[0], other[0])


@pytest.mark.parametrize("name", ["buys", "rating"])
def test_stale_training_questions_see_less(task_shop: Path, task_cache: Path, name: str) -> None:
    asker = ask(task_shop, name, task_cache)
    questions, task = asker.asked("train", "rolling"), asker.task
    stale = task.staleness()
    assert np.array_equal(stale, task.rows("val").time - asker.asked("val", "frozen").cutoff)
    fresh, old = (
        TrainingQuestions(asker.sampler, questions, late, 0) for late in (stale[:0], stale)
    )
    rows = [sum(t[i].row.numel() for i in range(6)) for t in (fresh, old)]
    assert rows[1] < rows[0]
    # the last of the calendar: how long before the question the cutoff is
    ages = np.concatenate([old[i].told[:, NUM_CALENDAR - 1].numpy() for i in range(6)])
    allowed = np.log1p(np.unique(stale) / task.timedelta)
    assert all(np.isclose(age, allowed, rtol=1e-4).any() for age in ages)
    assert np.unique(ages).size > 3


@pytest.mark.parametrize("name", ["buys", "tier", "tags", "spend", "likes"])
def test_labels_of_other_splits_count_once_they_are_known(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    """Rolling test rows see earlier test labels; frozen ones see train and val labels alone."""
    asker = ask(task_shop, name, task_cache, history=100, max_rows=0)
    sizes = np.cumsum([0, *(known_rows(asker.task, [split]).size for split in SPLITS)])
    found = {}
    for regime in ("frozen", "rolling"):
        asked, seen = asker.asked("test", regime), set()
        for i in range(len(asked)):
            own = asker.own_rows(asker.component(asked, i)[1].row)
            seen |= set(np.searchsorted(sizes, own[1:], side="right") - 1)
        found[regime] = seen
    assert found == {"frozen": {0, 1}, "rolling": {0, 1, 2}}


def test_no_graph_sees_the_row_alone(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache, graph=False)
    asked = asker.asked("test", "rolling")
    batch, component = asker.component(asked, 0)
    assert component.row.size == 1
    text = asker.tokenizer.decode(batch.buckets[0].token[0].tolist())
    assert "city" in text  # the entity's cells come along


def test_children_per_hop() -> None:
    config = QuestionConfig(children=8, grandchildren=2)
    assert config.per_hop(0) == ()
    assert config.per_hop(1) == (0,)
    assert config.per_hop(2) == (0, 8)
    assert config.per_hop(4) == (0, 8, 2, 0)


def test_no_graph_sees_no_entity_of_the_future(
    tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    """Products that are listed after the moment at which they are asked for."""
    before = ask(task_shop, "tags", task_cache, graph=False)
    noisy_task(
        task_shop, tmp_path / "shop", "tags", TEST_SECONDS,
        lambda split, time: np.full(time.size, split == "test"),
    )  # fmt: skip
    after = ask(tmp_path / "shop", "tags", task_cache, before.tokenizer, graph=False)
    for a, b in zip(*(x.batches(x.asked("test", "frozen")) for x in (before, after)), strict=True):
        assert differing(a, b) == [".label"]
