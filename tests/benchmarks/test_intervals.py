"""Bootstrap intervals: the metric they draw is the one that is reported, and fast enough."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import rules
from benchmarks.intervals import _auroc, _average_precision, interval, metric_of_weights
from benchmarks.popularity import own_destinations
from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.eval.predictions import score
from tests.benchmarks.task_folders import TYPES, write_tasks


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("intervals") / "market")


@pytest.mark.parametrize("name", TYPES)
def test_unit_weights_give_the_score_and_the_interval_holds_it(market: Path, name: str) -> None:
    task = open_task(open_database(market), name)
    method = own_destinations if name == "buys" else partial(rules.last_labels, count=10)
    test = method(task, "rolling", 0).test
    reached = score(task, "test", test)
    ones = np.ones((1, len(task.rows("test"))))
    assert metric_of_weights(task, "test", test.value)(ones) == pytest.approx([reached])
    low, high = interval(task, "test", test, 300)
    assert low < reached < high
    assert (low, high) == interval(task, "test", test, 300)
    narrow = interval(task, "test", test, 300, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_weights_are_repeated_rows() -> None:
    """Against scikit-learn on the resampled rows themselves, with many equal values."""
    rng = np.random.default_rng(0)
    label = (rng.random(200) < 0.3).astype(float)
    value = np.round(rng.random(200) + 0.3 * label, 1)
    drawn = rng.integers(0, 200, (20, 200))
    weights = np.stack([np.bincount(rows, minlength=200) for rows in drawn]).astype(float)
    for ours, theirs in ((_auroc, roc_auc_score), (_average_precision, average_precision_score)):
        wanted = [theirs(label[rows], value[rows]) for rows in drawn]
        assert ours(label, value)(weights) == pytest.approx(wanted)


def test_a_resample_of_one_class_has_no_auroc() -> None:
    metric = _auroc(np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.1, 0.2]))
    assert np.isnan(metric(np.array([[3.0, 0.0, 0.0]]))).all()


def test_a_thousand_resamples_of_five_thousand_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(5000) < 0.3).astype(float)
    metric = _auroc(label, rng.random(5000))
    start = time.perf_counter()
    for _ in range(4):
        metric(rng.multinomial(5000, np.full(5000, 1 / 5000), size=250).astype(float))
    assert time.perf_counter() - start < 5
