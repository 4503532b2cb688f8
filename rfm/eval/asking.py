"""From a model and a task to the questions that the model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
