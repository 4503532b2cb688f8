"""A small database with a task of every type, whose answers its rows and past labels tell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from tests.folders import write_folder

VAL, TEST = pd.Timestamp("2020-01-01"), pd.Timestamp("2020-07-01")
MONTH = pd.Timedelta("30 days")
PEOPLE, GOODS = 40, 14
KEYS: dict[str, dict[str, Any]] = {
    "people": {"pkey": "id", "fkeys": {"town": "towns"}},
    "towns": {"pkey": "id"},
    "goods": {"pkey": "id"},
    "orders": {"pkey": "id", "time_col": "at", "fkeys": {"person": "people", "good": "goods"}},
    "notes": {"time_col": "written", "fkeys": {"order": "orders"}},
}
TYPES = {
    "churn": "binary_classification",
    "level": "multiclass_classification",
    "tags": "multilabel_classification",
    "spend": "regression",
    "buys": "recommendation",
    "amount": "regression",
}
"""amount: an autocomplete task on orders."""


def tables(seed: int = 0) -> dict[str, pd.DataFrame]:
    """People order as their wealth allows; half of the last people come late."""
    rng = np.random.default_rng(seed)
    wealth = _wealth()
    n = 1500
    person = rng.integers(0, PEOPLE, n)
    at = pd.Timestamp("2018-01-01") + pd.to_timedelta(rng.integers(0, 1100 * 86_400, n), "s")
    orders = pd.DataFrame(
        {
            "id": np.arange(n),
            "at": np.sort(at),
            "person": person,
            "good": (person + rng.integers(0, 4, n)) % GOODS,
            "amount": np.where(rng.random(n) < 0.05, np.nan, wealth[person] + rng.normal(0, 1, n)),
            "paid": rng.random(n) < 0.7,
            "way": rng.choice(["post", "shop", "web"], n),
            "secret": rng.normal(size=n),
        }
    )
    written = rng.choice(n, 700, replace=False)
    notes = pd.DataFrame(
        {
            "order": written,
            "written": orders["at"].to_numpy()[written] + np.timedelta64(2, "D"),
            "stars": rng.integers(1, 6, 700),
        }
    )
    return {
        "people": pd.DataFrame(
            {
                "id": np.arange(PEOPLE),
                "town": np.arange(PEOPLE) % 4,
                "born": pd.Timestamp("1980-01-01") + pd.to_timedelta(np.arange(PEOPLE) * 99, "D"),
                "job": np.array(["cook", "smith"])[np.arange(PEOPLE) % 2],
            }
        ),
        "towns": pd.DataFrame({"id": range(4), "size": [5.0, 1.0, np.nan, 9.0]}),
        "goods": pd.DataFrame({"id": range(GOODS), "price": np.linspace(1, 5, GOODS)}),
        "orders": orders,
        "notes": notes,
    }


def labels(name: str, seed: int = 0) -> pd.DataFrame:
    """Rows of all splits: monthly until the autumn of 2020; the last people come late."""
    rng = np.random.default_rng(seed + 1)
    months = pd.date_range("2018-02-01", "2019-11-01", freq="MS").tolist()
    months += [VAL + i * MONTH for i in range(3)] + [TEST + i * MONTH for i in range(3)]
    if name == "buys":
        months = [*months[:22], VAL, TEST]
    rows = [(m, p) for m in months for p in range(PEOPLE) if p < 34 or m >= VAL or p + m.month > 40]
    time, person = [m for m, _ in rows], np.array([p for _, p in rows])
    mood = _wealth()[person] + rng.normal(0, 1.0, len(rows))
    return pd.DataFrame({"at": time, "person": person, "label": _labels(name, mood, person, rng)})


def _labels(
    name: str,
    mood: npt.NDArray[np.float64],
    person: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> list[Any]:
    if name == "churn":
        return [int(m > 0) for m in mood]
    if name == "level":
        return [["low", "mid", "top"][int(m > -0.7) + int(m > 0.7)] for m in mood]
    if name == "tags":
        return [[int(m > 0), int(m > 1), int(m < 0.5)] for m in mood]
    if name == "spend":
        return [float(m) for m in mood]
    return [[int((p + i) % GOODS) for i in rng.choice(4, 2, replace=False)] for p in person]


def write_tasks(
    folder: Path,
    frames: Mapping[str, pd.DataFrame] | None = None,
    answers: Mapping[str, pd.DataFrame] | None = None,
    hidden: tuple[tuple[str, str], ...] = (("orders", "secret"),),
) -> Path:
    """The database and its tasks.

    Args:
        frames, answers: tables, and the labels of tasks, in the place of the usual ones.
    """
    frames = dict(tables()) if frames is None else dict(frames)
    write_folder(folder, frames, KEYS, str(VAL.date()), str(TEST.date()))
    for name, kind in TYPES.items():
        (folder / "tasks" / name).mkdir(parents=True, exist_ok=True)
        manifest = _manifest(name, kind)
        manifest["remove_columns"] = [list(pair) for pair in hidden]
        (folder / "tasks" / name / "manifest.yaml").write_text(yaml.safe_dump(manifest))
        if name == "amount":
            frame = frames["orders"][["at", "id", "amount"]].dropna()
            time, known = frame["at"], VAL
        else:
            frame = labels(name) if answers is None else answers[name]
            time, known = frame["at"], VAL - MONTH
        splits = {
            "train": frame[time <= known],
            "val": frame[(time >= VAL) & (time < TEST)],
            "test": frame[time >= TEST],
        }
        for split, rows in splits.items():
            rows.to_parquet(folder / "tasks" / name / f"{split}.parquet", index=False)
    return folder


def _manifest(name: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name, "task_type": kind, "manifest_version": 1}
    if name == "amount":
        return found | {"kind": "autocomplete", "entity_table": "orders", "target_col": "amount"}
    found |= {
        "kind": "forecast",
        "time_col": "at",
        "timedelta": "30 days",
        "target_col": "label",
        "sql": "-",
    }
    if kind == "recommendation":
        return found | {
            "src_entity_table": "people",
            "src_entity_col": "person",
            "dst_entity_table": "goods",
            "dst_entity_col": "label",
            "eval_k": 5,
        }
    return found | {"entity_table": "people", "entity_col": "person", "num_eval_timestamps": 3}


def _wealth() -> npt.NDArray[np.float64]:
    return np.random.default_rng(5).normal(0, 1.5, PEOPLE)
