"""A task's questions: its rows as seeds, each with its label masked, as of its cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from rfm.config import setting
from rfm.data.assemble import question_batch
from rfm.data.attach import KNOWN, AttachedTask
from rfm.data.batch import NUM_CALENDAR as NUM_CALENDAR
from rfm.data.batch import TaskBatch
from rfm.data.cached import RowStates
from rfm.data.child_means import ChildMeans
from rfm.data.draws import MaskedDraw
from rfm.data.graph import Int32
from rfm.data.past_labels import PastLabels
from rfm.data.sampler import Seeds, Strategy, fan_outs, sample
from rfm.data.serialise import MASKED, REMOVED, VISIBLE, TokenIds
from rfm.data.store import RowStore
from rfm.data.targets import Source, TokenBudget
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime

_STREAM = 3
_SECONDS_PER_DAY = 86_400.0
_PERIODS = (365.2425, 7.0)  # days


@dataclass(frozen=True)
class QuestionConfig:
    """What a question may see, and how many are asked at once."""

    children: int = setting(8, ge=0, help="children per foreign key of the entity, the latest")
    history: int = setting(24, ge=0, help="past labels per entity, the latest; 0: none is visible")
    grandchildren: int = setting(0, ge=0, help="children per foreign key, three hops away")
    max_rows: int = setting(96, ge=0, help="rows per question, 0 without limit")
    max_tokens: int = setting(40, ge=8, help="tokens per row")
    strategy: Strategy = setting("last", help="which children: the latest, or any")
    told: bool = setting(
        True, help="tell the head when is asked, and the means of past labels where they are seen"
    )
    means: bool = setting(
        True,
        help="tell it the means of the numbers in the entity's latest children, too (needs graph)",
    )
    graph: bool = setting(True, help="false: the question's own row alone, with its entity's cells")
    size: int = setting(64, ge=1, help="questions per training batch")
    eval_size: int = setting(256, ge=1, help="questions per batch of predictions")
    candidates: int = setting(
        512, ge=1, help="destinations per training batch of a recommendation, besides its labels"
    )
    bucket_rows: int = setting(160, ge=1, help="smallest length bucket")

    def per_hop(self, hops: int) -> tuple[int, ...]:
        """Children per hop: a question has none, its parents have ``children``."""
        return (0, self.children, self.grandchildren, *(0,) * hops)[:hops]


@dataclass(frozen=True, eq=False)
class Questions:
    """row [n]: of the attached table, global. now [n]: seed times; cutoff [n]: until when each sees
    anything, both unix seconds. entity [n]. label [n, C] float64; NaN where it is null. The
    destinations of question i: destination[start[i]:stop[i]]."""

    row: Ints
    now: Ints
    cutoff: Ints
    entity: Ints
    label: npt.NDArray[np.float64]
    start: Ints
    stop: Ints
    destination: Ints

    def __len__(self) -> int:
        return int(self.row.size)

    def take(self, at: Ints) -> Questions:
        own = {f.name: getattr(self, f.name)[at] for f in fields(self) if f.name != "destination"}
        return Questions(**own, destination=self.destination)


class QuestionSampler:
    """Questions -> batches, by the rules of a config."""

    def __init__(
        self,
        attached: AttachedTask,
        store: RowStore,
        ids: TokenIds,
        hops: int,
        config: QuestionConfig,
        cache: RowStates | None = None,
    ) -> None:
        """
        Args:
            cache: see ``assemble``.
        """
        self.attached, self.store = attached, store
        self.ids, self.config, self.cache = ids, config, cache
        self.source = Source(store, tuple(0 for _ in store.tables), 0)
        self.first_row = store.graph.rows_of(attached.table).start
        self.first_entity = store.graph.rows_of(attached.task.entity_table).start
        table = next(table for table in store.tables if table.name == attached.table)
        names = [column.name for column in table.columns]
        # when the label will be known says nothing but when is asked, which ages say better
        self.fate = np.where([name == KNOWN for name in names], REMOVED, VISIBLE).astype(np.uint8)
        if attached.label in names:
            self.fate[names.index(attached.label)] = MASKED
        self.is_copied = self.fate == VISIBLE  # of the entity
        per_hop = config.per_hop(hops)
        self.fan_out = self.reach(per_hop, [config.history if n else 0 for n in per_hop])
        self.budget = TokenBudget(config.max_tokens, 1, 1, config.bucket_rows)
        self.past: PastLabels | None = None
        self.means: ChildMeans | None = None

    def reach(self, per_hop: Sequence[int], history: Sequence[int]) -> Int32:
        """[hops, edge types] children per hop, and of them past labels; no hop without a graph."""
        if not self.config.graph:
            return fan_outs(self.store.graph, ())
        table = self.attached.table
        keys = self.attached.database.tables[table].foreign_keys
        return fan_outs(self.store.graph, per_hop, {f"{table}.{key}": history for key in keys})

    def tell(self, center: float, scale: float) -> int:
        """From now on tell each question what past labels alone say (``PastLabels``) and what its
        entity's children come to (``ChildMeans``), unless these are not to be seen; returns in how
        many numbers questions are told something, H."""
        if not self.config.told:
            return 0
        if self.config.history:
            self.past = PastLabels(self.attached, center, scale)
        if self.config.means and self.config.graph:
            self.means = ChildMeans.of(self.attached, self.store)
        return NUM_CALENDAR + sum(one.width for one in (self.past, self.means) if one is not None)

    def told(self, questions: Questions) -> npt.NDArray[np.float32]:
        """[n, H]: the time of year and of week at which each is asked, as sine and cosine; log(1 +
        how many timedeltas before its seed time its cutoff is); what past labels alone say; what
        its entity's children come to."""
        if not self.config.told:
            return np.zeros((len(questions), 0), dtype=np.float32)
        when = calendar(questions.now, questions.cutoff, self.attached.task.timedelta)
        others = [
            one.features(questions.entity, questions.now, questions.cutoff)
            for one in (self.past, self.means)
            if one is not None
        ]
        return np.concatenate([when, *others], axis=1).astype(np.float32)

    def ask(self, splits: Sequence[TaskSplit], regime: Regime) -> Questions:
        """The questions of some splits, in the order of their rows."""
        task, asks = self.attached.task, self.attached.questions
        rows = [task.rows(split) for split in splits]
        before = np.cumsum([0, *(r.destination.size for r in rows)])
        return Questions(
            row=self.first_row + np.concatenate([asks[split] for split in splits]),
            now=np.concatenate([r.time for r in rows]),
            cutoff=np.concatenate([task.cutoffs(split, regime) for split in splits]),
            entity=np.concatenate([r.entity for r in rows]),
            label=np.concatenate([r.label for r in rows]),
            start=np.concatenate([r.start[:-1] + b for r, b in zip(rows, before, strict=False)]),
            stop=np.concatenate([r.start[1:] + b for r, b in zip(rows, before, strict=False)]),
            destination=np.concatenate([r.destination for r in rows]),
        )

    def fates(self, questions: Questions) -> npt.NDArray[np.uint8]:
        """[n, columns]: what becomes of each question's cells. Those that it has of its entity are
        out of sight where the entity is; but an autocomplete's question is that row itself."""
        fate = np.tile(self.fate, (len(questions), 1))
        if self.attached.task.kind != "autocomplete":
            entity = self.first_entity + questions.entity
            there = np.asarray(self.store.graph.row_time[entity]) <= questions.cutoff
            fate[~there[:, None] & self.is_copied] = REMOVED
        return fate

    def batch(self, asked: Questions, number: Ints, key: int) -> TaskBatch:
        """The questions of these numbers [S] among all that are asked.

        Args:
            key: of the columns' order and, where any children may come, of their choice; 0 keeps
                the columns' order.
        """
        questions = asked.take(number)
        seeds = Seeds.at(questions.row, questions.cutoff)
        config = self.config
        graph = sample(self.store.graph, seeds, self.fan_out, config.strategy, config.max_rows, key)
        draw = MaskedDraw(seeds, graph, self.fates(questions))
        batch = question_batch(
            self.source, draw, questions.now, self.ids, self.budget, key, self.cache
        )
        return TaskBatch(
            **vars(batch),
            question=torch.from_numpy(number),
            told=torch.from_numpy(self.told(questions)),
            label=torch.from_numpy(questions.label.astype(np.float32)),
        )


def calendar(now: Ints, cutoff: Ints, timedelta: int) -> npt.NDArray[np.float64]:
    """[n, NUM_CALENDAR]: time of year and of week of seed times [n], and how many timedeltas before
    them the cutoffs [n] are; seconds."""
    days = now / _SECONDS_PER_DAY
    angles = [2 * np.pi * (days % period) / period for period in _PERIODS]
    waves = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
    return np.stack([*waves, np.log1p(((now - cutoff) / timedelta).clip(min=0))], axis=1)


class TrainingQuestions(Dataset[TaskBatch]):
    """Endless training batches by index: a new order of the labelled questions in every epoch.

    Args:
        stale: seconds; where there are any, each question's cutoff lies one of them, drawn at
            random, before its seed time: so that it looks like those of a frozen validation split.
    """

    def __init__(
        self, sampler: QuestionSampler, questions: Questions, stale: Ints, seed: int
    ) -> None:
        self.sampler, self.stale, self.seed = sampler, stale, seed
        self.questions = questions.take(np.flatnonzero(~np.isnan(questions.label).any(axis=1)))

    def __getitem__(self, index: int) -> TaskBatch:
        size, n = self.sampler.config.size, len(self.questions)
        place = np.arange(index * size, (index + 1) * size)
        at = np.concatenate(
            [
                self._order(int(epoch))[place[place // n == epoch] % n]
                for epoch in np.unique(place // n)
            ]
        )
        rng = np.random.default_rng([self.seed, _STREAM, index])
        asked = self.questions
        if self.stale.size:
            late = asked.now[at] - rng.choice(self.stale, at.size)
            cutoff = asked.cutoff.copy()
            cutoff[at] = np.minimum(cutoff[at], late)
            asked = replace(asked, cutoff=cutoff)
        return self.sampler.batch(asked, at, int(rng.integers(1, 2**62)))

    def _order(self, epoch: int) -> Ints:
        return np.random.default_rng([self.seed, _STREAM + 1, epoch]).permutation(
            len(self.questions)
        )


class AskedQuestions(Dataset[TaskBatch]):
    """All questions, once, in order; beyond the last there are empty batches."""

    def __init__(self, sampler: QuestionSampler, questions: Questions) -> None:
        self.sampler, self.questions = sampler, questions

    def __len__(self) -> int:
        return -(-len(self.questions) // self.sampler.config.eval_size)

    def __getitem__(self, index: int) -> TaskBatch:
        size = self.sampler.config.eval_size
        at = np.arange(index * size, min((index + 1) * size, len(self.questions)))
        return self.sampler.batch(self.questions, at, 0)
