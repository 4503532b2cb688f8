"""A shop whose labels can be computed by hand, with names that need quotes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rfm.data.database import Database, open_database
from tests.folders import write_folder

VAL, TEST = "2020-01-01", "2020-04-01"
KEYS: dict[str, dict[str, Any]] = {
    "customers": {"pkey": "id", "time_col": "since", "fkeys": {"region": "regions"}},
    "regions": {"pkey": "id"},
    "orders": {
        "pkey": "id",
        "time_col": "at",
        "fkeys": {"customer_id": "customers", "gift_to": "customers"},
    },
    "visits": {"time_col": "at", "fkeys": {"customer_id": "customers"}},
    "items": {
        "time_col": "at",
        "fkeys": {"order_id": "orders", "product_id": "products"},
    },
    "products": {"pkey": "id", "time_col": "listed"},
    "cards": {"fkeys": {"customer_id": "customers"}},
}


def shop_frames(seed: int = 0, orders: int = 400) -> dict[str, pd.DataFrame]:
    """Orders from 2019 to the middle of 2020; some values missing, some texts alike."""
    rng = np.random.default_rng(seed)
    people, goods, visits, items = 20, 12, 300, 600
    at = _moments(rng, orders, "2019-01-01", 540)
    order = np.sort(rng.integers(0, orders, items))
    return {
        "customers": pd.DataFrame(
            {
                "id": np.arange(people),
                "since": np.sort(_moments(rng, people, "2018-06-01", 500)),
                "name": [f"Customer {i}" for i in range(people)],
                "city": rng.choice(["Oslo", "Lima", "Kyiv"], people),
                "age": np.where(rng.random(people) < 0.2, np.nan, rng.integers(18, 80, people)),
                "vip": rng.random(people) < 0.4,
                "region": rng.integers(0, 3, people),
            }
        ),
        "regions": pd.DataFrame({"id": np.arange(3), "label": ["north", "south", "west"]}),
        "orders": pd.DataFrame(
            {
                "id": np.arange(orders),
                "at": at,
                "customer_id": rng.integers(0, people, orders),
                "gift_to": pd.array(
                    np.where(rng.random(orders) < 0.5, rng.integers(0, people, orders), -1)
                ),
                "total": np.where(rng.random(orders) < 0.1, np.nan, rng.normal(50, 20, orders)),
                "state": rng.choice(["open", "sent", "late"], orders),
                "paid": rng.random(orders) < 0.7,
            }
        ).assign(gift_to=lambda f: f.gift_to.where(f.gift_to >= 0).astype("Int64")),
        "visits": pd.DataFrame(
            {
                "at": _moments(rng, visits, "2019-01-01", 540),
                "customer_id": rng.integers(0, people, visits),
            }
        ),
        "items": pd.DataFrame(
            {
                "at": at[order],
                "order_id": order,
                "product_id": rng.integers(0, goods, items),
                "pieces": rng.integers(1, 5, items),
            }
        ),
        "products": pd.DataFrame(
            {
                "id": np.arange(goods),
                "listed": np.sort(_moments(rng, goods, "2018-06-01", 200)),
                "price": rng.uniform(1, 20, goods),
                "kind": rng.choice(["food", "toys"], goods),
            }
        ),
        "cards": pd.DataFrame(
            {"customer_id": np.arange(people), "colour": rng.choice(["red", "blue"], people)}
        ),
    }


def write_shop(folder: Path, frames: dict[str, pd.DataFrame] | None = None) -> Database:
    folder = write_folder(folder / "shop", frames or shop_frames(), KEYS, VAL, TEST)
    return open_database(folder)


def seconds(time: str | pd.Timestamp) -> int:
    return int(pd.Timestamp(time).timestamp())


def _moments(rng: np.random.Generator, n: int, start: str, days: int) -> np.ndarray[Any, Any]:
    moments = pd.Timestamp(start) + pd.to_timedelta(rng.integers(0, days * 86_400, n), "s")
    return np.sort(moments.to_numpy())
