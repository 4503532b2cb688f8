"""Every YAML in configs/: it loads, and what it describes runs when shrunken."""

from __future__ import annotations

import math
from operator import attrgetter
from pathlib import Path

import pytest

from benchmarks.finetuned import FinetunedConfig
from benchmarks.zero_shot import ZeroShotConfig
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig
from rfm.config import load_config
from rfm.train.metrics import read_metrics
from tests.conftest import ROOT
from tests.tiny_run import run
from tests.tiny_tuning import tune_task

ALL = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))
TUNING = sorted((ROOT / "configs" / "finetune").glob("*.yaml"))
BENCHMARKS = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))
KEPT_OUT = {"rel-f1", "completejourney", "se-quantumcomputing"}


def load(path: Path) -> PretrainConfig:
    return load_config(PretrainConfig, [f"config={path}"], prog="test", doc=None)


def test_configs_are_few() -> None:
    found = list((ROOT / "configs").rglob("*.yaml"))
    assert {"small.yaml", "base.yaml"} <= {path.name for path in ALL}
    assert len(found) <= 12
    assert {path.parent.name for path in found} <= {"pretrain", "finetune", "benchmarks"}


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_it_loads(path: Path) -> None:
    config = load(path)
    assert config != PretrainConfig()
    assert config.optim.warmup < config.optim.steps
    assert len(config.data.databases) == len(set(config.data.databases))
    assert not KEPT_OUT & {Path(name).name for name in config.data.databases}


@pytest.mark.realdata
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_its_databases_are_the_mixture(path: Path, real_data: Path) -> None:
    """Every database that is there, but those kept for evaluation."""
    there = {p.parent.name for p in real_data.glob("*/manifest.yaml")}
    assert set(load(path).data.databases) == there - KEPT_OUT


@pytest.mark.parametrize(
    "path",
    [p if p.stem == "small" else pytest.param(p, marks=pytest.mark.slow) for p in ALL],
    ids=lambda path: path.stem,
)
def test_it_runs_shrunken(path: Path, tiny_cache: Path, tmp_path: Path) -> None:
    config = load(path)
    assert config.data.databases
    few = [min(n, 2) for n in config.batch.fan_out]
    shrunken = (
        "data.databases=[]", "data.weights={}", "data.root=null", "data.synthetic_rows=2500",
        "optim.steps=2", f"batch.fan_out={few}", f"batch.link_fan_out={few}",
    )  # fmt: skip
    began = f"model.hops={len(few)}"
    if config.checkpoint != "none":
        run(tiny_cache, tmp_path / "before", *shrunken, began)
        began = f"checkpoint={tmp_path / 'before' / 'model'}"
        shrunken = (*shrunken, "data.vocab_size=8192")  # the checkpoint's
    said = run(tiny_cache, tmp_path / "a", f"config={path}", *shrunken, began)
    assert said["steps"] == 2
    losses = [v for _, name, v in read_metrics(tmp_path / "a" / "metrics.csv") if "loss" in name]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))


@pytest.mark.parametrize("path", TUNING, ids=lambda path: path.stem)
@pytest.mark.usefixtures("no_trace")
def test_tuning_runs_shrunken(
    path: Path, task_shop: Path, task_cache: Path, tmp_path: Path
) -> None:
    said = tune_task(
        task_shop, "buys", task_cache, tmp_path / "a", f"config={path}", "question.history=",
        "question.max_tokens=48", "optim.steps=2",
    )  # fmt: skip
    assert said["seeds"] == [0]
    assert 0 <= said["test"]["mean"] <= 1


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_loads(path: Path) -> None:
    """Every word of every method."""
    words = [f"config={path}", "checkpoint=runs/real/model"]
    if path.stem == "zero_shot":
        asked = load_config(ZeroShotConfig, words, prog="test", doc=None)
        assert len(asked.tasks) == len(set(asked.tasks)) >= 3
        return
    config = load_config(FinetunedConfig, words, prog="test", doc=None)
    assert len(config.tasks) == len(set(config.tasks)) >= 3
    for method in config.methods.values():
        given = [*method, "database=rel-f1", "task=driver-dnf"]
        tuning = load_config(FinetuneConfig, given, prog="test", doc=None)
        assert tuning.checkpoint in {"none", *(word.partition("=")[2] for word in method)}
        for key, value in (word.split("=") for word in method):
            assert str(attrgetter(key)(tuning)).lower() == value
