"""Checkpoints asked about tasks of databases that they have not seen: cells, and the report."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from benchmarks.cells import cell_path, read_cell
from benchmarks.readers import logistic_regression, nearest_neighbours
from benchmarks.zero_shot import ZeroShotConfig, zero_shot
from rfm.config import load_config
from rfm.data.database import open_database
from rfm.data.store import schema_words
from rfm.data.tasks import open_task
from rfm.eval.predictions import read_predictions, score
from rfm.nn.backbone import BackboneConfig
from rfm.nn.in_context import Examined
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from tests.asked import ask


@pytest.fixture(scope="module")
def checkpoint(task_shop: Path, task_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has seen the database ``other``, of the same schema."""
    asker = ask(task_shop, "buys", task_cache)
    model = build_model(BackboneConfig(), asker.tokenizer, 40)
    schema = schema_words(asker.store)
    model.about = {"databases": {"other": "x"}, "episodes": 1, "schemas": {"other": schema}}
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    model.save_pretrained(folder)
    return folder


def configure(folder: Path, shop: Path, cache: Path, *more: str) -> ZeroShotConfig:
    words = [
        "tasks=[shop/buys,shop/next]", f"data.root={shop.parent}", f"data.cache={cache}",
        f"results={folder / 'results'}", f"out={folder / 'report'}", "regimes=[rolling]",
        "context=[0,12]", "ask.children=3", "ask.history=4", "ask.max_rows=20", *more,
    ]  # fmt: skip
    last = {word.split("=")[0]: word for word in words}
    return load_config(ZeroShotConfig, list(last.values()), prog="test", doc=None)


@pytest.mark.usefixtures("no_trace")
def test_cells_are_made_once_and_reported(
    tmp_path: Path, task_shop: Path, task_cache: Path, checkpoint: Path
) -> None:
    more = (f"checkpoint={checkpoint}", "random_backbone=true")
    config = configure(tmp_path, task_shop, task_cache, *more)
    assert zero_shot(config)["run"] == 2 * (1 + 3) + 2 * 2
    task = open_task(open_database(task_shop), "buys")
    for kind, context in (("", 0), ("", 12), (", logistic regression", 12)):
        path = cell_path(config.results, "shop/buys", "rolling", f"rfm{kind}, context {context}", 0)
        cell = read_cell(path)
        predictions = read_predictions(task, path.with_suffix(".parquet"))
        assert score(task, "test", predictions) == pytest.approx(cell.test)
        assert cell.context == context == cell.config["context"]
        assert cell.pretraining == ("other",)
        assert "schema seen" in cell.warnings[0]
        assert "other" in cell.warnings[0]
        assert (path.parent / "leaderboard-0" / "shop__buys.csv").is_file()
    table = pd.read_csv(tmp_path / "report" / "zero_shot.csv")
    assert table.columns[-1] == "context"
    assert set(table.context.dropna()) == {0, 12}
    names = set(table.method)
    assert {"entity mean", "last 10 labels", "global constant", "popularity"} <= names
    assert "rfm with a random backbone, nearest neighbours, context 12" in names
    assert table[table.method == "entity mean"].context.isna().all()
    page = (tmp_path / "report" / "zero_shot.html").read_text()
    assert "Zero-shot scores" in page
    assert "Score by context on shop/buys" in page
    assert zero_shot(config)["run"] == 0
    for other in (f"checkpoint={checkpoint}", "ask.children=2"), ("checkpoints.rfm=elsewhere",):
        words = ("random_backbone=true", *other)
        copied = tmp_path / "copy"
        shutil.copytree(checkpoint, copied, dirs_exist_ok=True)
        words = tuple(w.replace("elsewhere", str(copied)) for w in words)
        with pytest.raises(ValueError, match=r"seed-0\.json is of checkpoint .* delete it"):
            zero_shot(configure(tmp_path, task_shop, task_cache, *words))


def test_a_database_that_the_checkpoint_has_seen_is_refused(
    tmp_path: Path, task_shop: Path, task_cache: Path, checkpoint: Path
) -> None:
    model = RelationalModel.from_pretrained(checkpoint)
    model.about["databases"]["shop"] = "y"
    model.save_pretrained(tmp_path / "seen")
    config = configure(tmp_path, task_shop, task_cache, f"checkpoint={tmp_path / 'seen'}")
    with pytest.raises(ValueError, match=r"shop/buys.*pretrained on shop.*not zero-shot: leave"):
        zero_shot(config)
    assert not config.results.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks=[buys]", "checkpoint=x"], "wanted database/task"),
        (["tasks=[]", "checkpoint=x"], "one or more of each"),
        (["context=[]", "checkpoint=x"], "one or more of each"),
        ([], "give checkpoint=<folder>, or checkpoints"),
        (["context=[-1]", "checkpoint=x"], "got -1"),
        (["checkpoint=x", "checkpoints.rfm=y"], "is called rfm, as is one of checkpoints"),
    ],
)
def test_bad_words(
    tmp_path: Path, task_shop: Path, task_cache: Path, words: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        configure(tmp_path, task_shop, task_cache, *words)


@pytest.mark.parametrize("classes", [0, 2, 4])
def test_readers_of_states_find_what_is_there(classes: int) -> None:
    torch.manual_seed(0)
    state = torch.randn(300, 6)
    label = state[:, 0] + 0.1 * torch.randn(300)
    if classes:
        edges = torch.quantile(label, torch.linspace(0, 1, classes + 1)[1:-1])
        label = torch.bucketize(label, edges).float()
    none = torch.zeros(300, 0)
    kind = torch.zeros(0, dtype=torch.int64)
    both = Examined(state, torch.zeros(300), none, kind, label[:250], classes)
    for reader in (logistic_regression, nearest_neighbours):
        said = reader(both)
        assert said.shape == (50, max(classes, 1))
        said = said.argmax(1).double() if classes > 2 else said[:, -1]
        assert torch.corrcoef(torch.stack([said, label[250:].double()]))[0, 1] > 0.5


def test_readers_know_no_class_that_has_no_example() -> None:
    state, kind = torch.randn(20, 6), torch.zeros(0, dtype=torch.int64)
    for label in (torch.full((16,), 2.0), torch.arange(16) % 2 * 2.0):
        both = Examined(state, torch.zeros(20), torch.zeros(20, 0), kind, label, 3)
        for reader in (logistic_regression, nearest_neighbours):
            said = reader(both)
            assert said[:, 1].abs().max() == 0
            torch.testing.assert_close(said.sum(1), torch.ones(4, dtype=said.dtype))
