"""Planted rules, seconds of an answer, and how many tasks databases give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.generated_tasks import CountConfig, count_tasks
from benchmarks.planted import PlantedConfig, planted, planted_tasks
from benchmarks.zero_shot import ZeroShotData
from benchmarks.zero_shot_timing import TimingConfig, time_answers
from rfm.data.corpus import DataConfig
from rfm.eval.zero_shot import ContextConfig
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from tests.asked import ask

FEW = ContextConfig(children=3, history=4, max_rows=20)


@pytest.fixture(scope="module")
def checkpoint(task_shop: Path, task_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model(BackboneConfig(), ask(task_shop, "buys", task_cache).tokenizer, 40)
    model.about = {"databases": {}, "episodes": 1}
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    model.save_pretrained(folder)
    return folder


def test_answers_are_compared_with_planted_rules(
    checkpoint: Path, task_cache: Path, tmp_path: Path
) -> None:
    config = PlantedConfig(
        str(checkpoint), count=2, rows=1_500, context=64, ask=FEW, cache=task_cache,
        out=tmp_path / "planted.csv",
    )  # fmt: skip
    said, table = planted(config), pd.read_csv(tmp_path / "planted.csv")
    assert said["tasks"] == len(table) >= 1
    assert set(table.signal) <= {"own_columns", "one_hop"}
    assert (table.rule >= 0.6).all()
    way = (table["zero-shot"] - 0.5) / (table.rule - 0.5)
    assert table.way.tolist() == pytest.approx(way.tolist(), abs=1e-5)
    assert said["way"] == pytest.approx(table.groupby("database").way.mean().mean(), abs=1e-5)
    model = RelationalModel.from_pretrained(checkpoint)
    model.about["databases"][table.database[0]] = "seen"
    model.save_pretrained(tmp_path / "seen")
    with pytest.raises(ValueError, match=r"pretrained on synthetic-1000-.*: give another seed"):
        planted(replace(config, checkpoint=str(tmp_path / "seen")))


def test_planted_signals_come_in_turn(task_cache: Path) -> None:
    config = PlantedConfig("none", count=2, rows=1_500, cache=task_cache)
    found = {task.database.name: truth["signal"] for task, truth in planted_tasks(config)}
    assert len(set(found.values())) == len(found)


def test_seconds_of_an_answer(checkpoint: Path, task_shop: Path, task_cache: Path) -> None:
    data = ZeroShotData(root=task_shop.parent, cache=task_cache)
    config = TimingConfig(str(checkpoint), "shop", "buys", "rolling", 20, 1, FEW, data)
    said = time_answers(config)
    assert said["examples"] == 20
    assert said["seconds"]["one question"] > said["seconds"]["one more question"] > 0


def test_generated_tasks_are_counted(task_cache: Path) -> None:
    data = DataConfig(synthetic=2, synthetic_rows=1_500, cache=task_cache, vocab_size=400)
    said = count_tasks(CountConfig(tries=20, data=data))
    assert said["databases"] == 2
    assert 0 < said["distinct"] <= said["usable"] <= 40
