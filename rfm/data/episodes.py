"""Episodes: a generated task, labelled examples of it, and queries about it.

An episode is a pure function of (seed, index). Its queries are asked at and after an anchor; the
examples are rows whose labels are known by then. Half of the time the queries' database stops at
the anchor, as it does in the frozen regime, and the examples are as stale as the queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from rfm.config import setting
from rfm.data.assemble import question_batch
from rfm.data.autocompletes import AutocompleteMaker
from rfm.data.batch import NUM_TOLD, EpisodeBatch
from rfm.data.cached import EncodedRows, RowStates
from rfm.data.draws import MaskedDraw, softened
from rfm.data.forecasts import ForecastMaker
from rfm.data.generated import GeneratedTask, Labelled, is_degenerate
from rfm.data.label_history import Floats, LabelHistory
from rfm.data.overlay import overlay
from rfm.data.past_labels import PRIOR, past_means
from rfm.data.questions import calendar
from rfm.data.sampler import Seeds, Subgraph, fan_outs, sample
from rfm.data.serialise import MASKED, REMOVED, VISIBLE, TokenIds
from rfm.data.store import RowStore
from rfm.data.targets import Source, TokenBudget
from rfm.data.task_rows import Ints
from rfm.data.times import Split
from rfm.data.tokenizer import Tokenizer

_STREAM = 5
_FAR, _FARTHEST = 5.0, 1e4  # standard deviations
_TRIES, _FEW_TRIES = 1_000, 50
_FEWEST = 8  # examples, and queries that there are
_RECENT = 4  # times as many as there are examples: those that half of them are drawn from


@dataclass(frozen=True)
class EpisodeConfig:
    """What an episode holds, and how it is drawn."""

    per_batch: int = setting(0, ge=0, help="episodes per batch; 0: nothing is learnt in context")
    support: int = setting(48, ge=8, help="labelled examples, at most")
    queries: int = setting(24, ge=1, help="queries, at most")
    children: int = setting(8, ge=0, help="children per foreign key of the entity, the latest")
    history: int = setting(20, ge=0, help="past labels per entity, the latest")
    max_rows: int = setting(48, ge=0, help="rows per question, 0 without limit")
    max_tokens: int = setting(40, ge=8, help="tokens per row")
    autocomplete: float = setting(0.3, ge=0, le=1, help="share; the others are forecasts")
    stale: float = setting(0.5, ge=0, le=1, help="share whose queries see nothing after the anchor")
    horizon: float = setting(
        24.0, ge=1, help="timedeltas from the anchor to a stale query, at most (forecasts)"
    )
    relabel: bool = setting(True, help="shuffle classes, turn numbers round: examples say which")
    temperature: float = setting(0.2, ge=0, le=1, help="databases drawn by rows ** this")
    bucket_rows: int = setting(160, ge=1, help="smallest length bucket")


def open_episodes(
    stores: Sequence[RowStore],
    tokenizer: Tokenizer,
    hops: int,
    config: EpisodeConfig,
    seed: int,
    split: Split,
    weights: Mapping[str, float],
    cache: RowStates | None = None,
) -> Episodes | None:
    """Episodes of prepared databases; nothing where none are asked for."""
    if not config.per_batch:
        return None
    sources = [
        EpisodeSource(store, number, tokenizer, hops, config, cache, split)
        for number, store in enumerate(stores)
    ]
    return Episodes(sources, config, seed, weights)


class EpisodeSource:
    """One database, from which tasks are drawn and questions of tasks are put together.

    Args:
        split: train: nothing after the validation timestamp is asked or told; val: anchors lie
            after it, and nothing after the test timestamp is asked or told.
        number: of the database in the cache.
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
    ) -> None:
        self.store, self.number, self.tokenizer = store, number, tokenizer
        self.config, self.cache, self.hops = config, cache, hops
        self.ids = TokenIds.of(tokenizer)
        self.budget = TokenBudget(config.max_tokens, 1, 1, config.bucket_rows)
        self.after = store.val_timestamp if split == "val" else None
        until = store.test_timestamp if split == "val" else store.val_timestamp
        self.rows = int((np.asarray(store.graph.row_time) <= until).sum())
        self.forecasts = ForecastMaker(store, until)
        self.autocompletes = AutocompleteMaker(store, until)

    @property
    def can_ask(self) -> bool:
        """Whether there is anything to draw tasks from."""
        return bool(self.forecasts.paths or self.autocompletes.columns)

    def task(self, rng: np.random.Generator) -> GeneratedTask | None:
        """A task of this database; nothing where the one drawn is degenerate."""
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
        chosen = choose(task.rows, task.timedelta, self.config, self.after, rng)
        if chosen is None:
            return None
        number, cutoff, support = chosen
        if np.unique(task.rows.label[number[:support]]).size < 2:
            return None
        return self.batch(task, number, cutoff, support, int(rng.integers(1, 2**62)))

    def batch(
        self, task: GeneratedTask, number: Ints, cutoff: Ints, support: int, key: int
    ) -> EpisodeBatch:
        """Rows of a task [S], by number, as of their cutoffs [S]: the examples, then the queries.

        Args:
            key: of the columns' order; 0 keeps it.
        """
        rows = task.rows
        store, first, fate = self._asked(task, int(cutoff[support:].min()))
        seeds = Seeds.at(first + (number if task.key else rows.entity[number]), cutoff)
        graph = self._sample(store, task, seeds, key)
        base = question_batch(
            Source(store, tuple(0 for _ in store.tables), 0),
            MaskedDraw(seeds, graph, np.tile(fate, (number.size, 1))),
            rows.time[number],
            self.ids,
            self.budget,
            key,
            None if self.cache is None else _Cached(self.cache, self.number, self.store.num_rows),
        )
        if base.mask_node.numel() != number.size:
            raise ValueError(
                f"episodes.max_tokens={self.config.max_tokens} leaves no place for the cell that "
                f"is asked for, {task.table}.{task.target}: set it higher"
            )
        told = told_numbers(rows, task.timedelta, task.classes, number, cutoff, support)
        label = rows.label[number]
        if not task.classes:
            label = standardised(label, label[:support])
        return EpisodeBatch(
            **vars(base),
            question=torch.from_numpy(number),
            told=torch.from_numpy(told),
            label=torch.from_numpy(label[:, None].astype(np.float32)),
            database=self.number,
            num_support=support,
            classes=task.classes,
        )

    def _asked(
        self, task: GeneratedTask, until: int
    ) -> tuple[RowStore, int, npt.NDArray[np.uint8]]:
        """The store in which the task's rows are found, the first row of their table, and what
        becomes of their cells; ``until`` as ``overlay`` has it."""
        if task.key:
            store = overlay(self.store, task, until, self.tokenizer)
            fate = np.array([REMOVED, MASKED], dtype=np.uint8)
            return store, int(store.graph.table_start[-2]), fate
        table = self.store.tables[task.entity_table]
        fate = np.full(len(table.columns), VISIBLE, dtype=np.uint8)
        fate[task.column] = MASKED
        return self.store, int(self.store.graph.table_start[task.entity_table]), fate

    def _sample(self, store: RowStore, task: GeneratedTask, seeds: Seeds, key: int) -> Subgraph:
        c, zeros = self.config, (0,) * self.hops
        own = {}
        if task.key:
            last = store.graph.foreign_keys[-1]
            history = [*(0, c.history, *zeros)[: self.hops]]
            own = {f"{store.tables[last.child].name}.{last.column}": history}
        reach = fan_outs(store.graph, (0, c.children, *zeros)[: self.hops], own)
        return sample(store.graph, seeds, reach, "last", c.max_rows, key)


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
    rows: Labelled,
    timedelta: int,
    config: EpisodeConfig,
    after: int | None,
    rng: np.random.Generator,
) -> tuple[Ints, Ints, int] | None:
    """Which rows of a task make an episode [S], their cutoffs [S], and how many are examples;
    nothing where there are too few.

    Args:
        timedelta: seconds until a label is known.
        after: the anchor is later; else it lies anywhere but in the first third.
    """
    times = np.unique(rows.time)
    pool = times[times.size // 3 :] if after is None else times[times > after]
    if not pool.size:
        return None
    anchor, horizon = int(pool[int(rng.integers(pool.size))]), 0
    if rng.random() < config.stale:
        horizon = int(timedelta * np.exp(rng.uniform(0, np.log(config.horizon))))
    known = np.flatnonzero(rows.time + timedelta <= anchor)
    asked = np.flatnonzero((rows.time >= anchor) & (rows.time <= anchor + horizon))
    if timedelta == 1:  # the rows of an autocomplete hardly share a time: the next so many
        times_more = np.exp(rng.uniform(0, np.log(config.horizon)))
        asked = np.flatnonzero(rows.time >= anchor)[: int(config.queries * times_more)]
    if min(known.size, asked.size) < _FEWEST:
        return None
    support = draw_support(rows, known, config.support, rng)
    query = rng.choice(asked, min(config.queries, asked.size), replace=False)
    behind = rows.time[query] - anchor if horizon else np.zeros(query.size, dtype=np.int64)
    number = np.concatenate([support, query])
    stale = np.concatenate([rng.choice(behind, support.size), behind])
    return number, rows.time[number] - stale, support.size


def draw_support(rows: Labelled, known: Ints, size: int, rng: np.random.Generator) -> Ints:
    """Examples among the known rows, which are in the order of time: half of them recent."""
    size = min(size, known.size)
    recent = known[-_RECENT * size :]
    late = rng.choice(recent, size // 2, replace=False)
    any_time = rng.choice(np.setdiff1d(known, late), size - late.size, replace=False)
    return np.concatenate([late, any_time])


def standardised(number: Floats, examples: Floats) -> Floats:
    """Numbers [n] by the median and the spread of examples, however large they are."""
    unit = float(np.abs(examples).max()) or 1.0
    number, examples = number / unit, examples / unit
    spread = float(examples.std())
    out = (number - np.median(examples)) / (spread if spread > 0 else 1.0)
    return np.asarray(out.clip(-_FARTHEST, _FARTHEST))


def told_numbers(
    rows: Labelled, timedelta: int, classes: int, number: Ints, cutoff: Ints, support: int
) -> npt.NDArray[np.float32]:
    """[S, NUM_TOLD]: when each row [S] is asked, and, of two classes or a number, the smoothed
    means of its entity's past labels less the mean of all, as of its cutoff [S]; how many there
    are; how old the latest is."""
    now, entity = rows.time[number], rows.entity[number]
    when = calendar(now, cutoff, timedelta)
    value = np.zeros(len(rows))
    if classes == 2:
        value = rows.label
    elif classes == 0:
        value = standardised(rows.label, rows.label[number[:support]]).clip(-_FAR, _FAR)
    known = rows.time + timedelta
    seen = np.searchsorted(known, cutoff, side="right")
    total = np.concatenate([[0], np.cumsum(value)])[seen] / (seen + PRIOR)
    order = np.lexsort((known, rows.entity))
    history = LabelHistory(
        rows.entity[order], known[order], rows.time[order], value[order][:, None]
    )
    past = past_means(history, entity, (now, cutoff), total[:, None], timedelta)
    out = np.concatenate([when, *past], axis=1)
    assert out.shape[1] == NUM_TOLD
    return out.astype(np.float32)


@dataclass(frozen=True)
class _Cached:
    """The cached rows of one database, which is alone in its batch, and has rows of its own."""

    cache: RowStates
    source: int
    rows: int

    @property
    def width(self) -> int:
        return self.cache.width

    def __call__(self, source: int, rows: Ints) -> EncodedRows:
        return self.cache(self.source, rows)

    def has(self, source: int, rows: Ints) -> npt.NDArray[np.bool_]:
        own = rows < self.rows
        return own & self.cache.has(self.source, np.where(own, rows, 0))
