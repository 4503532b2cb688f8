"""A small shop: every kind of column and link in some three hundred rows, the same each time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from rfm.data.database import Database, open_database
from rfm.data.mixture import BatchConfig, Mixture
from rfm.data.prepare import prepare
from rfm.data.store import CellColumn, RowStore, Serialisation, TableStore
from rfm.data.tokenizer import Tokenizer, mixture_tokenizer
from tests.folders import write_folder

VAL, TEST = "2020-01-01", "2020-07-01"
VAL_SECONDS, TEST_SECONDS = (int(pd.Timestamp(t).timestamp()) for t in (VAL, TEST))
KEYS: dict[str, dict[str, Any]] = {
    "customers": {"pkey": "id", "fkeys": {"referred_by": "customers"}},
    "products": {"pkey": "id", "time_col": "listed"},
    "orders": {
        "pkey": "id",
        "time_col": "at",
        "fkeys": {"customer": "customers", "gift_to": "customers", "best_review": "reviews"},
    },
    "items": {"fkeys": {"order": "orders", "product": "products"}},
    "reviews": {
        "pkey": "id",
        "time_col": "written",
        "fkeys": {"order": "orders", "product": "products", "reply_to": "reviews"},
    },
}
SMALL_BATCH: dict[str, Any] = {
    "masked_groups": 2,
    "masked_seeds": 8,
    "link_groups": 2,
    "link_queries": 6,
    "negatives": 7,
    "fan_out": (4, 3),
    "link_fan_out": (3, 2),
    "max_rows": 24,
    "max_tokens": 48,
    "bucket_rows": 8,
}


def shop_tables() -> dict[str, pd.DataFrame]:
    """Static and timed tables, self-references, a cycle of tables, two keys to one parent, a
    bridge of keys alone; texts and amounts are unique to their row."""
    rng = np.random.default_rng(7)
    people, goods, orders, items, reviews = 12, 15, 90, 120, 70
    sold, written = moments(rng, orders), moments(rng, reviews)
    return {
        "customers": pd.DataFrame(
            {
                "id": np.arange(people),
                "name": unique_words(rng, people),
                "city": rng.choice(["Oslo", "Lima", "Kyiv"], people),
                "referred_by": links(rng, people, people, 0.5),
            }
        ),
        "products": pd.DataFrame(
            {
                "id": np.arange(goods),
                "listed": moments(rng, goods),
                "title": unique_words(rng, goods),
                "price": rng.lognormal(3, 1, goods),
                "organic": rng.random(goods) < 0.5,
            }
        ),
        "orders": pd.DataFrame(
            {
                "id": np.arange(orders),
                "at": sold,
                "customer": links(rng, orders, people, 0.0),
                "gift_to": links(rng, orders, people, 0.6),
                "best_review": links(rng, orders, reviews, 0.6),
                "note": with_nulls(rng, unique_words(rng, orders)),
                "amount": with_nulls(rng, rng.normal(50, 20, orders)),
                "paid": rng.random(orders) < 0.7,
                "due": sold + pd.to_timedelta(rng.integers(1, 90, orders), "D"),
                "status": rng.choice(["open", "sent", "lost in the mail"], orders),
            }
        ),
        "items": pd.DataFrame(
            {"order": links(rng, items, orders, 0.0), "product": links(rng, items, goods, 0.0)}
        ),
        "reviews": pd.DataFrame(
            {
                "id": np.arange(reviews),
                "written": written,
                "order": links(rng, reviews, orders, 0.2),
                "product": links(rng, reviews, goods, 0.1),
                "reply_to": links(rng, reviews, reviews, 0.5),
                "body": unique_words(rng, reviews),
                "stars": rng.normal(3, 1, reviews),
            }
        ),
    }


def moments(rng: np.random.Generator, n: int) -> pd.Series[Any]:
    """Whole seconds of 2019 and 2020, in no order."""
    start = pd.Timestamp("2019-01-01")
    return pd.Series(start + pd.to_timedelta(rng.integers(0, 2 * 365 * 86_400, n), "s"))


def links(rng: np.random.Generator, n: int, parents: int, null: float) -> pd.Series[Any]:
    keys = pd.Series(rng.integers(0, parents, n), dtype="Int64")
    keys[rng.random(n) < null] = pd.NA
    return keys


def unique_words(rng: np.random.Generator, n: int, letters: int = 9) -> pd.Series[Any]:
    """Two made-up words each, which no other row has."""
    alphabet = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return pd.Series(
        [" ".join("".join(rng.choice(alphabet, letters)) for _ in range(2)) for _ in range(n)]
    )


def with_nulls(rng: np.random.Generator, values: Any) -> pd.Series[Any]:
    series = pd.Series(values)
    return series.where(rng.random(len(series)) > 0.1, None)


@dataclass(frozen=True)
class Shop:
    """A prepared folder: its tables as they were written, and all that is made of them."""

    tables: Mapping[str, pd.DataFrame]
    database: Database
    tokenizer: Tokenizer
    store: RowStore
    cache: Path

    @property
    def mixture(self) -> Mixture:
        return Mixture([self.store], self.tokenizer, 0.5, {})

    def table(self, name: str) -> TableStore:
        return next(table for table in self.store.tables if table.name == name)

    def column(self, table: str, column: str) -> CellColumn:
        return next(c for c in self.table(table).columns if c.name == column)

    def values(self, table: str, column: str) -> npt.NDArray[np.float64]:
        """The stored numbers of a value column in the units of the data, NaN for null."""
        cells = self.table(table)
        c = [column.name for column in cells.columns].index(column)
        return cells.columns[c].stats.raw(cells.values(np.arange(cells.num_rows), c))

    def texts(self, table: str, column: str) -> list[str]:
        """The stored texts of a text column, decoded; empty for null."""
        cells = self.table(table)
        c = [column.name for column in cells.columns].index(column)
        return [self.tokenizer.decode(cells.text(row, c).tolist()) for row in range(cells.num_rows)]

    def row(self, table: str, local: int) -> int:
        """Global row of a row of a table."""
        return self.store.graph.rows_of(table)[local]


def prepare_shop(
    folder: Path,
    tables: Mapping[str, pd.DataFrame] | None = None,
    keys: Mapping[str, Mapping[str, Any]] | None = None,
    tokenizer: Tokenizer | None = None,
    serialisation: Serialisation = "compact",
    cache: Path | None = None,
) -> Shop:
    """Write a database (the shop, unless others are given) into ``folder/shop`` and prepare it in
    ``folder/cache``."""
    tables = shop_tables() if tables is None else tables
    written = write_folder(folder / "shop", tables, KEYS if keys is None else keys, VAL, TEST)
    database = open_database(written)
    cache = folder / "cache" if cache is None else cache
    tokenizer = tokenizer or mixture_tokenizer([database], 400, cache)
    store = prepare(database, tokenizer, cache, serialisation)
    return Shop(tables, database, tokenizer, store, cache)


def small_batches(**changes: Any) -> BatchConfig:
    return BatchConfig(**{**SMALL_BATCH, **changes})
