"""How long a zero-shot answer takes, once the database is prepared and the model loaded.

    python -m benchmarks.zero_shot_timing checkpoint=<folder> data.root=<folder>

Times, each the median of several: one question with its examples encoded for it; one more question
beside examples that are encoded already; and all rows of the test split.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.zero_shot import ZeroShotData
from rfm.config import run_command, setting
from rfm.data.database import open_source
from rfm.data.laid import LaidTask
from rfm.data.tasks import Regime, open_task
from rfm.eval.zero_shot import ContextConfig, ZeroShot, in_context
from rfm.nn.in_context import Examined
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating
from rfm.train.process import quieten, set_up_cpu


@dataclass(frozen=True)
class TimingConfig:
    """What is asked."""

    checkpoint: str = setting(help="a folder or a Hub id")
    database: str = setting("rel-f1", help="a RelBench folder, or a name under data.root")
    task: str = "driver-dnf"
    regime: Regime = "rolling"
    context: int = setting(256, ge=1, help="examples")
    repeats: int = setting(5, ge=1)
    ask: ContextConfig = setting(factory=ContextConfig)
    data: ZeroShotData = setting(factory=ZeroShotData)


@torch.no_grad()
def time_answers(config: TimingConfig) -> dict[str, Any]:
    """Seconds."""
    quieten()
    set_up_cpu()
    model = RelationalModel.from_pretrained(config.checkpoint)
    task = open_task(open_source(config.database, config.data.root, config.data.kinds), config.task)
    reader = {"own": in_context(model)}

    def opened() -> ZeroShot:
        return ZeroShot(model, task, config.data.cache, config.ask)

    asker = opened()
    support = asker.known("test")[-config.context :]
    cutoff = task.cutoffs("test", config.regime)[:1]
    number = asker.number("test")[:1]

    def one() -> None:
        another(*encoded())

    def encoded() -> tuple[LaidTask, Examined]:
        laid = asker.lay("test")
        return laid, asker.examine(laid, support, asker.rows.time[support], support.size)

    def another(laid: LaidTask, shown: Examined) -> None:
        asked = asker.examine(laid, number, cutoff, 0)
        reader["own"](shown.followed_by(asked))

    with evaluating(model):
        beside = encoded()
        seconds = {
            "one question": _median(config, one),
            "one more question": _median(config, lambda: another(*beside)),
        }
    askers = iter([opened() for _ in range(config.repeats + 1)])  # each encodes anew
    seconds["all test rows"] = _median(
        config, lambda: next(askers).ask("test", config.regime, config.context, 0, reader)
    )
    return {
        "rows": len(task.rows("test")),
        "examples": int(support.size),
        "threads": torch.get_num_threads(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _median(config: TimingConfig, run: Callable[[], Any]) -> float:
    """Of several runs, after one that does not count."""
    taken = []
    for _ in range(config.repeats + 1):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return float(np.round(median(taken[1:]), 6))


if __name__ == "__main__":
    run_command(
        TimingConfig, time_answers, prog="python -m benchmarks.zero_shot_timing", doc=__doc__
    )
