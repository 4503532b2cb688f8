"""How a query would have been answered in the past, whose labels are known by now."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rfm.data.database import Database
from rfm.data.query import CompiledQuery, Labels, compile_text, labels
from rfm.data.task_rows import Ints, TaskType, class_name
from rfm.eval.ask import ANCHOR, AskConfig, answer_frame, ask, listed
from rfm.eval.posing import Posed, as_of, earlier_anchors, is_static, pose, pose_rows, shown_time
from rfm.eval.report_numbers import LABEL, known, scores, scores_by_time
from rfm.nn.model import RelationalModel

_log = logging.getLogger("rfm")
_ROW = "row of the entity"
_HELD_OUT, _MOST_HELD_OUT = 0.3, 1_000  # of the known values of a static target


@dataclass(frozen=True, eq=False)
class Backtest:
    """frame: answers as ``answer_frame`` has them, with ``label``: at past anchor times, each given
    what the database held by then; of static targets, about some known values, which were hidden.
    Rows without a label are left out."""

    task_type: TaskType
    frame: pd.DataFrame

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
        anchors: how many past anchor times, at most; the latest, whose windows do not overlap.

    Raises:
        ValueError: if the query can be asked at none of them.
    """
    if is_static(compiled):
        seen = as_of(database, at)
        found = labels(compiled, seen, [at])
        posed = pose_rows(compiled, seen, at, _held_out(found, config.seed), found, {})
        frames = [_compared(model, posed, found, config)]
    else:
        frames = _at_anchors(model, compiled, database, (at, anchors), config)
    frame = pd.concat(frames, ignore_index=True)
    return Backtest(compiled.task_type, frame)


def _at_anchors(
    model: RelationalModel,
    compiled: CompiledQuery,
    database: Database,
    when: tuple[int, int],
    config: AskConfig,
) -> list[pd.DataFrame]:
    frames, failures = list[pd.DataFrame](), list[str]()
    at, anchors = when
    for time in earlier_anchors(compiled, database, at)[:anchors].tolist():
        try:
            seen = as_of(database, time)
            posed = pose(compile_text(compiled.text, seen), seen, time)
            truth = labels(posed.compiled, database, [time])
            frames.append(_compared(model, posed, truth, config))
        except ValueError as error:
            failures.append(f"{shown_time(time)}: {error}")
    if not frames:
        raise ValueError(
            "the query could be asked at no past anchor time: " + "; ".join(failures[:2])
        )
    for failure in failures:
        _log.warning("backtest: left out %s", failure)
    return frames


def _held_out(found: Labels, seed: int) -> Ints:
    size = min(int(_HELD_OUT * len(found)), _MOST_HELD_OUT)
    if not size:
        raise ValueError(f"too few values are known to hide some: {found.counts.words()}")
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(found.entity, size, replace=False))


def _compared(
    model: RelationalModel, posed: Posed, truth: Labels, config: AskConfig
) -> pd.DataFrame:
    """Answers with what came to pass."""
    compiled, values = posed.compiled, truth.label.to_pylist()
    if compiled.task_type == "recommendation":
        values = listed(posed.task.database, compiled.destination_table, values)
    elif compiled.task_type == "multiclass_classification":
        values = [class_name(value) for value in values]
    frame = answer_frame(ask(model, posed, config))
    frame[_ROW] = posed.task.rows("test").entity
    came = pd.DataFrame({_ROW: truth.entity, LABEL: values})
    both: pd.DataFrame = frame.merge(came, on=_ROW).drop(columns=_ROW)
    return both
