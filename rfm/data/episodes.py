"""Episodes: a generated task, labelled examples of it, and queries about it.

An episode is a pure function of (seed, index). Its queries are asked at and after an anchor; the
examples are rows whose labels are known by then. Half of the time the queries' database stops at
the anchor, as it does in the frozen regime, and the examples are as stale as the queries; else each
query sees the database up to its own seed time, as in the rolling regime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest

import numpy as np
from torch.utils.data import Dataset

from rfm.data.autocompletes import AutocompleteMaker
from rfm.data.batch import EpisodeBatch
from rfm.data.cached import RowStates
from rfm.data.database import Database
from rfm.data.draws import softened
from rfm.data.episode_config import EpisodeConfig
from rfm.data.forecasts import ForecastMaker
from rfm.data.generated import GeneratedTask, is_degenerate
from rfm.data.label_history import Floats
from rfm.data.laid import LaidTask
from rfm.data.ready_made import own_tasks
from rfm.data.renamed import renamed
from rfm.data.store import RowStore
from rfm.data.support import SupportMix, draw_support, parents_of
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.times import Split
from rfm.data.tokenizer import Tokenizer

_STREAM = 5
_FARTHEST = 1e4  # standard deviations
_TRIES, _FEW_TRIES = 1_000, 50
_FEWEST = 8  # examples, and queries that there are
_MIXES = (SupportMix(), SupportMix(0.25, 0.25, 0.25))


def open_episodes(
    stores: Sequence[RowStore],
    tokenizer: Tokenizer,
    hops: int,
    config: EpisodeConfig,
    seed: int,
    split: Split,
    weights: Mapping[str, float],
    cache: RowStates | None = None,
    databases: Sequence[Database] = (),
) -> Episodes | None:
    """Episodes of prepared databases; nothing where none are asked for.

    Args:
        databases: those of the stores, for their own tasks.
    """
    if not config.per_batch:
        return None
    sources = [
        EpisodeSource(store, number, tokenizer, hops, config, cache, split, database)
        for number, (store, database) in enumerate(zip_longest(stores, databases))
    ]
    return Episodes(sources, config, seed, weights)


class EpisodeSource:
    """One database, from which tasks are drawn and questions of tasks are put together.

    Args:
        split: train: nothing after the validation timestamp is asked or told; val: anchors lie
            after it, and nothing after the test timestamp is asked or told.
        number: of the database in the cache.
        database: for its own tasks; none are asked without it.
    """

    def __init__(
        self,
        store: RowStore,
        number: int,
        tokenizer: Tokenizer,
        hops: int,
        config: EpisodeConfig,
        cache: RowStates | None = None,
        split: Split = "train",
        database: Database | None = None,
    ) -> None:
        self.store, self.number, self.tokenizer = store, number, tokenizer
        self.config, self.cache, self.hops = config, cache, hops
        self.after = store.val_timestamp if split == "val" else None
        until = store.test_timestamp if split == "val" else store.val_timestamp
        self.rows = int((np.asarray(store.graph.row_time) <= until).sum())
        self.forecasts = ForecastMaker(store, until)
        self.autocompletes = AutocompleteMaker(store, until, split)
        self.own: list[GeneratedTask] = []
        if database is not None and config.own:
            splits: Sequence[TaskSplit] = ("train",) if split == "train" else ("train", "val")
            self.own = own_tasks(database, until, splits)

    @property
    def can_ask(self) -> bool:
        """Whether there is anything to draw tasks from."""
        generated = self.forecasts.paths or self.autocompletes.columns
        return bool(self.own or (generated and self.config.own < 1))

    def task(self, rng: np.random.Generator) -> GeneratedTask | None:
        """A task of this database; nothing where the one drawn is degenerate."""
        if self.own and rng.random() < self.config.own:
            return self.own[int(rng.integers(len(self.own)))]
        if self.config.own == 1:
            return None
        complete = rng.random() < self.config.autocomplete
        task = (self.autocompletes if complete else self.forecasts).draw(rng)
        return None if task is None or is_degenerate(self.store, task) else task

    def draw(self, rng: np.random.Generator) -> EpisodeBatch | None:
        """An episode; nothing where what was drawn has too few rows."""
        task = self.task(rng)
        if task is None:
            return None
        if self.config.relabel:
            task = task.relabelled(rng)
        chosen = choose(task, self.store, self.config, self.after, rng)
        if chosen is None:
            return None
        number, cutoff, support = chosen
        examples = task.rows.label[number[:support]]
        if np.unique(examples).size < 2:
            return None
        if not task.classes:
            task = task.relabelled_as(standardised(task.rows.label, examples))
        laid, key = self.lay(task, int(cutoff[support:].min())), int(rng.integers(1, 2**62))
        batch = replace(laid.batch(number, cutoff, support, key), database=self.number)
        if self.after is None and rng.random() < self.config.rename:
            batch = renamed(batch, self.tokenizer, rng)
        return batch

    def lay(self, task: GeneratedTask, until: int) -> LaidTask:
        """The task laid over the database, to be asked about; ``until`` as ``overlay`` has it."""
        cache = None if self.cache is None else (self.cache, self.number)
        return LaidTask(self.store, task, until, self.tokenizer, self.hops, self.config, cache)


def count_usable(sources: Sequence[EpisodeSource], tries: int, seed: int) -> dict[str, int]:
    """By database, how many of ``tries`` tasks drawn from it are not degenerate."""
    counted = {}
    for source in sources:
        rng = np.random.default_rng([seed, _STREAM])  # whatever others there are
        counted[source.store.name] = sum(source.task(rng) is not None for _ in range(tries))
    return counted


class Episodes(Dataset[tuple[EpisodeBatch, ...]]):
    """Episodes of a mixture by index, without end, ``config.per_batch`` at a time.

    Raises:
        ValueError: if no database has anything to draw tasks from.
    """

    def __init__(
        self,
        sources: Sequence[EpisodeSource],
        config: EpisodeConfig,
        seed: int,
        weights: Mapping[str, float],
    ) -> None:
        """
        Args:
            weights: factors of the databases' probabilities, by name.
        """
        self.sources, self.config, self.seed = tuple(sources), config, seed
        sizes = [s.rows if s.can_ask else 0 for s in sources]
        factor = [weights.get(s.store.name, 1.0) for s in sources]
        share = softened(sizes, config.temperature) * factor
        self.weights = share / max(share.sum(), 1e-300)
        if self.weights.sum() == 0:
            raise ValueError(
                f"{[s.store.name for s in sources]} have nothing to make tasks of: wanted rows "
                "with times that point at others, or with columns besides keys; or set "
                "episodes.per_batch=0"
            )

    def __getitem__(self, index: int) -> tuple[EpisodeBatch, ...]:
        rng = np.random.default_rng([self.seed, _STREAM, index])
        return tuple(self._draw(rng) for _ in range(self.config.per_batch))

    def of(self, number: int, index: int) -> tuple[EpisodeBatch, ...]:
        """Episodes of one source alone. Where it has too few, or there is no such source, others
        take their places, as every rank must ask equally often, but do not count."""
        rng = np.random.default_rng([self.seed, _STREAM, index, 1])
        wanted, own = self.config.per_batch, list[EpisodeBatch]()
        for _ in range(_FEW_TRIES * wanted if number < len(self.sources) else 0):
            episode = self.sources[number].draw(rng)
            own += [] if episode is None else [episode]
            if len(own) == wanted:
                break
        others = [replace(self._draw(rng), database=-1) for _ in range(wanted - len(own))]
        return (*own, *others)

    def _draw(self, rng: np.random.Generator) -> EpisodeBatch:
        for _ in range(_TRIES):
            source = self.sources[int(rng.choice(len(self.sources), p=self.weights))]
            episode = source.draw(rng)
            if episode is not None:
                return episode
        raise ValueError(
            f"{_TRIES} tasks drawn from {[s.store.name for s in self.sources]} were all "
            "degenerate: the databases are too small to learn in context from; set "
            "episodes.per_batch=0"
        )


def choose(
    task: GeneratedTask,
    store: RowStore,
    config: EpisodeConfig,
    after: int | None,
    rng: np.random.Generator,
) -> tuple[Ints, Ints, int] | None:
    """Which rows of a task make an episode [S], their cutoffs [S], and how many are examples;
    nothing where there are too few.

    Args:
        after: the anchor is later; else it lies anywhere but in the first third.
    """
    if task.timeless:
        return _choose_among(task, store, config, rng)
    rows = task.rows
    times = np.unique(rows.time)
    pool = times[times.size // 3 :] if after is None else times[times > after]
    if not pool.size:
        return None
    anchor, horizon = int(pool[int(rng.integers(pool.size))]), 0
    stale = rng.random() < config.stale
    if stale or rng.random() < 0.5:
        horizon = int(task.timedelta * np.exp(rng.uniform(0, np.log(config.horizon))))
    known = np.flatnonzero(task.known <= anchor)
    asked = np.flatnonzero((rows.time >= anchor) & (rows.time <= anchor + horizon))
    if task.timedelta == 1:  # the rows of an autocomplete hardly share a time: the next so many
        times_more = np.exp(rng.uniform(0, np.log(config.horizon)))
        asked = np.flatnonzero(rows.time >= anchor)[: int(config.queries * times_more)]
    if min(known.size, asked.size) < _FEWEST:
        return None
    query = rng.choice(asked, min(config.queries, asked.size), replace=False)
    support = _examples(task, store, config, known, query, anchor, rng)
    behind = rows.time[query] - anchor if stale else np.zeros(query.size, dtype=np.int64)
    number = np.concatenate([support, query])
    late = np.concatenate([rng.choice(behind, support.size), behind])
    return number, rows.time[number] - late, support.size


def _choose_among(
    task: GeneratedTask, store: RowStore, config: EpisodeConfig, rng: np.random.Generator
) -> tuple[Ints, Ints, int] | None:
    """The same of rows without times: any are queries, and any of the others examples."""
    rows = task.rows
    if len(rows) < 2 * _FEWEST:
        return None
    query = rng.choice(len(rows), min(config.queries, len(rows) // 2), replace=False)
    known = np.setdiff1d(np.arange(len(rows)), query)
    support = _examples(task, store, config, known, query, int(rows.time[0]), rng)
    number = np.concatenate([support, query])
    return number, rows.time[number], support.size


def _examples(
    task: GeneratedTask,
    store: RowStore,
    config: EpisodeConfig,
    known: Ints,
    query: Ints,
    anchor: int,
    rng: np.random.Generator,
) -> Ints:
    """Some of the known rows of a task, by a mixture of ways to draw them."""
    size = np.exp(rng.uniform(*np.log([min(config.fewest, config.support), config.support])))
    mix = _MIXES[int(rng.integers(len(_MIXES)))]
    parents = parents_of(store, task.entity_table, anchor)
    return draw_support(task.rows, known, int(size), mix, task.rows.entity[query], parents, rng)


def center_and_spread(examples: Floats) -> tuple[float, float]:
    """Median and standard deviation of numbers, however large they are; a spread of 0 is 1 of the
    largest."""
    unit = float(np.abs(examples).max(initial=0.0)) or 1.0
    center = float(np.median(examples / unit)) if examples.size else 0.0
    spread = float((examples / unit).std()) if examples.size else 0.0
    return center * unit, (spread or 1.0) * unit


def standardised(number: Floats, examples: Floats) -> Floats:
    """Numbers [n] by the median and the spread of examples."""
    center, spread = center_and_spread(examples)
    with np.errstate(over="ignore"):
        out = (number - center) / spread
    return np.asarray(out.clip(-_FARTHEST, _FARTHEST))
