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
from rfm.config_types import build
from rfm.data.database import open_source
from rfm.data.questions import QuestionConfig, QuestionSampler
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Regime, Task, open_task
from rfm.eval.asking import open_questions
from rfm.eval.predict import ask_all, predict
from rfm.eval.predictions import METRICS, Predictions, score, write_predictions
from rfm.nn.model import RelationalModel
from rfm.train.trainer import quieten, set_up_cpu

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


def open_tuned(model: RelationalModel, task: Task, cache: Path) -> QuestionSampler:
    """The questions of a task, as a fine-tuned model was asked them.

    Raises:
        ValueError: if the model's head answers another type of task, or is told other things.
    """
    head, tuned = model.head.config, model.about["finetuned"]
    outputs = task.top_k or task.outputs
    if (head.task_type, head.outputs) != (task.task_type, outputs):
        raise ValueError(
            f"the checkpoint answers {head.task_type} with {head.outputs} numbers, but "
            f"{task.full_name} is {task.task_type} and wants {outputs}"
        )
    config = build(QuestionConfig, tuned["question"], "question", None)
    sampler = open_questions(model, task, config, cache, tuned["cached"])
    told = sampler.tell(head.center, head.scale) if head.told else 0
    if told != head.told:
        raise ValueError(
            f"the checkpoint's head is told {head.told} numbers, but {task.full_name} has {told} "
            "to tell: was it fine-tuned on a database with other foreign keys or columns, or by "
            "an older version? Fine-tune it on this one"
        )
    return sampler


if __name__ == "__main__":
    run_command(PredictConfig, answer, prog="python -m finetune.predict", doc=__doc__)
