"""Synthetic databases: they load in RelBench, repeat exactly, and hold the signal they record."""

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
from sklearn.linear_model import LogisticRegression

from rfm.data.synthetic import (
    RECORD,
    SyntheticConfig,
    generate_database,
    generate_databases,
    read_record,
)
from rfm.data.synthetic_tasks import SPLITS, auroc, score_truth
from rfm.data.synthetic_words import DOMAINS, read_domains

SIGNALS = ["own_columns", "one_hop", "two_hop", "recency", "own_past_labels"]
TINY = SyntheticConfig(seed=7, rows=1500)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return generate_databases(tmp_path_factory.mktemp("tiny"), 8, TINY)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    out = tmp_path_factory.mktemp("planted")
    return {
        signal: [
            generate_database(out / signal, index, SyntheticConfig(seed=3, signal=signal))
            for index in range(3)
        ]
        for signal in SIGNALS
    }


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def truth_of(folder: Path, task: str) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads((folder / "tasks" / task / "truth.json").read_text())
    return truth


def labels_with_truth(folder: Path, task: str, split: str) -> pd.DataFrame:
    labels = pd.read_parquet(folder / "tasks" / task / f"{split}.parquet")
    truth = pd.read_parquet(folder / "tasks" / task / f"truth_{split}.parquet")
    pd.testing.assert_frame_equal(labels.iloc[:, :2], truth.iloc[:, :2])
    return labels.assign(expected=truth["expected"].astype(float))


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


@pytest.mark.parametrize("signal", SIGNALS)
def test_recorded_truth(planted: dict[str, list[Path]], signal: str) -> None:
    """The scores in the record are those of the stored expectations, and well above chance."""
    found = []
    for folder in planted[signal]:
        for task in relbench.load_dataset(folder).get_task_names():
            truth = truth_of(folder, task)
            assert truth["signal"] == truth["rule"]["signal"] == signal
            for split in SPLITS:
                rows = labels_with_truth(folder, task, split)
                target = rows.iloc[:, 2].to_numpy()
                recorded = truth["score"][split]
                aggregate = "exists" if "auroc" in recorded else "count"
                again = score_truth(aggregate, target, rows["expected"].to_numpy())
                assert again == pytest.approx(recorded, abs=1e-6)
                found.append(recorded["auroc"] if "auroc" in recorded else 0.5 + recorded["r2"])
    assert min(found) > 0.6
    assert 0.75 < float(np.median(found)) < 0.97


def exists_tasks(folder: Path) -> list[str]:
    names = relbench.load_dataset(folder).get_task_names()
    return [name for name in names if "auroc" in truth_of(folder, name)["score"]["val"]]


def attribute_scores(db: Any, truth: dict[str, Any]) -> np.ndarray:
    """Score of each row of the rule's table, from its two visible columns."""
    rule, frame = truth["rule"], db.table_dict[truth["rule"]["attributes"]].df
    raw = rule["number_weight"] * (frame[rule["number"]] - truth["center"]) / truth["scale"]
    if rule["category"]:
        effects = dict(zip(truth["options"], rule["effects"], strict=True))
        raw = raw + frame[rule["category"]].map(effects).astype(float)
    return ((raw - truth["shift"]) / truth["spread"]).to_numpy(float)


def read_parent(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    return np.where(row >= 0, values[row], 0.0)


def rule_scores(
    db: Any, truth: dict[str, Any], entity_table: str, rows: pd.DataFrame
) -> np.ndarray:
    """The rule's score for each (timestamp, entity), from what the folder shows before."""
    rule = truth["rule"]
    rows = rows.set_axis(["timestamp", "entity", *rows.columns[2:]], axis=1)
    if rule["signal"] == "own_past_labels":
        return label_scores(db, truth, entity_table, rows)
    if not rule["history"]:
        row, table = rows["entity"].to_numpy(), db.table_dict[entity_table]
        for hop in rule["hops"]:
            row = np.where(row >= 0, table.df[hop].fillna(-1).to_numpy(int)[row], -1)
            table = db.table_dict[table.fkey_col_to_pkey_table[hop]]
        return read_parent(attribute_scores(db, truth), row)
    history = db.table_dict[rule["history"]]
    actor = next(iter(history.fkey_col_to_pkey_table))
    past = history.df[[history.time_col, actor]].set_axis(["timestamp", "entity"], axis=1)
    if rule["signal"] == "recency":
        past["seen"] = past["timestamp"]
        seen = pd.merge_asof(rows, past, on="timestamp", by="entity")
        age = (seen["timestamp"] - seen["seen"]).dt.total_seconds() / truth["step"]
        return (2 * np.exp(-age / rule["decay"]) - 1).fillna(-1).to_numpy()
    past["score"] = (
        read_parent(attribute_scores(db, truth), history.df[rule["via"]].fillna(-1).to_numpy(int))
        if rule["via"]
        else attribute_scores(db, truth)
    )
    if rule["aggregate"] == "mean":
        count = past.groupby("entity").cumcount() + 1
        past["score"] = 1.5 * past.groupby("entity")["score"].cumsum() / count
    seen = pd.merge_asof(rows, past, on="timestamp", by="entity")
    return seen["score"].fillna(0).to_numpy()


def label_scores(
    db: Any, truth: dict[str, Any], entity_table: str, rows: pd.DataFrame
) -> np.ndarray:
    """Weighted past labels, 0 where the window or the entity did not exist yet."""
    entity, events = db.table_dict[entity_table], db.table_dict[truth["events"]]
    start, step = truth["start"], truth["step"]

    def window_of(times: pd.Series) -> np.ndarray:
        return -((start - times.astype("datetime64[s]").astype("int64").to_numpy()) // step)

    window = window_of(rows["timestamp"])
    label = np.full((len(entity.df), window.max() + 1), -1.0)
    happened = window_of(events.df[events.time_col]) - 1
    known = happened < label.shape[1]
    actor = events.df[next(iter(events.fkey_col_to_pkey_table))].to_numpy(int)
    label[actor[known], happened[known]] = 1
    if entity.time_col:
        first = window_of(entity.df[entity.time_col])
        label[np.arange(label.shape[1]) < first[:, None]] = 0
    score = np.zeros(len(rows))
    for lag, weight in enumerate(truth["rule"]["lags"], start=1):
        past = window - lag
        score += np.where(past >= 0, weight * label[rows["entity"].to_numpy(), past], 0)
    return score


@pytest.mark.parametrize("signal", SIGNALS)
def test_rule_computed_from_the_folder(planted: dict[str, list[Path]], signal: str) -> None:
    """What is visible at the seed time gives the recorded probability and its score."""
    checked = 0
    for folder in planted[signal]:
        dataset = relbench.load_dataset(folder)
        db = dataset.get_db(upto_test_timestamp=False)
        for task in exists_tasks(folder):
            truth = truth_of(folder, task)
            rule, entity_table = truth["rule"], dataset.load_task(task).entity_table
            for split in ("train", "test"):
                rows = labels_with_truth(folder, task, split)
                score = rule_scores(db, truth, entity_table, rows)
                seconds = rows["timestamp"].astype("datetime64[s]").astype("int64")
                window = (seconds - truth["start"]) / truth["step"]
                season = rule["season"] * np.sin(2 * np.pi * window / rule["period"])
                again = 1 / (1 + np.exp(-(rule["base"] + rule["gain"] * score + season)))
                np.testing.assert_allclose(again, rows["expected"], atol=2e-4)
                recorded = truth["score"][split]["auroc"]
                assert auroc(rows.iloc[:, 2].to_numpy(), again) == pytest.approx(recorded, abs=5e-3)
                checked += 1
    assert checked >= 4


def own_columns(db: Any, folder: Path, task: str, split: str) -> np.ndarray:
    manifest = relbench.load_dataset(folder).load_task(task)
    entity = db.table_dict[manifest.entity_table]
    keys = [entity.pkey_col, *entity.fkey_col_to_pkey_table]
    frame = entity.df.drop(columns=[key for key in keys if key])
    few = [c for c in frame if frame[c].dtype.kind in "iufb" or frame[c].nunique() < 12]
    wide = pd.get_dummies(frame[few]).astype(float).fillna(0)
    wide = (wide - wide.mean()) / (wide.std() + 1e-9)
    return wide.to_numpy()[labels_with_truth(folder, task, split).iloc[:, 1].to_numpy()]


def fitted_auroc(db: Any, folder: Path, task: str) -> float:
    """Test AUROC of a logistic regression on the entity's own columns."""
    train, test = (own_columns(db, folder, task, split) for split in ("train", "test"))
    labels = [labels_with_truth(folder, task, s).iloc[:, 2].to_numpy() for s in ("train", "test")]
    model = LogisticRegression(max_iter=300).fit(train, labels[0])
    return auroc(labels[1], model.decision_function(test))


@pytest.mark.parametrize(
    ("signal", "low", "high"), [("two_hop", 0.4, 0.62), ("own_columns", 0.75, 1)]
)
def test_only_own_columns_signal_is_in_the_own_columns(
    planted: dict[str, list[Path]], signal: str, low: float, high: float
) -> None:
    own = []
    for folder in planted[signal]:
        db = relbench.load_dataset(folder).get_db(upto_test_timestamp=False)
        for task in exists_tasks(folder)[:1]:
            assert truth_of(folder, task)["score"]["test"]["auroc"] > 0.7
            own.append(fitted_auroc(db, folder, task))
    assert low < np.mean(own) < high


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
