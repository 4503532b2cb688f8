"""The command: every type of task, what is there is not run again, bad input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import baselines
from benchmarks.baselines import BaselinesConfig, run_baselines
from benchmarks.boosting import BoostingConfig, lightgbm_aggregates, lightgbm_entity
from benchmarks.cells import read_cells
from benchmarks.summary import summarise
from rfm.config import run_command
from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.eval.predictions import read_predictions, score
from tests.benchmarks.task_folders import TYPES, labels, write_tasks

pytestmark = pytest.mark.usefixtures("no_trace")
QUICK = BoostingConfig(trials=2, tries=1, rounds=30, threads=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("baselines")
    write_tasks(folder / "market")
    return folder


def command(root: Path, results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    argv = [f"data.root={root}", f"results={results}", "boosting.threads=1", "boosting.trials=1"]
    argv += ["boosting.tries=1", "boosting.rounds=5", "resamples=20", *words]
    run_command(BaselinesConfig, run_baselines, prog="baselines", doc=None, argv=argv)
    said = capsys.readouterr()
    return json.loads(said.out.splitlines()[-1]), said.err


def refused(root: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    results = root / "nothing"
    with pytest.raises(SystemExit) as stopped:
        command(root, results, capsys, *words)
    assert stopped.value.code == 2
    assert not results.exists()
    return capsys.readouterr().err


TINY = ("graphsage.epochs=1", "graphsage.width=8", "graphsage.column_width=4")


@pytest.mark.parametrize("name", TYPES)
def test_every_type_of_task_has_its_baselines(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    result, said = command(root, tmp_path, capsys, f"tasks=[market/{name}]", "seeds=2", *TINY)
    recommends = name == "buys"
    methods = {"graphsage from scratch"} | ({"popularity", "past destinations"} if recommends else {
        "global constant", "entity mean", "last 10 labels", "last 20 labels or rate of the unseen",
        "lightgbm entity", "lightgbm aggregates",
    })  # fmt: skip
    cells = read_cells(tmp_path)
    assert {cell.method for cell in cells} == methods == {s["method"] for s in result["scores"]}
    assert result["run"] == result["cells"] == len(cells) == (4 if recommends else 10)
    by_chance = {"lightgbm entity", "lightgbm aggregates", "graphsage from scratch"}
    assert {cell.seed for cell in cells if cell.method not in by_chance} == {0}
    assert "lightgbm" not in str(methods) or "lightgbm entity" in said
    task = open_task(open_database(root / "market"), name)
    for cell in cells:
        assert cell.low <= cell.test <= cell.high or cell.low == pytest.approx(cell.test)
        path = tmp_path / "frozen" / task.full_name / cell.method / f"seed-{cell.seed}.parquet"
        assert score(task, "test", read_predictions(task, path)) == pytest.approx(cell.test)
    assert len(summarise(tmp_path)) == len(methods)  # seeds differ in nothing but the seed


def test_a_finished_cell_is_not_run_again(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["tasks=[market/churn]", "methods=[entity mean,lightgbm entity]"]
    first, _ = command(root, tmp_path, capsys, *words, "regimes=[frozen,rolling]")
    assert (first["cells"], first["run"]) == (4, 4)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    asked = []
    real = baselines.run_job
    monkeypatch.setattr(baselines, "run_job", lambda *a: asked.append(a[2][1:]) or real(*a))
    again, said = command(root, tmp_path, capsys, *words, "regimes=[frozen,rolling]", "seeds=2")
    assert asked == [("frozen", "lightgbm entity", 1), ("rolling", "lightgbm entity", 1)]
    assert (again["cells"], again["run"]) == (6, 2)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert "± " in said
    (tmp_path / "frozen/market/churn/entity mean/seed-0.json").unlink()
    asked.clear()
    command(root, tmp_path, capsys, *words, "regimes=[frozen,rolling]", "seeds=2")
    assert asked == [("frozen", "entity mean", 0)]


def test_unknown_names_are_refused_with_those_there_are(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(root, capsys, "tasks=[market/churn]", "methods=[entity means]")
    assert "no method 'entity means'; did you mean 'entity mean'? there are: global cons" in said
    assert "lightgbm aggregates" in said
    said = refused(root, capsys, "tasks=[market/churns]")
    assert "has no task 'churns'; its tasks are: did you mean 'churn'?" in said
    assert "market" in refused(root, capsys, "tasks=[markets/churn]")
    assert "'churn' is no task, wanted database/task" in refused(root, capsys, "tasks=[churn]")
    assert "none given" in refused(root, capsys, "tasks=[]")
    assert "regimes" in refused(root, capsys, "tasks=[market/churn]", "regimes=[warm]")
    said = refused(root, capsys, "tasks=[market/churn]", "methods=[popularity]")
    assert "none of them fits" in said


def test_methods_that_fit_only_some_tasks_skip_the_others(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "tasks=[market/churn,market/buys]", "methods=[popularity,global constant]"
    result, _ = command(root, tmp_path, capsys, *words)
    pairs = {(s["task"], s["method"]) for s in result["scores"]}
    assert pairs == {("market/churn", "global constant"), ("market/buys", "popularity")}


def test_labels_that_cannot_be_scored_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = {name: labels(name) for name in ("churn", "level", "tags", "spend", "buys")}
    answers["churn"].loc[answers["churn"]["at"] < "2020-01-01", "label"] = 1
    write_tasks(tmp_path / "market", answers=answers)
    said = refused(tmp_path, capsys, "tasks=[market/churn]", "methods=[entity mean]")
    assert "nothing can be learnt from a single class" in said


def test_aggregates_find_what_own_columns_do_not_tell(root: Path) -> None:
    task = open_task(open_database(root / "market"), "churn")
    own, all_of_it = (
        score(task, "test", method(task, "frozen", 0, config=QUICK).test)
        for method in (lightgbm_entity, lightgbm_aggregates)
    )
    assert all_of_it > 0.8 > own + 0.1


def test_lightgbm_is_the_same_twice_and_seeds_differ(root: Path) -> None:
    task = open_task(open_database(root / "market"), "spend")
    again = open_task(open_database(root / "market"), "spend")
    one, two = (lightgbm_aggregates(t, "frozen", 0, config=QUICK) for t in (task, again))
    assert one.test.value.tobytes() == two.test.value.tobytes()
    assert one.config == two.config
    assert one.config["training_cutoffs"] in ("stale", "fresh")
    assert [t["cutoffs"] for t in one.config["tried"]] == ["stale", "stale", "fresh"]
    assert len(one.curve) > 1
    other = lightgbm_aggregates(task, "frozen", 1, config=QUICK)
    assert (other.test.value != one.test.value).any()
    assert other.config == one.config


def test_rows_without_any_feature_get_a_constant(tmp_path: Path) -> None:
    hidden = (("people", "born"), ("people", "job"), ("people", "town"), ("orders", "secret"))
    folder = write_tasks(tmp_path / "market", hidden=hidden)
    task = open_task(open_database(folder), "spend")
    value = lightgbm_entity(task, "frozen", 0, config=QUICK).test.value
    assert np.unique(value).size == 1
    assert value[0, 0] == pytest.approx(np.median(task.rows("train").label), abs=0.05)


@pytest.mark.slow
@pytest.mark.realdata
def test_lightgbm_on_aggregates_reaches_what_is_published(real_data: Path) -> None:
    """0.730 on frozen driver-dnf, a published run of LightGBM."""
    task = open_task(open_database("rel-f1", real_data), "driver-dnf")
    tests = [
        score(task, "test", lightgbm_aggregates(task, "frozen", s, config=BoostingConfig()).test)
        for s in range(3)
    ]
    assert np.mean(tests) == pytest.approx(0.73, abs=0.02)


@pytest.mark.slow
@pytest.mark.realdata
def test_frozen_predictions_do_not_need_what_comes_later(real_data: Path, tmp_path: Path) -> None:
    """With every row after the test timestamp deleted and the test labels turned round, LightGBM
    gives the same predictions to the last bit."""
    folder = shutil.copytree(real_data / "rel-f1", tmp_path / "rel-f1")
    for path in (folder / "db").glob("*.parquet"):
        frame = pd.read_parquet(path)
        if "date" in frame:
            kept = frame[frame["date"] <= "2010-01-01"]
            assert (kept.index == np.arange(len(kept))).all()  # keys still count the rows
            kept.to_parquet(path, index=False)
    test = folder / "tasks" / "driver-dnf" / "test.parquet"
    frame = pd.read_parquet(test)
    frame["did_not_finish"] = 1 - frame["did_not_finish"]
    frame.to_parquet(test, index=False)
    both = [open_task(open_database(f), "driver-dnf") for f in (real_data / "rel-f1", folder)]
    config = replace(QUICK, threads=3)
    one, two = (lightgbm_aggregates(task, "frozen", 0, config=config).test for task in both)
    assert one.value.tobytes() == two.value.tobytes()
