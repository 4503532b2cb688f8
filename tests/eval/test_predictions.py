"""Predictions: found by key, refused when incomplete, scored as RelBench scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import relbench
from relbench.submit import evaluate_task
from sklearn.metrics import accuracy_score, average_precision_score

from rfm.data.database import open_database
from rfm.data.tasks import Task, open_task
from rfm.eval.predictions import (
    METRICS,
    Predictions,
    align,
    higher_is_better,
    read_predictions,
    score,
    score_rows,
    write_leaderboard,
    write_predictions,
)
from tests.task_folders import ONE_OF_EACH_TYPE, TASKS

every_task = pytest.mark.parametrize("name", sorted(TASKS))
LEADERBOARDS = [n for n, s in TASKS.items() if not s["task_type"].startswith("multi")]


def some_predictions(folder: Path, name: str, split: str = "test") -> tuple[Task, Predictions]:
    """Random answers of the right form, in the order of the rows."""
    task = open_task(open_database(folder), name)
    rows, rng = task.rows(split), np.random.default_rng(0)  # type: ignore[arg-type]
    if task.top_k:
        size = task.database.tables[task.destination_table].num_rows
        value = np.stack([rng.permutation(size)[: task.top_k] for _ in range(len(rows))])
        return task, Predictions(rows.entity, rows.time, value.astype(np.float64))
    return task, Predictions(rows.entity, rows.time, rng.random((len(rows), task.outputs)))


def shuffled(predictions: Predictions) -> Predictions:
    at = np.random.default_rng(1).permutation(predictions.entity.size)
    return Predictions(predictions.entity[at], predictions.time[at], predictions.value[at])


@every_task
def test_predictions_are_found_by_key_in_any_order(task_shop: Path, name: str) -> None:
    task, given = some_predictions(task_shop, name)
    assert np.array_equal(align(task, "test", shuffled(given)), given.value)
    assert score(task, "test", shuffled(given)) == score(task, "test", given)


@every_task
def test_written_predictions_are_read_again(task_shop: Path, tmp_path: Path, name: str) -> None:
    task, given = some_predictions(task_shop, name)
    write_predictions(task, given, tmp_path / "out" / "test.parquet")
    found = read_predictions(task, tmp_path / "out" / "test.parquet")
    for field in ("entity", "time", "value"):
        assert np.array_equal(getattr(found, field), getattr(given, field))
    frame = pd.read_parquet(tmp_path / "out" / "test.parquet")
    assert list(frame.columns) == [task.entity_column, task.time_column, "prediction"]
    truth = pd.read_parquet(task.path("test"))
    assert frame[task.time_column].tolist() == truth[task.time_column].tolist()


@pytest.mark.parametrize("name", LEADERBOARDS)
@pytest.mark.parametrize("split", ["val", "test"])
def test_scores_are_relbenchs(task_shop: Path, name: str, split: str) -> None:
    task, given = some_predictions(task_shop, name, split)
    theirs = relbench.load_dataset(task_shop).load_task(name)
    answer = given.value.astype(int) if task.top_k else given.value[:, 0]
    wanted = theirs.evaluate(answer, theirs.get_table(split, mask_input_cols=False))
    assert score(task, split, shuffled(given)) == wanted[METRICS[task.task_type]]  # type: ignore[arg-type]


def test_scores_of_many_classes_and_labels(task_shop: Path) -> None:
    task, given = some_predictions(task_shop, "tier")
    truth = pd.read_parquet(task.path("test"))["tier"]
    guess = np.array(task.classes)[given.value.argmax(1)]
    there = truth.notna().to_numpy()
    assert not there.all()  # rows without a label do not count
    assert score(task, "test", given) == accuracy_score(truth[there], guess[there])
    task, given = some_predictions(task_shop, "tags")
    label = np.stack(pd.read_parquet(task.path("test"))["tags"].tolist())
    wanted = average_precision_score(label, given.value, average="macro")
    assert score(task, "test", given) == wanted


def test_scores_of_some_rows(task_shop: Path) -> None:
    task, given = some_predictions(task_shop, "spend")
    at = np.array([5, 2, 40])
    label = task.rows("test").label[at, 0]
    spread = task.rows("train").label.std(ddof=1)
    wanted = np.abs(label - given.value[at, 0]).mean() / spread
    assert score_rows(task, "test", at, given.value[at]) == pytest.approx(wanted)


@every_task
def test_missing_extra_and_doubled_keys_are_refused(task_shop: Path, name: str) -> None:
    task, given = some_predictions(task_shop, name)
    n = given.entity.size
    some = Predictions(given.entity[2:], given.time[2:], given.value[2:])
    with pytest.raises(ValueError, match=f"2 of {n} rows have none and 0 belong to no row") as said:
        align(task, "test", some)
    assert f"({task.entity_column} {given.entity[0]}, {task.time_column} 2020-" in str(said.value)
    assert str(task.path("test")) in str(said.value)
    values = np.vstack([given.value, given.value[:1]])
    more = Predictions(np.append(given.entity, 0), np.append(given.time, 1), values)
    with pytest.raises(ValueError, match=r"0 of \d+ rows have none and 1 belong to no row"):
        align(task, "test", more)
    late = replace(given, time=given.time + 1)
    with pytest.raises(ValueError, match=f"{n} of {n} rows have none and {n} belong to no row"):
        align(task, "test", late)
    keys = [np.append(key, key[3]) for key in (given.entity, given.time)]
    twice = Predictions(*keys, values)
    with pytest.raises(ValueError, match="comes more than once, wanted it once"):
        align(task, "test", twice)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(task_shop: Path, bad: float) -> None:
    task, given = some_predictions(task_shop, "buys")
    given.value[7] = bad
    with pytest.raises(ValueError, match="1 values are not finite"):
        score(task, "test", given)


def test_prediction_files_that_cannot_be_read(task_shop: Path, tmp_path: Path) -> None:
    task, given = some_predictions(task_shop, "buys")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        read_predictions(task, tmp_path / "nowhere.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(ValueError, match="cannot be read as a parquet file"):
        read_predictions(task, tmp_path / "text.parquet")
    write_predictions(task, given, tmp_path / "test.parquet")
    frame = pd.read_parquet(tmp_path / "test.parquet").drop(columns="prediction")
    frame.to_parquet(tmp_path / "less.parquet")
    with pytest.raises(ValueError, match=r"lacks \['prediction'\], wanted \['customer', 'date'"):
        read_predictions(task, tmp_path / "less.parquet")


@pytest.mark.parametrize("name", LEADERBOARDS)
def test_the_leaderboard_takes_the_file(task_shop: Path, tmp_path: Path, name: str) -> None:
    task, given = some_predictions(task_shop, name)
    path = write_leaderboard(task, shuffled(given), tmp_path)
    assert path.name == f"shop__{name}.csv"
    theirs = evaluate_task(f"shop/{name}", path, dataset=relbench.load_dataset(task_shop))
    assert theirs[METRICS[task.task_type]] == pytest.approx(score(task, "test", given), abs=1e-12)


@pytest.mark.parametrize("name", ["tier", "tags"])
def test_types_without_a_leaderboard(task_shop: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="RelBench has no leaderboard for multi"):
        write_leaderboard(*some_predictions(task_shop, name), tmp_path)


def test_a_split_of_one_class_has_no_score(task_shop: Path) -> None:
    task, given = some_predictions(task_shop, "buys")
    zeros = np.flatnonzero(task.rows("test").label[:, 0] == 0)
    with pytest.raises(ValueError, match="every label is 0, so that AUROC is not defined"):
        score_rows(task, "test", zeros, given.value[zeros])


def test_which_way_is_up() -> None:
    assert {metric: higher_is_better(metric) for metric in METRICS.values()} == {
        "roc_auc": True, "accuracy": True, "auprc_macro": True, "nmae": False, "map": True,
    }  # fmt: skip
    assert set(METRICS) == {TASKS[name]["task_type"] for name in ONE_OF_EACH_TYPE}


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("prediction", "abc", "must hold numbers"),
        ("prediction", [[0.1], [0.1, 0.2]], "lists of as many"),
        ("customer", [None, 1.0], "lack a key"),
    ],
)
def test_files_that_hold_no_predictions(
    task_shop: Path, tmp_path: Path, column: str, values: object, message: str
) -> None:
    task, given = some_predictions(task_shop, "buys")
    path = tmp_path / "test.parquet"
    write_predictions(task, given, path)
    frame = pd.read_parquet(path)
    many = -(-len(frame) // len(values))  # type: ignore[arg-type]
    frame[column] = (list(values) * many)[: len(frame)]  # type: ignore[call-overload]
    frame.to_parquet(path)
    with pytest.raises(ValueError, match=message):
        read_predictions(task, path)


def test_two_numbers_for_a_probability(task_shop: Path) -> None:
    task, given = some_predictions(task_shop, "buys")
    twice = replace(given, value=np.repeat(given.value, 2, axis=1))
    with pytest.raises(ValueError, match=r"got \(2,\) numbers a row, wanted 1"):
        align(task, "test", twice)
