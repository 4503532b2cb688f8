"""Synthetic databases: they load in RelBench and repeat exactly."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import relbench

from rfm.data.synthetic import (
    RECORD,
    SyntheticConfig,
    generate_database,
    generate_databases,
    read_record,
)
from rfm.data.synthetic_tasks import SPLITS
from rfm.data.synthetic_words import DOMAINS, read_domains

TINY = SyntheticConfig(seed=7, rows=1500)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generate_databases(tmp_path_factory.mktemp("tiny"), 8, TINY)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_vocabulary_is_consistent() -> None:
    domains = read_domains()
    assert len(domains) == DOMAINS.count("\n\n") + 1 >= 10
    for tables in domains.values():
        roles = {table.name: table.role for table in tables}
        assert len(roles) == len(tables)
        for table in tables:
            assert all(parent in roles for parent, _ in table.parents)
            words = [word for _, word in table.parents] + [c.word for c in table.columns]
            assert len(set(words)) == len(words), table
            first = roles[table.parents[0][0]] if table.parents else ""
            assert table.role != "event" or first == "entity", table
            assert table.role != "item" or first == "event", table


def test_same_settings_same_bytes(tmp_path: Path) -> None:
    one = generate_database(tmp_path / "a", 4, TINY)
    generate_database(tmp_path / "b", 1, TINY)
    two = generate_database(tmp_path / "b", 4, TINY)
    assert one.name == "synthetic-7-0004"
    assert content(one) == content(two)
    other = generate_database(tmp_path / "c", 4, SyntheticConfig(seed=8, rows=1500))
    assert set(content(one).values()) & set(content(other).values()) == set()


def test_complete_folder_is_kept_and_other_settings_replace_it(tmp_path: Path) -> None:
    folder = generate_database(tmp_path, 0, TINY)
    before = folder.stat().st_mtime_ns
    assert generate_database(tmp_path, 0, TINY) == folder
    assert folder.stat().st_mtime_ns == before
    generate_database(tmp_path, 0, SyntheticConfig(seed=7, rows=900))
    assert read_record(folder)["settings"]["rows"] == 900
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    (folder / RECORD).unlink()
    with pytest.raises(ValueError, match="not a synthetic database"):
        generate_database(tmp_path, 0, TINY)


@pytest.mark.parametrize("number", range(8))
def test_keys_and_times(tiny: list[Path], number: int) -> None:
    folder = tiny[number]
    manifest = relbench.manifest.DatasetManifest.load(folder / "manifest.yaml")
    relbench.manifest.validate_dataset_manifest(manifest, folder / "db")
    frames = {name: pd.read_parquet(folder / "db" / f"{name}.parquet") for name in manifest.tables}
    assert 3 <= len(frames) <= 12
    assert 0.5 * TINY.rows < sum(map(len, frames.values())) < 2 * TINY.rows
    assert sum(map(len, frames.values())) == read_record(folder)["rows"]
    for name, table in manifest.tables.items():
        frame = frames[name]
        if table.pkey:
            assert (frame[table.pkey] == np.arange(len(frame))).all()
        if table.time_col:
            assert frame[table.time_col].is_monotonic_increasing
            assert (frame[table.time_col].dt.microsecond == 0).all()
        schema = pq.read_schema(folder / "db" / f"{name}.parquet")
        for column, parent_name in table.fkeys.items():
            assert schema.field(column).type == pa.int64()
            there = frame[column].notna()
            row = frame.loc[there, column].astype(int)
            assert row.between(0, len(frames[parent_name]) - 1).all()
            born = manifest.tables[parent_name].time_col
            if born:
                assert table.time_col, f"{name} is static, its parent {parent_name} is not"
                created = frames[parent_name][born].to_numpy()[row]
                assert (created <= frame.loc[there, table.time_col].to_numpy()).all()


@pytest.mark.parametrize("number", range(3))
def test_split_times_cut_the_events_as_promised(tmp_path: Path, number: int) -> None:
    folder = generate_database(tmp_path, number, SyntheticConfig(seed=9, rows=8000))
    dataset = relbench.load_dataset(folder)
    tables = dataset.get_db(upto_test_timestamp=False).table_dict.values()
    times = pd.concat([t.df[t.time_col] for t in tables if t.time_col and t.fkey_col_to_pkey_table])
    assert 0.66 < (times <= dataset.val_timestamp).mean() < 0.82
    assert 0.8 < (times <= dataset.test_timestamp).mean() < 0.93


@pytest.mark.parametrize("number", range(4))
def test_sql_regenerates_the_labels(tiny: list[Path], number: int) -> None:
    dataset = relbench.load_dataset(tiny[number])
    db = dataset.get_db(upto_test_timestamp=False)
    names = dataset.get_task_names()
    assert 1 <= len(names) <= 3
    for name in names:
        stored, again = dataset.load_task(name), dataset.load_task(name, regenerate=True)
        assert (dataset.val_timestamp - dataset.test_timestamp) % stored.timedelta == pd.Timedelta(
            0
        )
        for split in SPLITS:
            left = stored.get_table(split, mask_input_cols=False).df
            right = again.get_table(split, mask_input_cols=False, db=db).df[list(left)]
            pd.testing.assert_frame_equal(
                left.reset_index(drop=True), right.reset_index(drop=True), check_dtype=False
            )
            assert left[stored.target_col].dtype.kind in "if"
        seeds = {s: stored.get_table(s, mask_input_cols=False).df["timestamp"] for s in SPLITS}
        assert seeds["train"].max() + stored.timedelta <= dataset.val_timestamp
        assert seeds["val"].min() == dataset.val_timestamp
        assert seeds["test"].min() == dataset.test_timestamp


def test_all_kinds_of_columns_and_missing_cells(tiny: list[Path]) -> None:
    types: set[str] = set()
    missing, self_reference, shapes = 0, 0, set()
    for folder in tiny:
        manifest = relbench.manifest.DatasetManifest.load(folder / "manifest.yaml")
        shapes.add(tuple(manifest.tables))
        for name, table in manifest.tables.items():
            self_reference += name in table.fkeys.values()
            keys = {table.pkey, table.time_col, *table.fkeys}
            data = pq.read_table(folder / "db" / f"{name}.parquet")
            cells = [column for column in data.column_names if column not in keys]
            types |= {str(data.schema.field(column).type) for column in cells}
            missing += sum(data[column].null_count for column in cells)
    assert types == {"double", "int64", "bool", "string", "timestamp[us]"}
    assert missing > 0
    assert self_reference > 0
    assert len(shapes) == len(tiny)


def test_no_missing_cells_when_not_wanted(tmp_path: Path) -> None:
    folder = generate_database(tmp_path, 0, SyntheticConfig(seed=7, rows=1500, missing=0.0))
    manifest = relbench.manifest.DatasetManifest.load(folder / "manifest.yaml")
    for name, table in manifest.tables.items():
        data = pq.read_table(folder / "db" / f"{name}.parquet")
        assert not any(data[c].null_count for c in data.column_names if c not in table.fkeys)


def test_parents_are_popular_and_cells_follow_the_links(tmp_path: Path) -> None:
    """The busiest tenth of the parents has far more than a tenth of the children."""
    shares = []
    for folder in generate_databases(tmp_path, 3, SyntheticConfig(seed=2, rows=8000)):
        for table in (
            relbench.load_dataset(folder).get_db(upto_test_timestamp=False).table_dict.values()
        ):
            for column in table.fkey_col_to_pkey_table:
                count = table.df[column].value_counts()
                if len(table.df) > 1000 and len(count) > 30:
                    shares.append(count.iloc[: len(count) // 10].sum() / count.sum())
    assert np.mean(shares) > 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": 10}, "rows=10"),
        ({"tables": (5, 3)}, "tables="),
        ({"tables": (1, 3)}, "tables="),
        ({"signal": "three_hop"}, "signal='three_hop'"),
        ({"missing": 2.0}, "missing=2.0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticConfig(**settings)


def test_bad_calls(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count=0"):
        generate_databases(tmp_path, 0, TINY)
    with pytest.raises(ValueError, match="index=-1"):
        generate_database(tmp_path, -1, TINY)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        generate_database(tmp_path / "file", 0, TINY)


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("rfm.data.synthetic.write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        generate_database(tmp_path, 0, TINY)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "rfm.data.synthetic",
        f"out={tmp_path}",
        "count=2",
        "rows=1000",
    ]
    done = subprocess.run([*command, "signal=recency"], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["count"] == 2
    assert result["rows"] > 500
    assert "synthetic-0-0001" in done.stderr


@pytest.mark.slow
def test_many_databases_load_and_are_fast(tmp_path: Path) -> None:
    folders = generate_databases(tmp_path, 60, SyntheticConfig(seed=11, rows=1500, tables=(3, 16)))
    for folder in folders:
        dataset = relbench.load_dataset(folder)
        for name in dataset.get_task_names():
            for split in SPLITS:
                assert len(dataset.load_task(name).get_table(split).df)
