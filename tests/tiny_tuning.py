"""Fine-tuning runs that take a second or two: the shop's tasks, a tiny BART, a few steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file

from finetune.__main__ import finetune
from finetune.config import FinetuneConfig
from rfm.config import load_config

TINY = (
    "data.vocab_size=400",
    "question.children=4",
    "question.history=6",
    "question.max_rows=20",
    "question.max_tokens=32",
    "question.size=8",
    "question.eval_size=40",
    "question.bucket_rows=8",
    "tune.val_every=2",
    "optim.steps=4",
    "optim.warmup=1",
    "model.row_encoder.size=tiny",
    "trainer.accelerator=cpu",
    "trainer.devices=1",
    "trainer.precision=fp32",
    "data.workers=0",
)


def words(folder: Path, task: str, cache: Path, run_dir: Path, *more: str) -> list[str]:
    """The command line of a tiny run from random weights; ``more`` replaces keys, adds others, or
    (``key=``, with nothing) leaves keys out."""
    given = ["checkpoint=none", f"database={folder}", f"task={task}", f"data.cache={cache}"]
    keys: dict[str, str] = {}
    for word in [*given, f"run_dir={run_dir}", *TINY, *more]:
        key, _, value = word.partition("=")
        keys[key] = value
    return [f"{key}={value}" for key, value in keys.items() if value]


def configure(folder: Path, task: str, cache: Path, run_dir: Path, *more: str) -> FinetuneConfig:
    argv = words(folder, task, cache, run_dir, *more)
    return load_config(FinetuneConfig, argv, prog="finetune", doc=None)


def tune_task(folder: Path, task: str, cache: Path, run_dir: Path, *more: str) -> dict[str, Any]:
    """Run in this process; what a run does to logging and randomness is undone."""
    root, ours = logging.getLogger(), logging.getLogger("rfm")
    handlers, level, our_level = root.handlers[:], root.level, ours.level
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    root.handlers.clear()  # or the run would close them
    try:
        return finetune(configure(folder, task, cache, run_dir, *more))
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        ours.setLevel(our_level)
        torch.set_num_threads(threads)
        torch.set_rng_state(random)


def predicted(run_dir: Path, split: str = "test", seed: int = 0) -> pd.DataFrame:
    return pd.read_parquet(run_dir / f"seed-{seed}" / f"{split}.parquet")


def tuned_weights(run_dir: Path, seed: int = 0) -> dict[str, torch.Tensor]:
    return dict(load_file(run_dir / f"seed-{seed}" / "model" / "model.safetensors"))
