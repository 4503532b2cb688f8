"""Tasks that are wrong, given to `python -m finetune`: one clear error with what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from finetune.__main__ import finetune
from finetune.config import FinetuneConfig
from finetune.predict import PredictConfig, answer
from rfm.config import run_command
from rfm.data.database import open_database
from rfm.data.tokenizer import mixture_tokenizer
from rfm.nn.backbone import BackboneConfig
from rfm.train.build import build_model
from tests.tiny_tuning import tune_task, words

pytestmark = pytest.mark.usefixtures("no_trace")
Change = Callable[[pd.DataFrame], pd.DataFrame]


def said_of(capsys: pytest.CaptureFixture[str], command: Any, config: Any, argv: list[str]) -> str:
    """The error line of a command that must be refused."""
    with pytest.raises(SystemExit) as stopped:
        run_command(config, command, prog="python -m finetune", doc=None, argv=argv)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said.err
    return errors[0]


def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: Path, task: str, *more: str
) -> str:
    """Fine-tune on what must be refused; the error line. No result is left."""
    argv = words(folder, task, tmp_path / "cache", tmp_path / "run", *more)
    error = said_of(capsys, finetune, FinetuneConfig, argv)
    assert not list((tmp_path / "run").rglob("result.json"))
    assert not list((tmp_path / "run").rglob("*.parquet"))
    return error


def change(shop: Path, out: Path, task: str, split: str, change: Change) -> Path:
    """A copy of the shop with one split of a task changed."""
    shutil.copytree(shop, out / "shop")
    path = out / "shop" / "tasks" / task / f"{split}.parquet"
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    return out / "shop"


def change_manifest(shop: Path, out: Path, task: str, **changes: Any) -> Path:
    shutil.copytree(shop, out / "shop")
    path = out / "shop" / "tasks" / task / "manifest.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))
    return out / "shop"


def test_an_unknown_task(
    tmp_path: Path, task_shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused(tmp_path, capsys, task_shop, "buy")
    assert "database shop has no task 'buy'; its tasks are" in error
    for name in ("buys", "likes", "next", "rating", "spend", "status", "tags", "tier"):
        assert name in error
    assert not (tmp_path / "run").exists()


def test_a_database_without_tasks(
    tmp_path: Path, task_shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(task_shop, tmp_path / "shop")
    shutil.rmtree(tmp_path / "shop" / "tasks")
    error = refused(tmp_path, capsys, tmp_path / "shop", "buys")
    assert "database shop has no task 'buys'; it has no tasks" in error


LABELS: dict[str, tuple[str, str, Change, str]] = {
    "another database": (
        "buys", "train", lambda f: f.assign(customer=f.customer + 7),
        "is no row of customers, which has rows 0..11: is this a task of another database?",
    ),
    "another database's destinations": (
        "next", "val", lambda f: f.assign(product=[[99]] * len(f)),
        "product 99 in row 0 is no row of products, which has rows 0..14: is this a task of",
    ),
    "no entity": (
        "buys", "test", lambda f: f.assign(customer=f.customer.where(f.index > 2)),
        "customer is of type float64 with 3 nulls, wanted row numbers of customers",
    ),
    "entities in words": (
        "buys", "val", lambda f: f.assign(customer="c" + f.customer.astype(str)),
        "wanted row numbers of customers",
    ),
    "a single class": (
        "buys", "train", lambda f: f.assign(buys=1),
        "every label of buys is 1: nothing can be learnt from a single class",
    ),
    "a single name": (
        "tier", "train", lambda f: f.assign(tier="gold"),
        "nothing can be learnt from a single class",
    ),
    "nulls alone": (
        "spend", "train", lambda f: f.assign(spent=np.nan),
        "spent is null in every row; a split needs labels",
    ),
    "nulls alone, of classes": (
        "tier", "train", lambda f: f.assign(tier=pd.Series([None] * len(f), dtype=object)),
        "tier is null in every row; a split needs labels",
    ),
    "nulls alone, to validate": (
        "buys", "val", lambda f: f.assign(buys=np.nan),
        "buys is null in every row; a split needs labels",
    ),
    "nulls alone, of lists": (
        "tags", "train", lambda f: f.assign(tags=pd.Series([None] * len(f), dtype=object)),
        "wanted a list of 0 and 1 in every row, all equally long",
    ),
    "nothing to recommend": (
        "next", "train", lambda f: f.assign(product=[[]] * len(f)),
        "wanted lists of rows of products for recommendation",
    ),
    "words for numbers": (
        "spend", "train", lambda f: f.assign(spent="much"),
        "(e.g. 'much'), wanted numbers for regression",
    ),
    "times for numbers": (
        "spend", "train", lambda f: f.assign(spent=f.date),
        "wanted numbers for regression",
    ),
    "lists for classes": (
        "tier", "train", lambda f: f.assign(tier=[[1, 2]] * len(f)),
        "tier is of type object (e.g. array([1, 2])), wanted one class per row",
    ),
    "numbers for 0 and 1": (
        "buys", "train", lambda f: f.assign(buys=f.buys * 3),
        "buys holds 3, wanted 0 and 1 for binary_classification",
    ),
    "infinity": (
        "spend", "train", lambda f: f.assign(spent=np.inf),
        "spent holds infinite values",
    ),
    "lists of two lengths": (
        "tags", "train", lambda f: f.assign(tags=[[0, 1]] + [[0, 1, 1]] * (len(f) - 1)),
        "all equally long, for multilabel_classification; got [2, 3] of them",
    ),
    "numbers for lists": (
        "tags", "train", lambda f: f.assign(tags=1.0),
        "wanted a list of 0 and 1 in every row",
    ),
    "other numbers in lists": (
        "tags", "train", lambda f: f.assign(tags=[[0, 2, 1, 0]] * len(f)),
        "wanted lists of 0 and 1 for multilabel_classification",
    ),
    "numbers for destinations": (
        "likes", "train", lambda f: f.assign(product=3),
        "wanted lists of rows of products for recommendation, got ",
    ),
    "no rows": ("buys", "test", lambda f: f.iloc[:0], "has no rows; every split needs some"),
    "no label column": (
        "buys", "val", lambda f: f.drop(columns="buys"),
        "wanted a parquet file with the columns ['date', 'customer', 'buys']",
    ),
    "no time": (
        "buys", "val", lambda f: f.assign(date=f.date.where(f.index != 4)),
        "date of row 4 is null or not a time",
    ),
    "seed times before the database": (
        "buys", "val", lambda f: f.assign(date=f.date - pd.Timedelta(days=9999)),
        "every seed time is before 2019-01-",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(LABELS))
def test_labels(
    tmp_path: Path, task_shop: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    task, split, made, message = LABELS[case]
    folder = change(task_shop, tmp_path, task, split, made)
    error = refused(tmp_path, capsys, folder, task)
    assert message in error
    assert str(folder / "tasks" / task / f"{split}.parquet") in error


MANIFESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such table": ("buys", {"entity_table": "custmers"}, "table 'custmers' is no table of shop"),
    "no destinations": ("next", {"dst_entity_table": "goods"}, "table 'goods' is no table of shop"),
    "no such type": ("buys", {"task_type": "ranking"}, "cannot be read as a RelBench task"),
    "nothing to hide": (
        "spend", {"remove_columns": [["orders", "nots"]]},
        "column orders.nots is to be hidden, but there is none",
    ),
    "a key to hide": (
        "spend", {"remove_columns": [["orders", "id"]]},
        "orders.id is a key or time column, it cannot be hidden",
    ),
    "no sense of time": ("buys", {"timedelta": "soon"}, "timedelta is 'soon', wanted such as"),
    "no time at all": ("buys", {"timedelta": "0 days"}, "timedelta is '0 days', wanted such as"),
    "back in time": ("tags", {"timedelta": "-5 days"}, "timedelta is '-5 days', wanted such as"),
    "not of the kind": (
        "status", {"entity_table": "customers", "target_col": "city", "remove_columns": []},
        "an autocomplete task needs a primary key and a time column, table customers has id and",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(MANIFESTS))
def test_manifests(
    tmp_path: Path, task_shop: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    task, changes, message = MANIFESTS[case]
    folder = change_manifest(task_shop, tmp_path, task, **changes)
    error = refused(tmp_path, capsys, folder, task)
    assert message in error
    assert str(folder / "tasks" / task / "manifest.yaml") in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["regime=thawed"], "wanted frozen | rolling"),
        (["checkpoint=nowhere/at/all"], "is neither a local folder nor to be had from the Hub"),
        (
            ["checkpoint=somewhere", "model.hops=1"],
            "brings its own model: leave model.* out",
        ),
        (["seeds=0"], "seeds: got 0, wanted a number >= 1"),
        (["tune.parts=some"], "tune.parts"),
        (["question.max_tokens=4"], "question.max_tokens: got 4, wanted a number >= 8"),
        (["database=nowhere"], "nowhere"),
        (["optim.step=3"], "did you mean 'optim.steps'?"),
    ],
)
def test_words(
    tmp_path: Path,
    task_shop: Path,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    message: str,
) -> None:
    if "nowhere/at/all" in given[0]:
        given = [*given, "model.row_encoder.size="]
    assert message in refused(tmp_path, capsys, task_shop, "buys", *given)


def test_a_folder_that_is_no_checkpoint(
    tmp_path: Path, task_shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    given = (f"checkpoint={tmp_path / 'empty'}", "model.row_encoder.size=")
    error = refused(tmp_path, capsys, task_shop, "buys", *given)
    assert f"checkpoint {tmp_path / 'empty'} lacks config.json, model.safetensors" in error


def save_checkpoint(shop: Path, cache: Path, out: Path, about: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    tokenizer = mixture_tokenizer([open_database(shop)], 400, cache)
    model = build_model(BackboneConfig(), tokenizer, 32, compiled=False)
    model.about = {"serialisation": "compact", **about}
    model.save_pretrained(out)
    return out


@pytest.mark.parametrize("late", [False, True])
def test_a_checkpoint_that_has_seen_the_database(
    tmp_path: Path,
    task_shop: Path,
    task_cache: Path,
    capsys: pytest.CaptureFixture[str],
    late: bool,
) -> None:
    until = open_database(task_shop).test_timestamp + int(late)
    about = {"databases": {"shop": "x"}, "training_until": {"shop": until}}
    folder = save_checkpoint(task_shop, task_cache, tmp_path / "checkpoint", about)
    given = (f"checkpoint={folder}", "model.row_encoder.size=", "optim.steps=1", "optim.warmup=0")
    said = tune_task(task_shop, "buys", task_cache, tmp_path / "run", *given)
    result = json.loads((tmp_path / "run" / "seed-0" / "result.json").read_text())
    assert said["warnings"] == result["warnings"]
    assert len(result["warnings"]) == 1
    wanted = "test scores are worthless" if late else "no score is that of a database never seen"
    assert wanted in result["warnings"][0]
    assert f"WARNING: {result['warnings'][0]}" in capsys.readouterr().err
    assert result["pretraining"] == ["shop"]
    assert result["checkpoint"] == str(folder)


def test_rows_longer_than_the_checkpoint_reads(
    tmp_path: Path, task_shop: Path, task_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_checkpoint(task_shop, task_cache, tmp_path / "checkpoint", {"databases": {}})
    given = (f"checkpoint={folder}", "model.row_encoder.size=", "question.max_tokens=4096")
    error = refused(tmp_path, capsys, task_shop, "buys", *given)
    assert "question.max_tokens=4096, but" in error
    assert "reads at most" in error


def test_some_seed_times_before_the_database(
    tmp_path: Path, task_shop: Path, task_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def earlier(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(date=frame.date.where(frame.index > 3, pd.Timestamp("1999-01-01")))

    folder = change(task_shop, tmp_path, "buys", "train", earlier)
    tune_task(folder, "buys", task_cache, tmp_path / "run")
    assert "4 of 144 seed times are before the first row of the database" in capsys.readouterr().err


def test_a_test_split_of_one_class(
    tmp_path: Path, task_shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = change(task_shop, tmp_path, "buys", "val", lambda f: f.assign(buys=0))
    error = refused(tmp_path, capsys, folder, "buys")
    assert "every label is 0, so that AUROC is not defined" in error


# Predicting.


def test_what_cannot_be_predicted(
    tmp_path: Path, task_shop: Path, task_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    untuned = save_checkpoint(task_shop, task_cache, tmp_path / "checkpoint", {"databases": {}})
    few = ("optim.steps=1", "optim.warmup=0")
    tune_task(task_shop, "tier", task_cache, tmp_path / "run", *few)
    tuned = tmp_path / "run" / "seed-0" / "model"
    shared = [f"database={task_shop}", f"data.cache={task_cache}", f"out={tmp_path / 'x.parquet'}"]
    for given, message in (
        ([f"checkpoint={untuned}"], "has not been fine-tuned: see `python -m finetune`"),
        ([f"checkpoint={tuned}", "task=buys"], "answers multiclass_classification with 3 numbers"),
        ([f"checkpoint={tuned}", "task=teir"], "has no task 'teir'"),
        ([f"checkpoint={tuned}", "split=all"], "wanted train | val | test"),
    ):
        assert message in said_of(capsys, answer, PredictConfig, [*shared, *given])
    assert not (tmp_path / "x.parquet").exists()
