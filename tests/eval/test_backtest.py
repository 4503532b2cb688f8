"""Backtests: answers at past anchor times beside what came to pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import mean_absolute_error, roc_auc_score

from rfm.data.database import Database
from rfm.eval.ask import AskConfig
from rfm.model import RelationalModel
from tests.answering import BUYS, CITY, NEXT, SPEND, STATUS


def orders(asked_shop: Database) -> pd.DataFrame:
    return pd.read_parquet(asked_shop.tables["orders"].path)


def test_windows_that_are_over(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    found = answering.evaluate(asked_shop, BUYS, at="2020-10-01", anchors=3, config=asking)
    ends = [pd.Timestamp("2020-10-01") - pd.Timedelta(days=30 * i) for i in range(3)]
    starts = [end - pd.Timedelta(days=30) for end in ends]
    assert sorted(found.frame.anchor_time.unique()) == sorted(starts)
    bought = orders(asked_shop)
    for row in found.frame.itertuples():
        end = row.anchor_time + pd.Timedelta(days=30)
        within = (bought["at"] > row.anchor_time) & (bought["at"] <= end)
        assert row.label == int((within & (bought.customer == row.id)).any())
    assert found.metrics["rows"] == len(found.frame) == 36
    wanted = roc_auc_score(found.frame.label, found.frame.prediction)
    assert found.metrics["AUROC"] == pytest.approx(wanted)
    assert found.by_anchor.rows.tolist() == [12, 12, 12]


def test_answers_are_those_of_that_time(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    found = answering.evaluate(asked_shop, SPEND, at="2020-10-01", anchors=2, config=asking).frame
    for moment, own in found.groupby("anchor_time"):
        then = answering.predict(asked_shop, SPEND, at=moment, config=asking)
        columns = ["id", "prediction", "low", "high"]
        pd.testing.assert_frame_equal(
            own[columns].reset_index(drop=True), then[columns], check_exact=False, atol=1e-5
        )
    error = mean_absolute_error(found.label, found.prediction)
    again = answering.evaluate(asked_shop, SPEND, at="2020-10-01", anchors=2, config=asking)
    assert again.metrics["MAE"] == pytest.approx(error)


def test_classes_and_lists(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    found = answering.evaluate(asked_shop, STATUS, at="2020-12-01", anchors=1, config=asking)
    bought = orders(asked_shop).sort_values("at")
    start, end = pd.Timestamp("2020-12-01") - pd.Timedelta(days=120), pd.Timestamp("2020-12-01")
    within = bought[(bought["at"] > start) & (bought["at"] <= end)]
    last = within.groupby("customer").status.last()
    assert found.frame.set_index("id").label.to_dict() == last.to_dict()
    assert found.metrics["accuracy"] == pytest.approx(
        (found.frame.label == found.frame.prediction).mean()
    )
    lists = answering.evaluate(asked_shop, NEXT, at="2020-12-01", anchors=1, config=asking)
    assert all(isinstance(own, list) and own for own in lists.frame.label)
    assert 0 <= lists.metrics["MAP@4"] <= 1


def test_known_values_are_hidden_and_asked_for(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    found = answering.evaluate(asked_shop, CITY, at="2020-12-01", config=asking)
    city = pd.read_parquet(asked_shop.tables["customers"].path).city
    assert len(found.frame) == 3  # of 12
    assert (found.frame.label.to_numpy() == city[found.frame.id].to_numpy()).all()


def test_a_past_without_windows(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    with pytest.raises(ValueError, match="no label is known by 2019-01-09"):
        answering.evaluate(asked_shop, BUYS, at="2019-01-09", config=asking)
    with pytest.raises(ValueError, match="at no past anchor time: 2019-01-10: no label is known"):
        answering.evaluate(asked_shop, BUYS, at="2019-02-09", config=asking)


def test_every_anchor_counts_once(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    found = answering.evaluate(asked_shop, BUYS, at="2020-10-01", anchors=5, config=asking)
    weights = found.by_anchor.rows.to_numpy()
    means = np.average(found.by_anchor["share of positives"], weights=weights)
    assert found.metrics["share of positives"] == pytest.approx(means)
