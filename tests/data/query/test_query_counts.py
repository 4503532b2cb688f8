"""How many examples there are, how many are dropped and why, and what they are like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database
from rfm.data.query import Counts, Labels, answers, compile_text, labels
from rfm.data.query.run import run
from tests.data.query.made import seconds, shop_frames, write_shop

TIMES = ["2019-03-01", "2019-09-15 12:00:00", "2020-02-01"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return write_shop(tmp_path_factory.mktemp("counts"))


def _found(text: str, shop: Database) -> Labels:
    return labels(compile_text(text, shop), shop, [seconds(time) for time in TIMES])


def test_counts(shop: Database) -> None:
    text = (
        "PREDICT MAX(orders.total VIA orders.customer_id, 0, 30, days) > 60 FOR EACH customers.id "
        "WHERE customers.city = 'Oslo' ASSUMING COUNT(visits.*, 0, 30, days) > 0"
    )
    found = _found(text, shop)
    counts, people = found.counts, shop_frames()["customers"]
    there = [int((people.since <= time).sum()) for time in TIMES]
    assert counts.there.tolist() == there
    oslo = [int(((people.since <= t) & (people.city == "Oslo")).sum()) for t in TIMES]
    assert counts.asked.tolist() == oslo
    sums = counts.unassumed + counts.empty + counts.labelled
    assert sums.tolist() == oslo
    positive = sum(found.label.to_pylist())
    assert counts.labelled.sum() == len(found)
    assert counts.positive.sum() == positive
    assert counts.unassumed.sum() > 0
    words = counts.words()
    assert f"{len(found)} labelled ({positive} positive" in words
    assert "3 anchor times" in words
    assert f"{sum(there) - sum(oslo)} not by WHERE" in words


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("COUNT(visits.*, 0, 30, days) > 0", "{positive} positive, {share:.1%}"),
        ("COUNT(visits.*, 0, 30, days)", "median {median:g}, quartiles {low:g} and {high:g}"),
        ("LAST(orders.state VIA orders.customer_id, 0, 90, days)", "{classes} classes: {first!r} "),
        (
            "LIST_DISTINCT(orders.state VIA orders.customer_id, 0, 90, days) CLASSIFY",
            "{classes} classes: {first!r} ",
        ),
        (
            "LIST_DISTINCT(items.product_id VIA items.order_id -> orders.customer_id, 0, 90, days) "
            "RANK TOP 5",
            "median {median:g} in a list, quartiles {low:g} and {high:g}",
        ),
    ],
)
def test_what_labels_are_like(target: str, said: str, shop: Database) -> None:
    compiled = compile_text(f"PREDICT {target} FOR EACH customers.id", shop)
    found = labels(compiled, shop, [seconds(time) for time in TIMES])
    own, balance = found.label.to_pylist(), found.counts.balance
    facts: dict[str, Any] = {}
    if compiled.task_type == "binary_classification":
        facts = {"positive": sum(own), "share": sum(own) / len(own)}
        assert balance == {"positive": sum(own)}
    elif compiled.task_type in ("regression", "recommendation"):
        numbers = own if compiled.task_type == "regression" else [len(one) for one in own]
        low, median, high = np.quantile(numbers, [0.25, 0.5, 0.75])
        facts = {"low": low, "median": median, "high": high}
        assert list(balance.values()) == [low, median, high]
    else:
        if compiled.task_type == "multilabel_classification":
            own = [c for row in own for c, bit in zip(compiled.classes, row, strict=True) if bit]
        counted = pd.Series(own).value_counts()
        assert dict(balance) == counted.to_dict()
        assert list(balance.values()) == sorted(counted, reverse=True)
        facts = {"classes": len(counted), "first": next(iter(balance))}
    assert said.format(**facts) in found.counts.words()
    if compiled.task_type != "binary_classification":
        assert "positive" not in found.counts.words()
        assert not found.counts.positive.any()


def test_many_classes_and_large_numbers_in_words() -> None:
    def words(task_type: Any, balance: dict[str, float]) -> str:
        one = np.array([1])
        return Counts(one, one, one, one - 1, one - 1, one, one, task_type, balance).words()

    classes = {f"c{i}": 9 - i for i in range(7)}
    said = words("multiclass_classification", classes)
    assert "7 classes, most often: 'c0' 9, 'c1' 8, 'c2' 7, 'c3' 6, 'c4' 5)" in said
    quartiles = {"lower quartile": 0.0, "median": 1234567.0, "upper quartile": 0.000123456}
    assert "median 1,235,000, quartiles 0 and 0.0001235" in words("regression", quartiles)


def test_labels_and_their_counts_are_asked_for_once(
    shop: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr(answers, "run", lambda sql, *more: [asked.append(sql), run(sql, *more)][1])
    text = "PREDICT COUNT(visits.*, 0, 30) FOR EACH customers.id WHERE customers.city = 'Oslo'"
    assert len(_found(text, shop))
    assert len(asked) == 1
