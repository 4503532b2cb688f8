"""A tour from a running database to explained predictions: PostgreSQL is started, Northwind loaded
into it, imported over the wire, and asked three questions.

    python -m benchmarks.tour checkpoint=<folder> data.root=<folder with northwind>

It prints the answers with what moved them, and how long each step took.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.import_media import write_postgres
from benchmarks.postgres import cluster
from rfm import RelationalModel, open_database
from rfm.config import run_command, setting
from rfm.data.database import SourceConfig
from rfm.eval.ask import AskConfig
from rfm.train.process import quieten, set_up_cpu

QUESTIONS = {
    "Who will order within 30 days?": "PREDICT COUNT(orders.*, 0, 30, days) > 0 "
    "FOR EACH customers.customer_id WHERE COUNT(orders.*, -180, 0, days) > 0",
    "What will a product bring in within 30 days?": "PREDICT SUM(order_details.unit_price * "
    "order_details.quantity, 0, 30, days) FOR EACH products.product_id",
    "Which products will a customer order next?": "PREDICT LIST_DISTINCT(order_details.product_id, "
    "0, 60, days) RANK TOP 5 FOR EACH customers.customer_id",
}
_SHOWN = 5


@dataclass(frozen=True)
class TourConfig:
    """Which checkpoint is asked."""

    checkpoint: str = setting(help="a folder or a Hub id, trained with episodes")
    ask: AskConfig = setting(factory=AskConfig)
    data: SourceConfig = setting(factory=SourceConfig)


def tour(config: TourConfig) -> Mapping[str, Any]:
    """From PostgreSQL to answers; returns the seconds of each step."""
    quieten()
    set_up_cpu()
    source, seconds, answered = open_database("northwind", config.data.root), {}, {}
    with cluster() as server:
        import psycopg

        url = server.create("northwind")
        with psycopg.connect(url) as connection:
            write_postgres(source, connection, declared=True)
        with _timed(seconds, "open the model"):
            model = RelationalModel.from_pretrained(config.checkpoint)
        with _timed(seconds, "import"):
            database = open_database(url)
    print(f"\n{database.name}: {len(database.tables)} tables, read over the wire from {url}")
    for words, query in QUESTIONS.items():
        with _timed(seconds, words):
            frame = model.predict(database, query, config=config.ask)
        some = frame[frame.columns[0]].head(_SHOWN).tolist()
        with _timed(seconds, f"{words} (explained)"):
            shown = model.predict(database, query, entities=some, explain=True, config=config.ask)
        print(f"\n{words}\n{query}\n")
        print(shown.drop(columns="explanation").to_string(index=False, max_colwidth=100))
        answered[words] = len(frame)
    return {"answered": answered, "seconds": seconds, "folder": database.folder}


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - start, 2)


if __name__ == "__main__":
    run_command(TourConfig, tour, prog="python -m benchmarks.tour", doc=__doc__)
