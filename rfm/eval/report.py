"""One self-contained HTML page about a run of predictions.

It shows the answers, how the same question went at past anchor times, whether probabilities and
intervals hold, which signals moved the answers, what was asked of which database, and by what. The
page needs no script and loads nothing; what a run does not have is said in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rfm.data.database import Database
from rfm.data.schema_picture import picture_schema
from rfm.data.schema_shapes import printable
from rfm.data.schema_svg import to_svg
from rfm.data.task_rows import TaskType
from rfm.eval.predictions import HIGH, LABEL, LOW, PREDICTION
from rfm.eval.report_backtest import backtest_section, calibration_section, headline, verdict
from rfm.eval.report_explained import examples, signals_section
from rfm.eval.report_parts import count, spell
from rfm.eval.report_scores import labels_section, scores_section
from rfm.files import publish

_BALANCE = ["time", "labelled"]
_TILE = 40  # characters of a class in large letters


@dataclass(frozen=True, eq=False)
class PredictionRun:
    """What was asked and what came of it; whatever is empty was not had.

    title, query: in words, and in the query language.
    entity, time: the columns of `predictions` and `backtest` that hold entity keys (the original
        ones) and anchor times.
    predictions: a row for each question, with `prediction`: the probability (binary), the class
        (multiclass), the number (regression), with `low` and `high` where there is an interval, or
        a list of destination keys, best first (recommendation). A column `top_signal` is shown.
    backtest: the same at past anchor times, with `label` beside: 0 or 1, the class, the number, or
        the list of keys; rows whose label is null are left out.
    classes: of a multiclass task, each class and the column with its probability.
    interval: the share of labels that should lie between `low` and `high`.
    balance: per past anchor time (`time`) how many examples are `labelled`, and their `positives`
        (binary) or `mean` (regression).
    checkpoint, facts: about the model and the run, by name; any values. `regime` belongs here.
    explanations: of some predictions: `entity`, `prediction`, `top_signal` and `signals`, the most
        telling first (as `Explanation` has them), each with `path` (foreign keys walked: a list, or
        in words), `table`, `column`, `rows`, `weight` (its share of what moved the answer, -1 to
        1), `words` and, where it was checked, `occluded`: by how much the answer changes without
        its rows (`checked`: whether it was, if that is said).
        `time` (a time, or unix seconds) is shown, if given; `chosen` is the class whose chance
        `prediction` is (multiclass).
    """

    title: str
    query: str
    task_type: TaskType
    database: Database
    entity: str
    time: str
    predictions: pd.DataFrame
    backtest: pd.DataFrame = field(default_factory=pd.DataFrame)
    balance: pd.DataFrame = field(default_factory=pd.DataFrame)
    classes: Mapping[str, str] = field(default_factory=dict)
    interval: float = 0.8
    checkpoint: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    explanations: Sequence[Mapping[str, Any]] = ()


def write_report(run: PredictionRun, path: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        ValueError: for a run that lacks columns or whose parts do not fit, see `check_run`.
    """
    check_run(run)
    page = render_report(run)
    with publish(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def check_run(run: PredictionRun) -> None:
    """Whether the parts of a run are what `PredictionRun` says.

    Raises:
        ValueError: naming what is missing or does not fit, and what is wanted.
    """
    if run.task_type == "multilabel_classification":
        raise ValueError(f"a report of {run.task_type} was asked for: there is none of that type")
    keys = [run.entity, run.time, PREDICTION, *run.classes.values()]
    for name, frame, wanted in (
        ("predictions", run.predictions, keys),
        ("backtest", run.backtest, [*keys, LABEL]),
        ("balance", run.balance, _BALANCE),
    ):
        missing = [column for column in wanted if column not in frame.columns]
        if missing and (len(frame) or name == "predictions"):
            raise ValueError(
                f"{name} lacks the columns {missing}, has {list(map(str, frame.columns))}; wanted "
                f"{wanted}"
            )
    _check_answers("predictions", run.predictions, run)
    _check_answers("backtest", run.backtest, run)
    for place, explanation in enumerate(run.explanations):
        missing = [k for k in ("entity", "prediction", "signals") if k not in explanation]
        if missing:
            raise ValueError(f"explanation {place} lacks {missing}, has {list(explanation)}")


def _check_answers(name: str, frame: pd.DataFrame, run: PredictionRun) -> None:
    if (LOW in frame.columns) != (HIGH in frame.columns):
        raise ValueError(f"{name} has one of {LOW!r} and {HIGH!r}, wanted both or neither")
    if not len(frame):
        return
    if pd.api.types.is_numeric_dtype(frame[run.time]):
        raise ValueError(
            f"{name}: the anchor times of {run.time!r} are numbers, wanted times: use "
            "astype('datetime64[s]') on unix seconds"
        )
    if run.task_type == "binary_classification":
        given = pd.to_numeric(frame[PREDICTION]).astype("float64")
        wrong = (given < 0) | (given > 1)
        if wrong.any():
            raise ValueError(
                f"{name}: {int(wrong.sum())} predictions are no probabilities, the first is "
                f"{given[wrong].iloc[0]}; wanted 0 to 1"
            )
    if run.classes:
        others = set(frame[PREDICTION].dropna().astype(str)) - set(map(str, run.classes))
        if others:
            raise ValueError(
                f"{name}: {sorted(others)[:3]} is predicted, which is none of the classes "
                f"{list(map(str, run.classes))[:10]}"
            )


def render_report(run: PredictionRun) -> str:
    """The page. The same run gives the same page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    picture = picture_schema(run.database)
    page = environment.get_template("report.html").render(
        run=run,
        tiles=_tiles(run),
        verdict=verdict(run),
        sections=[
            scores_section(run),
            backtest_section(run),
            calibration_section(run),
            signals_section(run),
        ],
        examples=examples(run),
        labels=labels_section(run),
        schema=Markup(to_svg(picture)),
        width=f"{picture.width:.0f}",
        spell=spell,
        count=count,
    )
    return str(page)


def _printable(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(str(value))


def _tiles(run: PredictionRun) -> list[tuple[str, str, str]]:
    """The run in a few numbers: what, the number, a word about it."""
    tiles = [("predictions", f"{len(run.predictions):,}", "")]
    moments = sorted(run.predictions[run.time].dropna().unique())
    if len(moments):
        more = f"and {len(moments) - 1} earlier" if len(moments) > 1 else ""
        tiles.append(("anchor time", spell(moments[-1]), more))
    given = run.predictions[PREDICTION].dropna()
    if len(given) and run.task_type in ("binary_classification", "regression"):
        mean = float(pd.to_numeric(given).mean())
        if run.task_type == "regression":
            tiles.append(("mean prediction", spell(mean), ""))
        else:
            tiles.append(("expected positives", spell(round(mean * len(given))), f"{mean:.1%}"))
    elif len(given) and run.task_type == "multiclass_classification":
        commonest = given.astype(str).value_counts(sort=True)
        share = commonest.iloc[0] / len(given)
        name = spell(str(commonest.index[0]))
        short = name if len(name) <= _TILE else f"{name[: _TILE - 1]}…"
        tiles.append(("commonest answer", short, f"{share:.1%}"))
    if len(run.backtest):
        name, value, rows = headline(run)
        if np.isfinite(value):
            tiles.append((f"backtest {name}", f"{value:.3g}", count(rows, "past answer")))
    return tiles
