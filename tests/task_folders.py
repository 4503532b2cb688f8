"""The shop with tasks of every type and kind, small, and the same each time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from rfm.data.task_rows import SPLITS
from tests.folders import write_folder
from tests.shop import KEYS, TEST, VAL, shop_tables

Frames = dict[str, pd.DataFrame]  # by split
_WINDOW = """
FROM timestamps
CROSS JOIN customers
LEFT JOIN orders ON orders.customer = customers.id AND orders.at > timestamps.timestamp
    AND orders.at <= timestamps.timestamp + INTERVAL '{timedelta}'
GROUP BY timestamps.timestamp, customers.id
"""
_CUSTOMERS = {"entity_table": "customers", "entity_col": "customer", "time_col": "date"}
_LINKS = {
    "task_type": "recommendation",
    "src_entity_table": "customers",
    "src_entity_col": "customer",
    "dst_entity_table": "products",
    "dst_entity_col": "product",
    "time_col": "date",
    "eval_k": 3,
}
TASKS: dict[str, dict[str, Any]] = {
    "buys": {
        "kind": "forecast",
        "task_type": "binary_classification",
        **_CUSTOMERS,
        "target_col": "buys",
        "timedelta": "30 days",
        "num_eval_timestamps": 6,
        "sql": "SELECT timestamps.timestamp AS date, customers.id AS customer, "
        f"CAST(COUNT(orders.id) > 0 AS BIGINT) AS buys {_WINDOW}",
    },
    "spend": {
        "kind": "forecast",
        "task_type": "regression",
        **_CUSTOMERS,
        "target_col": "spent",
        "timedelta": "30 days",
        "num_eval_timestamps": 6,
        "remove_columns": [["orders", "note"], ["orders", "best_review"]],
        "sql": "SELECT timestamps.timestamp AS date, customers.id AS customer, "
        f"COALESCE(SUM(orders.amount), 0) AS spent {_WINDOW}",
    },
    "next": {
        "kind": "forecast",
        **_LINKS,
        "timedelta": "60 days",
        "sql": """
SELECT timestamps.timestamp AS date, orders.customer AS customer,
    LIST(DISTINCT items.product) AS product
FROM timestamps
JOIN orders ON orders.at > timestamps.timestamp
    AND orders.at <= timestamps.timestamp + INTERVAL '{timedelta}'
JOIN items ON items.order = orders.id
GROUP BY timestamps.timestamp, orders.customer
""",
    },
    "status": {
        "kind": "autocomplete",
        "task_type": "multiclass_classification",
        "entity_table": "orders",
        "target_col": "status",
        "remove_columns": [["orders", "paid"]],
    },
    "rating": {
        "kind": "autocomplete",
        "task_type": "regression",
        "entity_table": "reviews",
        "target_col": "stars",
        "remove_columns": [["reviews", "body"]],
    },
    "tier": {
        "kind": "external",
        "task_type": "multiclass_classification",
        **_CUSTOMERS,
        "target_col": "tier",
        "remove_columns": [["customers", "city"], ["orders", "gift_to"]],
    },
    "tags": {
        "kind": "external",
        "task_type": "multilabel_classification",
        "entity_table": "products",
        "entity_col": "product",
        "time_col": "date",
        "target_col": "tags",
        "timedelta": "10 days",
    },
    "likes": {"kind": "external", **_LINKS, "timedelta": "5 days"},
}
ONE_OF_EACH_TYPE = ("buys", "tier", "tags", "spend", "next")
TIERS = ["gold", "silver", "no tier yet"]


def sorted_tables() -> dict[str, pd.DataFrame]:
    """The shop with its rows in the order of time, which RelBench needs to cut a database short."""
    tables = shop_tables()
    place = {}
    for name, frame in tables.items():
        time = KEYS[name].get("time_col")
        if time is not None:
            order = np.argsort(frame[time].to_numpy(), kind="stable")
            place[name] = pd.Series(np.argsort(order), dtype="Int64")
            tables[name] = frame.iloc[order].reset_index(drop=True)
            tables[name]["id"] = np.arange(len(frame))
    for name, frame in tables.items():
        for column, parent in KEYS[name].get("fkeys", {}).items():
            if parent in place:
                frame[column] = frame[column].map(place[parent]).astype("Int64")
    return tables


def target_of(name: str) -> str:
    spec = TASKS[name]
    return str(spec.get("target_col") or spec["dst_entity_col"])


def task_frames(tables: Mapping[str, pd.DataFrame]) -> dict[str, Frames]:
    """The rows of each task by split, the labels of forecasts counted from the tables."""
    rng = np.random.default_rng(11)
    buys, spend = _window_frames(tables)
    return {
        "buys": buys,
        "spend": spend,
        "next": _next_frames(tables),
        "status": _column_frames(tables["orders"], "at", "status"),
        "rating": _column_frames(tables["reviews"], "written", "stars"),
        "tier": _drawn_frames(rng, "customer", 12, "tier", 1, 15),
        "tags": _drawn_frames(rng, "product", 15, "tags", 10, 40),
        "likes": _drawn_frames(rng, "customer", 12, "product", 5, 40),
    }


def _moments(tables: Mapping[str, pd.DataFrame], days: int, evaluated: int) -> dict[str, Any]:
    """Seed times as RelBench chooses them."""
    delta = pd.Timedelta(days=days)
    times = pd.concat(
        [tables["products"].listed, tables["orders"]["at"], tables["reviews"].written]
    )
    val, test = pd.Timestamp(VAL), pd.Timestamp(TEST)
    span, last_test = delta * (evaluated - 1), times.max() - delta
    return {
        "train": pd.date_range(val - delta, times.min(), freq=-delta),
        "val": pd.date_range(val, min(val + span, test - delta), freq=delta),
        "test": pd.date_range(test, min(test + span, last_test), freq=delta),
    }


def _window_frames(tables: Mapping[str, pd.DataFrame]) -> tuple[Frames, Frames]:
    """Whether, and for how much, each customer orders within 30 days."""
    orders, buys, spend = tables["orders"], {}, {}
    for split, moments in _moments(tables, 30, 6).items():
        rows = []
        for moment in sorted(moments):
            soon = (orders["at"] > moment) & (orders["at"] <= moment + pd.Timedelta(days=30))
            for customer in range(len(tables["customers"])):
                mine = orders[soon & (orders["customer"] == customer)]
                rows.append((moment, customer, int(len(mine) > 0), float(mine["amount"].sum())))
        frame = pd.DataFrame(rows, columns=["date", "customer", "buys", "spent"])
        buys[split] = frame.drop(columns="spent")
        spend[split] = frame.drop(columns="buys")
    return buys, spend


def _next_frames(tables: Mapping[str, pd.DataFrame]) -> Frames:
    """The products that each customer orders within 60 days; as RelBench has it, those that are
    there by the test timestamp."""
    sold = tables["items"].merge(tables["orders"], left_on="order", right_on="id")
    sold = sold[sold["product"].isin(tables["products"].query("listed <= @TEST")["id"])]
    frames = {}
    for split, moments in _moments(tables, 60, 1).items():
        rows = []
        for moment in sorted(moments):
            soon = (sold["at"] > moment) & (sold["at"] <= moment + pd.Timedelta(days=60))
            for customer, own in sold[soon].groupby("customer"):
                rows.append((moment, int(customer), sorted({int(p) for p in own["product"]})))
        frames[split] = pd.DataFrame(rows, columns=["date", "customer", "product"])
    return frames


def _column_frames(table: pd.DataFrame, time: str, target: str) -> Frames:
    rows = table[[time, "id", target]].sort_values([time, "id"], kind="stable")
    later, last = rows[time] > VAL, rows[time] > TEST
    parts = {"train": ~later, "val": later & ~last, "test": last}
    return {split: rows[part].reset_index(drop=True) for split, part in parts.items()}


def _drawn_frames(
    rng: np.random.Generator, entity: str, size: int, target: str, days: int, every: int
) -> Frames:
    """Labels drawn at random; each known before the next split begins."""
    delta, val, test = pd.Timedelta(days=days), pd.Timestamp(VAL), pd.Timestamp(TEST)
    spans = {
        "train": (val - pd.Timedelta(days=300), val - delta),
        "val": (val, test - delta),
        "test": (test, test + pd.Timedelta(days=150)),
    }
    frames = {}
    for split, (start, end) in spans.items():
        moments = pd.date_range(start, end, freq=pd.Timedelta(days=every))
        pairs = [(m, e) for m in moments for e in np.flatnonzero(rng.random(size) < 0.5)]
        labels = [draw_label(rng, target) for _ in pairs]
        if target == "tier":
            labels = [None if rng.random() < 0.05 else label for label in labels]
        frames[split] = pd.DataFrame(
            {"date": [m for m, _ in pairs], entity: [int(e) for _, e in pairs], target: labels}
        )
    return frames


def draw_label(rng: np.random.Generator, target: str) -> Any:
    """One label of a task of drawn labels."""
    if target == "tier":
        return str(rng.choice(TIERS, p=[0.5, 0.3, 0.2]))
    if target == "tags":
        return (rng.random(4) < [0.5, 0.3, 0.3, 0.4]).astype(int).tolist()
    return sorted(rng.choice(15, rng.integers(1, 4), replace=False).tolist())


def write_task(folder: Path, name: str, spec: Mapping[str, Any], frames: Frames) -> Path:
    """A task of a database's folder."""
    out = folder / "tasks" / name
    out.mkdir(parents=True, exist_ok=True)
    manifest = {"name": name, **spec, "manifest_version": 1}
    (out / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    for split in SPLITS:
        frames[split].to_parquet(out / f"{split}.parquet", index=False)
    return out


def write_task_shop(out: Path) -> Path:
    """The shop and its tasks in ``out/shop``."""
    tables = sorted_tables()
    folder = write_folder(out / "shop", tables, KEYS, VAL, TEST)
    for name, frames in task_frames(tables).items():
        write_task(folder, name, TASKS[name], frames)
    return folder
