"""The labels of real databases' tasks, from queries, equal the shipped ones row for row."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from rfm.data.database import Database, open_database
from rfm.data.query import Written, compile_text, labels, write_task
from rfm.data.task_rows import SPLITS, TaskRows
from rfm.data.tasks import Task, list_tasks, open_task

pytestmark = pytest.mark.realdata
_ORACLES: dict[str, dict[str, str]] = yaml.safe_load(
    (Path(__file__).parent / "oracles.yaml").read_text()
)
_FEW = [("rel-f1", name) for name in _ORACLES["rel-f1"]] + [("northwind", "product-revenue")]
_ALL = [(database, name) for database, tasks in _ORACLES.items() for name in tasks]
# Asked about users who registered later: they came over with posts of theirs from another site. A
# model cannot see them at that time, so the language does not ask about them.
_NOT_THERE_YET = {("stats-se-2014", "user-engagement"): 196}


def _ours(folder: Path, real: Path, name: str) -> Database:
    """The database in a folder of its own, where tasks can be written."""
    folder = folder / name
    folder.mkdir()
    shutil.copy(real / name / "manifest.yaml", folder)
    (folder / "db").symlink_to(real / name / "db")
    return open_database(folder)


def _pairs(rows: TaskRows) -> dict[tuple[int, int], tuple[float, ...]]:
    keys = zip(rows.time.tolist(), rows.entity.tolist(), strict=True)
    if rows.label.shape[1] == 0:
        lists = np.split(rows.destination, rows.start[1:-1])
        return {key: tuple(sorted(own.tolist())) for key, own in zip(keys, lists, strict=True)}
    return {key: tuple(label) for key, label in zip(keys, rows.label.tolist(), strict=True)}


def _compare(theirs: Task, written: Written, database: Database, missing: int) -> None:
    ours = open_task(database, written.path.name)
    assert (ours.task_type, ours.kind, ours.timedelta, ours.entity_table, ours.top_k) == (
        theirs.task_type, theirs.kind, theirs.timedelta, theirs.entity_table, theirs.top_k,
    )  # fmt: skip
    begun = database.times(theirs.entity_table)
    for split in SPLITS:
        shipped, found = _pairs(theirs.rows(split)), _pairs(ours.rows(split))
        early = {key for key in shipped if begun[key[1]] > key[0]}
        missing -= len(early)
        assert found.keys() == shipped.keys() - early
        assert all(found[key] == pytest.approx(shipped[key], rel=1e-9, abs=1e-9) for key in found)
    assert missing == 0


@pytest.mark.parametrize(
    ("database", "task"),
    [pytest.param(*one, marks=[] if one in _FEW else [pytest.mark.slow]) for one in _ALL],
)
def test_labels_and_splits_equal_the_shipped(
    database: str, task: str, real_data: Path, tmp_path: Path
) -> None:
    """From the query alone: the anchor times are derived from the database, too."""
    theirs = open_task(open_database(real_data / database), task)
    ours = _ours(tmp_path, real_data, database)
    manifest = yaml.safe_load((theirs.folder / "manifest.yaml").read_text())
    compiled = compile_text(_ORACLES[database][task], ours)
    windows = manifest.get("num_eval_timestamps", 1)
    written = write_task(compiled, ours, ours.folder, num_eval_timestamps=windows)
    _compare(theirs, written, ours, _NOT_THERE_YET.get((database, task), 0))


@pytest.mark.slow
@pytest.mark.parametrize(("database", "task"), _FEW)
def test_relbench_makes_the_same_of_the_manifest(
    database: str, task: str, real_data: Path, tmp_path: Path
) -> None:
    """RelBench, running the SQL of the manifest, finds the rows that were written."""
    import relbench

    ours = _ours(tmp_path, real_data, database)
    compiled = compile_text(_ORACLES[database][task], ours)
    shipped = yaml.safe_load((real_data / database / "tasks" / task / "manifest.yaml").read_text())
    windows = shipped.get("num_eval_timestamps", 1)
    written = write_task(compiled, ours, ours.folder, num_eval_timestamps=windows)
    dataset = relbench.load_dataset(str(ours.folder))
    name = written.path.name
    for split in SPLITS:
        made = dataset.load_task(name, regenerate=True).get_table(split, mask_input_cols=False)
        read = dataset.load_task(name).get_table(split, mask_input_cols=False)
        assert len(made.df) == len(read.df) == written.rows[split]
        for column in (compiled.time_column, compiled.entity_column):
            assert made.df[column].tolist() == read.df[column].tolist()
        for made_label, label in zip(
            made.df[compiled.target_column], read.df[compiled.target_column], strict=True
        ):
            assert np.asarray(made_label) == pytest.approx(np.asarray(label))


def test_every_forecast_is_among_the_oracles(real_data: Path) -> None:
    there = {
        (path.name, task)
        for path in real_data.iterdir()
        if path.is_dir()
        for task in list_tasks(open_database(path))
        if open_task(open_database(path), task).kind == "forecast"
    }
    assert there == set(_ALL)


@pytest.mark.parametrize("target", ["qualifying.position", "results.position"])
def test_autocompletes_equal_the_shipped(target: str, real_data: Path, tmp_path: Path) -> None:
    """But for what the shipped tasks hide besides, all of which the query cannot know."""
    table, column = target.split(".")
    database = _ours(tmp_path, real_data, "rel-f1")
    theirs = open_task(open_database(real_data / "rel-f1"), f"{table}-{column}")
    key = database.tables[table].primary_key
    compiled = compile_text(f"PREDICT {target} FOR EACH {table}.{key}", database)
    ours = open_task(database, write_task(compiled, database, database.folder).path.name)
    assert (ours.kind, ours.task_type) == ("autocomplete", "regression")
    assert (table, column) in ours.hidden
    for split in SPLITS:
        assert _pairs(ours.rows(split)) == _pairs(theirs.rows(split))


def test_counts_say_what_was_dropped(real_data: Path) -> None:
    database = open_database(real_data / "rel-f1")
    query = "PREDICT AVG(results.positionOrder, 0, 60, days) FOR EACH drivers.driverId"
    found = labels(compile_text(query, database), database, [database.val_timestamp])
    counts = found.counts
    assert counts.there.tolist() == [database.tables["drivers"].num_rows]
    assert (counts.labelled + counts.empty).tolist() == counts.asked.tolist()
    assert counts.labelled.tolist() == [len(found)]
    assert f"{len(found)} labelled" in counts.words()
