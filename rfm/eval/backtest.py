"""How a query would have been answered in the past, whose labels are known by now."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd

from rfm.data.database import Database
from rfm.data.query import CompiledQuery, Entities, Labels, compile_text, labels
from rfm.data.schema import shown_time
from rfm.data.task_rows import TaskType, class_name
from rfm.eval.ask import AskConfig, answer_frame, ask, listed
from rfm.eval.fitted import Learnt, what_is_learnt
from rfm.eval.posing import (
    Posed,
    as_of,
    earlier_anchors,
    is_static,
    pose,
    pose_rows,
)
from rfm.eval.predictions import ANCHOR, LABEL
from rfm.eval.report_numbers import known, scores, scores_by_time
from rfm.nn.model import RelationalModel

_log = logging.getLogger("rfm")
_ROW = "row of the entity"
_HELD_OUT, _MOST_HELD_OUT = 0.3, 1_000  # of the known values of a static target


@dataclass(frozen=True, eq=False)
class Backtest:
    """frame: answers as ``answer_frame`` has them, with ``label``: at past anchor times, each given
    what the database held by then; of static targets, about some known values, which were hidden.
    Rows without a label are left out. warnings: what a reader of the scores must know."""

    task_type: TaskType
    frame: pd.DataFrame
    warnings: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, float]:
        """Over all anchor times, by name."""
        return scores(known(self.frame, self.task_type), self.task_type)

    @property
    def by_anchor(self) -> pd.DataFrame:
        """The same per anchor time."""
        return scores_by_time(known(self.frame, self.task_type), ANCHOR, self.task_type)


def backtest(
    model: RelationalModel,
    compiled: CompiledQuery,
    database: Database,
    at: int,
    anchors: int,
    config: AskConfig,
) -> Backtest:
    """
    Args:
        at: unix seconds; labels that are known by then are compared with.
        anchors: how many past anchor times, at most; the latest, whose windows do not overlap. A
            model that has learnt the query is asked about later ones than it learnt from alone.

    Raises:
        ValueError: if the query can be asked at none of them.
    """
    if anchors < 1:
        raise ValueError(f"anchors={anchors}: wanted at least one past anchor time")
    learnt = what_is_learnt(model, compiled, database)
    if is_static(compiled):
        parts = [_of_known(model, compiled, as_of(database, at), at, learnt, config)]
    else:
        parts = _at_anchors(model, compiled, database, (at, anchors), learnt, config)
    frame = pd.concat([part for part, _ in parts], ignore_index=True)
    said = dict.fromkeys(warning for _, warnings in parts for warning in warnings)
    return Backtest(compiled.task_type, frame, tuple(said))


Part: TypeAlias = tuple[pd.DataFrame, tuple[str, ...]]


def _of_known(
    model: RelationalModel,
    compiled: CompiledQuery,
    database: Database,
    at: int,
    learnt: Learnt,
    config: AskConfig,
) -> Part:
    """Of a static target: some known values, as if they were missing."""
    found = labels(compiled, database, [at], where_at=learnt.where_at)
    new = np.flatnonzero(found.time >= learnt.until)
    size = min(int(_HELD_OUT * new.size), _MOST_HELD_OUT)
    if not size:
        said = _nothing_new(model, learnt) if learnt.fitted else found.counts.words()
        raise ValueError(f"too few values are known to hide some: {said}")
    rng = np.random.default_rng(config.seed)
    held = np.sort(rng.choice(new, size, replace=False))
    asked = Entities(found.entity[held], found.time[held], {})
    return _compared(model, pose_rows(compiled, database, at, asked, found, learnt), found, config)


def _at_anchors(
    model: RelationalModel,
    compiled: CompiledQuery,
    database: Database,
    when: tuple[int, int],
    learnt: Learnt,
    config: AskConfig,
) -> list[Part]:
    parts, failures = list[Part](), list[str]()
    times = earlier_anchors(compiled, database, when[0])
    new = times[times >= learnt.until]
    if not new.size:
        raise ValueError(_nothing_new(model, learnt))
    for time in new[: when[1]].tolist():
        try:
            seen = as_of(database, time)
            then = compile_text(compiled.text, seen)
            if then.task_type != compiled.task_type:
                raise ValueError(f"by then the query was one of {then.task_type}")
            truth = labels(then, database, [time])
            parts.append(_compared(model, pose(then, seen, time, None, learnt), truth, config))
        except ValueError as error:
            failures.append(f"{shown_time(time)}: {error}")
    if not parts:
        raise ValueError(
            "the query could be asked at no past anchor time: " + "; ".join(failures[:2])
        )
    left_out = [f"left out {failure}" for failure in failures]
    for failure in left_out:
        _log.warning("backtest: %s", failure)
    parts[0] = (parts[0][0], (*parts[0][1], *left_out))
    return parts


def _nothing_new(model: RelationalModel, learnt: Learnt) -> str:
    scores = model.about["finetuned"]["scores"]
    return (
        f"the model has learnt this query from labels up to {shown_time(learnt.until)}, and "
        "nothing later is known to compare with; on the test rows that were held out it had "
        f"{scores['metric']} {scores['test']:.4f}"
    )


def _compared(model: RelationalModel, posed: Posed, truth: Labels, config: AskConfig) -> Part:
    """Answers with what came to pass, and warnings."""
    compiled, values = posed.compiled, truth.label.to_pylist()
    if compiled.task_type == "recommendation":
        values = listed(posed.task.database, compiled.destination_table, values)
    elif compiled.task_type == "multiclass_classification":
        values = [class_name(value) for value in values]
    answers = ask(model, posed, config)
    frame = answer_frame(answers)
    frame[_ROW] = posed.task.rows("test").entity
    came = pd.DataFrame({_ROW: truth.entity, LABEL: values})
    both: pd.DataFrame = frame.merge(came, on=_ROW).drop(columns=_ROW)
    return both, answers.warnings
