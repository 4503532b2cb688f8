"""The databases that throughput is measured on, prepared where they are not yet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from rfm.config_types import build
from rfm.data.corpus import Corpus, DataConfig, open_corpus
from rfm.data.database import Database, open_database
from rfm.data.locate import list_databases
from rfm.data.mixture import BatchConfig, Mixture, PretrainBatches
from rfm.data.prepare import prepare
from rfm.data.store import RowStore

BENCHMARK = "rel-f1"


@dataclass(frozen=True)
class AtHand:
    """Real databases under ``data.root``, or synthetic ones without it.

    recipe: YAML of the pretraining run whose mixture and batches are measured (real ones only).
    """

    data: DataConfig
    recipe: Path
    seed: int

    @property
    def real(self) -> bool:
        return self.data.root is not None

    @cached_property
    def corpus(self) -> Corpus:
        """The pretraining mixture's databases."""
        data = self.data
        if data.root is not None and not data.databases:
            there, wanted = list_databases(data.root), self._recipe("data")
            names = tuple(n for n in wanted.get("databases", ()) if n in there) or tuple(there)
            if not names:
                raise ValueError(f"data.root={data.root} holds no folder with a manifest.yaml")
            temperature = wanted.get("temperature", data.temperature)
            data = replace(data, databases=names, temperature=temperature)
        return open_corpus(data, self.seed)

    @cached_property
    def databases(self) -> tuple[Database, ...]:
        """All of them, the smallest first."""
        found = list(self.corpus.databases)
        if self.data.root is not None and not self.data.databases:
            names = {database.folder.name for database in found}
            others = [n for n in list_databases(self.data.root) if n not in names]
            found += [open_database(name, self.data.root) for name in others]
        return tuple(sorted(found, key=num_rows))

    @cached_property
    def stores(self) -> tuple[RowStore, ...]:
        """Of all databases, by the mixture's tokenizer."""
        return tuple(self.prepared(database) for database in self.databases)

    def prepared(self, database: Database) -> RowStore:
        return prepare(database, self.corpus.tokenizer, self.data.cache, self.data.serialisation)

    @cached_property
    def benchmark(self) -> RowStore | None:
        """rel-f1, if it is there."""
        if self.data.root is None or not (self.data.root / BENCHMARK / "manifest.yaml").is_file():
            return None
        return self.prepared(open_database(BENCHMARK, self.data.root))

    def task(self, name: str) -> Path:
        """Folder of a task of rel-f1."""
        assert self.data.root is not None
        return self.data.root / BENCHMARK / "tasks" / name

    @cached_property
    def batch(self) -> BatchConfig:
        return build(BatchConfig, self._recipe("batch") if self.real else {}, "batch", None)

    @cached_property
    def batches(self) -> PretrainBatches:
        """Training batches of the mixture."""
        return PretrainBatches(self.corpus.mixture, self.batch, self.seed, "train")

    def mixture_of(self, store: RowStore) -> Mixture:
        """One database alone."""
        return Mixture([store], self.corpus.tokenizer, self.data.temperature, {})

    def _recipe(self, part: str) -> dict[str, Any]:
        if not self.recipe.is_file():
            raise ValueError(f"recipe={self.recipe}: no such file; wanted a pretraining config")
        content = yaml.safe_load(self.recipe.read_text(encoding="utf-8")) or {}
        return dict(content.get(part) or {})


def num_rows(database: Database) -> int:
    return sum(table.num_rows for table in database.tables.values())
