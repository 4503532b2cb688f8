"""Answers to a posed query, as a table that speaks in the database's own keys."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from rfm.data.batch import MAX_CLASSES
from rfm.data.database import Database
from rfm.data.label_history import Floats
from rfm.data.original_keys import keys_of_rows, original_keys
from rfm.data.questions import QuestionSampler
from rfm.data.schema import shown_time
from rfm.eval.ask_config import AskConfig as AskConfig
from rfm.eval.asking import open_tuned, schema_seen, seen_before
from rfm.eval.fitted import check_answers_others, what_is_learnt
from rfm.eval.many_classes import check_examples_wanted, merged
from rfm.eval.posing import Posed, check_observed, compiled_at, pose
from rfm.eval.predict import ask_all, predict
from rfm.eval.predictions import ANCHOR, HIGH, LABEL, LOW, PREDICTION, PROBABILITY
from rfm.eval.zero_shot import (
    ZeroShot,
    ZeroShotRecommendation,
    in_context,
    open_zero_shot,
)
from rfm.nn.model import RelationalModel

_log = logging.getLogger("rfm")
_ANSWERS = (ANCHOR, PREDICTION, LOW, HIGH, PROBABILITY, LABEL, "top_signal", "explanation")
_PRECISE = 4e-7  # of single precision: some roundings
SHARES = (0.5, 0.1, 0.9)  # of numbers: the median, and between what 80 % of the outcomes lie


@dataclass(frozen=True, eq=False)
class Answers:
    """value [n, C] to what a posed query asks: the probability of 1 (binary, C = 1), of each class,
    a number's median, low and high, or the best rows of the destination table. examples: how many
    they are made of. warnings: what a reader must know. worth: of the asker's classes, what share
    of its chance the likeliest class has that it stands for; empty: all of it."""

    posed: Posed
    config: AskConfig
    value: Floats
    examples: int
    warnings: tuple[str, ...]
    asker: ZeroShot | ZeroShotRecommendation | QuestionSampler
    worth: tuple[float, ...] = ()


def ask_query(
    model: RelationalModel,
    database: Database,
    query: str,
    at: Any,
    entities: Sequence[Any] | None,
    config: AskConfig,
) -> Answers:
    """Answers to a query about a database at an anchor time (see ``compiled_at``), about entities
    with some keys (see ``pose``).

    Raises:
        QueryError: for a query that cannot be read.
        ValueError: see ``pose`` and ``ask``.
    """
    compiled, seen, moment = compiled_at(query, database, at)
    learnt = what_is_learnt(model, compiled, seen)
    posed = pose(compiled, seen, moment, listed_keys(entities), learnt)
    _log.info("labels known by %s: %s", shown_time(moment), posed.counts.words())
    for key, why in posed.left_out.items():
        _log.warning("%r %s: left out", key, why)
    answers = ask(model, posed, config)
    said = (*check_observed(compiled, seen, moment), *answers.warnings)
    answers = replace(answers, warnings=said)
    for warning in answers.warnings:
        _log.warning("WARNING: %s", warning)
    return answers


def listed_keys(entities: Sequence[Any] | None) -> list[Any] | None:
    """
    Raises:
        ValueError: for what is no list of keys.
    """
    if entities is None:
        return None
    if isinstance(entities, str | bytes) or not hasattr(entities, "__iter__"):
        raise ValueError(
            f"entities={entities!r}: wanted a list of keys, such as [17, 42] or, of several "
            "columns, [('a', 1), ('b', 2)]"
        )
    return list(entities)


def ask(model: RelationalModel, posed: Posed, config: AskConfig) -> Answers:
    """Answers of the model's head, if it was fitted to this question, else from examples, without
    training.

    Raises:
        ValueError: for types of tasks, and models, that cannot be asked so, see ``check_askable``,
            ``open_tuned`` and ``check_answers_others``.
    """
    task, learnt = posed.task, posed.learnt
    if learnt.fitted:
        name = model.about["finetuned"]["task"].partition("/")[2]  # of a table that it has read
        sampler = open_tuned(model, replace(task, name=name), config.cache)
        value = predict(model, ask_all(sampler, sampler.ask(["test"], "rolling")))
        around = model.about["finetuned"]["around"]
        value = np.concatenate([value, *(value + off for off in around)], axis=1)
        if task.task_type == "regression" and np.nanmin(task.rows("train").label) >= 0:
            value = value.clip(min=0)  # as counts are
        return Answers(posed, config, value, 0, learnt.warnings, sampler)
    check_answers_others(model, posed.compiled)
    return _ask_examples(model, posed, config)


def _ask_examples(model: RelationalModel, posed: Posed, config: AskConfig) -> Answers:
    task, learnt, said = posed.task, posed.learnt, posed.learnt.warnings
    many = merged(task) if len(task.classes) > MAX_CLASSES else None
    if many is not None:
        check_examples_wanted(task, config.context)
        said = (*said, many.words())
    most = (len(task.rows("test")) + config.context) * max(config.ask.max_rows, 1)
    rows = sum(table.num_rows for table in task.database.tables.values())
    asked = task if many is None else many.task
    asker = open_zero_shot(model, asked, config.cache, config.ask, cached=rows <= most)
    readers = {"": in_context(model, SHARES)}
    found = asker.ask("test", "rolling", config.context, config.seed, readers, SHARES)[""]
    about = {**model.about, "finetuned": {}} if learnt.warnings else model.about
    said = (*said, *seen_before(about, task), *schema_seen(about, asker.store), *found.warnings)
    value = found.predictions.value
    if isinstance(asker, ZeroShot) and task.task_type == "regression":
        label = task.rows("train").label
        value = np.clip(rounded(value, asker.unit("test")), np.nanmin(label), np.nanmax(label))
    if many is None:
        return Answers(posed, config, value, found.examples, said, asker)
    return Answers(posed, config, many.spread(value), found.examples, said, asker, many.worth)


def rounded(value: Floats, unit: tuple[float, float]) -> Floats:
    """Numbers without what single precision makes of them, in units [n] about a center: 0 of 3e-7,
    where they are about 20."""
    largest = max(map(abs, unit))
    digits = -int(np.ceil(np.log10(max(_PRECISE * largest, 1e-300))))
    return np.asarray(np.round(value, digits) + 0.0)  # which has no -0


def answer_frame(answers: Answers) -> pd.DataFrame:
    """One row per entity asked about: its key, as the database's owner knows it (one column, or
    several of a composite key), ``anchor_time``, and what is predicted.

    - binary: ``prediction``, the probability that the condition holds
    - multiclass: ``prediction``, the class; ``probability`` of it; ``probability of <class>``. Of
      more than ten classes, the most frequent nine are told apart (see ``warnings``)
    - numbers: ``prediction``, the median; ``low`` and ``high``: 80 % of the outcomes lie between
    - recommendations: ``prediction``, a list of keys of the destination table, best first

    A key whose column is called as one of these has `` (key)`` after its name. ``attrs`` of the
    table say how many ``examples`` the answers are made of; of which ``labels`` these are, in
    words, and their ``balance``: how many are ``positive``, or of each class, most frequent first,
    or the quartiles (``lower quartile``, ``median``, ``upper quartile``) of numbers, or of how many
    a list holds; who was ``left_out``, and ``warnings``.
    """
    posed, value = answers.posed, answers.value
    task = posed.task
    rows = task.rows("test")
    keys = original_keys(task.database, task.entity_table).take(rows.entity)
    frame: pd.DataFrame = keys.to_pandas().rename(
        columns={name: f"{name} (key)" for name in _ANSWERS}
    )
    frame[ANCHOR] = np.full(len(rows), posed.at).astype("datetime64[s]")
    if task.task_type == "recommendation":
        ranked = value.astype(np.int64).tolist()
        frame[PREDICTION] = pd.Series(listed(task.database, task.destination_table, ranked))
    elif task.task_type == "multiclass_classification":
        frame[PREDICTION] = np.array(task.classes, dtype=object)[value.argmax(1)]
        frame[PROBABILITY] = value.max(1)
        for i, name in enumerate(task.classes):
            frame[f"{PROBABILITY} of {name}"] = value[:, i]
    elif task.task_type == "regression":
        for i, name in enumerate((PREDICTION, LOW, HIGH)):
            frame[name] = value[:, i]
    else:
        frame[PREDICTION] = value[:, 0]
    frame.attrs = {
        "examples": answers.examples,
        "labels": posed.counts.words(),
        "balance": dict(posed.counts.balance),
        "left_out": dict(posed.left_out),
        "warnings": list(answers.warnings),
    }
    return frame


def listed(database: Database, table: str, rows: Sequence[Sequence[int]]) -> list[list[object]]:
    """Keys of lists of rows [n]; -1 is none."""
    there = [[row for row in own if row >= 0] for own in rows]
    keys = iter(keys_of_rows(database, table, [row for own in there for row in own]))
    return [[next(keys) for _ in own] for own in there]
