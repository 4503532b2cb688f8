"""The shop with tasks: of every type, and one that hides a column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from rfm.data.database import open_database
from rfm.data.tasks import Task, open_task
from tests.folders import write_folder
from tests.shop import KEYS, TEST, VAL, shop_tables

MONTHS = {
    "train": pd.date_range("2019-03-01", "2019-11-01", freq="MS"),
    "val": pd.DatetimeIndex(["2020-01-01", "2020-03-01"]),
    "test": pd.DatetimeIndex(["2020-07-01", "2020-09-01"]),
}
DELTA = pd.Timedelta(days=30)
FORECAST = {
    "kind": "forecast",
    "manifest_version": 1,
    "description": "Predict it.",
    "entity_table": "customers",
    "entity_col": "customer",
    "target_col": "big_spender",
    "time_col": "asked",
    "timedelta": "30 days",
    "sql": "SELECT 1",
}
TASKS: dict[str, dict[str, Any]] = {
    "binary": {**FORECAST, "task_type": "binary_classification"},
    "blind": {
        **FORECAST,
        "task_type": "binary_classification",
        "remove_columns": [["orders", "amount"], ["orders", "best_review"]],
    },
    "multiclass": {**FORECAST, "task_type": "multiclass_classification"},
    "multilabel": {**FORECAST, "task_type": "multilabel_classification"},
    "regression": {**FORECAST, "task_type": "regression"},
    "links": {
        **{k: v for k, v in FORECAST.items() if not k.startswith(("entity", "target"))},
        "task_type": "recommendation",
        "target_col": "product",
        "src_entity_table": "customers",
        "src_entity_col": "customer",
        "dst_entity_table": "products",
        "dst_entity_col": "product",
        "eval_k": 5,
    },
    "autocomplete": {
        "kind": "autocomplete",
        "manifest_version": 1,
        "task_type": "regression",
        "entity_table": "reviews",
        "target_col": "stars",
    },
}


def tables_in_time_order() -> dict[str, pd.DataFrame]:
    """The shop, its keys counted in the order of time: RelBench's evaluator asks for that."""
    tables, number = shop_tables(), {}
    for name in ("products", "orders", "reviews"):
        frame = tables[name].sort_values(KEYS[name]["time_col"], kind="stable")
        number[name] = pd.Series(np.arange(len(frame)), index=frame["id"].to_numpy())
        tables[name] = frame.assign(id=np.arange(len(frame))).reset_index(drop=True)
    for name, frame in tables.items():
        for column, parent in KEYS[name].get("fkeys", {}).items():
            if parent in number:
                frame[column] = frame[column].map(number[parent]).astype("Int64")
    return tables


def write_shop(folder: Path, tables: Mapping[str, pd.DataFrame] | None = None) -> Path:
    """``folder/shop`` with the tables given, or those of the shop, and labels made of the latter:
    what happens to the tables given changes no label."""
    frames = tables_in_time_order()
    written = write_folder(folder / "shop", tables or frames, KEYS, VAL, TEST)
    for name, manifest in TASKS.items():
        write_task(written, name, manifest, frames)
    return written


def write_task(
    folder: Path, name: str, manifest: Mapping[str, Any], frames: Mapping[str, pd.DataFrame]
) -> None:
    out = folder / "tasks" / name
    out.mkdir(parents=True, exist_ok=True)
    (out / "manifest.yaml").write_text(yaml.safe_dump({"name": name, **manifest}))
    for split in MONTHS:
        labels(name, split, frames).to_parquet(out / f"{split}.parquet", index=False)


def labels(task: str, split: str, frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row of each customer and month (autocomplete: of each review of the period)."""
    if task == "autocomplete":
        edges = [pd.Timestamp.min, pd.Timestamp(VAL), pd.Timestamp(TEST), pd.Timestamp.max]
        number = list(MONTHS).index(split)
        reviews = frames["reviews"]
        kept = (reviews["written"] > edges[number]) & (reviews["written"] <= edges[number + 1])
        return reviews.loc[kept, ["written", "id", "stars"]].reset_index(drop=True)
    rows = [_row(task, moment, c, frames) for moment in MONTHS[split] for c in range(12)]
    return pd.DataFrame(rows)


def _row(
    task: str, moment: pd.Timestamp, customer: int, frames: Mapping[str, pd.DataFrame]
) -> dict[str, Any]:
    """The label follows from the customer's latest order, one hop away; products that are bought
    are the dearest."""
    orders = frames["orders"]
    own = orders[(orders["customer"] == customer) & (orders["at"] <= moment)]
    amount = own.sort_values("at")["amount"].dropna()
    latest = float(amount.iloc[-1]) if len(amount) else 0.0
    if task == "links":
        there = frames["products"][frames["products"]["listed"] <= moment]
        bought = there.sort_values("price")["id"].tolist()[-2:] or [0]
        return {"asked": moment, "customer": customer, "product": bought}
    label: Any = latest
    if task in ("binary", "blind"):
        label = int(latest > 50)
    elif task == "multiclass":
        label = "high" if latest > 60 else "middle" if latest > 40 else "low"
    elif task == "multilabel":
        label = [int(latest > 40), int(latest > 60)]
    return {"asked": moment, "customer": customer, "big_spender": label}


def shop_task(folder: Path, name: str) -> Task:
    return open_task(open_database(folder), name)


def after(frame: pd.DataFrame, column: str, moment: str) -> pd.Series[bool]:
    return frame[column] > pd.Timestamp(moment)


def with_changed_future(moment: str) -> dict[str, pd.DataFrame]:
    """The shop's tables, in which every cell and key of rows later than ``moment`` is another."""
    tables = tables_in_time_order()
    for name, time in (("orders", "at"), ("reviews", "written"), ("products", "listed")):
        frame = tables[name]
        later = np.flatnonzero(after(frame, time, moment))
        for column in frame.columns.drop(["id", time]):
            values = frame[column].to_numpy(copy=True)
            values[later] = np.roll(values[later], 1)
            frame[column] = pd.Series(values, dtype=frame[column].dtype)
        text = frame.columns[frame.dtypes.map(pd.api.types.is_string_dtype)]
        for column in text:
            frame.loc[later, column] = "changed " + frame.loc[later, column].astype(str)
    return tables
