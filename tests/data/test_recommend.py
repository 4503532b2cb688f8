"""Recommendation batches: moments, candidates, chunks; and the best k, exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rfm.data import recommend as recommend_module
from rfm.data.recommend import AskedLinks, TrainingLinks
from rfm.eval.asking import open_questions
from rfm.eval.predict import predict
from rfm.nn.heads import LinkHead
from rfm.nn.model import RelationalModel
from tests.asked import SMALL, ask, pose, untrained
from tests.batches import differing


def by_brute_force(model: RelationalModel, asked: AskedLinks) -> np.ndarray:
    """All destinations at once, sorted."""
    head, questions = model.head, asked.questions
    assert isinstance(head, LinkHead)
    out = np.full((len(questions), head.config.outputs), -1.0)
    with torch.no_grad():
        for chunk in asked.chunks:
            batch = pose(asked.sampler, questions, chunk)
            states = model.backbone(batch)
            score = head.scores(
                head.queries(states, batch), head.candidates(states, batch), batch.seen
            )
            best = score.argsort(dim=1, descending=True)[:, : out.shape[1]]
            out[chunk, : best.shape[1]] = batch.destination[best].numpy()
    return out


@pytest.mark.parametrize("name", ["next", "likes"])
@pytest.mark.parametrize("chunk", [1, 4, 1024])
def test_the_best_are_those_of_brute_force(
    task_shop: Path, task_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str, chunk: int
) -> None:
    monkeypatch.setattr(recommend_module, "_CHUNK", chunk)
    asker = ask(task_shop, name, task_cache)
    model = untrained(asker)
    for regime in ("frozen", "rolling"):
        asked = AskedLinks(asker.sampler, asker.asked("test", regime))
        found = predict(model, asked)
        assert np.array_equal(found, by_brute_force(model, asked))
        assert all(np.unique(row).size == 3 for row in found)


def test_fewer_destinations_than_are_wanted_are_filled_up(
    task_shop: Path, task_cache: Path
) -> None:
    """At a cutoff at which two products have been listed."""
    asker = ask(task_shop, "likes", task_cache)
    listed = np.sort(np.asarray(asker.store.graph.row_time)[asker.sampler.destinations])
    questions = asker.asked("test", "rolling")
    cutoff = np.full_like(questions.cutoff, listed[1])
    asked = AskedLinks(asker.sampler, replace(questions, cutoff=cutoff))
    found = predict(untrained(asker), asked)
    assert (found[:, 2] == -1).all()
    assert (found[:, :2] >= 0).all()
    nothing = replace(questions, cutoff=np.full_like(cutoff, listed[0] - 1))
    assert (predict(untrained(asker), AskedLinks(asker.sampler, nothing)) == -1).all()


def test_the_batches_of_open_questions_are_the_same(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "next", task_cache)
    model = untrained(asker)
    opened = open_questions(model, asker.task, SMALL, task_cache, cached=False)
    a, b = (
        predict(model, AskedLinks(s, s.ask(["test"], "frozen"))) for s in (asker.sampler, opened)
    )
    assert np.array_equal(a, b)


@pytest.mark.parametrize("name", ["next", "likes"])
def test_questions_of_a_batch_are_of_one_moment(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache, eval_size=3)
    for regime in ("frozen", "rolling"):
        questions = asker.asked("test", regime)
        asked = AskedLinks(asker.sampler, questions)
        seen = np.concatenate(asked.chunks)
        assert np.array_equal(np.sort(seen), np.arange(len(questions)))  # each once
        for i, chunk in enumerate(asked.chunks):
            assert 1 <= chunk.size <= 3
            moments = {(int(questions.now[n]), int(questions.cutoff[n])) for n in chunk}
            assert moments == {tuple(asked[i].moment.tolist())}
        beyond = asked[len(asked)]
        assert beyond.question.numel() == beyond.candidate.numel() == 0


@pytest.mark.parametrize("most", [4, 512])
def test_training_candidates(task_shop: Path, task_cache: Path, most: int) -> None:
    asker = ask(task_shop, "likes", task_cache, candidates=most)
    questions, task = asker.asked("train", "rolling"), asker.task
    times = np.asarray(asker.store.graph.row_time)[asker.sampler.destinations.start :][:15]
    stale = task.staleness()
    assert stale.max() > 0
    for late in (stale[:0], stale):
        train = TrainingLinks(asker.sampler, questions, late, 0)
        for index in range(8):
            batch = train[index]
            now, cutoff = batch.moment.tolist()
            assert cutoff <= now
            assert (now - cutoff) in (late.tolist() if late.size else [0])
            pool = batch.destination.numpy()
            assert (times[pool] <= cutoff).all()
            assert np.unique(pool).size == pool.size
            there = set(np.flatnonzero(times <= cutoff).tolist())
            if most == 512:
                assert set(pool.tolist()) == there
                assert (batch.log_chance == 0).all()
            else:
                assert pool.size >= min(most, len(there))
                assert (batch.log_chance <= 0).all()
            for q, n in enumerate(batch.question.tolist()):
                own = train.questions.destination[
                    train.questions.start[n] : train.questions.stop[n]
                ]
                assert train.questions.now[n] == now
                wanted = set(own.tolist()) & there
                assert {int(pool[j]) for j in np.flatnonzero(batch.positive[q])} == wanted


def test_the_chance_that_a_destination_is_a_candidate(task_shop: Path, task_cache: Path) -> None:
    """``log_chance`` against how often each one came, over many draws at one moment."""
    asker = ask(task_shop, "likes", task_cache, candidates=4)
    train = TrainingLinks(asker.sampler, asker.asked("train", "rolling"), np.zeros(0, np.int64), 0)
    rng, visible = np.random.default_rng(0), np.arange(15)
    number = np.arange(3)
    own = np.concatenate(
        [
            train.questions.destination[train.questions.start[n] : train.questions.stop[n]]
            for n in number
        ]
    )
    came = np.zeros(15)
    for _ in range(2000):
        pool, log_chance = train._pool(train.questions, number, visible, rng)
        came[pool] += 1
        assert np.isfinite(log_chance).all()
    assert (came[own] == 2000).all()  # the labels of the batch always
    others = np.setdiff1d(visible, own)
    np.testing.assert_allclose(came[others] / 2000, 4 / 15, atol=0.05)


def test_training_batches_are_functions_of_their_index(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "next", task_cache)
    stale = asker.task.staleness()
    a, b, c = (
        TrainingLinks(asker.sampler, asker.asked("train", "rolling"), stale, seed)
        for seed in (0, 0, 1)
    )
    assert all(differing(a[i], b[i]) == [] for i in range(4))
    assert any(differing(a[i], c[i]) for i in range(4))


def test_without_history_no_past_label_is_told(task_shop: Path, task_cache: Path) -> None:
    found = []
    for history in (6, 0):
        asker = ask(task_shop, "likes", task_cache, history=history)
        asked = asker.asked("test", "rolling")
        number = np.flatnonzero(asked.now == asked.now.max())
        found.append(pose(asker.sampler, asked, number).seen.numpy())
    told, untold = found
    labels = [0, 1, 2, 5, 6, 7]  # of pairs and of destinations alone, in three windows
    assert told[..., labels].any()
    assert not untold[..., labels].any()
    np.testing.assert_array_equal(untold[..., [3, 4, 8, 9]], told[..., [3, 4, 8, 9]])
