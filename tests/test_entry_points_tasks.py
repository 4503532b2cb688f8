"""`python -m finetune` and `python -m finetune.predict` as typed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from finetune.__main__ import finetune
from finetune.config import FinetuneConfig
from rfm.config import run_command
from tests.tiny_run import ROOT, command, environment
from tests.tiny_tuning import words


def typed(module: str, *argv: str) -> dict[str, Any]:
    """The JSON object that a command ends with."""
    done = subprocess.run(
        command(*argv, module=module),
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # nothing but the object
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def in_process(*argv: str) -> int:
    """The exit code of a command in this process."""
    try:
        run_command(FinetuneConfig, finetune, prog="python -m finetune", doc="", argv=argv)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.slow
def test_tune_and_predict(task_shop: Path, task_cache: Path, tmp_path: Path) -> None:
    said = typed("finetune", *words(task_shop, "buys", task_cache, tmp_path / "run", "seeds=2"))
    assert said["run_dir"] == str(tmp_path / "run")
    assert (said["task"], said["regime"], said["metric"]) == ("shop/buys", "frozen", "roc_auc")
    assert said["seeds"] == [0, 1]
    for part in ("validation", "test"):
        assert set(said[part]) == {"mean", "std"}
        assert said[part]["std"] is not None
    model, out = tmp_path / "run" / "seed-1" / "model", tmp_path / "again.parquet"
    again = typed(
        "finetune.predict", f"checkpoint={model}", f"database={task_shop}",
        f"data.cache={task_cache}", f"out={out}",
    )  # fmt: skip
    assert again["out"] == str(out)
    first = pd.read_parquet(tmp_path / "run" / "seed-1" / "test.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(out), first)


def test_help_shows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process("--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: python -m finetune [config=<yaml>] [key=value ...]")
    for key in (
        "checkpoint", "database", "task", "regime", "run_dir", "seed", "seeds", "data.root",
        "data.kinds", "question.history", "question.graph", "tune.parts", "tune.refit", "optim.lr",
        "model.row_encoder.size", "trainer.devices", "wandb",
    ):  # fmt: skip
        assert f"\n  {key} " in out, key
    assert "frozen | rolling" in out


def test_print_config_can_be_read_back(
    task_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(task_shop, "buys", tmp_path / "cache", tmp_path / "run", "regime=rolling")
    assert in_process(*given, "--print-config") == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["regime"] == "rolling"
    (tmp_path / "config.yaml").write_text(text)
    assert in_process(f"config={tmp_path / 'config.yaml'}", "--print-config") == 0
    assert capsys.readouterr().out == text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["checkpoint", "database", "task"])
def test_what_must_be_given(
    task_shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    given = words(task_shop, "buys", tmp_path / "cache", tmp_path / "run", f"{missing}=")
    assert in_process(*given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert missing in next(line for line in err.splitlines() if line.startswith("error: "))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["buys", "likes"])
def test_two_processes(task_shop: Path, task_cache: Path, tmp_path: Path, task: str) -> None:
    """Each trains on its own batches and validates its share; one of them writes."""
    argv = words(
        task_shop, task, task_cache, tmp_path / "run", "trainer.devices=2", "tune.parts=graph"
    )
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
            "-m", "finetune", *argv,
        ],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["run_dir"] == str(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "seed-0" / "result.json").read_text())
    assert result["test"] == said["test"]["mean"]
    frame = pd.read_parquet(tmp_path / "run" / "seed-0" / "test.parquet")
    assert len(frame) == len(pd.read_parquet(task_shop / "tasks" / task / "test.parquet"))
