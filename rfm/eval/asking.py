"""From a model and a task to the questions that the model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfm.config_types import build
from rfm.data.attach import attach_task
from rfm.data.prepare import prepare
from rfm.data.questions import QuestionConfig, QuestionSampler
from rfm.data.recommend import RecommendSampler
from rfm.data.serialise import TokenIds
from rfm.data.store import RowStore, schema_words
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Task, check_seed_times
from rfm.data.tokenizer import Tokenizer
from rfm.eval.row_cache import cache_rows
from rfm.nn.model import RelationalModel

_ALIKE = 0.5


def open_questions(
    model: RelationalModel, task: Task, config: QuestionConfig, cache: Path, cached: bool
) -> QuestionSampler:
    """The task attached, prepared as the model reads it, and ready to be asked.

    Args:
        cache: folder of prepared data.
        cached: take the states of all rows but the task's own from the model's row encoder once and
            for all, and keep them on disk; else they are encoded whenever they are sampled.

    Raises:
        ValueError: see ``Task.rows``; for seed times that are all before the database begins.
    """
    tokenizer = Tokenizer.from_json(model.tokenizer)
    attached = attach_task(task, cache, entity_cells=not config.graph)
    serialisation = model.about.get("serialisation", "compact")
    store = prepare(attached.database, tokenizer, cache, serialisation)
    check_seed_times(task)
    ids = TokenIds.of(tokenizer)
    states = None
    if cached and config.graph:
        encoder, name = model.backbone.row_encoder, attached.table
        states = cache_rows(encoder, [store], ids, cache, config.max_tokens, but=[name])
    kind = RecommendSampler if task.task_type == "recommendation" else QuestionSampler
    return kind(attached, store, ids, model.settings.hops, config, states)


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


def anchor_of(task: Task, split: TaskSplit) -> int:
    """Until when the labels of examples are known, unix seconds: the timestamp at which a split
    begins, or its first question, if that is earlier."""
    database = task.database
    begin = database.val_timestamp if split == "val" else database.test_timestamp
    return min(begin, int(task.rows(split).time.min()))


def seen_before(about: Mapping[str, Any], task: Task) -> tuple[str, ...]:
    """What a reader of a score must know of a checkpoint's pretraining: warnings, none if the
    database was not part of it.

    Args:
        about: the checkpoint's card (``RelationalModel.about``).
    """
    name = task.database.name
    tuned = about.get("finetuned", {}).get("task", "")
    for one in (*about.get("finetuned_before", ()), tuned):
        if one.split("/")[0] == name:
            return (f"the checkpoint was fine-tuned on {one}, a task of this very database",)
    if name not in about.get("databases", {}):
        return ()
    until = about.get("training_until", {}).get(name)
    if until is not None and int(until) > task.database.test_timestamp:
        return (
            f"the checkpoint was pretrained on {name} and on rows later than its test timestamp: "
            "test scores are worthless",
        )
    return (
        f"the checkpoint was pretrained on {name} (rows up to its validation timestamp): no score "
        "is that of a database never seen",
    )


def schema_seen(about: Mapping[str, Any], store: RowStore) -> tuple[str, ...]:
    """Says which pretraining databases share more than half of their columns' names with a
    database: of a kind that the checkpoint knows, though it has never seen this one.

    Args:
        about: the checkpoint's card (``RelationalModel.about``).
    """
    own = set(schema_words(store))
    alike = [
        name
        for name, words in sorted(about.get("schemas", {}).items())
        if len(own & {*words}) > _ALIKE * len(own | {*words})
    ]
    if not alike:
        return ()
    return (
        f"schema seen: the checkpoint was pretrained on databases of the same kind as {store.name} "
        f"({', '.join(alike)})",
    )
