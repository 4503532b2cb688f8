"""From a list of databases to a mixture that batches can be drawn from."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from rfm.config import setting
from rfm.data.database import Database, open_database, with_kinds
from rfm.data.mixture import Mixture
from rfm.data.prepare import prepare
from rfm.data.schema import read_kinds
from rfm.data.store import Serialisation
from rfm.data.synthetic import SyntheticConfig, generate_databases
from rfm.data.tokenizer import Tokenizer, resolve_tokenizer
from rfm.files import alone, default_cache

_log = logging.getLogger("rfm")
_SYNTHETIC = 6  # databases, by default


@dataclass(frozen=True)
class DataConfig:
    """Which databases, and how they are read."""

    databases: tuple[str, ...] = setting(
        (), help="folders, names under data.root, or Hub names; empty: synthetic databases"
    )
    root: Path | None = setting(None, help="folder of RelBench folders")
    cache: Path = setting(factory=default_cache, help="prepared stores, tokenizers, row states")
    kinds: Path | None = setting(
        None, help="YAML of column kinds to override: database -> table -> column -> kind"
    )
    weights: dict[str, float] = setting(factory=dict, gt=0, help="factors of sampling, by database")
    temperature: float = setting(0.5, ge=0, le=1, help="databases and tables drawn by rows ** this")
    serialisation: Serialisation = setting("compact", help="text: spell values out as digits")
    tokenizer: str = setting("train", help="train: a byte-level BPE; else a folder or a Hub id")
    vocab_size: int = setting(8192, ge=300, le=65536, help="of a trained tokenizer")
    synthetic: int = setting(
        -1, ge=-1, help="synthetic databases besides; -1: 6 where no others are named, else none"
    )
    synthetic_rows: int = setting(10_000, ge=500, help="rows of each")
    workers: int = setting(-1, ge=-1, help="loader processes per device; -1: 0 on CPU, 4 on GPU")

    def __post_init__(self) -> None:
        if self.cache.exists() and not self.cache.is_dir():
            raise ValueError(f"cache={self.cache} is a file: give a folder")


@dataclass(frozen=True)
class Corpus:
    """Opened databases, the tokenizer that reads them all, and their mixture."""

    databases: tuple[Database, ...]
    tokenizer: Tokenizer
    mixture: Mixture

    @property
    def fingerprints(self) -> dict[str, str]:
        """Content of each prepared database, by name."""
        return {store.name: store.fingerprint for store in self.mixture.stores}


def open_corpus(config: DataConfig, seed: int, tokenizer: Tokenizer | None = None) -> Corpus:
    """Open, tokenise and prepare the databases; what is in the cache is used as it is.

    Args:
        tokenizer: instead of the config's.

    Raises:
        ValueError: for databases that cannot be found or read, or share a name.
    """
    databases = tuple(_open_all(config, seed))
    names = [database.name for database in databases]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"data.databases holds {twice} more than once: name each database once")
    start = time.perf_counter()
    if tokenizer is None:
        tokenizer = resolve_tokenizer(config.tokenizer, databases, config.vocab_size, config.cache)
    stores = [prepare(d, tokenizer, config.cache, config.serialisation) for d in databases]
    rows = sum(store.num_rows for store in stores)
    seconds = time.perf_counter() - start
    _log.info("%d databases, %d rows ready in %.1f s", len(stores), rows, seconds)
    return Corpus(
        databases, tokenizer, Mixture(stores, tokenizer, config.temperature, config.weights)
    )


def _open_all(config: DataConfig, seed: int) -> list[Database]:
    count = config.synthetic if config.synthetic >= 0 else (0 if config.databases else _SYNTHETIC)
    if not config.databases and count == 0:
        raise ValueError("no databases: name some in data.databases, or set data.synthetic above 0")
    kinds = read_kinds(config.kinds)
    databases = [open_database(spec, config.root) for spec in config.databases]
    names = [database.name for database in databases]
    unknown = sorted(set(kinds) - set(names))
    if config.databases and unknown:
        raise ValueError(
            f"data.kinds={config.kinds} names {unknown}, which are no databases of the "
            f"mixture: it has {names}"
        )
    named = [with_kinds(database, kinds) for database in databases]
    return [*named, *_synthetic(config, count, seed)]


def _synthetic(config: DataConfig, count: int, seed: int) -> list[Database]:
    if count == 0:
        return []
    settings = SyntheticConfig(seed=seed, rows=config.synthetic_rows)
    out = config.cache / "synthetic"
    with alone(out):  # or one process would replace what another one reads by now
        folders = generate_databases(out, count, settings)
    return [open_database(folder) for folder in folders]
