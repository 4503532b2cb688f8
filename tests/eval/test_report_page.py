"""The report in a browser: complete, legible, self-contained, on a phone and a desktop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database, open_database
from rfm.eval.report import PredictionRun, write_report
from tests.browser import Browser, open_browser
from tests.folders import write_folder
from tests.prediction_runs import (
    bare_run,
    binary_run,
    multiclass_run,
    recommendation_run,
    regression_run,
)
from tests.shop import KEYS, shop_tables

SECTIONS = {
    "predictions": "Predictions",
    "backtest": "Backtest",
    "calibration": "Calibration",
    "signals": "Top signals",
    "examples": "Explained examples",
    "labels": "Labels over time",
    "database": "Database",
    "run": "The run",
}
EVIL = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>&\'`${1}{{7*7}}'
LONG = "unbroken" * 60

_HEADINGS = """
return Object.fromEntries([...document.querySelectorAll('section')].map(
  s => [s.id, s.querySelector('h2').innerText]))
"""
_EMPTY = """
return [...document.querySelectorAll('svg, section, article, table')]
  .filter(e => !e.closest('details'))
  .filter(e => e.getBoundingClientRect().width < 50 || e.getBoundingClientRect().height < 20)
  .map(e => e.outerHTML.slice(0, 80))
"""
_SMALL_TEXT = """
return Math.min(...[...document.querySelectorAll('svg.chart')].map(e =>
  12 * e.getBoundingClientRect().width / e.viewBox.baseVal.width))
"""
_OUTSIDE = """
return [...document.querySelectorAll('svg.chart text, svg.schema text')].filter(e => {
  const own = e.getBoundingClientRect(), all = e.ownerSVGElement.getBoundingClientRect();
  return own.left < all.left - 1 || own.right > all.right + 1 || own.bottom > all.bottom + 1;
}).map(e => e.textContent)
"""
_FAINT = """
const parse = c => c.match(/[\\d.]+/g).map(Number);
const light = c => parse(c).slice(0, 3).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const behind = e => {
  for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor, p = parse(c);
    if (p.length < 4 || p[3] > 0) return c;
  }
};
const texts = 'h1,h2,h3,p,li,small,figcaption,caption,dt,dd,th,td,a,strong,code';
return [...document.querySelectorAll(texts)]
  .map(e => [light(getComputedStyle(e).color), light(behind(e)), e.outerHTML.slice(0, 60)])
  .map(([a, b, e]) => [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), e])
  .filter(([ratio]) => ratio < 4.5)
"""
_FAINT_CHARTS = """
const light = c => c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
  .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const paper = light(getComputedStyle(document.body).backgroundColor);
return [...document.querySelectorAll('svg.chart text, svg.schema text')]
  .map(e => [light(getComputedStyle(e).fill), e.textContent])
  .map(([a, t]) => [(Math.max(a, paper) + .05) / (Math.min(a, paper) + .05), t])
  .filter(([ratio]) => ratio < 4)
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    folder = tmp_path_factory.mktemp("databases") / "shop"
    return open_database(write_folder(folder, shop_tables(), KEYS))


def hostile_run(folder: Path) -> PredictionRun:
    """Markup, control characters and endless words wherever a name can stand."""
    name = EVIL.replace("/", "∕")  # a table is a file
    tables = {
        name: pd.DataFrame({"id": np.arange(3), LONG: np.arange(3.0)}),
        "b\u202e\x07": pd.DataFrame({EVIL: np.zeros(3, dtype=int), "x\x00y": list("abc")}),
    }
    described = {name: {"pkey": "id"}, "b\u202e\x07": {"fkeys": {EVIL: name}}}
    database = open_database(write_folder(folder / "evil", tables, described))
    run = multiclass_run(database, [EVIL, LONG, "plain"])
    spoil = {"entity": EVIL, "top_signal": LONG, "prediction": EVIL}
    signal = {"path": [EVIL, LONG], "table": EVIL, "column": LONG, "rows": [1], "words": EVIL}
    explained = [
        {**one, **spoil, "signals": [{**signal, "weight": -0.2}, {**signal, "weight": 0.1}]}
        for one in run.explanations
    ]
    return replace(
        run,
        title=EVIL,
        query=f"{EVIL}\x00\u202e {LONG}",
        predictions=run.predictions.assign(id=[EVIL, *[LONG] * 90]).rename(columns={"id": EVIL}),
        backtest=run.backtest.rename(columns={"id": EVIL}),
        entity=EVIL,
        warnings=[EVIL, LONG],
        facts={EVIL: LONG, LONG: EVIL},
        checkpoint={EVIL: [EVIL] * 30},
        explanations=explained,
    )


def check_page(browser: Browser, page: Path) -> None:
    """At a phone's and a desktop's width, light and dark."""
    for width, dark in ((360, False), (1280, True), (360, True)):
        browser.visit(page, width, dark=dark)
        assert browser.run("return window.innerWidth") == width
        assert browser.log("browser") == []
        assert browser.loaded() == [page.resolve().as_uri()]
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run("return document.body.getBoundingClientRect().height") > 1000
        assert browser.run(_HEADINGS) == SECTIONS
        assert browser.run(_EMPTY) == []
        assert browser.run(_OUTSIDE) == []
        assert browser.run(_FAINT) == []
        assert browser.run(_FAINT_CHARTS) == []
        assert browser.run("return document.scripts.length") == 0
        assert browser.run("return document.querySelectorAll('svg.schema').length") == 1


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "recommendation", "bare"])
def test_every_type_of_task(kind: str, browser: Browser, shop: Database, tmp_path: Path) -> None:
    runs = {
        "binary": lambda: binary_run(shop),
        "multiclass": lambda: multiclass_run(shop, ["Oslo", "Lima", "Kyiv"]),
        "regression": lambda: regression_run(shop),
        "recommendation": lambda: recommendation_run(shop),
        "bare": lambda: bare_run(shop),
    }
    page = tmp_path / f"{kind}.html"
    write_report(runs[kind](), page)
    check_page(browser, page)
    browser.visit(page, 360)
    assert browser.run(_SMALL_TEXT) > 10  # pixels
    charts = browser.run("return document.querySelectorAll('svg.chart').length")
    assert (
        charts
        == {"binary": 5, "multiclass": 3, "regression": 7, "recommendation": 3, "bare": 1}[kind]
    )


def test_folded_tables_open(browser: Browser, shop: Database, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_report(binary_run(shop), page)
    browser.visit(page, 360)
    heights = (
        "const all = [...document.querySelectorAll('details')];"
        "all.forEach(e => e.open = true);"
        "return all.map(e => e.querySelector('table').getBoundingClientRect().height)"
    )
    assert min(browser.run(heights)) > 100
    assert browser.run("return document.documentElement.scrollWidth") <= 360


def test_hostile_names(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "hostile.html"
    write_report(hostile_run(tmp_path), page)
    check_page(browser, page)
    assert browser.run("return typeof window.hacked") == "undefined"
    assert browser.run("return document.images.length") == 0
    assert browser.run("return document.querySelector('h1').textContent") == EVIL
    for width in (360, 1280):
        browser.visit(page, width)
        browser.run("document.querySelectorAll('details').forEach(e => e.open = true)")
        assert browser.run("return document.documentElement.scrollWidth") <= width
