"""Answer a query about a database, and say why.

  rfm predict "PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id" \\
      checkpoint=runs/first/model database=shop out=answers.parquet

The predictive query language is described by

  python -c "help('rfm.data.query')"

The checkpoint answers from labelled examples, which are made from the database's own past, without
training; or by its head, where it was fine-tuned for this very query.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from rfm.config import setting
from rfm.data.database import Database, SourceConfig, open_source
from rfm.data.schema import shown_time
from rfm.eval.ask_config import AskConfig
from rfm.files import publish
from rfm.nn.model_folder import find_model
from rfm.train.process import quieten, set_up_cpu

if TYPE_CHECKING:
    import pandas as pd

    from rfm.eval.ask import Answers

_log = logging.getLogger("rfm")
_PRINTED = 10  # rows
_FILES = {"out": (".parquet", ".csv"), "report": (".html", ".htm")}


@dataclass(frozen=True)
class PredictConfig:
    """What is asked of whom."""

    query: str = setting(help="PREDICT ... FOR EACH ...")
    checkpoint: str = setting(help="a model's folder, such as <run_dir>/model, or a Hub id")
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
    report: Path | None = setting(None, help="a page about the predictions: an .html file")
    backtest: int = setting(3, ge=0, help="past anchor times that the report shows; 0: none")
    examples: int = setting(10, ge=0, help="predictions that the report explains")
    ask: AskConfig = setting(factory=AskConfig)
    data: SourceConfig = setting(factory=SourceConfig)

    def __post_init__(self) -> None:
        for key, path in (("out", self.out), ("report", self.report)):
            if path is not None and path.suffix not in _FILES[key]:
                wanted = " or ".join(_FILES[key])
                raise ValueError(f"{key}={path}: wanted a file that ends in {wanted}")
        for key, text, wanted in (
            ("query", self.query, "PREDICT ... FOR EACH ..."),
            ("checkpoint", self.checkpoint, "a model's folder, such as <run_dir>/model"),
            ("database", self.database, "a folder, a database's URL or file"),
        ):
            if not text.strip():
                raise ValueError(f"{key} is empty: wanted {wanted}")
        read_keys(self.entities)


def run(config: PredictConfig) -> Mapping[str, Any]:
    """Predict, write and show."""
    quieten()
    checkpoint, database = _check(config)
    _log.info("loading the model, and PyTorch, which takes some seconds")
    set_up_cpu()
    from rfm.eval.ask import answer_frame, ask_query
    from rfm.model import RelationalModel

    model = RelationalModel.from_pretrained(checkpoint)
    keys = read_keys(config.entities)
    answers = ask_query(model, database, config.query, config.at, keys, config.ask)
    frame = answer_frame(answers)
    explained = _explain(answers, frame) if config.explain else []
    write_frame(frame, config.out)
    _print(frame, config.out)
    if config.report is not None:
        from rfm.eval.report import write_report
        from rfm.predict_report import prediction_run

        _log.info("making the report: a backtest at past anchor times, examples explained")
        told = prediction_run(
            model, config.checkpoint, answers, frame, explained, config.backtest, config.examples
        )
        write_report(told, config.report)
    posed = answers.posed
    return {
        "out": config.out,
        "report": config.report,
        "rows": len(frame),
        "anchor_time": shown_time(posed.at),
        "task_type": posed.task.task_type,
        "examples": answers.examples,
        "labelled": int(posed.counts.labelled.sum()),
        "balance": posed.counts.balance,
        "warnings": list(answers.warnings),
    }


def _check(config: PredictConfig) -> tuple[Path, Database]:
    """The checkpoint's folder, and the database, opened: what can be wrong with what was typed is
    said before anything takes long."""
    for key, path in (("out", config.out), ("report", config.report)):
        if path is not None:
            _check_writable(path, key)
    checkpoint = find_model(config.checkpoint)
    _log.info("opening the database")
    database = open_source(config.database, config.data.root, config.data.kinds)
    from rfm.eval.posing import compiled_at, earlier_anchors, is_static

    compiled, seen, at = compiled_at(config.query, database, config.at)
    if not is_static(compiled):
        earlier_anchors(compiled, seen, at)
    return checkpoint, database


def _check_writable(path: Path, key: str) -> None:
    if path.is_dir():
        raise ValueError(f"{key}={path} is a folder: give the name of a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "cannot be written to" if above.is_dir() else "is a file"
        raise ValueError(f"{key}={path}: {above} {what}; choose another folder")


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


def _explain(answers: Answers, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Explanations of all answers, also put into their table."""
    from rfm.eval.explained import explain_answers

    _log.info("explaining %d answers, a tenth of a second or so for each", len(frame))
    explained = explain_answers(answers, np.arange(len(frame)))
    frame["top_signal"] = [one["top_signal"] for one in explained]
    frame["explanation"] = [json.dumps(one, ensure_ascii=False) for one in explained]
    return explained


def write_frame(frame: pd.DataFrame, path: Path) -> None:
    """As a parquet or a CSV file, whole or not at all; keys of several columns in lists as JSON."""
    lists = [own for own in frame["prediction"] if isinstance(own, list)]
    if any(isinstance(key, tuple) for own in lists for key in own):
        spelled = [json.dumps(own, ensure_ascii=False, default=str) for own in lists]
        frame = frame.assign(prediction=spelled)
    with publish(path) as temporary:
        if path.suffix == ".csv":
            frame.to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)


def _print(frame: pd.DataFrame, out: Path) -> None:
    first = frame.drop(columns="explanation", errors="ignore").head(_PRINTED)
    print(first.to_string(index=False, max_colwidth=150))
    if len(frame) > len(first):
        print(f"... and {len(frame) - len(first):,} more in {out}")
