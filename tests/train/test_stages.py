"""Pretraining with episodes, and from a checkpoint: it runs, resumes, and says what it did."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.eval.asking import seen_before
from rfm.nn.model import CONFIG, WEIGHTS, RelationalModel
from rfm.train.build import begin_with
from rfm.train.metrics import read_metrics
from tests.tiny_run import run

EPISODES = (
    "data.synthetic_rows=2500",
    "episodes.per_batch=1",
    "episodes.support=16",
    "episodes.queries=6",
    "episodes.children=2",
    "episodes.history=4",
    "episodes.max_rows=12",
    "optim.accumulate=2",
)
LATER = ("data.vocab_size=8192",)  # as it is by default: a checkpoint brings its tokenizer


@pytest.fixture(scope="module")
def learnt(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with episodes."""
    run_dir = tmp_path_factory.mktemp("learnt") / "run"
    run(tiny_cache, run_dir, *EPISODES)
    return run_dir


def test_a_run_reports_on_learning_in_context(learnt: Path) -> None:
    rows = list(csv.DictReader((learnt / "pretrain.csv").open()))
    context = [row for row in rows if row["objective"] == "context"]
    assert {row["metric"] for row in context} == {"share of nats"}
    assert len(context) >= 1
    expected = [row for row in rows if row["objective"] == "expected"]
    assert {row["metric"] for row in expected} == {"quantile loss"}
    assert {row["database"] for row in expected} <= {row["database"] for row in context}
    assert all(0 < float(row["marginal"]) < 1 for row in expected)
    names = [name for _, name, _ in read_metrics(learnt / "metrics.csv")]
    assert names.count("train/context") == names.count("train/expected") == 4
    assert any(name.startswith("val/context/") for name in names)
    about = RelationalModel.from_pretrained(learnt / "model").about
    assert about["episodes"] == 8  # 4 steps of 2 batches


def test_it_resumes_bit_for_bit(learnt: Path, tiny_cache: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run(tiny_cache, run_dir, *EPISODES, "log.stop_after=2", "log.checkpoint_every=1")
    run(tiny_cache, run_dir, *EPISODES)
    one, two = (load_file(folder / "model" / WEIGHTS) for folder in (learnt, run_dir))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("frozen", ["true", "false"])
def test_it_begins_with_a_checkpoint(
    learnt: Path, tiny_cache: Path, tmp_path: Path, frozen: str
) -> None:
    more = (f"checkpoint={learnt / 'model'}", f"model.row_encoder.frozen={frozen}")
    run(tiny_cache, tmp_path, *EPISODES, *LATER, *more, "optim.lr=1e-9", "optim.weight_decay=0")
    before, after = (load_file(folder / "model" / WEIGHTS) for folder in (learnt, tmp_path))
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=1e-4)
        if frozen == "true" and name.startswith("backbone.row_encoder.bart.encoder."):
            assert torch.equal(after[name], before[name])
    model = RelationalModel.from_pretrained(tmp_path / "model")
    assert model.settings.row_encoder.frozen == (frozen == "true")
    assert model.about["episodes"] == 16
    assert model.about["steps"] == 8


def test_without_episodes_the_head_stays_as_it_is(tiny_cache: Path, tmp_path: Path) -> None:
    result = run(tiny_cache, tmp_path)
    assert "context" not in result["validation"]
    assert RelationalModel.from_pretrained(tmp_path / "model").about["episodes"] == 0
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert metrics
    assert not any("context" in name for _, name, _ in metrics)


def test_fan_outs_must_fit_the_checkpoint(learnt: Path, tiny_cache: Path, tmp_path: Path) -> None:
    more = (*LATER, f"checkpoint={learnt / 'model'}", "batch.fan_out=[2]", "batch.link_fan_out=[2]")
    with pytest.raises(ValueError, match=r"has 2 hops: wanted one fan-out per hop"):
        run(tiny_cache, tmp_path / "run", *more)
    assert not (tmp_path / "run" / "model").exists()


def test_a_checkpoint_that_reads_too_few_tokens(
    learnt: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    more = (*LATER, f"checkpoint={learnt / 'model'}", "batch.max_tokens=400")
    with pytest.raises(ValueError, match=r"come to 400, but .* reads at most 256 tokens"):
        run(tiny_cache, tmp_path / "run", *more)


def test_a_checkpoint_from_before_there_were_episodes_loads(learnt: Path, tmp_path: Path) -> None:
    RelationalModel.from_pretrained(learnt / "model").save_pretrained(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    kept = {name: w for name, w in weights.items() if not name.startswith("in_context.")}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / WEIGHTS)
    model = RelationalModel.from_pretrained(tmp_path)
    named = dict(model.named_parameters())
    assert all(torch.equal(named[name], w) for name, w in kept.items() if name in named)
    kept.popitem()
    save_file(kept, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match=r"truncated or of another model: it lacks \["):
        RelationalModel.from_pretrained(tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["about"]["episodes"] == 8


@pytest.mark.parametrize(("saved", "now"), [(True, False), (False, True)])
def test_a_row_encoder_is_frozen_as_it_is_asked_for(
    learnt: Path, tmp_path: Path, saved: bool, now: bool
) -> None:
    """Whatever the checkpoint was saved as; what is frozen draws no dropout."""
    before = begin_with(str(learnt / "model"), saved, 32)
    before.save_pretrained(tmp_path)
    encoder = begin_with(str(tmp_path), now, 32).backbone.row_encoder
    trained = [p.requires_grad for p in encoder.bart.encoder.parameters()]
    assert set(trained) == {not now}
    assert encoder.bart.encoder.training == (not now)
    assert encoder.bart.decoder.training


def test_what_it_was_tuned_on_is_not_forgotten(
    learnt: Path, tiny_cache: Path, tmp_path: Path, task_shop: Path
) -> None:
    model = RelationalModel.from_pretrained(learnt / "model")
    model.about["finetuned"] = {"task": "shop/buys"}
    model.save_pretrained(tmp_path / "tuned")
    run(tiny_cache, tmp_path / "run", *LATER, f"checkpoint={tmp_path / 'tuned'}")
    task = open_task(open_database(task_shop), "buys")
    about = RelationalModel.from_pretrained(tmp_path / "run" / "model").about
    assert "finetuned" not in about
    assert about["finetuned_before"] == ["shop/buys"]
    assert "was fine-tuned on shop/buys" in seen_before(about, task)[0]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.serialisation=text", "was pretrained with compact: set it to be the same"),
        ("data.tokenizer=/nowhere", "brings its own tokenizer: leave data.tokenizer"),
        ("model.hops=1", "brings its own model: leave model.* out"),
    ],
)
def test_what_a_checkpoint_brings_cannot_be_chosen(
    learnt: Path, tiny_cache: Path, tmp_path: Path, word: str, message: str
) -> None:
    given = (f"checkpoint={learnt / 'model'}", *LATER, word)
    with pytest.raises(ValueError, match=re.escape(message)):
        run(tiny_cache, tmp_path / "run", *given)


def test_a_run_does_not_go_on_from_another_checkpoint(
    learnt: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    model = RelationalModel.from_pretrained(learnt / "model")
    model.save_pretrained(tmp_path / "first")
    given = (f"checkpoint={tmp_path / 'first'}", *LATER)
    run(tiny_cache, tmp_path / "run", *given, "log.stop_after=2", "log.checkpoint_every=1")
    with torch.no_grad():
        model.backbone.hop.weight += 1
    model.save_pretrained(tmp_path / "first")
    with pytest.raises(ValueError, match="checkpoint"):
        run(tiny_cache, tmp_path / "run", *given)
