"""Tasks as they are opened and read, beside RelBench's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import relbench

from rfm.data.database import open_database
from rfm.data.task_rows import SPLITS
from rfm.data.tasks import list_tasks, open_task
from tests.shop import TEST_SECONDS, VAL_SECONDS
from tests.task_folders import TASKS, target_of

every_task = pytest.mark.parametrize("name", sorted(TASKS))


@every_task
def test_a_task_says_what_relbench_says(task_shop: Path, name: str) -> None:
    task = open_task(open_database(task_shop), name)
    theirs = relbench.load_dataset(task_shop).load_task(name)
    assert task.full_name == f"shop/{name}"
    assert task.task_type == theirs.task_type.value
    assert task.kind == TASKS[name]["kind"]
    assert task.timedelta == theirs.timedelta.total_seconds()
    assert task.time_column == theirs.time_col
    assert set(task.hidden) == set(theirs.hidden_columns())
    assert task.target == target_of(name)
    if task.task_type == "recommendation":
        assert (task.entity_table, task.entity_column) == ("customers", "customer")
        assert (task.destination_table, task.top_k) == ("products", theirs.eval_k)
    else:
        assert task.entity_table == theirs.entity_table
        assert task.entity_column == theirs.entity_col
        assert (task.destination_table, task.top_k) == ("", 0)


@every_task
def test_rows_are_those_of_the_files(task_shop: Path, name: str) -> None:
    task = open_task(open_database(task_shop), name)
    theirs = relbench.load_dataset(task_shop).load_task(name)
    for split in SPLITS:
        frame = theirs.get_table(split, mask_input_cols=False).df
        rows = task.rows(split)
        assert len(rows) == len(frame)
        assert rows.entity.tolist() == frame[task.entity_column].tolist()
        seconds = [int(t.timestamp()) for t in frame[task.time_column]]
        assert rows.time.tolist() == seconds
        labels = frame[task.target].tolist()
        if task.task_type == "recommendation":
            lists = np.split(rows.destination, rows.start[1:-1])
            assert [x.tolist() for x in lists] == [list(x) for x in labels]
        elif task.task_type == "multilabel_classification":
            assert rows.label.tolist() == [list(x) for x in labels]
        elif task.task_type == "multiclass_classification":
            for value, label in zip(rows.label[:, 0], labels, strict=True):
                assert np.isnan(value) if pd.isna(label) else task.classes[int(value)] == label
        else:
            np.testing.assert_array_equal(rows.label[:, 0], np.array(labels, float))
        assert task.rows(split) is rows  # read once


@pytest.mark.parametrize("name", [n for n, spec in TASKS.items() if spec["kind"] != "external"])
def test_the_labels_of_these_tests_are_those_that_relbench_computes(
    task_shop: Path, name: str
) -> None:
    pytest.importorskip("duckdb")
    theirs = relbench.load_dataset(task_shop).load_task(name, regenerate=True)
    for split in SPLITS:
        computed = theirs.get_table(split, mask_input_cols=False).df
        written = pd.read_parquet(task_shop / "tasks" / name / f"{split}.parquet")
        for column in written.columns:
            a, b = computed[column].tolist(), written[column].tolist()
            if isinstance(b[0], float):
                np.testing.assert_allclose(a, b)
            elif isinstance(b[0], np.ndarray):
                assert [sorted(int(v) for v in x) for x in a] == [x.tolist() for x in b]
            else:
                assert a == b


def test_outputs_and_classes(task_shop: Path) -> None:
    database = open_database(task_shop)
    found = {name: open_task(database, name) for name in TASKS}
    assert {name: task.outputs for name, task in found.items()} == {
        "buys": 1, "spend": 1, "next": 0, "status": 3, "rating": 1, "tier": 3, "tags": 4,
        "likes": 0,
    }  # fmt: skip
    assert found["tier"].classes == ("gold", "no tier yet", "silver")
    assert found["tier"].rows("train").labelled.sum() == len(found["tier"].rows("train")) - 5
    assert found["buys"].classes == ()
    assert list_tasks(database) == sorted(TASKS)


def test_cutoffs(task_shop: Path) -> None:
    task = open_task(open_database(task_shop), "buys")
    for split, end in (("val", VAL_SECONDS), ("test", TEST_SECONDS)):
        time = task.rows(split).time
        assert time.min() == end < time.max()
        assert np.array_equal(task.cutoffs(split, "rolling"), time)
        assert (task.cutoffs(split, "frozen") == end).all()
    for regime in ("frozen", "rolling"):
        assert np.array_equal(task.cutoffs("train", regime), task.rows("train").time)
    assert np.array_equal(task.staleness(), task.rows("val").time - VAL_SECONDS)


def test_a_class_that_no_training_row_has(task_shop: Path, tmp_path: Path) -> None:
    shutil.copytree(task_shop, tmp_path / "shop")
    path = tmp_path / "shop" / "tasks" / "tier" / "val.parquet"
    frame = pd.read_parquet(path)
    frame.loc[0, "tier"] = "platinum"
    frame.to_parquet(path)
    task = open_task(open_database(tmp_path / "shop"), "tier")
    assert task.rows("val").label[0, 0] == -1
    assert "platinum" not in task.classes


@pytest.mark.realdata
def test_real_tasks_are_those_of_relbench(real_data: Path) -> None:
    if not (real_data / "rel-f1").is_dir():
        pytest.skip(f"no rel-f1 in {real_data}")
    database = open_database(real_data / "rel-f1")
    names = list_tasks(database)
    assert {"driver-dnf", "driver-top3", "driver-position"} <= set(names)
    task = open_task(database, "driver-dnf")
    assert [len(task.rows(split)) for split in SPLITS] == [11_411, 566, 702]
    for name in names:
        opened = open_task(database, name)
        assert all(len(opened.rows(split)) for split in SPLITS)
