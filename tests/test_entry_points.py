"""The commands as typed: help, config, bad keys, and one JSON object at the end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pretrain.__main__ import pretrain
from pretrain.config import PretrainConfig
from rfm.config import run_command
from tests.tiny_run import ROOT, command, environment, words


def typed(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*argv), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240
    )


def in_process(*argv: str) -> int:
    """The same without a process of its own; the exit code."""
    try:
        run_command(PretrainConfig, pretrain, prog="python -m pretrain", doc="", argv=argv)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_run_ends_with_one_json_object(tiny_cache: Path, tmp_path: Path) -> None:
    done = typed(*words(tiny_cache, tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # nothing but the object
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["run_dir"] == str(tmp_path / "a")
    assert said["model"] == str(tmp_path / "a" / "model")
    assert said["steps"] == 4
    assert set(said["validation"]) <= {"value", "text", "link"}
    assert "step 4/4" in done.stderr
    assert "Validation (rolling): rows between" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


def test_help_shows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_process("--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("usage: python -m pretrain [config=<yaml>] [key=value ...]")
    for key in (
        "run_dir", "seed", "resume", "data.root", "data.databases", "batch.masked_groups",
        "model.row_encoder.size", "model.graph_sage.aggregations", "loss.value", "optim.lr",
        "trainer.devices", "log.wandb",
    ):  # fmt: skip
        assert f"\n  {key} " in out, key
    assert "tiny | small | base | large" in out
    assert "[> 0]" in out


def test_print_config_can_be_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(tmp_path / "cache", tmp_path / "run", "optim.lr=0.5")
    assert in_process(*given, "--print-config") == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["optim"]["lr"] == 0.5
    (tmp_path / "config.yaml").write_text(text)
    assert in_process(f"config={tmp_path / 'config.yaml'}", "--print-config") == 0
    assert capsys.readouterr().out == text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.learning_rat=1", "keys of optim: "),
        ("optim.step=5", "did you mean 'optim.steps'?"),
        ("bach.max_rows=5", "did you mean 'batch'?"),
        ("optim.steps=many", "optim.steps: got 'many', wanted a whole number"),
        ("optim.steps=2.5", "optim.steps: got 2.5, wanted a whole number"),
        ("optim.lr=0", "optim.lr: got 0.0, wanted a number > 0"),
        ("data.temperature=1.5", "data.temperature: got 1.5, wanted a number >= 0 and <= 1"),
        ("model.row_encoder.size=tinny", "did you mean 'tiny'?"),
        ("log.wandb=on", "wanted offline | online | disabled"),
        ("batch.fan_out=[8]", "wanted one number per hop in each"),
        ("model.hops=3", "wanted one fan-out per hop"),
        ("batch.max_tokens=300", "is more than model.row_encoder.max_positions=256"),
        ("episodes.per_batch=1 episodes.max_tokens=300", "episodes.max_tokens=300 is more than"),
        ("loss.value=0 loss.text=0 loss.link=0", "value, text and link are all 0"),
        ("checkpoint=x model.hops=3", "checkpoint=x brings its own model: leave model.* out"),
        ("checkpoint=nowhere data.vocab_size=8192", "'nowhere' is neither a local folder"),
        ("batch.masked_groups=0 batch.link_groups=0", "a batch must ask something"),
        ("model.graph_sage.aggregations=[]", "wanted one or more, each once"),
        ("config=nowhere.yaml", "no file 'nowhere.yaml'; there are configs/"),
        ("data.databases=[nowhere]", "nowhere"),
        ("data.weights.nowhere=2", "weights of unknown databases ['nowhere']"),
        ("data.synthetic=0", "no databases: name some in data.databases"),
        ("data.kinds=nowhere.yaml", "data.kinds=nowhere.yaml: wanted a YAML file"),
        ("seed=4294967296", "seed: got 4294967296, wanted a number >= 0 and < 4294967296"),
        ("optim.lr=.inf", "optim.lr: got inf, wanted a number > 0"),
        ("resume=atuo", "resume=atuo: no such checkpoint; wanted auto, never"),
        ("trainer.strategy=sharded", "set optim.ema=0"),
        ("--resume", "unknown flag '--resume'; write resume=<value>"),
        ("small.yaml", "'small.yaml' is not config=small.yaml"),
    ],
)
def test_bad_words_are_refused(
    word: str,
    message: str,
    tiny_cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One clear error on standard error, exit code 2, and nothing written."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(ROOT)
    if word.startswith(("--", "small", "config=")):
        given = [word]
    else:
        given = words(tiny_cache, tmp_path / "run", *word.split())
    assert in_process(*given) == 2
    out, err = capsys.readouterr()
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "RFM_TRACEBACK=1 shows where" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["data.cache", "run_dir"])
def test_a_folder_within_a_file(
    key: str, tiny_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").write_text("mine")
    given = words(tiny_cache, tmp_path / "run", f"{key}={tmp_path / 'taken' / 'x'}")
    assert in_process(*given) == 2
    err = capsys.readouterr().err
    assert f"error: {tmp_path / 'taken' / 'x'}" in err
    assert "choose another folder (run_dir=, data.cache= or out=)" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("key", ["data.cache", "run_dir"])
def test_a_file_is_no_folder(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "taken").write_text("mine")
    folders = {"data.cache": tmp_path / "cache", "run_dir": tmp_path / "run"}
    folders[key] = tmp_path / "taken"
    assert in_process(*(f"{k}={path}" for k, path in folders.items())) == 2
    assert "is a file: give a folder" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"
