"""Answers to all questions, with and without the row-state cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rfm.data.questions import QuestionConfig
from rfm.eval.asking import open_questions, seen_before
from rfm.eval.predict import ask_all, predict
from rfm.eval.predictions import Predictions
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from tests.asked import SMALL, Asker, ask, untrained
from tests.task_folders import ONE_OF_EACH_TYPE


def answering(asker: Asker) -> RelationalModel:
    """An untrained model whose numbers are clipped nowhere."""
    model = untrained(asker, seed=2)
    model.head.config = replace(model.head.config, low=-1e9, high=1e9)
    return model


def answers(
    model: RelationalModel, asker: Asker, cache: Path, cached: bool, config: QuestionConfig = SMALL
) -> np.ndarray:
    sampler = open_questions(model, asker.task, config, cache, cached)
    assert (sampler.cache is not None) == cached
    if model.head.config.told:
        sampler.tell(model.head.config.center, model.head.config.scale)
    return predict(model, ask_all(sampler, sampler.ask(["test"], "rolling")))


@pytest.mark.parametrize("name", [*ONE_OF_EACH_TYPE, "status", "likes"])
def test_cached_rows_give_the_same_answers(task_shop: Path, task_cache: Path, name: str) -> None:
    asker = ask(task_shop, name, task_cache)
    model = answering(asker)
    live, cached = (answers(model, asker, task_cache, c) for c in (False, True))
    assert live.shape == (len(asker.task.rows("test")), model.head.config.outputs)
    if asker.task.top_k:
        assert (live == cached).mean() > 0.95  # half floats may swap what is nearly equal
    else:
        scale = max(1.0, float(np.abs(live).max()))
        np.testing.assert_allclose(cached, live, atol=2e-3 * scale)
        assert live.std() > 0


def test_cached_batches_hold_the_same_rows(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache)
    model = answering(asker)
    live, cached = (open_questions(model, asker.task, SMALL, task_cache, c) for c in (False, True))
    for i in range(2):
        a, b = (ask_all(s, s.ask(["val"], "frozen"))[i] for s in (live, cached))
        for field in ("age", "static", "hop", "component", "edge_index", "edge_type", "edge_count"):
            assert torch.equal(getattr(a, field), getattr(b, field))
        assert a.cached.state.shape[0] == 0 < b.cached.state.shape[0]
        # the task's own rows are not cached: they are not the database's
        own = asker.own_rows(np.arange(asker.store.num_rows))
        assert b.buckets[0].token.shape[0] == b.num_seeds
        assert sum(x.token.shape[0] for x in b.buckets[1:]) <= own.size
        with torch.no_grad():
            rows = [model.backbone.encode(batch).row[batch.row] for batch in (a, b)]
        torch.testing.assert_close(rows[0], rows[1], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["buys", "next", "likes"])
def test_answers_do_not_depend_on_the_size_of_a_batch(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache)
    model = answering(asker)
    one, many = (
        answers(model, asker, task_cache, False, replace(SMALL, eval_size=size)) for size in (1, 50)
    )
    if asker.task.top_k:
        assert np.array_equal(one, many)
    else:
        np.testing.assert_allclose(one, many, atol=1e-5)


def test_a_model_keeps_its_mode_and_its_weights(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache)
    model = answering(asker).train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    answers(model, asker, task_cache, False)
    assert model.training
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_a_model_without_a_head_says_so(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache)
    model = build_model(BackboneConfig(), asker.tokenizer, 40, compiled=False)
    asked = ask_all(asker.sampler, asker.asked("test", "frozen"))
    with pytest.raises(ValueError, match="has not been fine-tuned to answer anything"):
        predict(model, asked)


def test_keys_come_with_the_values(task_shop: Path, task_cache: Path) -> None:
    task = ask(task_shop, "spend", task_cache).task
    value = np.arange(len(task.rows("val")))[:, None].astype(float)
    found = Predictions.of(task, "val", value)
    assert np.array_equal(found.entity, task.rows("val").entity)
    assert np.array_equal(found.time, task.rows("val").time)
    assert found.value is value


def test_what_a_checkpoint_has_seen(task_shop: Path, task_cache: Path) -> None:
    task = ask(task_shop, "buys", task_cache).task
    assert seen_before({"databases": {"another": "x"}}, task) == ()
    assert seen_before({}, task) == ()
    (said,) = seen_before({"databases": {}, "finetuned": {"task": "shop/spend"}}, task)
    assert "fine-tuned on shop/spend" in said
    assert seen_before({"finetuned": {"task": "other/spend"}}, task) == ()
    (said,) = seen_before({"databases": {"shop": "x"}}, task)
    assert "pretrained on shop (rows up to its validation timestamp)" in said
    until = {"shop": task.database.test_timestamp + 1}
    (said,) = seen_before({"databases": {"shop": "x"}, "training_until": until}, task)
    assert "rows later than its test timestamp: test scores are worthless" in said
