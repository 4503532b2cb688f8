"""A task attached to its database: the table that it becomes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from rfm.data.attach import KNOWN, attach_task, visible_database
from rfm.data.checks import check_database
from rfm.data.database import open_database
from rfm.data.task_rows import SPLITS
from rfm.data.tasks import Task, open_task
from tests.task_folders import TASKS, target_of

every_task = pytest.mark.parametrize("name", sorted(TASKS))


@every_task
def test_the_attached_table(task_shop: Path, tmp_path: Path, name: str) -> None:
    task = open_task(open_database(task_shop), name)
    attached = attach_task(task, tmp_path)
    check_database(attached.database)
    table = attached.database.tables[attached.table]
    assert attached.table == name
    assert attached.label == f"label {target_of(name)}"
    assert table.time_column == KNOWN
    assert table.foreign_keys[task.entity_column] == task.entity_table
    rows = pq.read_table(table.path).to_pylist()
    assert len(rows) == table.num_rows
    for split in SPLITS:
        own, at = task.rows(split), attached.questions[split]
        assert at.size == len(own)
        for i in range(len(own)):
            row = rows[at[i]]
            assert row[task.entity_column] == own.entity[i]
            known = np.datetime64(row[KNOWN]).astype("datetime64[s]").astype(int)
            assert known == own.time[i] + task.timedelta
            if task.top_k:
                mine = own.destination[own.start[i] : own.start[i + 1]].tolist()
                spread = rows[at[i] : at[i] + len(mine)]
                assert [r[attached.label] for r in spread] == mine
            else:
                assert row[attached.label] == spelled(task, own.label[i])


def spelled(task: Task, label: npt.NDArray[np.float64]) -> object:
    """The label as the attached table has it."""
    if np.isnan(label).any():
        return None
    if task.task_type == "multiclass_classification":
        return task.classes[int(label[0])]
    if task.task_type == "multilabel_classification":
        return " ".join(str(i) for i in np.flatnonzero(label)) or "none"
    return bool(label[0]) if task.task_type == "binary_classification" else float(label[0])


@every_task
def test_kinds_of_the_label(task_shop: Path, tmp_path: Path, name: str) -> None:
    attached = attach_task(open_task(open_database(task_shop), name), tmp_path)
    kind = {
        "binary_classification": "boolean",
        "multiclass_classification": "category",
        "multilabel_classification": "text",
        "regression": "number",
        "recommendation": "key",
    }[TASKS[name]["task_type"]]
    assert attached.database.kinds[attached.table][attached.label] == kind


@pytest.mark.parametrize("name", ["status", "rating"])
def test_a_completed_column_takes_its_rows_other_cells_along(
    task_shop: Path, tmp_path: Path, name: str
) -> None:
    database = open_database(task_shop)
    task = open_task(database, name)
    attached = attach_task(task, tmp_path)
    table, entity = attached.database.tables[name], database.tables[task.entity_table]
    hidden = {column for _, column in task.hidden}
    others = set(entity.columns) - hidden - {entity.primary_key}
    assert set(table.columns) == {KNOWN, "id", attached.label, *others}
    keys = {c: p for c, p in entity.foreign_keys.items() if c not in hidden}
    assert table.foreign_keys == {**keys, "id": task.entity_table}
    mine, theirs = pq.read_table(table.path), pq.read_table(entity.path)
    at = mine.column("id").to_numpy()
    for column in others:
        assert mine.column(column).to_pylist() == theirs.column(column).take(at).to_pylist()
        if column not in keys:
            assert attached.database.kinds[name][column] == database.kinds[entity.name][column]


def test_entity_cells(task_shop: Path, tmp_path: Path) -> None:
    task = open_task(open_database(task_shop), "buys")
    plain, copied = (attach_task(task, tmp_path, cells) for cells in (False, True))
    names = [set(a.database.tables["buys"].columns) for a in (plain, copied)]
    assert names[1] - names[0] == {"name", "city"}  # but not the key referred_by
    table = pq.read_table(copied.database.tables["buys"].path).to_pylist()
    people = pq.read_table(task_shop / "db" / "customers.parquet").to_pylist()
    assert all(row["city"] == people[row["customer"]]["city"] for row in table)


@every_task
def test_hidden_columns_are_gone(task_shop: Path, tmp_path: Path, name: str) -> None:
    task = open_task(open_database(task_shop), name)
    for database in (attach_task(task, tmp_path).database, visible_database(task)):
        for table, column in task.hidden:
            assert column not in database.tables[table].columns
            assert column not in database.tables[table].foreign_keys
        kept = {(t, c) for t, table in task.database.tables.items() for c in table.columns}
        for table, column in kept - set(task.hidden):
            assert column in database.tables[table].columns


def test_overrides_of_hidden_columns_do_no_harm(task_shop: Path, tmp_path: Path) -> None:
    database = open_database(task_shop, kinds={"orders": {"note": "category", "amount": "number"}})
    attached = attach_task(open_task(database, "spend"), tmp_path)
    assert attached.database.overrides["orders"] == {"amount": "number"}
    assert attached.database.kinds["orders"]["amount"] == "number"


def test_a_task_named_like_a_table(task_shop: Path, tmp_path: Path) -> None:
    task = replace(open_task(open_database(task_shop), "buys"), name="orders")
    attached = attach_task(task, tmp_path)
    assert attached.table == "orders labels"
    assert attached.database.tables["orders"] == task.database.tables["orders"]


def test_the_table_is_written_once(task_shop: Path, tmp_path: Path) -> None:
    task = open_task(open_database(task_shop), "buys")
    path = attach_task(task, tmp_path).database.tables["buys"].path
    stamp = path.stat().st_mtime_ns
    again = open_task(open_database(task_shop), "buys")
    assert attach_task(again, tmp_path).database.tables["buys"].path == path
    assert path.stat().st_mtime_ns == stamp
    assert attach_task(task, tmp_path, True).database.tables["buys"].path != path
