"""Runs of predictions as reports get them, of every type of task, the same each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rfm.data.database import Database
from rfm.eval.report import PredictionRun

CHECKPOINT = {
    "folder": "runs/zero-shot/model",
    "pretrained on": ["chinook", "sakila", "lahman-baseball", "intl-football", "a", "b", "c"],
    "parameters": 3_912_704,
    "trained": pd.Timestamp("2024-05-01 12:30"),
    "loss": 1.23456789,
}
FACTS = {
    "regime": "rolling",
    "anchor time": pd.Timestamp("2021-06-01"),
    "examples": 256,
    "entities": 91,
    "explained": True,
    "classes in the context": {"0": 128, "1": 128},
}


def moments(count: int) -> pd.DatetimeIndex:
    """Anchor times, three months apart."""
    return pd.date_range("2018-06-01", periods=count, freq="3MS")


def keys(count: int) -> list[str]:
    return [f"CUST{i:05d}" for i in range(count)]


def signals(rng: np.random.Generator, count: int = 8) -> list[dict[str, Any]]:
    """Signals of one explanation; the third is a row as a whole, the fourth was not checked."""
    known = [
        (["orders.customer_id"], "orders", "total"),
        ([], "customers", "city"),
        (["orders.customer_id"], "orders", ""),
        (["orders.customer_id", "order_items.order_id"], "order_items", "quantity"),
        (
            ["orders.customer_id", "order_items.order_id", "order_items.product_id"],
            "products",
            "price",
        ),
        (["reviews.customer_id"], "reviews", "stars"),
        (["reviews.customer_id"], "reviews", "body"),
        ([], "customers", "signed_up"),
    ]
    found = []
    for i, (path, table, column) in enumerate(known[:count]):
        weight = float(rng.normal(0.4 if i % 3 else -0.3, 0.15) / (i + 1))
        rows = list(range(int(rng.integers(1, 9))))
        words = f"{table}.{column} of the last {len(rows)} rows averages {rng.integers(10, 400)}"
        words += ", higher than most" if weight > 0 else ", lower than most"
        one = {"path": path, "table": table, "column": column, "rows": rows, "weight": weight}
        one |= {"words": words if column else f"{len(rows)} rows of {table}, fewer than usual"}
        found.append(one if i == 3 else one | {"occluded": -weight / 3})
    return sorted(found, key=lambda one: -abs(one["weight"]))


def explain(names: Sequence[str], predictions: Sequence[Any]) -> list[dict[str, Any]]:
    rng = np.random.default_rng(5)
    explained = []
    for name, prediction in zip(names, predictions, strict=True):
        found = signals(rng)
        one = {"entity": name, "prediction": prediction, "signals": found}
        explained.append(one | {"top_signal": found[0]["words"]})
    return explained


def frame(count: int, times: pd.DatetimeIndex, **columns: Any) -> pd.DataFrame:
    """`count` entities at each of some times."""
    return pd.DataFrame(
        {"id": keys(count) * len(times), "at": np.repeat(times.to_numpy(), count), **columns}
    )


def binary_run(database: Database, entities: int = 91, times: int = 12) -> PredictionRun:
    rng = np.random.default_rng(1)
    now, past = moments(times + 1)[-1:], moments(times + 1)[:-1]
    probability = rng.beta(0.7, 1.4, entities)
    rows = entities * times
    expected = rng.beta(0.7, 1.4, rows)
    happened = (rng.random(rows) < expected**1.3).astype(int)
    backtest = frame(entities, past, prediction=expected, label=happened)
    counted = backtest.groupby("at")["label"].agg(["size", "sum"]).reset_index()
    counted.columns = pd.Index(["time", "labelled", "positives"])
    predictions = frame(entities, now, prediction=probability)
    return PredictionRun(
        title="Which customers order again?",
        query="PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id",
        task_type="binary_classification",
        database=database,
        entity="id",
        time="at",
        predictions=predictions,
        backtest=backtest,
        balance=counted,
        checkpoint=CHECKPOINT,
        facts=FACTS,
        warnings=["only 12 positive examples were found, 128 were wanted"],
        explanations=explain(keys(entities)[:40], probability[:40].tolist()),
    )


def multiclass_run(database: Database, classes: Sequence[str]) -> PredictionRun:
    rng = np.random.default_rng(2)
    run = binary_run(database)
    names = {name: f"probability of {name}" for name in classes}

    def answers(times: pd.DatetimeIndex) -> pd.DataFrame:
        given = rng.dirichlet(np.linspace(2, 0.4, len(classes)), 91 * len(times))
        columns = {column: given[:, i] for i, column in enumerate(names.values())}
        best = [classes[i] for i in given.argmax(axis=1)]
        return frame(91, times, prediction=best, **columns)

    backtest = answers(moments(12))
    chance = backtest[list(names.values())].to_numpy()
    drawn = [classes[rng.choice(len(classes), p=row)] for row in chance]
    predictions = answers(moments(13)[-1:])
    return replace(
        run,
        title="Which city will they move to?",
        query="PREDICT LAST(orders.city, 0, 90, days) FOR EACH customers.id",
        task_type="multiclass_classification",
        predictions=predictions,
        backtest=backtest.assign(label=drawn),
        balance=run.balance[["time", "labelled"]],
        classes=names,
        explanations=explain(keys(12), predictions["prediction"].head(12).tolist()),
    )


def regression_run(database: Database) -> PredictionRun:
    rng = np.random.default_rng(3)
    run = binary_run(database)

    def answers(times: pd.DatetimeIndex) -> pd.DataFrame:
        given = rng.lognormal(4, 1, 91 * len(times))
        return frame(91, times, prediction=given, low=given * 0.5, high=given * 1.8)

    backtest = answers(moments(12))
    label = backtest["prediction"] * rng.lognormal(0, 0.5, len(backtest))
    backtest = backtest.assign(label=label)
    balance = backtest.groupby("at")["label"].agg(["size", "mean"]).reset_index()
    balance.columns = pd.Index(["time", "labelled", "mean"])
    predictions = answers(moments(13)[-1:])
    return replace(
        run,
        title="What will they spend?",
        query="PREDICT SUM(orders.total, 0, 90, days) FOR EACH customers.id",
        task_type="regression",
        predictions=predictions,
        backtest=backtest,
        balance=balance,
        explanations=explain(keys(91), predictions["prediction"].tolist()),
    )


def recommendation_run(database: Database, k: int = 12) -> PredictionRun:
    rng = np.random.default_rng(4)
    run = binary_run(database)
    popular = 1 / np.arange(1, 61)

    def lists(times: int, least: int, most: int) -> list[list[int]]:
        sizes = rng.integers(least, most + 1, 91 * times)
        chosen = popular / popular.sum()
        return [rng.choice(60, size, replace=False, p=chosen).tolist() for size in sizes]

    past = moments(12)
    return replace(
        run,
        title="What will they buy?",
        query="PREDICT LIST_DISTINCT(items.product, 0, 30, days) RANK TOP 12 FOR EACH users.id",
        task_type="recommendation",
        predictions=frame(91, moments(13)[-1:], prediction=lists(1, k, k)),
        backtest=frame(91, past, prediction=lists(12, k, k), label=lists(12, 1, 5)),
        balance=run.balance[["time", "labelled"]],
        explanations=[],
    )


def bare_run(database: Database, task_type: Any = "binary_classification") -> PredictionRun:
    """Predictions and nothing else."""
    run = binary_run(database)
    bare: Mapping[str, Any] = {"backtest": pd.DataFrame(), "balance": pd.DataFrame()}
    empty: Mapping[str, Any] = {"checkpoint": {}, "facts": {}, "warnings": (), "explanations": ()}
    return replace(run, task_type=task_type, **bare, **empty)
