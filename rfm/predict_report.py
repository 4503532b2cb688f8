"""What the report of `rfm predict` tells: its answers, a backtest, examples that are explained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from rfm.data.questions import QuestionSampler
from rfm.data.schema import shown_time, words
from rfm.data.tasks import Task
from rfm.eval.ask import Answers
from rfm.eval.backtest import Backtest
from rfm.eval.explained import explain_answers
from rfm.eval.posing import is_static
from rfm.eval.predictions import ANCHOR, PREDICTION, PROBABILITY
from rfm.eval.report import PredictionRun
from rfm.model import RelationalModel

_log = logging.getLogger("rfm")


def prediction_run(
    model: RelationalModel,
    checkpoint: str,
    answers: Answers,
    frame: pd.DataFrame,
    explained: list[dict[str, Any]],
    anchors: int,
    examples: int,
) -> PredictionRun:
    """What the report tells of answers.

    Args:
        checkpoint: as it was given.
        frame: the answers, as they are written.
        explained: all of them; if empty, some ``examples`` are explained here.
        anchors: past anchor times to backtest at, at most.
    """
    posed, task = answers.posed, answers.posed.task
    backtest = _backtest(model, answers, anchors)
    at = np.arange(len(frame))
    if not explained and not isinstance(answers.asker, QuestionSampler):
        at = np.unique(np.linspace(0, len(frame) - 1, examples).astype(np.int64))
        explained = explain_answers(answers, at)
    keys = list(frame.columns[: list(frame.columns).index(ANCHOR)])
    names = [_entity(frame, keys, row) for row in range(len(frame))]
    told = frame.drop(columns=[*keys, "explanation"], errors="ignore")
    past = backtest.frame if backtest is not None else pd.DataFrame()
    return PredictionRun(
        title=f"{task.database.name}: {words(task.name)}",
        query=posed.compiled.text,
        task_type=task.task_type,
        database=task.database,
        entity=task.entity_column,
        time=ANCHOR,
        predictions=told.assign(**{task.entity_column: names}),
        backtest=past
        if not len(past)
        else past.assign(
            **{task.entity_column: [_entity(past, keys, row) for row in range(len(past))]}
        ),
        balance=_balance(answers),
        classes={name: f"{PROBABILITY} of {name}" for name in task.classes},
        checkpoint=_about(checkpoint, model),
        facts={
            "anchor time": shown_time(posed.at),
            "regime": "rolling",
            "examples": answers.examples,
            "past": posed.counts.words(),
        },
        warnings=(*answers.warnings, *(backtest.warnings if backtest is not None else ())),
        explanations=[
            {**one, "entity": names[row], "prediction": _answer(task, one, frame, row)}
            for one, row in zip(explained, at.tolist(), strict=False)
        ],
    )


def _answer(task: Task, explanation: Mapping[str, Any], frame: pd.DataFrame, row: int) -> Any:
    """What the report says was answered: of several classes the chance of the likeliest."""
    chance = task.task_type == "multiclass_classification"
    return explanation["answer"] if chance else frame[PREDICTION].iloc[row]


def _entity(frame: pd.DataFrame, keys: list[str], row: int) -> Any:
    parts = [frame[key].iloc[row] for key in keys]
    return parts[0] if len(parts) == 1 else ", ".join(map(str, parts))


def _backtest(model: RelationalModel, answers: Answers, anchors: int) -> Backtest | None:
    if not anchors:
        return None
    posed = answers.posed
    try:
        return model.evaluate(
            posed.task.database, posed.compiled.text, at=shown_time(posed.at), anchors=anchors,
            config=answers.config,
        )  # fmt: skip
    except ValueError as error:
        _log.warning("no backtest: %s", error)
        return None


def _balance(answers: Answers) -> pd.DataFrame:
    """Per past anchor time how many examples there are, and what they are like."""
    counts, task = answers.posed.counts, answers.posed.task
    frame: pd.DataFrame = pd.DataFrame()
    if is_static(answers.posed.compiled):
        return frame
    frame["time"], frame["labelled"] = counts.time.astype("datetime64[s]"), counts.labelled
    if task.task_type == "binary_classification":
        frame["positives"] = counts.positive
    elif task.task_type == "regression":
        rows = task.rows("train")
        means = pd.Series(rows.label[:, 0]).groupby(rows.time).mean()
        frame["mean"] = means.reindex(counts.time).to_numpy()
    return frame


def _about(checkpoint: str, model: RelationalModel) -> dict[str, Any]:
    about = model.about
    return {
        "checkpoint": checkpoint,
        "pretrained on": ", ".join(sorted(about.get("databases", {}))) or "nothing",
        "steps": about.get("steps", "unknown"),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
    }
