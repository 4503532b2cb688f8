"""What a report says: what is there, what is not, and that all of it is escaped."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database, open_database
from rfm.eval.explain import Explanation, Signal
from rfm.eval.report import PredictionRun, render_report, write_report
from tests.folders import write_folder
from tests.prediction_runs import (
    bare_run,
    binary_run,
    explain,
    keys,
    multiclass_run,
    recommendation_run,
    regression_run,
)
from tests.shop import KEYS, shop_tables


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("databases") / "shop"
    return open_database(write_folder(folder, shop_tables(), KEYS))


def words(page: str) -> str:
    """The text of a page, its spaces made one."""
    body = re.sub(r"<(style|title|desc)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).split())


def section(page: str, anchor: str) -> str:
    found = re.search(rf'<section id="{anchor}".*?</section>', page, flags=re.DOTALL)
    assert found is not None
    return found[0]


def charts(html: str) -> list[str]:
    """Titles of the charts, each of which must be well-formed."""
    every = re.findall(r'<svg class="chart".*?</svg>', html, flags=re.DOTALL)
    return [ElementTree.fromstring(svg).findtext("title") or "" for svg in every]


def test_everything_of_a_binary_run_is_there(shop: Database) -> None:
    run = binary_run(shop)
    page = render_report(run)
    said = words(page)
    assert "Which customers order again?" in said
    assert "PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id" in said
    assert "regime rolling" in said
    assert "1 warning only 12 positive examples were found, 128 were wanted" in said
    assert "parameters 3,912,704" in said
    assert "trained 2024-05-01 12:30" in said
    mean = run.predictions["prediction"].mean()
    assert f"The mean probability is {mean:.1%}" in said
    highest = run.predictions.sort_values("prediction", ascending=False).iloc[0]
    assert f"{highest['id']} {highest['prediction']:.1%}" in said
    assert "The 20 highest of 91 predictions at 2021-06-01; 71 more are not shown." in said
    assert "1,092 labelled examples at 12 anchor times" in said
    assert 'class="schema"' in page
    for anchor, count in {"predictions": 1, "backtest": 1, "calibration": 1, "labels": 2}.items():
        assert len(charts(section(page, anchor))) == count
    assert section(page, "examples").count("<article>") == 10
    assert "40 explained predictions, 10 of them shown" in said


def test_facts_are_not_cut(shop: Database) -> None:
    names = [f"database-{i}" for i in range(40)]
    facts = {"in words": ", ".join(names), "as a list": names, "seen": True}
    said = words(render_report(replace(binary_run(shop), facts=facts)))
    assert said.count("database-38, database-39") == 2
    assert "seen yes" in said


def test_nothing_comes_from_elsewhere_and_no_script_runs(shop: Database) -> None:
    page = render_report(binary_run(shop))
    assert "<script" not in page
    assert "url(" not in page
    assert "@import" not in page
    targets = re.findall(r'(?:src|href|srcset|action)\s*=\s*"([^"]*)"', page)
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)
    addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_links_lead_to_sections_and_ids_are_unique(shop: Database) -> None:
    page = render_report(binary_run(shop))
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    targets = re.findall(r'href="#([^"]*)"', page)
    assert len(targets) == 8
    assert set(targets) <= set(ids)


@pytest.mark.parametrize(
    "task_type", ["binary_classification", "regression", "multiclass_classification"]
)
def test_what_is_absent_is_said(task_type: str, shop: Database) -> None:
    page = render_report(bare_run(shop, task_type))
    for anchor, said in {
        "backtest": "There are no past scores: no past anchor time",
        "calibration": "Calibration is not known: no past anchor time",
        "signals": "Which signals moved the answers is not known: predictions were not explained",
        "examples": "There are no examples: predictions were not explained",
        "labels": "There is no label balance: no label is known",
        "run": "Nothing was noted about the run.",
    }.items():
        assert said in words(section(page, anchor))
        assert charts(section(page, anchor)) == []
    assert 'class="warnings"' not in page


def test_no_prediction_at_all(shop: Database) -> None:
    run = bare_run(shop)
    page = render_report(replace(run, predictions=run.predictions.head(0)))
    assert "There are no predictions: no entity fits the query" in words(page)
    nulls = replace(run, predictions=run.predictions.assign(prediction=np.nan))
    assert "There are no predictions: all are null" in words(render_report(nulls))


def test_one_anchor_time_is_not_drawn_over_time(shop: Database) -> None:
    run = binary_run(shop, times=1)
    page = render_report(run)
    assert "There is one past anchor time only" in words(section(page, "backtest"))
    assert "There is one anchor time only" in words(section(page, "labels"))
    assert charts(section(page, "backtest")) == charts(section(page, "labels")) == []
    assert len(charts(section(page, "calibration"))) == 1


def test_without_labels_yet_known(shop: Database) -> None:
    run = binary_run(shop)
    page = render_report(replace(run, backtest=run.backtest.assign(label=None)))
    assert "none of its labels is known" in words(section(page, "backtest"))
    assert "no label of the backtest is known" in words(section(page, "calibration"))


def test_an_anchor_with_one_class_has_no_auroc(shop: Database) -> None:
    run = binary_run(shop)
    first = run.backtest["at"] == run.backtest["at"].min()
    backtest = run.backtest.assign(label=run.backtest["label"].where(~first, 0))
    page = render_report(replace(run, backtest=backtest))
    said = words(section(page, "backtest"))
    assert "AUROC is not defined at 1 anchor time" in said
    assert re.search(r"2018-06-01 91 – – \d", said)


def test_regression_says_errors_and_coverage(shop: Database) -> None:
    run = regression_run(shop)
    said = words(render_report(run))
    inside = run.backtest["label"].between(run.backtest["low"], run.backtest["high"]).mean()
    assert f"{inside:.1%} of labels lie in their interval, 80% should." in said
    error = (run.backtest["label"] - run.backtest["prediction"]).abs().mean()
    assert f"backtest MAE {error:.3g}" in said
    without = [frame.drop(columns=["low", "high"]) for frame in (run.predictions, run.backtest)]
    page = render_report(replace(run, predictions=without[0], backtest=without[1]))
    assert "Predictions have no intervals here" in words(page)


def test_several_anchor_times_are_in_the_table(shop: Database) -> None:
    run = binary_run(shop)
    page = render_report(replace(run, predictions=run.backtest))
    head = re.search(r"<thead>.*?</thead>", section(page, "predictions"))
    assert head is not None
    assert words(head[0]) == "id at prediction"
    assert "anchor time 2021-03-01 and 11 earlier" in words(page)


def test_equal_numbers_are_not_drawn(shop: Database) -> None:
    run = regression_run(shop)
    same = {"prediction": 3.0, "low": 2.0, "high": 4.0}
    equal = [frame.assign(**same) for frame in (run.predictions, run.backtest)]
    page = render_report(replace(run, predictions=equal[0], backtest=equal[1]))
    assert "All predictions are 3." in words(page)
    assert "All past predictions are equal" in words(page)


def test_outliers_do_not_flatten_the_distribution(shop: Database) -> None:
    run = regression_run(shop)
    predictions = pd.concat([run.predictions] * 20, ignore_index=True)
    predictions.loc[5, "prediction"] = 1e15
    page = render_report(replace(run, predictions=predictions))
    assert "outermost ones are left out" in words(section(page, "predictions"))


def test_multiclass_says_classes_with_and_without_probabilities(shop: Database) -> None:
    run = multiclass_run(shop, ["Oslo", "Lima", "Kyiv"])
    page = render_report(run)
    right = (run.backtest["label"] == run.backtest["prediction"]).mean()
    assert f"backtest accuracy {right:.3g}" in words(page)
    assert charts(section(page, "calibration"))
    bare = render_report(replace(run, classes={}))
    assert "the probabilities of classes are not in this run" in words(bare)
    assert "precision" in words(section(bare, "calibration"))


def test_recommendations_by_rank(shop: Database) -> None:
    page = render_report(recommendation_run(shop))
    assert charts(section(page, "calibration")) == ["Share of right recommendations by rank"]
    assert "MAP@12" in words(section(page, "backtest"))
    assert re.search(r"CUST00000 (\d+, ){5}and 7 more", words(page))


def test_explained_examples(shop: Database) -> None:
    run = regression_run(shop)
    page = section(render_report(run), "examples")
    predictions = sorted(one["prediction"] for one in run.explanations)
    shown = [
        float(v.replace(",", ""))
        for v in re.findall(r"</span> <strong>([\d.,]+)</strong></h3>", page)
    ]
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == pytest.approx(predictions[-1], rel=0.01)
    assert shown[-1] == pytest.approx(predictions[0], rel=0.01)
    one = run.explanations[int(np.argmax([e["prediction"] for e in run.explanations]))]
    strongest = one["signals"][0]
    assert f"{strongest['words']} {strongest['weight']:+.0%}".replace("-", "−") in words(page)
    assert "3 weaker signals not shown." in words(page)
    assert "5 rows of orders, fewer than usual" in words(page)
    assert "· without: " in words(page)


def test_signals_that_round_to_nothing_are_left_out_and_past_outcomes_called_so(
    shop: Database,
) -> None:
    strong = {"path": "past outcomes.id", "table": "past outcomes", "column": "outcome"}
    strong |= {"rows": [], "weight": 0.9, "words": "its latest outcome was true"}
    faint = {"path": "", "table": "customers", "column": "city", "rows": [], "weight": 0.004}
    one = {"entity": 7, "prediction": 0.25, "signals": [strong, faint, {**strong, "column": ""}]}
    page = render_report(replace(binary_run(shop), explanations=[one]))
    totals, shown = (words(section(page, name)) for name in ("signals", "examples"))
    assert "past outcomes 90.0%" in totals
    assert "past outcomes (how many, how old) 90.0%" in totals
    assert "1 weaker one not shown" in totals
    assert "1 weaker signal not shown." in shown
    assert "customers.city" not in totals + shown
    assert "through past outcomes" not in totals + shown
    assert "past outcomes are what was asked for" in shown
    assert "not what causes what" in shown


def test_an_explanation_without_signals(shop: Database) -> None:
    silent = {"entity": 7, "prediction": 0.25, "top_signal": "not explained", "signals": []}
    page = render_report(replace(binary_run(shop), explanations=[silent]))
    assert "none names a signal" in words(section(page, "signals"))
    said = words(section(page, "examples"))
    assert "7 25.0% not explained No signal is named for this answer." in said


def test_names_are_escaped(shop: Database) -> None:
    evil = "</pre><script>alert('1')</script>\x00\u202e{{ 7 * 7 }}<!--"
    run = binary_run(shop)
    signal = {"path": [evil], "table": evil, "column": evil, "rows": [], "weight": 1.0}
    explained = {"entity": evil, "prediction": 0.5, "top_signal": evil, "time": evil}
    page = render_report(
        replace(
            run,
            title=evil,
            query=evil,
            entity=evil,
            predictions=run.predictions.assign(id=evil, top_signal=evil).rename(
                columns={"id": evil}
            ),
            backtest=run.backtest.rename(columns={"id": evil}),
            facts={evil: evil},
            checkpoint={evil: [evil]},
            warnings=[evil],
            explanations=[{**explained, "signals": [{**signal, "words": evil}]}],
        )
    )
    assert "<script" not in page
    assert "<!--" not in page
    assert not re.search("[\x00-\x08\u202e]", page)
    assert page.count("&lt;script&gt;alert(") > 30
    assert "{{ 7 * 7 }}" in page


def test_many_predictions_are_quick_and_small(shop: Database, tmp_path: Path) -> None:
    run = binary_run(shop, entities=100_000, times=6)
    start = time.perf_counter()
    write_report(run, tmp_path / "many.html")
    assert time.perf_counter() - start < 15
    assert (tmp_path / "many.html").stat().st_size < 300_000
    said = words((tmp_path / "many.html").read_text())
    assert "The 20 highest of 100,000 predictions at 2019-12-01; 99,980 more are not shown." in said


def test_many_anchor_times_and_explanations_stay_small(shop: Database) -> None:
    run = binary_run(shop, entities=3, times=900)
    page = render_report(replace(run, explanations=explain(keys(500), [0.5] * 500)))
    assert len(page) < 500_000
    assert "840 earlier anchor times are not shown" in words(section(page, "labels"))
    assert section(page, "labels").count("<rect") <= 2 * 120
    assert "840 earlier anchor times are not shown" in words(section(page, "backtest"))
    assert section(page, "examples").count("<article>") <= 10


def test_the_same_run_gives_the_same_page(shop: Database) -> None:
    assert render_report(regression_run(shop)) == render_report(regression_run(shop))


def test_rows_in_any_order_give_the_same_scores(shop: Database) -> None:
    run = binary_run(shop)
    shuffled = run.backtest.sample(frac=1.0, random_state=1)
    pages = [render_report(run), render_report(replace(run, backtest=shuffled))]
    assert section(pages[0], "backtest") == section(pages[1], "backtest")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: {"entity": "nobody"}, r"predictions lacks the columns \['nobody'\]"),
        (
            lambda run: {"backtest": run.backtest.drop(columns="label")},
            r"backtest lacks the columns \['label'\]",
        ),
        (
            lambda run: {"balance": run.balance.drop(columns="labelled")},
            r"balance lacks the columns \['labelled'\]",
        ),
        (
            lambda run: {"predictions": run.predictions.assign(prediction=1.5)},
            "91 predictions are no probabilities, the first is 1.5",
        ),
        (
            lambda run: {"predictions": run.predictions.assign(low=0.1)},
            "has one of 'low' and 'high'",
        ),
        (
            lambda run: {"backtest": run.backtest.assign(at=1_600_000_000)},
            "the anchor times of 'at' are numbers, wanted times",
        ),
        (lambda run: {"task_type": "multilabel_classification"}, "there is none of that type"),
        (lambda run: {"explanations": [{"entity": 1}]}, "explanation 0 lacks"),
    ],
)
def test_runs_that_do_not_fit_are_refused(
    change: Any, message: str, shop: Database, tmp_path: Path
) -> None:
    run: PredictionRun = binary_run(shop)
    with pytest.raises(ValueError, match=message):
        write_report(replace(run, **change(run)), tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


def test_a_class_that_is_none_is_refused(shop: Database, tmp_path: Path) -> None:
    run = multiclass_run(shop, ["Oslo", "Lima"])
    strange = run.predictions.assign(prediction="Rome")
    with pytest.raises(ValueError, match=r"'Rome'.* none of the classes"):
        write_report(replace(run, predictions=strange), tmp_path / "page.html")


def test_entities_without_a_time(shop: Database) -> None:
    run = bare_run(shop)
    static = run.predictions.assign(at=pd.Series(pd.NaT, index=run.predictions.index))
    page = render_report(replace(run, predictions=static))
    assert "anchor time" not in words(page).split("Predictions")[0]
    run = binary_run(shop)
    timeless = run.backtest.assign(at=pd.Series(pd.NaT, index=run.backtest.index))
    page = section(render_report(replace(run, backtest=timeless)), "backtest")
    assert "1,092 answers to the same question whose label is known." in words(page)
    assert "no anchor times, so nothing is drawn" in words(page)
    assert charts(page) == []


def test_one_anchor_time_that_is_unknown_does_not_hide_the_others(shop: Database) -> None:
    run = binary_run(shop)
    first = run.backtest["at"] == run.backtest["at"].min()
    backtest = run.backtest.assign(at=run.backtest["at"].mask(first))
    balance = run.balance.assign(time=run.balance["time"].mask(run.balance.index == 0))
    page = render_report(replace(run, backtest=backtest, balance=balance))
    assert "at 11 past anchor times, 1,092 answers" in words(section(page, "backtest"))
    assert len(charts(section(page, "backtest"))) == 1
    assert "1,001 labelled examples at 11 anchor times" in words(section(page, "labels"))


def test_explanations_as_the_explainer_makes_them(shop: Database) -> None:
    """Paths in words, unix seconds, and what was not checked."""
    checked = Signal("orders.customer", "orders", "total", (3, 1), 0.25, -0.04, True, "many")
    other = replace(checked, path="", table="customers", checked=False, weight=-0.125, words="far")
    one = Explanation(7, 1_622_505_600, 0.6, 0.3, "Oslo", (checked, other))
    told = {**one.as_dict(), "entity": "ALFKI", "prediction": one.answer}
    binary = render_report(replace(binary_run(shop), explanations=[told]))
    said = words(section(binary, "examples"))
    assert "ALFKI 2021-06-01 60.0% many +25%" in said
    assert "orders.total · through orders.customer · 2 rows · without: −4 points" in said
    assert "far −12% customers.total · 2 rows" in said
    assert said.count("without:") == 1
    assert "customers.total 12.5% in 1 of 1" in words(section(binary, "signals"))
    several = multiclass_run(shop, ["Oslo", "Lima"])
    page = render_report(replace(several, explanations=[told]))
    assert "ALFKI 2021-06-01 Oslo (60.0%)" in words(page)
