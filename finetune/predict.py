"""Predict a task's rows with a fine-tuned checkpoint.

python -m finetune.predict checkpoint=<folder> database=rel-f1 data.root=<folder> out=test.parquet
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.config import TaskData
from rfm.config import run_command, setting
from rfm.data.database import open_source
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Regime, open_task
from rfm.eval.asking import open_tuned
from rfm.eval.predict import ask_all, predict
from rfm.eval.predictions import METRICS, Predictions, score, write_predictions
from rfm.nn.model import RelationalModel
from rfm.train.process import quieten, set_up_cpu

_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class PredictConfig:
    """A fine-tuned checkpoint, and which rows it answers."""

    checkpoint: str = setting(help="a folder that `python -m finetune` wrote, or a Hub id")
    database: str = setting(help="a RelBench folder, a name under data.root, or on the Hub")
    out: Path = setting(help="parquet file of predictions, keyed by entity and time")
    task: str = setting("", help="default: the one that it was fine-tuned on")
    split: TaskSplit = "test"
    regime: Regime | None = setting(None, help="default: the one that it was fine-tuned in")
    data: TaskData = setting(factory=TaskData)


def answer(config: PredictConfig) -> dict[str, Any]:
    """Write the predictions, and score them."""
    quieten()
    set_up_cpu()
    model = RelationalModel.from_pretrained(config.checkpoint)
    tuned = model.about.get("finetuned")
    if tuned is None:
        raise ValueError(
            f"checkpoint {config.checkpoint} has not been fine-tuned: see `python -m finetune`"
        )
    name = tuned["task"].split("/", 1)[1]
    opened = open_source(config.database, config.data.root, config.data.kinds)
    task = open_task(opened, config.task or name)
    if task.full_name != tuned["task"]:
        _log.warning("the checkpoint was fine-tuned on %s, not %s", tuned["task"], task.full_name)
    regime: Regime = config.regime or tuned["regime"]
    sampler = open_tuned(model, task, config.data.cache)
    value = predict(model, ask_all(sampler, sampler.ask([config.split], regime)))
    predictions = Predictions.of(task, config.split, value)
    write_predictions(task, predictions, config.out)
    metric = METRICS[task.task_type]
    return {
        "out": config.out,
        "task": task.full_name,
        "split": config.split,
        "regime": regime,
        "rows": len(value),
        metric: score(task, config.split, predictions),
    }


if __name__ == "__main__":
    run_command(PredictConfig, answer, prog="python -m finetune.predict", doc=__doc__)
