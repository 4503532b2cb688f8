"""Scores, calibration and signal totals of reports, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rfm.eval.report_numbers import (
    actual_by_predicted,
    class_table,
    confidence,
    coverage,
    hits_by_rank,
    known,
    reliability,
    scores,
    scores_by_time,
    total_signals,
)


def table(label: list[object], prediction: list[object], **more: object) -> pd.DataFrame:
    return pd.DataFrame({"label": label, "prediction": prediction, **more})


def test_binary_scores() -> None:
    found = scores(table([0, 0, 1, 1], [0.1, 0.6, 0.4, 0.9]), "binary_classification")
    assert found["rows"] == 4
    assert found["AUROC"] == 0.75
    assert found["average precision"] == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)
    assert found["accuracy"] == 0.5
    assert found["share of positives"] == 0.5


def test_chance_makes_as_much_error_of_probabilities_that_hold() -> None:
    rng, found = np.random.default_rng(0), []
    said = rng.random(400)
    for _ in range(40):
        bins = reliability(said, (rng.random(400) < said).astype(float))
        found.append(bins.error)
    assert bins.chance_error == pytest.approx(np.mean(found), rel=0.15)


def test_one_class_has_no_auroc() -> None:
    found = scores(table([0, 0], [0.1, 0.6]), "binary_classification")
    assert np.isnan(found["AUROC"])
    assert np.isnan(found["average precision"])
    assert found["accuracy"] == 0.5


def test_regression_scores() -> None:
    frame = table([1.0, 2.0, 6.0], [2.0, 2.0, 4.0], low=[0.0, 2.0, 3.0], high=[1.0, 3.0, 5.0])
    found = scores(frame, "regression")
    assert found["MAE"] == 1.0
    assert found["RMSE"] == pytest.approx((5 / 3) ** 0.5)
    assert found["R²"] == pytest.approx(1 - 5 / 14)
    assert found["coverage"] == pytest.approx(2 / 3)  # bounds are inside
    assert coverage(frame) == found["coverage"]
    assert np.isnan(scores(frame.head(1), "regression")["R²"])


def test_multiclass_scores_and_classes() -> None:
    frame = table(["a", "a", "b", "c"], ["a", "b", "b", "b"])
    found = scores(frame, "multiclass_classification")
    assert found["accuracy"] == 0.5
    assert found["share of the commonest class"] == 0.5
    classes = class_table(frame)
    assert classes.index.tolist() == ["a", "b", "c"]
    assert classes["recall"].tolist() == [0.5, 1.0, 0.0]
    assert classes["precision"].tolist()[:2] == [1.0, 1 / 3]
    assert np.isnan(classes.loc["c", "precision"])


def test_ranking_scores() -> None:
    frame = table([[1, 9], ["5"], []], [[1, 2, 9], [4, 5, 6], [1, 2, 3]])
    assert hits_by_rank(frame).tolist() == [
        [True, False, True],
        [False, True, False],
        [False, False, False],
    ]
    found = scores(frame, "recommendation")
    assert found["rows"] == 2  # nothing can be right for the third
    assert found["MAP@3"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert found["recall@3"] == 1.0
    assert found["hit rate"] == 1.0


def test_lists_of_several_lengths_and_none() -> None:
    frame = table([[1], [2]], [[1, 3], []])
    assert hits_by_rank(frame).tolist() == [[True, False], [False, False]]
    assert scores(frame, "recommendation")["MAP@2"] == 0.5
    assert np.isnan(scores(table([[1]], [[]]), "recommendation")["MAP"])


def test_known_rows_alone_count() -> None:
    frame = table([1, None, 0, np.inf], [0.5, 0.5, None, 0.5])
    assert known(frame, "binary_classification").index.tolist() == [0]


def test_scores_by_time_are_those_of_each_time() -> None:
    times = pd.to_datetime(["2020-02-01", "2020-01-01", "2020-02-01", "2020-01-01"])
    frame = table([1.0, 2.0, 3.0, 5.0], [1.0, 1.0, 1.0, 1.0], at=times)
    found = scores_by_time(frame, "at", "regression")
    assert found["time"].tolist() == sorted(set(times))
    assert found["MAE"].tolist() == [2.5, 1.0]
    assert found["rows"].tolist() == [2, 2]


def test_reliability_of_a_coin() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(20_000)
    honest = reliability(probability, (rng.random(20_000) < probability).astype(float))
    assert honest.rows.sum() == 20_000
    assert honest.error < 0.02
    inside = (honest.low <= honest.expected) & (honest.expected <= honest.high)
    assert inside.sum() >= 8  # 95% each
    boastful = reliability(probability, np.zeros(20_000))
    assert boastful.error == pytest.approx(probability.mean())


def test_reliability_by_hand() -> None:
    bins = reliability(np.array([0.0, 0.05, 1.0, 0.95]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert bins.rows.tolist() == [2, 2]
    assert bins.expected.tolist() == pytest.approx([0.025, 0.975])
    assert bins.observed.tolist() == [0.5, 1.0]
    z2 = 1.96**2  # Wilson's interval of 1 in 2 and of 2 in 2
    assert bins.high[1] == pytest.approx(1.0)
    assert bins.low[1] == pytest.approx(2 / (2 + z2))
    assert bins.low[0] + bins.high[0] == pytest.approx(1.0)


def test_actual_by_predicted() -> None:
    prediction = np.arange(100.0)
    bins = actual_by_predicted(prediction, prediction * 2)
    assert bins.rows.tolist() == [10] * 10
    assert bins.observed.tolist() == pytest.approx((bins.expected * 2).tolist())
    assert (bins.low <= bins.observed).all()
    assert (bins.observed <= bins.high).all()
    equal = actual_by_predicted(np.zeros(7), np.arange(7.0))
    assert equal.rows.tolist() == [7]
    assert equal.observed.tolist() == [3.0]


def test_confidence_is_that_of_the_predicted_class() -> None:
    frame = table(["x", 2], [2, 2], p_x=[0.3, 0.1], p_2=[0.7, 0.9])
    probability, right = confidence(frame, {"x": "p_x", "2": "p_2"})
    assert probability.tolist() == [0.7, 0.9]
    assert right.tolist() == [0.0, 1.0]


def test_signal_totals() -> None:
    first = {"path": ["a.b"], "table": "a", "column": "c", "weight": -0.5}
    second = {"path": [], "table": "t", "column": "", "weight": 0.2}
    totals = total_signals([{"signals": [first, second]}, {"signals": [{**first, "weight": 0.1}]}])
    assert [(t.path, t.table, t.column) for t in totals] == [(("a.b",), "a", "c"), ((), "t", "")]
    assert totals[0].strength == pytest.approx(0.3)
    assert totals[0].weight == pytest.approx(-0.2)
    assert [t.appears for t in totals] == [2, 1]
    assert totals[1].strength == pytest.approx(0.1)
    assert total_signals([]) == []
