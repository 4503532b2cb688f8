"""A shop whose customers are each asked about once, so that a label shows in no past of its own:
only in the column, of a table at the end of a path, that it is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.folders import write_folder
from tests.task_folders import write_task

Frames = dict[str, pd.DataFrame]
VAL, TEST = pd.Timestamp("2020-01-01"), pd.Timestamp("2020-07-01")
PEOPLE, GOODS, ORDERS, VISITS = 500, 60, 4_000, 3_000
WRONG = 0.1  # of the examples' labels
KEYS = {
    "customers": {"pkey": "id"},
    "products": {"pkey": "id"},
    "orders": {
        "pkey": "id", "time_col": "at", "fkeys": {"customer": "customers", "product": "products"},
    },
    "visits": {"pkey": "id", "time_col": "at", "fkeys": {"customer": "customers"}},
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """A label is whether ``score`` of each customer, of rows before they are asked about, is above
    its median. Where it stands: path and table as signals have them; column, "" for none."""

    path: str
    table: str
    column: str
    score: Callable[[Mapping[str, pd.DataFrame]], pd.Series]


def _mean(frame: pd.DataFrame, column: str) -> pd.Series:
    return frame.groupby("customer")[column].mean()


def _parents_mean(tables: Mapping[str, pd.DataFrame], column: str) -> pd.Series:
    """Of the products that customers ordered."""
    own = tables["products"][column].to_numpy()[tables["orders"]["product"]]
    return _mean(tables["orders"].assign(**{column: own}), column)


RULES = {
    "own": Rule("", "customers", "income", lambda t: t["customers"].set_index("id")["income"]),
    "child": Rule("orders.customer", "orders", "amount", lambda t: _mean(t["orders"], "amount")),
    "count": Rule(
        "visits.customer", "visits", "", lambda t: t["visits"].groupby("customer").size()
    ),
    "paid": Rule("orders.customer", "orders", "paid", lambda t: _mean(t["orders"], "paid")),
    "far": Rule(
        "orders.customer, then orders.product -> products", "products", "price",
        lambda t: _parents_mean(t, "price"),
    ),
    "organic": Rule(
        "orders.customer, then orders.product -> products", "products", "organic",
        lambda t: _parents_mean(t, "organic"),
    ),
}  # fmt: skip


def shop_tables(seed: int) -> Frames:
    rng = np.random.default_rng(seed)

    def moments(count: int) -> np.ndarray:
        days = np.sort(rng.integers(0, 900, count))
        return (pd.Timestamp("2018-01-01") + pd.to_timedelta(days, unit="D")).to_numpy()

    activity = rng.gamma(3.0, size=PEOPLE)
    usual, taste = rng.normal(50, 15, PEOPLE), rng.normal(size=PEOPLE)
    buyer = rng.integers(0, PEOPLE, ORDERS)
    price = np.sort(rng.gamma(4.0, 10.0, GOODS))
    place = (taste[buyer] + 0.7 * rng.normal(size=ORDERS)).argsort().argsort() * GOODS // ORDERS
    income = rng.normal(30_000, 8_000, PEOPLE).round()
    honest, green = rng.beta(2, 2, PEOPLE), np.arange(GOODS) % 7 < 3
    amount = usual[buyer] + rng.normal(0, 8, ORDERS)
    return {
        "customers": pd.DataFrame(
            {
                "id": np.arange(PEOPLE),
                "income": income,
                "spare": (0.5 * income + rng.normal(0, 7_000, PEOPLE)).round(),  # a decoy
                "height": rng.normal(170, 9, PEOPLE).round(),
            }
        ),
        "products": pd.DataFrame(
            {
                "id": np.arange(GOODS),
                "price": price.round(2),
                "weight": rng.random(GOODS).round(3),
                "organic": green,
            }
        ),
        "orders": pd.DataFrame(
            {
                "id": np.arange(ORDERS),
                "customer": buyer,
                "product": place,
                "at": moments(ORDERS),
                "amount": amount.round(2),
                "postage": (0.3 * amount + rng.normal(0, 6, ORDERS)).round(2),  # a decoy
                "paid": rng.random(ORDERS) < honest[buyer],
                "rebate": rng.random(ORDERS).round(2),
            }
        ),
        "visits": pd.DataFrame(
            {
                "id": np.arange(VISITS),
                "customer": rng.choice(PEOPLE, VISITS, p=activity / activity.sum()),
                "at": moments(VISITS),
                "minutes": rng.gamma(2.0, 5.0, VISITS).round(1),
            }
        ),
    }


def write_planted_shop(folder: Path, seed: int) -> Path:
    """The shop with one task per rule (``RULES``), in ``folder/planted``; both kinds of labels are
    equally frequent, and a tenth of those that examples are made of are wrong."""
    tables, rng = shop_tables(seed), np.random.default_rng(seed + 1)
    out = write_folder(folder / "planted", tables, KEYS, str(VAL.date()), str(TEST.date()))
    spec = {
        "kind": "external", "entity_table": "customers", "entity_col": "customer",
        "time_col": "date", "timedelta": "30 days",
    }  # fmt: skip
    who = np.split(rng.permutation(PEOPLE), [PEOPLE * 6 // 10, PEOPLE * 7 // 10])
    when = {"train": VAL - pd.Timedelta(days=31), "val": VAL, "test": TEST}
    for name, rule in RULES.items():
        frames = {}
        for (split, moment), people in zip(when.items(), who, strict=True):
            seen = {
                key: table[table["at"] <= moment] if "at" in table else table
                for key, table in tables.items()
            }
            score = rule.score(seen).reindex(range(PEOPLE)).fillna(0.0)
            above = (score > score.median()).astype("int64").to_numpy()[people]
            if split == "train":
                above = np.where(rng.random(people.size) < WRONG, 1 - above, above)
            frames[split] = pd.DataFrame({"date": moment, "customer": people, "likes": above})
        given = {**spec, "task_type": "binary_classification", "target_col": "likes"}
        write_task(out, name, given, frames)
    return out
