"""A model that was fitted to a query answers it by a head of its own."""

from __future__ import annotations

import logging
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database, open_database
from rfm.data.query import QueryError, compile_text
from rfm.data.questions import QuestionConfig
from rfm.eval.ask import AskConfig
from rfm.model import RelationalModel
from rfm.train.finetuner import TuneConfig
from rfm.train.fit import FitConfig, split_for
from rfm.train.optim import OptimConfig
from rfm.train.tuning import Tuned, tune
from tests.answering import BUYS, NEXT, SPEND, STATUS

pytestmark = pytest.mark.usefixtures("no_trace")
FIT = FitConfig(
    question=QuestionConfig(
        children=4, history=6, max_rows=20, max_tokens=32, size=8, eval_size=40
    ),
    tune=TuneConfig(val_every=2),
    optim=OptimConfig(steps=4, lr=1e-3, warmup=1, ema=0.0),
)


@pytest.mark.parametrize(
    "query", [BUYS, SPEND, STATUS, NEXT], ids=["buys", "spend", "status", "next"]
)
def test_a_fitted_model_answers_by_its_head(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig, query: str, tmp_path: Path
) -> None:
    tuned = answering.fit(asked_shop, query, config=FIT, ask=asking)
    assert len(tuned.heads) == 1
    assert len(answering.heads) == 0  # the model itself is as it was
    frame = tuned.predict(asked_shop, query, config=asking)
    before = answering.predict(asked_shop, query, config=asking)
    assert list(frame) == list(before)
    assert not frame.equals(before)
    tuned.save_pretrained(tmp_path)
    again = RelationalModel.from_pretrained(tmp_path).predict(asked_shop, query, config=asking)
    pd.testing.assert_frame_equal(again, frame)
    some = tuned.predict(asked_shop, query, entities=[7], config=asking)
    every = frame.set_index("id")
    if query == NEXT:
        assert some.prediction.tolist() == [every.prediction[7]]
    elif query == STATUS:
        assert some.prediction.tolist() == [every.prediction[7]]
        np.testing.assert_allclose(some.probability, [every.probability[7]], atol=1e-4)
    else:
        np.testing.assert_allclose(some.prediction, [every.prediction[7]], atol=1e-4)
    if query == SPEND:
        assert (frame.low < frame.high).all()
        tuned.about["finetuned"]["around"] = [-1e9, 1e9]
        wide = tuned.predict(asked_shop, query, config=asking)
        assert (wide.low == 0).all()  # nobody has ever spent less
        assert (wide.high > 1e8).all()


def test_other_queries_are_answered_from_examples(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    tuned = answering.fit(asked_shop, BUYS, config=FIT, ask=asking)
    other = BUYS.replace("30", "60")
    frame = tuned.predict(asked_shop, other, config=asking)
    pd.testing.assert_frame_equal(frame, answering.predict(asked_shop, other, config=asking))
    said = frame.attrs["warnings"][0]
    assert f"fitted to another query, `{BUYS}`: `{other}` is answered from examples" in said
    assert "model.fit" in said
    assert not any("fine-tuned on" in warning for warning in frame.attrs["warnings"])
    del tuned.about["episodes"]
    with pytest.raises(ValueError, match="never learnt to answer others from examples, such as"):
        tuned.predict(asked_shop, other, config=asking)
    assert len(tuned.predict(asked_shop, BUYS, config=asking)) == 12
    with pytest.raises(ValueError, match="fine-tuned head are not explained"):
        tuned.predict(asked_shop, BUYS, explain=True, config=asking)


def test_the_same_question_in_other_words_is_answered_by_the_head(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    tuned = answering.fit(asked_shop, BUYS, config=FIT, ask=asking)
    every = tuned.predict(asked_shop, BUYS, config=asking).set_index("id").prediction
    again = "predict count(orders.* via orders.customer, 0, 30) > 0  # soon?"
    some = tuned.predict(asked_shop, f"{again}\nfor customers.id in (7, 3)", config=asking)
    assert some.id.tolist() == [7, 3]
    np.testing.assert_allclose(some.prediction, every[[7, 3]], atol=1e-4)
    assert some.attrs["examples"] == 0
    assert some.attrs["warnings"] == []
    oslo = tuned.predict(asked_shop, f"{BUYS} WHERE customers.city = 'Oslo'", config=asking)
    assert 0 < len(oslo) < 12
    np.testing.assert_allclose(oslo.prediction, every[oslo.id], atol=1e-4)
    assert "under other conditions" in oslo.attrs["warnings"][0]


def test_the_folder_of_the_database_stays_as_it_was(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig, tmp_path: Path
) -> None:
    def content() -> dict[str, int]:
        files = [path for path in asked_shop.folder.rglob("*") if path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in files}

    before = content()
    answering.fit(asked_shop, BUYS, config=FIT, ask=replace(asking, cache=tmp_path))
    assert content() == before


def test_it_is_compared_with_what_it_has_not_learnt_from(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    tuned = answering.fit(asked_shop, STATUS, config=FIT, ask=asking)
    until = pd.Timestamp(asked_shop.test_timestamp, unit="s")
    found = tuned.evaluate(asked_shop, STATUS, at="2020-12-27", anchors=9, config=asking)
    assert (found.frame.anchor_time >= until).all()
    assert len(found.by_anchor) == 1
    moment = found.frame.anchor_time[0]
    then = tuned.predict(asked_shop, STATUS, at=moment, config=asking).set_index("id")
    columns = [c for c in then if c.startswith("probability of")]
    own = found.frame.set_index("id")[columns]
    pd.testing.assert_frame_equal(own, then.loc[own.index, columns], atol=1e-4)
    with pytest.raises(ValueError, match="has learnt this query from labels up to 2020-07-01"):
        tuned.evaluate(asked_shop, STATUS, at="2020-09-01", config=asking)
    assert (
        answering.evaluate(asked_shop, STATUS, at="2020-09-01", config=asking).metrics["rows"] > 0
    )


def test_windows_longer_than_the_splits_are_learnt_from_later_ones(asked_shop: Database) -> None:
    """Half a year lies between the shop's timestamps, and after them."""
    last = int(pd.read_parquet(asked_shop.tables["orders"].path)["at"].max().timestamp())
    month = compile_text(BUYS, asked_shop)
    assert split_for(month, asked_shop) == (asked_shop.val_timestamp, asked_shop.test_timestamp)
    months = compile_text(BUYS.replace("30", "200"), asked_shop)
    window = 200 * 86_400
    assert split_for(months, asked_shop) == (last - 2 * window, last - window)


def test_a_long_window(answering: RelationalModel, asked_shop: Database, asking: AskConfig) -> None:
    query = SPEND.replace("30", "200")
    tuned = answering.fit(asked_shop, query, config=FIT, ask=asking)
    assert len(tuned.predict(asked_shop, query, config=asking)) == 12


def test_other_data_are_learnt_anew(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    first = answering.fit(open_database(folder), SPEND, config=FIT, ask=asking)
    orders = pd.read_parquet(folder / "db" / "orders.parquet")
    orders["amount"] *= 1000
    orders.to_parquet(folder / "db" / "orders.parquet", index=False)
    second = answering.fit(open_database(folder), SPEND, config=FIT, ask=asking)
    wide = [np.ptp(one.about["finetuned"]["around"]) for one in (first, second)]
    assert wide[1] > 100 * wide[0]


def test_more_than_ten_classes_are_learnt(
    answering: RelationalModel,
    task_shop: Path,
    tmp_path: Path,
    asking: AskConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    orders = pd.read_parquet(folder / "db" / "orders.parquet")
    orders["status"] = [f"step {i % 13}" for i in range(len(orders))]
    orders.to_parquet(folder / "db" / "orders.parquet", index=False)
    database = open_database(folder)
    tuned = answering.fit(database, STATUS, config=FIT, ask=asking)
    frame = tuned.predict(database, STATUS, config=asking)
    classes = tuned.about["finetuned"]["classes"]
    assert len(classes) > 10
    chances = frame[[f"probability of {name}" for name in classes]]
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-4)
    monkeypatch.setattr("rfm.eval.posing.MAX_CATEGORIES", 10)
    with pytest.raises(ValueError, match=r"has 1\d classes, at most 10 are answered: compare it"):
        answering.fit(database, STATUS, config=FIT, ask=asking)


def test_lists_of_labels_are_refused(
    answering: RelationalModel,
    asked_shop: Database,
    asking: AskConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query = (
        "PREDICT LIST_DISTINCT(orders.status VIA orders.customer, 0, 30, days) CLASSIFY "
        "FOR EACH customers.id"
    )
    with pytest.raises(ValueError, match="CLASSIFY asks for lists of labels"):
        answering.fit(asked_shop, query, config=FIT, ask=asking)
    unranked = query.replace("CLASSIFY ", "")
    with pytest.raises(ValueError, match=r"^LIST_DISTINCT of no foreign key asks for lists of"):
        answering.fit(asked_shop, unranked, config=FIT, ask=asking)
    monkeypatch.setattr("rfm.data.query.compiled.MOST_CLASSES", 1)
    with pytest.raises(QueryError, match="LIST_DISTINCT of no foreign key is for 2 to "):
        compile_text(unranked, asked_shop)


def test_nothing_is_said_that_helps_nobody(
    answering: RelationalModel,
    asked_shop: Database,
    asking: AskConfig,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lightning's tips and advice; a real warning is heard, and what the process says itself."""
    lightning = logging.getLogger("lightning.pytorch")
    monkeypatch.setattr(lightning, "propagate", True)
    caplog.set_level(logging.INFO, "lightning.pytorch")
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")

    def warned(*args: Any) -> Tuned:
        warnings.warn("the loss is not finite", stacklevel=1)
        return tune(*args)

    monkeypatch.setattr("rfm.train.fit.tune", warned)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        answering.fit(asked_shop, BUYS, config=FIT, ask=asking)
        filters = list(warnings.filters)
    assert [str(warning.message) for warning in heard] == ["the loss is not finite"]
    assert [r.message for r in caplog.records if r.name.startswith("lightning")] == []
    assert lightning.level == logging.INFO
    assert not any(kind == "ignore" and "workers" in str(said) for kind, said, *_ in filters)


def test_too_few_labels(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    never = BUYS.replace("> 0", "> 1000")
    with pytest.raises(ValueError, match="every label is 0, so that AUROC"):
        answering.fit(asked_shop, never, config=FIT, ask=asking)
