"""A mixture of prepared databases, and the batches drawn from it.

A batch is a pure function of (seed, index): every choice comes from a generator seeded by them,
so that any step of any rank can be drawn again, by any worker, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from rfm.config import setting
from rfm.data.assemble import assemble
from rfm.data.batch import PretrainBatch
from rfm.data.cached import RowStates
from rfm.data.draws import LinkDraw, MaskedDraw, Sampling, draw_link, draw_masked, softened
from rfm.data.episodes import Episodes
from rfm.data.marginals import TokenMarginals
from rfm.data.sampler import Strategy, fan_outs
from rfm.data.serialise import TokenIds
from rfm.data.store import RowStore
from rfm.data.targets import Source, TokenBudget
from rfm.data.times import Split, TimeIndex
from rfm.data.tokenizer import EOS, Tokenizer

_STREAM = {"train": 1, "val": 2}


@dataclass(frozen=True)
class BatchConfig:
    """What a batch holds and how far its components reach."""

    masked_groups: int = setting(2, ge=0, help="databases whose rows are masked, per batch")
    masked_seeds: int = setting(16, ge=1, help="masked rows per group")
    context_masking: float = setting(
        0.15, ge=0, lt=1, help="share of the value cells of all other rows that are masked too"
    )
    context_weight: float = setting(
        0.25, ge=0, help="weight of such a cell in the loss, beside 1 of a masked row's"
    )
    link_groups: int = setting(2, ge=0, help="foreign keys that are cut, per batch")
    link_queries: int = setting(12, ge=1, help="child rows asked for their parent, per group")
    negatives: int = setting(24, ge=1, help="rows drawn from the parent table, per group")
    fan_out: tuple[int, ...] = setting(
        (5, 2), ge=0, help="children per row, foreign key and hop around a masked row"
    )
    link_fan_out: tuple[int, ...] = setting((3, 1), ge=0, help="the same for links")
    fan_out_of: dict[str, list[int]] = setting(
        factory=dict,
        help="database/table.column -> children per hop, instead of fan_out (not of link_fan_out)",
    )
    strategy: Strategy = setting("last", help="which children: the latest, or any")
    max_rows: int = setting(48, ge=0, help="rows per component, 0 without limit")
    max_tokens: int = setting(40, ge=8, help="tokens per row")
    max_texts: int = setting(64, ge=1, help="masked texts decoded per batch")
    max_text_tokens: int = setting(16, ge=1, help="of a masked text, its end included")
    bucket_rows: int = setting(160, ge=1, help="smallest length bucket")

    def __post_init__(self) -> None:
        if len(self.fan_out) != len(self.link_fan_out):
            raise ValueError(
                f"fan_out={list(self.fan_out)} and link_fan_out={list(self.link_fan_out)}: wanted "
                "one number per hop in each"
            )
        if self.masked_groups + self.link_groups == 0:
            raise ValueError("masked_groups and link_groups are both 0: a batch must ask something")

    @property
    def budget(self) -> TokenBudget:
        return TokenBudget(self.max_tokens, self.max_texts, self.max_text_tokens, self.bucket_rows)


class Mixture:
    """Databases with weights, and ids for their columns and foreign keys."""

    def __init__(
        self,
        stores: Sequence[RowStore],
        tokenizer: Tokenizer,
        temperature: float,
        weights: Mapping[str, float],
    ) -> None:
        """
        Args:
            temperature: databases and their tables are drawn with probability proportional to
                (training rows) ** temperature.
            weights: factors of the databases' probabilities, by name.

        Raises:
            ValueError: for weights of unknown databases, or if no database can be drawn.
        """
        unknown = sorted(set(weights) - {store.name for store in stores})
        if unknown:
            names = [store.name for store in stores]
            raise ValueError(f"weights of unknown databases {unknown}; the mixture has {names}")
        self.stores = tuple(stores)
        self.indexes = tuple(TimeIndex(store) for store in stores)
        self.ids = TokenIds.of(tokenizer)
        self.end = tokenizer.id(EOS)
        self.vocab_size = len(tokenizer)
        self.temperature = temperature
        self.sources = _number(self.stores)
        factor = np.array([weights.get(store.name, 1.0) for store in stores])
        share = softened([self._training_rows(s) for s in range(len(stores))], temperature) * factor
        if share.sum() <= 0:
            raise ValueError("no database of the mixture has a training row and a positive weight")
        self.weights: npt.NDArray[np.float64] = share / share.sum()

    def _training_rows(self, s: int) -> int:
        index = self.indexes[s]
        return sum(len(index.split(t, "train")) for t in range(len(index.store.tables)))

    @cached_property
    def columns(self) -> list[tuple[str, str, str]]:
        """(database, table, column) by mixture-wide column id."""
        return [(s.name, t.name, c.name) for s in self.stores for t in s.tables for c in t.columns]

    @cached_property
    def relations(self) -> list[tuple[str, str, str]]:
        """(database, child table, column) by mixture-wide foreign key id."""
        return [
            (s.name, s.tables[key.child].name, key.column)
            for s in self.stores
            for key in s.graph.foreign_keys
        ]

    def masked_tables(self, s: int, split: Split) -> npt.NDArray[np.float64]:
        """[T] probability of each table to give a masked row; all 0 if none can."""
        index = self.indexes[s]
        sizes = [
            len(index.split(t, split)) if table.can_be_masked.any() else 0
            for t, table in enumerate(index.store.tables)
        ]
        return softened(sizes, self.temperature)

    def link_keys(self, s: int, split: Split) -> npt.NDArray[np.float64]:
        """[F] probability of each foreign key to be cut; all 0 if none can."""
        index = self.indexes[s]
        store = index.store
        end = store.val_timestamp if split == "train" else store.test_timestamp
        sizes = [
            len(index.split(key.child, split)) if index.visible(key.parent, end) > 1 else 0
            for key in store.graph.foreign_keys
        ]
        return softened(sizes, self.temperature)


def _number(stores: Sequence[RowStore]) -> tuple[Source, ...]:
    sources, column, relation = [], 0, 0
    for store in stores:
        starts = []
        for table in store.tables:
            starts.append(column)
            column += len(table.columns)
        sources.append(Source(store, tuple(starts), relation))
        relation += len(store.graph.foreign_keys)
    return tuple(sources)


class PretrainBatches(Dataset[PretrainBatch]):
    """Batches of a mixture by index: any number in training, ``per_database`` each in validation.

    Training batch ``i`` mixes groups from several databases; validation batch ``i`` asks database
    ``i // per_database`` alone, with no shuffling of columns, on rows between the validation and
    the test timestamp; beyond the last database it asks nothing.
    """

    def __init__(
        self,
        mixture: Mixture,
        config: BatchConfig,
        seed: int,
        split: Split,
        per_database: int = 0,
        cache: RowStates | None = None,
        episodes: Episodes | None = None,
    ) -> None:
        self.mixture, self.config = mixture, config
        self.episodes = episodes
        self.seed, self.split, self.per_database = seed, split, per_database
        self.cache = cache
        self.marginals = (
            TokenMarginals(mixture.stores, mixture.vocab_size, mixture.end, config.max_text_tokens)
            if split == "val"
            else None
        )
        sources = range(len(mixture.stores))
        self._masked = [mixture.masked_tables(s, split) for s in sources]
        self._links = [mixture.link_keys(s, split) for s in sources]
        self._sampling = [self._samplings(s) for s in sources]
        self._check()

    def _check(self) -> None:
        c, names = self.config, [store.name for store in self.mixture.stores]
        unknown = sorted(key for key in c.fan_out_of if key.split("/")[0] not in names)
        if unknown:
            raise ValueError(
                f"batch.fan_out_of has {unknown}: wanted database/table.column with a database of "
                f"the mixture, which has {names}"
            )
        masks = c.masked_groups and any(p.sum() for p in self._masked)
        links = c.link_groups and any(p.sum() for p in self._links)
        if self.split == "train" and not (masks or links):
            raise ValueError(
                f"{names} hold nothing to ask about: wanted a column besides keys and the time "
                "column, or a foreign key to a table of two rows or more, in the training period"
            )

    def _samplings(self, s: int) -> tuple[Sampling, Sampling]:
        c, store = self.config, self.mixture.stores[s]
        prefix = f"{store.name}/"
        own = {k[len(prefix) :]: v for k, v in c.fan_out_of.items() if k.startswith(prefix)}
        return (
            Sampling(fan_outs(store.graph, c.fan_out, own), c.strategy, c.max_rows),
            Sampling(fan_outs(store.graph, c.link_fan_out, {}), c.strategy, c.max_rows),
        )

    def __len__(self) -> int:
        assert self.split == "val", "training batches have no end"
        return self.per_database * len(self.mixture.stores)

    def __getitem__(self, index: int) -> PretrainBatch:
        mixture, c = self.mixture, self.config
        rng = np.random.default_rng([self.seed, _STREAM[self.split], index])
        if self.split == "train":
            chosen = rng.choice(
                len(mixture.weights), c.masked_groups + c.link_groups, p=mixture.weights
            )
        else:
            groups = c.masked_groups + c.link_groups if index < len(self) else 0
            chosen = np.repeat(index // self.per_database, groups)
        batch = self._ask(chosen, rng)
        if self.episodes is None:
            return batch
        if self.split == "train":
            return replace(batch, episodes=self.episodes[index])
        return replace(batch, episodes=self.episodes.of(index // self.per_database, index))

    def _ask(self, chosen: npt.NDArray[np.int64], rng: np.random.Generator) -> PretrainBatch:
        """Masked rows and links of the databases chosen for each group."""
        mixture, c = self.mixture, self.config
        masked = [(int(s), self._draw_masked(int(s), rng)) for s in chosen[: c.masked_groups]]
        links = [(int(s), self._draw_link(int(s), rng)) for s in chosen[c.masked_groups :]]
        return assemble(
            mixture.sources,
            [(s, draw) for s, draw in masked if draw is not None],
            [(s, draw) for s, draw in links if draw is not None],
            mixture.ids,
            mixture.end,
            c.budget,
            rng,
            shuffle=self.split == "train",
            context_masking=c.context_masking if self.split == "train" else 0.0,
            context_weight=c.context_weight,
            marginals=self.marginals,
            cache=self.cache,
        )

    def _draw_masked(self, s: int, rng: np.random.Generator) -> MaskedDraw | None:
        probability = self._masked[s]
        if probability.sum() == 0:
            return None
        return draw_masked(
            self.mixture.indexes[s],
            range(probability.size),
            probability,
            self.config.masked_seeds,
            self.split,
            self._sampling[s][0],
            rng,
        )

    def _draw_link(self, s: int, rng: np.random.Generator) -> LinkDraw | None:
        probability = self._links[s]
        if probability.sum() == 0:
            return None
        return draw_link(
            self.mixture.indexes[s],
            int(rng.choice(probability.size, p=probability)),
            self.config.link_queries,
            63 if self.split == "val" else self.config.negatives,
            self.split,
            self._sampling[s][1],
            rng,
        )
