"""The tasks of synthetic databases hold the signal that they record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import relbench
from sklearn.linear_model import LogisticRegression

from rfm.data.synthetic import (
    SyntheticConfig,
    generate_database,
)
from rfm.data.synthetic_tasks import SPLITS, auroc, score_truth

SIGNALS = ["own_columns", "one_hop", "two_hop", "recency", "own_past_labels"]


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


def truth_of(folder: Path, task: str) -> dict[str, Any]:
    truth: dict[str, Any] = json.loads((folder / "tasks" / task / "truth.json").read_text())
    return truth


def labels_with_truth(folder: Path, task: str, split: str) -> pd.DataFrame:
    labels = pd.read_parquet(folder / "tasks" / task / f"{split}.parquet")
    truth = pd.read_parquet(folder / "tasks" / task / f"truth_{split}.parquet")
    pd.testing.assert_frame_equal(labels.iloc[:, :2], truth.iloc[:, :2])
    return labels.assign(expected=truth["expected"].astype(float))


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
