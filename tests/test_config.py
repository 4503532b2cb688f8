"""The one grammar: dataclass < YAML < command line, and an error that says what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rfm.config import config_yaml, load_config, run_command, save_config, setting


@dataclass(frozen=True)
class Optim:
    lr: float = setting(1e-3, help="peak learning rate", gt=0)
    betas: tuple[float, float] = setting((0.9, 0.95), ge=0, lt=1)
    name: Literal["adamw", "muon"] = "adamw"
    warmup: int = 10
    steps: int = setting(1000, help="optimiser steps", ge=1)

    def __post_init__(self) -> None:
        if self.warmup > self.steps:
            raise ValueError(f"warmup {self.warmup} is longer than steps {self.steps}")


@dataclass(frozen=True)
class Part:
    name: str
    weight: float = setting(1.0, ge=0)


@dataclass(frozen=True)
class Config:
    optim: Optim = field(default_factory=Optim)
    fast: Optim = field(default_factory=lambda: Optim(lr=0.5))
    extra: Optim | None = None
    seed: int = setting(0, ge=0, help="of everything random")
    bf16: bool = False
    run_dir: Path = Path("runs/x")
    query: str = ""
    checkpoint: str | None = None
    fanout: tuple[int, ...] = setting((16, 8), ge=1)
    tasks: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=lambda: {"a": 1.0}, metadata={"ge": 0})
    parts: tuple[Part, ...] = ()
    named: dict[str, Part] = field(default_factory=dict)
    devices: int | Literal["auto"] = "auto"
    precision: Literal[16, 32] = 32


@dataclass(frozen=True)
class Needs:
    database: str
    task: str = setting(help="its name")


def load(*argv: str, cls: type[Any] = Config) -> Any:
    return load_config(cls, argv, prog="python -m x", doc="Does x.")


def test_defaults_alone() -> None:
    assert load() == Config()


def test_command_line_wins_over_yaml_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("optim: {lr: 2e-4, warmup: 3}\nseed: 5\nfanout: [4]\nparts: [{name: p}]\n")
    config = load("optim.lr=0.1", f"config={file}", "fanout=[2,3]")
    assert config.optim == Optim(lr=0.1, warmup=3)
    assert (config.seed, config.fanout) == (5, (2, 3))
    assert config.parts == (Part("p"),)


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("seed=1e3", "seed", 1000),
        ("bf16=true", "bf16", True),
        ("run_dir=2020", "run_dir", Path("2020")),
        ("query=PREDICT COUNT(a.*) > 0: [x = 'y'", "query", "PREDICT COUNT(a.*) > 0: [x = 'y'"),
        ("query=1.10", "query", "1.10"),
        ("checkpoint=none", "checkpoint", "none"),
        ("checkpoint=null", "checkpoint", None),
        ("tasks=[rel-f1/driver-dnf, b]", "tasks", ["rel-f1/driver-dnf", "b"]),
        ("weights={b: 2}", "weights", {"b": 2.0}),
        ("weights.rel-f1=2", "weights", {"a": 1.0, "rel-f1": 2.0}),
        ("parts=[{name: q, weight: 2}]", "parts", (Part("q", 2.0),)),
        ("named.q.name=z", "named", {"q": Part("z")}),
        ("devices=4", "devices", 4),
        ("devices=auto", "devices", "auto"),
        ("precision=16", "precision", 16),
        ("fast.name=muon", "fast", Optim(lr=0.5, name="muon")),
        ("extra.lr=2", "extra", Optim(lr=2.0)),
        ("extra={lr: 2}", "extra", Optim(lr=2.0)),
    ],
)
def test_values(word: str, key: str, value: object) -> None:
    result = getattr(load(word), key)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lt=1", r"optim\.lt: unknown key; did you mean 'optim\.lr'\? keys of optim: lr, be"),
        ("sede=1", r"sede: unknown key; did you mean 'seed'\? keys: optim"),
        ("warmup=1", r"did you mean 'optim\.warmup' or 'fast\.warmup' or 'extra\.warmup'\? keys"),
        ("extra={lrr: 1}", r"extra\.lrr: unknown key; did you mean 'extra\.lr'"),
        ("optim.lr=-1", r"optim\.lr: got -1.0, wanted a number > 0 \(set by the command line\)"),
        ("optim.lr=.nan", r"optim\.lr: got nan, wanted a number > 0"),
        ("optim.lr=big", r"optim\.lr: got 'big', wanted a number"),
        ("optim.lr=true", r"optim\.lr: got True, wanted a number"),
        ("optim.betas=[0.9]", r"optim\.betas: got \[0.9\], wanted \[a number, a number\]"),
        ("optim.betas=[0.9,1]", r"optim\.betas\[1\]: got 1.0, wanted a number >= 0 and < 1"),
        ("optim.name=adam", r"wanted adamw \| muon; did you mean 'adamw'"),
        ("optim.warmup=5000", r"optim: warmup 5000 is longer than steps 1000 \(set by the comm"),
        ("optim=3", r"optim: got 3, wanted keys lr, betas"),
        ("seed=1.5", r"seed: got 1.5, wanted a whole number"),
        ("seed=.inf", r"seed: got inf, wanted a whole number"),
        ("seed=", r"seed: got None, wanted a whole number"),
        ("seed.x=1", r"seed\.x: seed has no keys of its own; give seed=<a whole number>"),
        ("bf16=1", r"bf16: got 1, wanted true or false"),
        ("fanout=3", r"fanout: got 3, wanted a list of a whole number; .*fanout=\[a,b\]"),
        ("fanout=[0]", r"fanout\[0\]: got 0, wanted a number >= 1"),
        ("tasks=[1]", r"tasks\[0\]: got 1, wanted text; put it in quotes"),
        ("tasks=[a", r"tasks: cannot read '\[a'; wanted a list of text"),
        ("weights.b=-2", r"weights\.b: got -2.0, wanted a number >= 0"),
        ("parts=[{nam: q}]", r"parts\[0\]\.nam: unknown key; did you mean 'parts\[0\]\.name'"),
        ("parts=[{}]", r"parts\[0\]\.name: required; give parts\[0\]\.name=<text>"),
        ("devices=many", r"devices: got 'many', wanted a whole number or auto"),
        ("precision=8", r"precision: got 8, wanted 16 \| 32"),
        ("query=${x}", r"query: got '\$\{x\}'; there is no interpolation"),
        ("fast", r"'fast' is not key=value"),
        ("a.yaml", r"'a.yaml' is not config=a.yaml"),
        ("--seed=1", r"unknown flag '--seed=1'; write seed=1"),
    ],
)
def test_refusals(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load(word)
    assert str(caught.value).startswith("python -m x: ")


def test_a_key_is_given_once() -> None:
    with pytest.raises(ValueError, match="sets 'seed' a second time"):
        load("seed=1", "seed=2")
    with pytest.raises(ValueError, match="sets 'weights' a second time"):
        load("weights={a: 1}", "weights.b=2")


def test_similar_keys_do_not_clash() -> None:
    assert load("seed=1", "optim.steps=20", "optim.lr=1").optim.steps == 20


def test_required_keys() -> None:
    with pytest.raises(ValueError, match="database: required; give database=<text>"):
        load(cls=Needs)
    with pytest.raises(ValueError, match="task: required"):
        load("database=x", cls=Needs)
    assert load("database=x", "task=y", cls=Needs) == Needs("x", "y")


def test_yaml_errors_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    with pytest.raises(ValueError, match=r"no file '.*b\.yaml'"):
        load(f"config={tmp_path / 'b.yaml'}")
    for text, message in [
        ("optim: {lr: -1}", r"optim\.lr: .* \(set by .*a\.yaml\)"),
        ("optim: {lrr: 1}", r"optim\.lrr: unknown key; .* \(set by .*a\.yaml\)"),
        ("optim.lr: 1", r"optim\.lr: unknown key"),
        ("query: 1.10", r"query: got 1.1, wanted text; put it in quotes"),
        ("- 1", "must hold `key: value` lines"),
        ("a: [", "cannot read .* as YAML"),
        ("seed: 1\nseed: 2", "cannot read .* as YAML"),
        ("query: ${a", "cannot read .* as YAML"),
        ("optim: null", "optim: got None, wanted keys"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            load(f"config={file}")
    file.write_text("")
    assert load(f"config={file}") == Config()
    with pytest.raises(ValueError, match=r"there are .*a\.yaml"):
        load(f"config={tmp_path / 'b.yaml'}")


def test_yaml_mapping_replaces_and_dotted_key_sets_one(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("weights: {b: 2}")
    assert load(f"config={file}").weights == {"b": 2.0}
    assert load(f"config={file}", "weights.c=3").weights == {"b": 2.0, "c": 3.0}


def test_print_config_reads_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("optim.lr=1e-5", "parts=[{name: 'no'}]", "weights.b=3", "extra.lr=1", "query='1'")
    with pytest.raises(SystemExit) as caught:
        load(*words, "--print-config")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    config = load(*words)
    assert printed == config_yaml(config)
    save_config(config, tmp_path / "new" / "config.yaml")
    assert load(f"config={tmp_path / 'new' / 'config.yaml'}") == config
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["config.yaml"]


def test_help_shows_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m x [config=<yaml>] [key=value ...]")
    assert "Does x." in text
    for part in ["optim.lr ", "= 0.001", "peak learning rate  [> 0]", "fast.lr", "= 0.5",
                 "adamw | muon", "parts[].weight", "named.<name>.name", "extra.lr"]:  # fmt: skip
        assert part in text, part
    with pytest.raises(SystemExit):
        load("--help", cls=Needs)
    assert "(required)" in capsys.readouterr().out


def test_run_command_prints_one_json_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "RFM_TRACEBACK"):
        monkeypatch.delenv(name, raising=False)

    def main(config: Config) -> Mapping[str, Any]:
        print("noise")
        if config.seed == 13:
            raise ValueError("seed 13 is unlucky")
        return {"seed": config.seed, "auc": np.float32(0.5), "bad": float("nan"), "dir": Path("a")}

    run_command(Config, main, prog="x", doc=None, argv=["seed=3"])
    out, err = capsys.readouterr()
    assert json.loads(out) == {"seed": 3, "auc": 0.5, "bad": None, "dir": "a"}
    assert out.count("\n") == 1
    assert err == "noise\n"

    for argv, message in [(["seed=13"], "error: seed 13 is unlucky"), (["sed=1"], "error: x: sed")]:
        with pytest.raises(SystemExit) as caught:
            run_command(Config, main, prog="x", doc=None, argv=argv)
        out, err = capsys.readouterr()
        assert (caught.value.code, out) == (2, "")
        assert message in err
        assert "Traceback" not in err
    monkeypatch.setenv("RFM_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["x", "seed=13"])
    with pytest.raises(SystemExit):
        run_command(Config, main, prog="x", doc=None)
    assert "Traceback" in capsys.readouterr().err
    for launcher in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        for rank, prints in (("0", True), ("1", False)):
            monkeypatch.setenv(launcher, rank)
            run_command(Config, main, prog="x", doc=None, argv=[])
            assert bool(capsys.readouterr().out) == prints
        monkeypatch.delenv(launcher)
