"""Pretraining runs that take a second or two: tiny databases, a tiny BART, a few steps."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pretrain.__main__ import pretrain
from pretrain.config import PretrainConfig
from rfm.config import load_config

ROOT = Path(__file__).parents[1]
SMALL_DATA = ("data.synthetic=2", "data.synthetic_rows=600", "data.vocab_size=400")
SMALL_BATCHES = (
    "batch.masked_groups=1",
    "batch.masked_seeds=4",
    "batch.link_queries=4",
    "batch.negatives=5",
    "batch.fan_out=[2,1]",
    "batch.link_fan_out=[1,1]",
    "batch.max_rows=8",
    "batch.max_tokens=32",
    "batch.bucket_rows=4",
    "model.row_encoder.size=tiny",
)
FEW_STEPS = (
    "optim.steps=4",
    "optim.warmup=1",
    "log.every=1",
    "log.val_every=4",
    "log.val_batches=1",
    "log.final_batches=1",
    "log.wandb=disabled",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
)


def words(cache: Path, run_dir: Path, *more: str) -> list[str]:
    """The command line of a tiny run; ``more`` replaces keys and adds others."""
    given = [f"data.cache={cache}", f"run_dir={run_dir}", *SMALL_DATA, *SMALL_BATCHES, *FEW_STEPS]
    keys: dict[str, str] = {}
    for word in [*given, *more]:
        key, _, value = word.partition("=")
        keys[key] = value
    asked = [word.partition("=")[0] for word in more]
    if keys.get("data.databases", "[]") != "[]" and "data.synthetic" not in asked:
        del keys["data.synthetic"]  # they would come besides
    return [f"{key}={value}" for key, value in keys.items()]


def configure(cache: Path, run_dir: Path, *more: str) -> PretrainConfig:
    return load_config(PretrainConfig, words(cache, run_dir, *more), prog="pretrain", doc=None)


def run(cache: Path, run_dir: Path, *more: str) -> dict[str, Any]:
    """Run in this process; what a run does to logging and randomness is undone."""
    root, ours = logging.getLogger(), logging.getLogger("rfm")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    random = torch.get_rng_state()
    root.handlers.clear()  # or the run would close them
    try:
        return pretrain(configure(cache, run_dir, *more))
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.setLevel(our_level)
        torch.set_rng_state(random)


def environment() -> dict[str, str]:
    """Of a run in a process of its own: offline, one thread, this checkout first on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RANK", "LOCAL_", "WORLD_"))}
    path = os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")]))
    fixed = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    return {**kept, **fixed}


def command(*argv: str, ranks: int = 1, module: str = "pretrain") -> list[str]:
    """``python -m pretrain`` or, with several ranks, ``torchrun ... -m pretrain``."""
    if ranks == 1:
        return [sys.executable, "-m", module, *argv]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc_per_node={ranks}", "-m", "pretrain", *argv]


def start(cache: Path, run_dir: Path, *more: str, ranks: int = 1) -> subprocess.Popen[str]:
    """Start a tiny run in a process of its own."""
    argv = words(cache, run_dir, f"trainer.devices={ranks}", *more)
    return subprocess.Popen(
        command(*argv, ranks=ranks),
        cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 240) -> dict[str, Any]:
    """Wait for a run that must succeed; the JSON object of its output."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, err
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def saved_weights(run_dir: Path) -> dict[str, Any]:
    """Of the model that a run saved."""
    return dict(load_file(run_dir / "model" / "model.safetensors"))


def last_state(run_dir: Path, step: int) -> dict[str, Any]:
    """The checkpoint at a step: weights (averaged and not), optimiser, schedule, loops."""
    path = run_dir / "checkpoints" / f"step-{step:06d}.ckpt"
    state: dict[str, Any] = torch.load(path, weights_only=False)
    return state


def differences(a: Any, b: Any, at: str = "") -> list[str]:
    """Where two nested states are not the same bit for bit."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
        return [] if same else [at]
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return [f"{at}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [d for k in a for d in differences(a[k], b[k], f"{at}.{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [d for i in range(len(a)) for d in differences(a[i], b[i], f"{at}[{i}]")]
    return [] if a == b else [f"{at}: {a!r} != {b!r}"]
