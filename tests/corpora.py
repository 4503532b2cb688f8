"""Some databases prepared with one tokenizer, and batches drawn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rfm.data.database import Database, open_database
from rfm.data.mixture import Mixture, PretrainBatches
from rfm.data.prepare import prepare
from rfm.data.store import Serialisation
from rfm.data.synthetic import SyntheticConfig, generate_database
from rfm.data.tokenizer import Tokenizer, mixture_tokenizer
from tests.batches import Component, Drawn, draw
from tests.folders import write_folder
from tests.shop import KEYS, TEST, VAL, shop_tables, small_batches


def make_database(out: Path, name: str) -> Path:
    """The shop, or the synthetic database of a number."""
    if name == "shop":
        return write_folder(out / "shop", shop_tables(), KEYS, VAL, TEST)
    return generate_database(out, int(name), SyntheticConfig(seed=5, rows=600))


@dataclass(frozen=True)
class Corpus:
    """Some databases, prepared with one tokenizer."""

    databases: list[Database]
    tokenizer: Tokenizer
    mixture: Mixture


def open_all(
    folders: list[Path],
    cache: Path,
    tokenizer: Tokenizer | None = None,
    serialisation: Serialisation = "compact",
) -> Corpus:
    databases = [open_database(folder) for folder in folders]
    tokenizer = tokenizer or mixture_tokenizer(databases, 400, cache)
    stores = [prepare(d, tokenizer, cache, serialisation) for d in databases]
    return Corpus(databases, tokenizer, Mixture(stores, tokenizer, 0.5, {}))


def three_databases(out: Path) -> Corpus:
    """The shop and two synthetic databases."""
    return open_all([make_database(out, name) for name in ("shop", "0", "1")], out / "cache")


def draw_batches(corpus: Corpus) -> list[Drawn]:
    """Training and validation batches, with both strategies."""
    found = []
    for strategy in ("last", "uniform"):
        config = small_batches(strategy=strategy)
        train = PretrainBatches(corpus.mixture, config, 1, "train")
        val = PretrainBatches(corpus.mixture, config, 1, "val", 2)
        found += [draw(train, i) for i in range(8)] + [draw(val, i) for i in range(6)]
    return found


def components(drawn: list[Drawn], part: str = "") -> Iterator[tuple[Drawn, Component]]:
    """Every component of some batches, or those of one part (masked, queries, candidates)."""
    for batch in drawn:
        for component in batch.components():
            if part in ("", component.part):
                yield batch, component
