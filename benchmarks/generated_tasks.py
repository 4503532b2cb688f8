"""How many tasks can be made from databases alone, and how long it takes.

    python -m benchmarks.generated_tasks data.databases=[...] data.root=<folder> [tries=200]

Draws tasks from each database as pretraining does, and counts those that are not degenerate, and
how many different questions they ask: another path, column, aggregate, window or condition. The
threshold that a number is compared with makes no other question.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from rfm.config import run_command, setting
from rfm.data.corpus import DataConfig, open_corpus
from rfm.data.episode_config import EpisodeConfig
from rfm.data.episodes import EpisodeSource
from rfm.train.process import quieten


@dataclass(frozen=True)
class CountConfig:
    """Which databases."""

    seed: int = setting(0, ge=0, lt=2**32)
    tries: int = setting(200, ge=1, help="tasks drawn from each database")
    data: DataConfig = setting(factory=DataConfig)


def count_tasks(config: CountConfig) -> dict[str, Any]:
    """Draw and count."""
    quieten()
    corpus = open_corpus(config.data, config.seed)
    table = Table(title=f"Tasks among {config.tries} drawn")
    for column in ("database", "usable", "distinct", "ms each"):
        table.add_column(column, justify="left" if column == "database" else "right")
    usable = distinct = 0
    for number, store in enumerate(corpus.mixture.stores):
        source = EpisodeSource(store, number, corpus.tokenizer, 2, EpisodeConfig())
        rng = np.random.default_rng([config.seed, number])
        source.task(rng)  # sorts events, once
        start = time.perf_counter()
        drawn = [source.task(rng) for _ in range(config.tries)]
        each = 1000 * (time.perf_counter() - start) / config.tries
        names = [task.name for task in drawn if task is not None]
        usable, distinct = usable + len(names), distinct + len({*names})
        table.add_row(store.name, str(len(names)), str(len({*names})), f"{each:.1f}")
    Console(stderr=True).print(table)
    return {"databases": len(corpus.mixture.stores), "usable": usable, "distinct": distinct}


if __name__ == "__main__":
    run_command(CountConfig, count_tasks, prog="python -m benchmarks.generated_tasks", doc=__doc__)
