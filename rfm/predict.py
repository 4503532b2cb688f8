"""Answer a query about a database, and say why.

    rfm predict "PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id" \\
        checkpoint=<folder> database=<folder> out=predictions.parquet

The query is in the predictive query language, see ``python -c "help('rfm.data.query')"``. The
checkpoint answers from labelled examples, which are made from the database's own past, without
training; or by its head, where it was fine-tuned for this very query.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from rfm.config import setting
from rfm.data.database import SourceConfig, open_source
from rfm.data.questions import QuestionSampler
from rfm.data.schema import shown_time, words
from rfm.data.tasks import Task
from rfm.eval.ask import (
    ANCHOR,
    PREDICTION,
    PROBABILITY,
    Answers,
    AskConfig,
    answer_frame,
    ask_query,
)
from rfm.eval.backtest import Backtest
from rfm.eval.explained import explain_answers
from rfm.eval.posing import is_static
from rfm.eval.report import PredictionRun, write_report
from rfm.files import publish
from rfm.model import RelationalModel
from rfm.train.process import quieten, set_up_cpu

_log = logging.getLogger("rfm")
_SHOWN = 10  # rows printed


@dataclass(frozen=True)
class PredictConfig:
    """What is asked of whom."""

    query: str = setting(help="PREDICT ... FOR EACH ...")
    checkpoint: str = setting(help="a folder or a Hub id")
    database: str = setting(
        help="a RelBench folder, a name under data.root or on the Hub, or what `rfm import` takes"
    )
    out: Path = setting(help="predictions: a .parquet or .csv file")
    at: str | None = setting(
        None, help="anchor time, UTC: nothing later is seen; default: the latest of what is asked"
    )
    entities: str = setting(
        "",
        help="keys to be asked about, [17,42] or, of several columns, [[a,1],[b,2]]; default: all",
    )
    explain: bool = setting(False, help="add what moved each prediction")
    report: Path | None = setting(None, help="an HTML page about the predictions")
    backtest: int = setting(3, ge=0, help="past anchor times that the report shows; 0: none")
    examples: int = setting(10, ge=0, help="predictions that the report explains")
    ask: AskConfig = setting(factory=AskConfig)
    data: SourceConfig = setting(factory=SourceConfig)

    def __post_init__(self) -> None:
        if self.out.suffix not in (".parquet", ".csv"):
            raise ValueError(f"out={self.out}: wanted a .parquet or a .csv file")
        read_keys(self.entities)


def run(config: PredictConfig) -> Mapping[str, Any]:
    """Predict, write and show."""
    quieten()
    set_up_cpu()
    database = open_source(config.database, config.data.root, config.data.kinds)
    model = RelationalModel.from_pretrained(config.checkpoint)
    keys = read_keys(config.entities)
    answers = ask_query(model, database, config.query, config.at, keys, config.ask)
    posed = answers.posed
    frame = answer_frame(answers)
    explained: list[dict[str, Any]] = []
    if config.explain:
        _log.info("explaining %d answers, a tenth of a second or so for each", len(frame))
        explained = explain_answers(answers, np.arange(len(frame)))
        frame["top_signal"] = [one["top_signal"] for one in explained]
        frame["explanation"] = [json.dumps(one, ensure_ascii=False) for one in explained]
    write_frame(frame, config.out)
    shown = frame.drop(columns="explanation", errors="ignore").head(_SHOWN)
    print(shown.to_string(index=False, max_colwidth=150))
    if len(frame) > len(shown):
        print(f"... and {len(frame) - len(shown):,} more in {config.out}")
    if config.report is not None:
        write_report(_report(config, model, answers, frame, explained), config.report)
    return {
        "out": config.out,
        "report": config.report,
        "rows": len(frame),
        "anchor_time": shown_time(posed.at),
        "task_type": posed.task.task_type,
        "examples": answers.examples,
        "labelled": int(posed.counts.labelled.sum()),
        "positive": int(posed.counts.positive.sum()),
        "warnings": list(answers.warnings),
    }


def read_keys(text: str) -> list[Any] | None:
    """Keys as they are typed, all of them as text; none where nothing is.

    Raises:
        ValueError: if it is no list.
    """
    if not text:
        return None
    try:
        keys = yaml.load(text, Loader=yaml.BaseLoader)  # which leaves 012 and 1e5 as they are
    except yaml.YAMLError:
        keys = None
    if not isinstance(keys, list):
        raise ValueError(f"entities={text}: wanted a list, [17,42] or [[a,1],[b,2]]")
    return keys


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """As a parquet or a CSV file, whole or not at all; keys of several columns in lists as JSON."""
    lists = [own for own in frame[PREDICTION] if isinstance(own, list)]
    if any(isinstance(key, tuple) for own in lists for key in own):
        spelled = [json.dumps(own, ensure_ascii=False, default=str) for own in lists]
        frame = frame.assign(**{PREDICTION: spelled})
    with publish(path) as temporary:
        if path.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)


def _report(
    config: PredictConfig,
    model: RelationalModel,
    answers: Answers,
    frame: pd.DataFrame,
    explained: list[dict[str, Any]],
) -> PredictionRun:
    posed, task = answers.posed, answers.posed.task
    backtest = _backtest(config, model, answers)
    at = np.arange(len(frame))
    if not explained and not isinstance(answers.asker, QuestionSampler):
        at = np.unique(np.linspace(0, len(frame) - 1, config.examples).astype(np.int64))
        explained = explain_answers(answers, at)
    keys = list(frame.columns[: list(frame.columns).index(ANCHOR)])
    names = [_entity(frame, keys, row) for row in range(len(frame))]
    shown = frame.drop(columns=[*keys, "explanation"], errors="ignore")
    past = backtest.frame if backtest is not None else pd.DataFrame()
    return PredictionRun(
        title=f"{task.database.name}: {words(task.name)}",
        query=config.query,
        task_type=task.task_type,
        database=answers.posed.task.database,
        entity=task.entity_column,
        time=ANCHOR,
        predictions=shown.assign(**{task.entity_column: names}),
        backtest=past
        if not len(past)
        else past.assign(
            **{task.entity_column: [_entity(past, keys, row) for row in range(len(past))]}
        ),
        balance=_balance(answers),
        classes={name: f"{PROBABILITY} of {name}" for name in task.classes},
        checkpoint=_about(config, model),
        facts={
            "anchor time": shown_time(posed.at),
            "regime": "rolling",
            "examples": answers.examples,
            "past": posed.counts.words(),
        },
        warnings=(*answers.warnings, *(backtest.warnings if backtest is not None else ())),
        explanations=[
            {**one, "entity": names[row], "prediction": _shown(task, one, frame, row)}
            for one, row in zip(explained, at.tolist(), strict=False)
        ],
    )


def _shown(task: Task, explanation: Mapping[str, Any], frame: pd.DataFrame, row: int) -> Any:
    """What the report says was answered: of several classes the chance of the likeliest."""
    chance = task.task_type == "multiclass_classification"
    return explanation["answer"] if chance else frame[PREDICTION].iloc[row]


def _entity(frame: pd.DataFrame, keys: list[str], row: int) -> Any:
    parts = [frame[key].iloc[row] for key in keys]
    return parts[0] if len(parts) == 1 else ", ".join(map(str, parts))


def _backtest(config: PredictConfig, model: RelationalModel, answers: Answers) -> Backtest | None:
    if not config.backtest:
        return None
    database = answers.posed.task.database
    try:
        return model.evaluate(
            database, config.query, at=shown_time(answers.posed.at), anchors=config.backtest,
            config=config.ask,
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


def _about(config: PredictConfig, model: RelationalModel) -> dict[str, Any]:
    about = model.about
    return {
        "checkpoint": config.checkpoint,
        "pretrained on": ", ".join(sorted(about.get("databases", {}))) or "nothing",
        "steps": about.get("steps", "unknown"),
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
    }
