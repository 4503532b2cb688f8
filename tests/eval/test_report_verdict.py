"""What a report's head says of its probabilities and intervals."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from rfm.data.database import Database
from rfm.eval.report import PredictionRun, render_report
from tests.eval.test_prediction_report import shop, words
from tests.prediction_runs import (
    bare_run,
    binary_run,
    multiclass_run,
    recommendation_run,
    regression_run,
)

assert shop  # a fixture


def with_probabilities(run: PredictionRun, said: float, true: float, rows: int) -> PredictionRun:
    """A backtest in which every answer is ``said``, and so much of them comes true."""
    past = run.backtest.iloc[:rows]
    label = (np.arange(rows) < true * rows).astype(int)
    return replace(run, backtest=past.assign(prediction=said, label=label))


@pytest.mark.parametrize(
    ("said", "true", "rows", "wanted"),
    [
        (
            0.3,
            0.31,
            1000,
            r"by 1\.0 percentage points .* \(1,000 .* 1\.2\): they hold\.",
        ),
        (0.3, 0.24, 1000, r"by 6\.0 .*, on the whole too high: take them as rough\."),
        (0.3, 0.6, 1000, r"by 30\.0 .*, on the whole too low: trust their order, not"),
        (0.3, 0.6, 20, r"by 30\.0 .*: too few answers to tell whether they hold\."),
    ],
)
def test_the_head_says_whether_probabilities_held(
    shop: Database, said: float, true: float, rows: int, wanted: str
) -> None:
    page = render_report(with_probabilities(binary_run(shop), said, true, rows))
    head = words(page[: page.index("<main>")])
    assert re.search(f"Probabilities were off {wanted}", head), head


def test_the_head_says_whether_intervals_held(shop: Database) -> None:
    run = regression_run(shop)
    for wide, wanted in ((1e-3, "too narrow"), (1e3, "too wide")):
        low, high = run.backtest["prediction"] / (1 + wide), run.backtest["prediction"] * (1 + wide)
        page = render_report(replace(run, backtest=run.backtest.assign(low=low, high=high)))
        said = r"of past outcomes lay between low and high, 80% should \(1,092 answers of the "
        assert re.search(f"{said}.*: intervals are {wanted}", words(page))
    label = np.linspace(0, 1, len(run.backtest))
    page = render_report(replace(run, backtest=run.backtest.assign(label=label, low=0, high=0.81)))
    assert "81.0% of past outcomes lay" in words(page)
    assert ": intervals hold." in words(page)


def test_the_head_says_that_nothing_was_checked(shop: Database) -> None:
    none = words(render_report(bare_run(shop)))
    assert "Whether probabilities hold is not known: there was no backtest." in none
    classes = render_report(multiclass_run(shop, ["a", "b", "c"]))
    assert "Probabilities of the answers given were off by" in words(classes)
    assert 'class="verdict"' not in render_report(recommendation_run(shop))
