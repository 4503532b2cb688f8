"""Many tasks by many methods: cells, nothing twice, and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks.cells import cell_path, read_cell
from benchmarks.finetuned import FinetunedConfig, finetuned
from rfm.config import load_config
from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.eval.predictions import read_predictions, score
from tests.conftest import ROOT
from tests.tiny_tuning import TINY

YAML = [
    path
    for path in sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))
    if path.stem != "zero_shot"
]
METHODS = """methods:
  scratch: [checkpoint=none, {words}]
  nothing read: [checkpoint=none, {words}, tune.reads=false]
"""


def configure(folder: Path, shop: Path, cache: Path, *more: str) -> FinetunedConfig:
    places = ("data.cache", "data.workers")
    words = ", ".join(f"'{word}'" for word in TINY if not word.startswith(places))
    (folder / "methods.yaml").write_text(METHODS.format(words=words))
    argv = [
        f"config={folder / 'methods.yaml'}", f"data.root={shop.parent}", f"data.cache={cache}",
        f"results={folder / 'results'}", f"out={folder / 'report'}", *more,
    ]  # fmt: skip
    return load_config(FinetunedConfig, argv, prog="test", doc=None)


@pytest.mark.usefixtures("no_trace")
def test_cells_are_run_once_and_reported(tmp_path: Path, task_shop: Path, task_cache: Path) -> None:
    words = ("tasks=[shop/buys]", "seeds=1", "regimes=[rolling]")
    config = configure(tmp_path, task_shop, task_cache, *words)
    said = finetuned(config)
    assert (said["cells"], said["run"]) == (2, 2)
    task = open_task(open_database(task_shop), "buys")
    for method in ("scratch", "nothing read"):
        path = cell_path(config.results, "shop/buys", "rolling", method, 0)
        cell = read_cell(path)
        predictions = read_predictions(task, path.with_suffix(".parquet"))
        assert score(task, "test", predictions) == pytest.approx(cell.test)
        assert cell.low <= cell.test <= cell.high
        assert cell.curve[-1][0] == 4
        assert cell.config["tune"]["reads"] == (method == "scratch")
        assert cell.checkpoint == "none"
        assert cell.versions["commit"]
    table = pd.read_csv(tmp_path / "report" / "finetuned.csv")
    ours = table[table.method == "scratch"].set_index("regime")
    assert ours.loc["rolling", "seeds"] == 1
    written = {p: p.stat().st_mtime_ns for p in config.results.rglob("seed-*.json")}
    again = finetuned(config)
    assert (again["cells"], again["run"]) == (2, 0)
    assert {p: p.stat().st_mtime_ns for p in config.results.rglob("seed-*.json")} == written
    cell_path(config.results, "shop/buys", "rolling", "scratch", 0).unlink()
    assert finetuned(config)["run"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks=[buys]"], "wanted database/task"),
        (["tasks=[]"], "one or more of each"),
        (["tasks=[shop/buys]", "regimes=[warm]"], "regimes"),
        (["tasks=[shop/buys]", "methods={}"], "give checkpoint=<folder>, or methods"),
    ],
)
def test_bad_words(
    tmp_path: Path, task_shop: Path, task_cache: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        configure(tmp_path, task_shop, task_cache, *words)


def test_a_mistake_in_a_method_shows_before_anything_is_run(
    tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    config = configure(
        tmp_path, task_shop, task_cache, "tasks=[shop/buys]", "methods.odd=[checkpoint=none,lr=1]"
    )
    with pytest.raises(ValueError, match=r"methods\[odd\].*lr"):
        finetuned(config)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.stem)
def test_configs_load(path: Path) -> None:
    words: list[Any] = [f"config={path}"]
    if "methods" not in path.read_text():
        words.append("checkpoint=some/folder")
    config = load_config(FinetunedConfig, words, prog="test", doc=None)
    assert len(set(config.tasks)) == len(config.tasks)


@pytest.mark.realdata
@pytest.mark.parametrize("path", YAML, ids=lambda path: path.stem)
def test_tasks_of_configs_are_there(path: Path, real_data: Path) -> None:
    words = [f"config={path}", "checkpoint=some/folder"]
    for task in load_config(FinetunedConfig, words, prog="test", doc=None).tasks:
        database, name = task.split("/")
        assert open_task(open_database(database, real_data), name).full_name == task
