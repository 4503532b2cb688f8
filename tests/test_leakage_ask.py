"""Answers to queries know nothing later than their anchor time."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from rfm.data.database import Database, open_database
from rfm.data.query import compile_text
from rfm.eval.ask import AskConfig
from rfm.eval.posing import anchor_time, as_of, earlier_anchors, pose, read_time
from rfm.model import RelationalModel
from tests.answering import BUYS, CITY, QUERIES, write_many_steps
from tests.noise import replace_rows_after


@pytest.fixture(scope="module", params=["2019-11-01", "2020-10-01"], ids=["early", "late"])
def noisy(
    request: pytest.FixtureRequest, task_shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Database, Database]:
    """An anchor time, before the validation timestamp or after test; the shop, and the same with
    noise in place of all that is later."""
    folder = tmp_path_factory.mktemp("noisy") / "shop"
    assert replace_rows_after(task_shop, folder, request.param) > 20
    return request.param, open_database(task_shop), open_database(folder)


@pytest.mark.parametrize("name", QUERIES)
def test_the_future_changes_no_answer(
    answering: RelationalModel,
    asking: AskConfig,
    noisy: tuple[str, Database, Database],
    name: str,
) -> None:
    at, shop, noise = noisy
    keys = [3, 5, 8] if name == "city" else None
    known, other = (
        answering.predict(database, QUERIES[name], at=at, entities=keys, config=asking)
        for database in (shop, noise)
    )
    pd.testing.assert_frame_equal(known, other)


def test_the_future_changes_no_answer_of_many_classes(
    answering: RelationalModel, asking: AskConfig, task_shop: Path, tmp_path: Path
) -> None:
    """Neither which classes there are and are told apart, nor how frequent the others are."""
    known = write_many_steps(task_shop, tmp_path / "known", 14)
    at, noise = "2020-10-01", tmp_path / "noise"
    assert replace_rows_after(known, noise, at) > 20
    frames = [
        answering.predict(open_database(folder), QUERIES["status"], at=at, config=asking)
        for folder in (known, noise)
    ]
    assert len(frames[0].attrs["balance"]) > 10
    pd.testing.assert_frame_equal(*frames)


def test_what_columns_come_to_hold_refuses_no_query(
    answering: RelationalModel, asking: AskConfig, task_shop: Path, tmp_path: Path
) -> None:
    """A column of few values that later ones, before the validation timestamp, make free text."""
    at, frames = "2019-11-01", []
    for name in ("known", "other"):
        folder = tmp_path / name / "shop"
        shutil.copytree(task_shop, folder)
        manifest = yaml.safe_load((folder / "manifest.yaml").read_text())
        manifest |= {"val_timestamp": "2030-01-01", "test_timestamp": "2030-02-01"}
        (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
        if name == "other":
            orders = pd.read_parquet(folder / "db" / "orders.parquet")
            later = orders["at"] > pd.Timestamp(at)
            orders["status"] = orders.status.mask(later, [f"note {i}" for i in orders.index])
            orders.to_parquet(folder / "db" / "orders.parquet", index=False)
        database = open_database(folder)
        frames.append(answering.predict(database, QUERIES["status"], at=at, config=asking))
    pd.testing.assert_frame_equal(*frames)
    with pytest.raises(ValueError, match="free text"):
        answering.predict(database, QUERIES["status"], config=asking)


def signals(explanation: dict[str, Any]) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Weight and change by occlusion of all that is said, up to rounding."""
    return {
        (one["path"], one["column"], one["words"]): (one["weight"], one["occluded"])
        for one in explanation["signals"]
    }


@pytest.mark.parametrize("name", ["buys", "spend"])
def test_the_future_changes_no_explanation_and_no_backtest(
    answering: RelationalModel,
    asking: AskConfig,
    noisy: tuple[str, Database, Database],
    name: str,
) -> None:
    at, shop, noise = noisy
    explained = [
        answering.predict(d, QUERIES[name], at=at, entities=[1, 4], explain=True, config=asking)
        for d in (shop, noise)
    ]
    assert explained[0].top_signal.str.len().gt(0).all()
    assert explained[0].top_signal.tolist() == explained[1].top_signal.tolist()
    known, other = ([signals(one) for one in frame.explanation] for frame in explained)
    for own, its in zip(known, other, strict=True):
        assert own.keys() == its.keys()
        np.testing.assert_allclose(list(own.values()), list(its.values()), atol=1e-4)
    past = [
        answering.evaluate(d, QUERIES[name], at=at, anchors=2, config=asking) for d in (shop, noise)
    ]
    pd.testing.assert_frame_equal(past[0].frame, past[1].frame)


def test_what_is_observed_later_changes_no_anchor(task_shop: Path, tmp_path: Path) -> None:
    """Anchors end with the last row by then, not with the last one that there is."""
    shutil.copytree(task_shop, tmp_path / "shop")
    path = tmp_path / "shop" / "db" / "orders.parquet"
    orders = pd.read_parquet(path)
    orders[orders["at"] < "2020-03-01"].to_parquet(path, index=False)
    part = open_database(tmp_path / "shop")
    quiet = tmp_path / "quiet"
    shutil.copytree(task_shop, quiet)
    orders = orders[(orders["at"] < "2020-03-01") | (orders["at"] >= "2020-10-01")]
    orders.to_parquet(quiet / "db" / "orders.parquet", index=False)
    resumed, at = open_database(quiet), read_time("2020-09-30")
    assert resumed.spans["orders"][1] > at > part.spans["orders"][1]
    found = [earlier_anchors(compile_text(BUYS, d), d, at) for d in (resumed, part)]
    assert found[0].tolist() == found[1].tolist()
    assert found[0].max() < part.spans["orders"][1]


@pytest.mark.parametrize("name", QUERIES)
def test_examples_are_known_by_the_anchor(task_shop: Path, name: str) -> None:
    database = open_database(task_shop)
    at = anchor_time(compile_text(QUERIES[name], database), database, "2020-10-01")
    seen = as_of(database, at)
    keys = [2, 7] if name == "city" else None
    posed = pose(compile_text(QUERIES[name], seen), seen, at, keys)
    train, test = posed.task.rows("train"), posed.task.rows("test")
    assert len(train) > 0
    assert (train.time + posed.task.timedelta <= at).all()
    assert (test.time == at).all()
    assert not test.labelled.any()
    if name == "city":
        assert not np.isin(test.entity, train.entity).any()


def test_a_static_value_is_hidden_wherever_the_model_looks(task_shop: Path) -> None:
    database = open_database(task_shop)
    at = anchor_time(compile_text(CITY, database), database, None)
    posed = pose(compile_text(CITY, database), as_of(database, at), at, [1])
    assert ("customers", "city") in posed.task.hidden


def test_statistics_are_of_rows_until_the_anchor(task_shop: Path) -> None:
    database = open_database(task_shop)
    early, late = database.val_timestamp - 86_400, database.test_timestamp + 86_400
    assert as_of(database, early).val_timestamp == early
    assert as_of(database, late).val_timestamp == database.val_timestamp
    assert as_of(database, late).test_timestamp == late


def test_a_label_known_too_late_would_be_noticed(
    answering: RelationalModel, asking: AskConfig, task_shop: Path, tmp_path: Path
) -> None:
    """The same noise one window earlier does change answers: the tests above can fail."""
    folder = tmp_path / "shop"
    replace_rows_after(task_shop, folder, "2020-09-01")
    known, other = (
        answering.predict(open_database(f), BUYS, at="2020-10-01", config=asking)
        for f in (task_shop, folder)
    )
    assert not np.allclose(known.prediction, other.prediction)


def test_kinds_that_were_read_stay_while_the_training_period_does(task_shop: Path) -> None:
    """Those of an anchor within it are of rows until then, though others were known before."""
    database = open_database(task_shop)
    known = database.kinds
    assert as_of(database, database.test_timestamp + 86_400).kinds is known
    early = as_of(database, database.first_time + 40 * 86_400)
    rows = early.profiles["orders"]["status"].rows
    assert 0 < rows == int((database.times("orders") <= early.val_timestamp).sum())
    assert rows < database.profiles["orders"]["status"].rows
