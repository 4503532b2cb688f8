"""Fine-tuning, from the command's function to what it leaves behind."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import relbench
import torch
from relbench.submit import evaluate_task

from finetune.predict import PredictConfig, answer
from rfm.config import load_config
from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.predict import ask_all
from rfm.eval.predictions import METRICS, read_predictions, score
from rfm.nn.backbone import BackboneConfig
from rfm.nn.heads import HeadConfig
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from rfm.train.finetuner import (
    Finetuner,
    Parts,
    choose_parts,
    decide_parts,
    head_config,
    target_scale,
)
from rfm.train.optim import OptimConfig, make_tuning_optimizer
from rfm.train.tuning import validation_rows
from tests.asked import ask
from tests.task_folders import ONE_OF_EACH_TYPE, TASKS
from tests.tiny_tuning import predicted, tune_task, tuned_weights

pytestmark = pytest.mark.usefixtures("no_trace")
LEADERBOARDS = {"binary_classification", "regression", "recommendation"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, task_shop: Path, task_cache: Path) -> Path:
    """A saved model that nobody has trained."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(3)
    tokenizer = mixture_tokenizer([open_database(task_shop)], 400, task_cache)
    model = build_model(BackboneConfig(), tokenizer, 32, compiled=False)
    model.about = {"databases": {}, "serialisation": "compact"}
    model.save_pretrained(folder)
    return folder


def read_result(run_dir: Path, seed: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / f"seed-{seed}" / "result.json").read_text())
    return found


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_can_be_tuned(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    run_dir = tmp_path / "run"
    said = tune_task(task_shop, name, task_cache, run_dir)
    task = open_task(open_database(task_shop), name)
    result = read_result(run_dir)
    assert said["task"] == result["task"] == f"shop/{name}"
    assert said["regime"] == result["regime"] == "frozen"
    assert said["metric"] == METRICS[task.task_type]
    assert said["test"] == {"mean": result["test"], "std": None}
    for split, value in (("val", "validation"), ("test", "test")):
        found = read_predictions(task, run_dir / "seed-0" / f"{split}.parquet")
        assert score(task, split, found) == result[value]
        assert len(predicted(run_dir, split)) == len(task.rows(split))
    csv = run_dir / "seed-0" / "leaderboard" / f"shop__{name}.csv"
    assert csv.is_file() == (task.task_type in LEADERBOARDS)
    if csv.is_file():
        theirs = evaluate_task(f"shop/{name}", csv, dataset=relbench.load_dataset(task_shop))
        assert theirs[said["metric"]] == pytest.approx(result["test"], abs=1e-12)


@pytest.mark.parametrize("name", ONE_OF_EACH_TYPE)
@pytest.mark.parametrize("parts", ["all", "graph"])
def test_the_saved_folder_predicts_the_same(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str, parts: str
) -> None:
    run_dir = tmp_path / "run"
    tune_task(task_shop, name, task_cache, run_dir, f"tune.parts={parts}", "regime=rolling")
    given = [
        f"checkpoint={run_dir / 'seed-0' / 'model'}", f"database={task_shop}",
        f"out={tmp_path / 'again.parquet'}", f"data.cache={task_cache}",
    ]  # fmt: skip
    said = answer(load_config(PredictConfig, given, prog="predict", doc=None))
    assert said["regime"] == "rolling"
    task = open_task(open_database(task_shop), name)
    again = read_predictions(task, tmp_path / "again.parquet")
    first = read_predictions(task, run_dir / "seed-0" / "test.parquet")
    assert np.array_equal(again.entity, first.entity)
    assert np.array_equal(again.time, first.time)
    np.testing.assert_array_equal(again.value, first.value)
    assert said[METRICS[task.task_type]] == read_result(run_dir)["test"]


def test_a_second_call_does_nothing_and_more_seeds_go_on(
    tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    run_dir = tmp_path / "run"
    first = tune_task(task_shop, "buys", task_cache, run_dir, "seeds=2")
    results = [read_result(run_dir, seed) for seed in (0, 1)]
    for name in ("validation", "test"):
        values = [result[name] for result in results]
        assert first[name]["mean"] == pytest.approx(np.mean(values))
        assert first[name]["std"] == pytest.approx(np.std(values, ddof=1))
    assert first["seeds"] == [0, 1]
    assert not predicted(run_dir, seed=0).equals(predicted(run_dir, seed=1))
    stamps = {p: p.stat().st_mtime_ns for p in (run_dir / "seed-0").rglob("*")}
    assert tune_task(task_shop, "buys", task_cache, run_dir, "seeds=2") == first
    third = tune_task(task_shop, "buys", task_cache, run_dir, "seeds=3")
    assert third["seeds"] == [0, 1, 2]
    assert {p: p.stat().st_mtime_ns for p in (run_dir / "seed-0").rglob("*")} == stamps


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("optim.lr=0.5", r"optim.lr: was [0-9.e-]+, now 0.5"),
        ("regime=rolling", "regime: was 'frozen', now 'rolling'"),
        ("question.history=0", "question.history"),
    ],
)
def test_another_config_in_the_same_folder_is_refused(
    tmp_path: Path, task_shop: Path, task_cache: Path, change: str, key: str
) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    few = ("optim.steps=1", "optim.warmup=0")
    tune_task(task_shop, "buys", task_cache, run_dir, *few)
    before = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*")}
    with pytest.raises(ValueError, match=key):
        tune_task(task_shop, "buys", task_cache, run_dir, *few, change)
    assert {p: p.stat().st_mtime_ns for p in run_dir.rglob("*")} == before


@pytest.mark.parametrize("name", ["spend", "next"])
def test_the_same_seed_predicts_the_same(
    tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    for run in ("a", "b"):
        tune_task(task_shop, name, task_cache, tmp_path / run, "tune.dropout=0.2")
    for split in ("val", "test"):
        a, b = (predicted(tmp_path / run, split) for run in ("a", "b"))
        assert a.map(str).equals(b.map(str))
    a, b = (tuned_weights(tmp_path / run) for run in ("a", "b"))
    assert not [key for key in a if not torch.equal(a[key], b[key])]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_weights_of_the_best_validation_are_kept(
    tmp_path: Path, task_shop: Path, task_cache: Path, ema: float
) -> None:
    """Large steps: the score goes up and down, and the last is not the best."""
    steps = ("optim.steps=8", "tune.val_every=1", "tune.patience=0", "optim.lr=0.03")
    earlier = 0
    for seed in (0, 1):
        run_dir = tmp_path / str(seed)
        tune_task(
            task_shop, "buys", task_cache, run_dir, *steps, f"optim.ema={ema}", f"seed={seed}"
        )
        result = read_result(run_dir, seed)
        curve = dict(result["curve"])
        assert list(curve) == list(range(9))  # before the first step, too
        assert result["validation"] == max(curve.values())
        assert curve[result["steps"]] == max(curve.values())
        earlier += result["steps"] < 8
    assert earlier > 0


def test_a_metric_where_less_is_better(tmp_path: Path, task_shop: Path, task_cache: Path) -> None:
    steps = ("optim.steps=6", "tune.val_every=1", "optim.lr=0.03", "tune.patience=0")
    tune_task(task_shop, "spend", task_cache, tmp_path, *steps)
    result = read_result(tmp_path)
    assert result["validation"] == min(score for _, score in result["curve"])


def test_patience(tmp_path: Path, task_shop: Path, task_cache: Path) -> None:
    """No learning to speak of: what comes after the first validation is hardly ever better."""
    steps = ("optim.steps=40", "tune.val_every=1", "tune.patience=2", "optim.lr=0.05")
    tune_task(task_shop, "buys", task_cache, tmp_path, *steps)
    result = read_result(tmp_path)
    last = result["curve"][-1][0]
    assert last < 40
    assert last - result["steps"] == 2


@pytest.mark.parametrize("parts", ["all", "graph", "head"])
def test_parts(
    tmp_path: Path, task_shop: Path, task_cache: Path, checkpoint: Path, parts: str
) -> None:
    tune_task(
        task_shop, "buys", task_cache, tmp_path, f"checkpoint={checkpoint}", f"tune.parts={parts}",
        "model.row_encoder.size=", "optim.lr=0.001", "optim.steps=12", "tune.val_every=2",
    )  # fmt: skip
    before = RelationalModel.from_pretrained(checkpoint).state_dict()
    after = RelationalModel.from_pretrained(tmp_path / "seed-0" / "model").state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert not {key for key in moved if not key.startswith("backbone.")}  # nor the objectives
    assert not {key for key in moved if "decoder.layers" in key}
    encoder = {key for key in moved if key.startswith("backbone.row_encoder.")}
    assert bool(encoder) == (parts == "all")
    assert bool(moved - encoder) == (parts != "head")
    assert read_result(tmp_path)["steps"] > 0
    assert after["heads.0.out.weight"].abs().sum() > 0


def test_auto_parts() -> None:
    assert decide_parts("auto", "none", gpu=False) == "all"
    assert decide_parts("auto", "folder", gpu=False) == "graph"
    assert decide_parts("auto", "folder", gpu=True) == "all"
    assert decide_parts("head", "folder", gpu=True) == "head"


def test_refit(tmp_path: Path, task_shop: Path, task_cache: Path) -> None:
    for run, refit in (("a", "false"), ("b", "true")):
        tune_task(task_shop, "buys", task_cache, tmp_path / run, f"tune.refit={refit}")
    plain, again = (read_result(tmp_path / run) for run in ("a", "b"))
    for key in ("curve", "validation", "steps"):
        assert plain[key] == again[key]
    assert predicted(tmp_path / "a", "val").equals(predicted(tmp_path / "b", "val"))
    a, b = (predicted(tmp_path / run, "test") for run in ("a", "b"))
    assert not a.equals(b)
    assert a.drop(columns="prediction").equals(b.drop(columns="prediction"))


@pytest.mark.parametrize(
    "change",
    [
        "question.history=0",
        "question.graph=false",
        pytest.param("data.serialisation=text", marks=pytest.mark.slow),
        pytest.param("tune.reads=false", marks=pytest.mark.slow),
        pytest.param("tune.stale=false", marks=pytest.mark.slow),
        pytest.param("question.strategy=uniform", marks=pytest.mark.slow),
    ],
)
def test_ablations_run(tmp_path: Path, task_shop: Path, task_cache: Path, change: str) -> None:
    runs = {"a": "optim.steps=4", "b": change}
    for run, word in runs.items():
        tune_task(task_shop, "buys", task_cache, tmp_path / run, word)
    a, b = (predicted(tmp_path / run) for run in runs)
    assert np.isfinite(b["prediction"]).all()
    assert not a["prediction"].equals(b["prediction"])


def test_regressions_stay_within_the_range_of_training(
    tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    tune_task(task_shop, "spend", task_cache, tmp_path, "optim.lr=1", "optim.clip=0")
    label = open_task(open_database(task_shop), "spend").rows("train").label
    value = predicted(tmp_path)["prediction"]
    assert value.min() >= label.min()
    assert value.max() <= label.max()


def test_validation_rows_are_the_same_in_all_runs() -> None:
    assert np.array_equal(validation_rows(5, 10), np.arange(5))
    some = validation_rows(100, 10)
    assert np.array_equal(some, validation_rows(100, 10))
    assert some.size == np.unique(some).size == 10
    assert (np.diff(some) > 0).all()


def test_weights_decay_towards_where_they_began() -> None:
    layer = torch.nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(1.0)
    config = replace(OptimConfig(), lr=0.1, weight_decay=0.5)
    optimizer = make_tuning_optimizer(layer, config)
    with torch.no_grad():
        layer.weight.fill_(3.0)
        layer.bias.fill_(3.0)
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(layer.weight, torch.full((2, 2), 3.0 - 2.0 * 0.1 * 0.5))
    torch.testing.assert_close(layer.bias, torch.full((2,), 3.0))  # vectors do not decay
    for _ in range(500):
        optimizer.step()
    torch.testing.assert_close(layer.weight, torch.ones(2, 2))


def test_a_new_head_learns_faster() -> None:
    old, new = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    model = torch.nn.ModuleList([old, new])
    config = replace(OptimConfig(), lr=0.01, weight_decay=0.0)
    optimizer = make_tuning_optimizer(model, config, new, 4.0)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = [(a - b).detach() for a, b in zip(before, model.parameters(), strict=True)]
    for change, by in zip(moved, (0.01, 0.01, 0.04, 0.04), strict=True):
        torch.testing.assert_close(change, torch.full_like(change, by))


@pytest.mark.parametrize("name", ONE_OF_EACH_TYPE)
@pytest.mark.parametrize("parts", ["all", "graph", "head"])
@pytest.mark.parametrize("reads", [True, False])
def test_whatever_is_trained_gets_a_gradient(
    task_shop: Path, task_cache: Path, name: str, parts: Parts, reads: bool
) -> None:
    """Several processes wait for the gradients of all parameters that are trained."""
    asker = ask(task_shop, name, task_cache)
    model = build_model(BackboneConfig(), asker.tokenizer, 40, compiled=False)
    model.add_head(head_config(asker.sampler, reads))
    choose_parts(model, parts)
    batch = asker.training(np.zeros(0, np.int64), 1)[0]
    model.head.losses(model.backbone(batch), batch).mean().backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert not [n for n, p in trained if p.grad is None]
    assert any(n.startswith("heads.") for n, _ in trained)


def test_what_no_task_asks_for_is_never_trained(checkpoint: Path) -> None:
    model = RelationalModel.from_pretrained(checkpoint)
    model.add_head(HeadConfig("shop/buys", "binary_classification", 1))
    choose_parts(model, "all")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not {name for name in trained if name.startswith(("masked_row.", "link."))}
    assert not {name for name in trained if "decoder.layers" in name}
    assert any("encoder.layers" in name for name in trained)


def test_an_equal_validation_is_no_better_one(
    tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    """What learns nothing scores the same at every validation, and stays as it began."""
    steps = ("optim.steps=30", "tune.val_every=1", "tune.patience=3", "optim.lr=1e-30")
    for refit in ("false", "true"):  # there is no step to train once more
        run_dir = tmp_path / refit
        tune_task(task_shop, "spend", task_cache, run_dir, *steps, f"tune.refit={refit}")
        result = read_result(run_dir)
        assert len({score for _, score in result["curve"]}) == 1
        assert (result["steps"], result["curve"][-1][0]) == (0, 3)


@pytest.mark.parametrize(
    ("label", "least", "most"),
    [
        (np.linspace(-1, 1, 1001), 0.5, 0.5),  # never wider than half a standard deviation
        (np.random.default_rng(0).normal(3, 2, 10_000), 0.49, 0.5),
        (np.random.default_rng(0).lognormal(0, 2, 10_000), 0.05, 0.2),
        (np.array([0.0] * 99 + [9.0, np.nan]), 0.05, 0.05),
        (np.array([7.0] * 5), 0.05, 0.05),
    ],
)
def test_a_long_tail_narrows_what_is_quadratic(
    label: npt.NDArray[np.float64], least: float, most: float
) -> None:
    scale = target_scale(label)
    assert least <= scale["quadratic"] <= most
    assert scale["scale"] > 0
    assert scale["low"] <= scale["center"] <= scale["high"]


@pytest.mark.parametrize("name", ["buys", "likes"])
def test_which_heads_learn_faster(task_shop: Path, task_cache: Path, name: str) -> None:
    """Those that have not been pretrained."""
    asker = ask(task_shop, name, task_cache)
    model = build_model(BackboneConfig(), asker.tokenizer, 40, compiled=False)
    model.add_head(head_config(asker.sampler))
    asked = ask_all(asker.sampler, asker.asked("val", "rolling"))
    rows, optim = np.arange(len(asked.questions)), replace(OptimConfig(), lr=0.5)
    module = Finetuner(model, asker.task, "graph", optim, asked, rows, 0, head_lr_factor=3.0)
    groups = module.configure_optimizers()["optimizer"].param_groups
    rate = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    faster = {id(p) for p in model.head.parameters()} if name == "buys" else set()
    assert set(rate.values()) == ({0.5, 1.5} if faster else {0.5})
    assert {p for p, lr in rate.items() if lr > 0.5} == faster


@pytest.mark.parametrize("word", ["trainer.compile=true", "trainer.strategy=sharded"])
def test_what_tuning_cannot_do(
    tmp_path: Path, task_shop: Path, task_cache: Path, word: str
) -> None:
    with pytest.raises(ValueError, match="neither shards nor compiles"):
        tune_task(task_shop, "buys", task_cache, tmp_path, word, "optim.ema=0")


def test_another_checkpoint_under_the_same_name(
    tmp_path: Path, task_shop: Path, task_cache: Path, checkpoint: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    words = (f"checkpoint={folder}", "model.row_encoder.size=", "tune.parts=head")
    tune_task(task_shop, "buys", task_cache, tmp_path / "run", *words)
    model = RelationalModel.from_pretrained(folder)
    with torch.no_grad():
        model.backbone.hop.weight += 1
    model.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"other data, \['checkpoint'\] changed.*delete"):
        tune_task(task_shop, "buys", task_cache, tmp_path / "run", *words, "seeds=2")
