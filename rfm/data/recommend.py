"""Questions of a recommendation: which rows of the destination table come next for an entity.

A question's foreign key to its destination is cut; the destinations are candidates as of the same
moment. All questions of a batch are of one moment, so that they share their candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from rfm.data.assemble import question_batch
from rfm.data.attach import AttachedTask
from rfm.data.batch import NUM_SEEN_FEATURES, RecommendBatch
from rfm.data.cached import RowStates
from rfm.data.draws import MaskedDraw
from rfm.data.questions import QuestionConfig, Questions, QuestionSampler
from rfm.data.sampler import Seeds, sample
from rfm.data.seen_before import Pairs, SeenBefore
from rfm.data.serialise import TokenIds
from rfm.data.store import RowStore
from rfm.data.task_rows import Ints

_STREAM = 5
_CHUNK = 1024  # destinations encoded at once


class RecommendSampler(QuestionSampler):
    """Questions of one moment, and destinations as of that moment, -> batches."""

    def __init__(
        self,
        attached: AttachedTask,
        store: RowStore,
        ids: TokenIds,
        hops: int,
        config: QuestionConfig,
        cache: RowStates | None = None,
    ) -> None:
        super().__init__(attached, store, ids, hops, config, cache)
        keys = [(store.tables[k.child].name, k.column) for k in store.graph.foreign_keys]
        self.cut = keys.index((attached.table, attached.label))
        self.seen = SeenBefore(attached, store, labels=config.history > 0)
        self.destinations = store.graph.rows_of(attached.task.destination_table)
        per_hop = (config.children, config.grandchildren, *(0,) * hops)[:hops]
        self.candidate_fan_out = self.reach(per_hop, (config.history, *per_hop[1:])[:hops])

    @property
    def num_destinations(self) -> int:
        return len(self.destinations)

    def visible(self, cutoff: int) -> Ints:
        """The destinations that are there by a cutoff: later rows are no candidates."""
        rows = self.destinations
        time = np.asarray(self.store.graph.row_time[rows.start : rows.stop])
        return np.flatnonzero(time <= cutoff)  # static rows are earlier than any

    def pose(
        self,
        asked: Questions,
        number: Ints,
        destination: Ints,
        moment: tuple[int, int],
        key: int,
    ) -> RecommendBatch:
        """The questions of these numbers [Q], and these destinations [P], as of one moment (now,
        cutoff)."""
        now, cutoff = moment
        config, graph = self.config, self.store.graph
        queries = self._seeds(asked, number, cutoff)
        pool = Seeds.at(self.destinations.start + destination, cutoff)
        query_graph, pool_graph = (
            sample(graph, seeds, fan_out, config.strategy, config.max_rows, key)
            for seeds, fan_out in ((queries, self.fan_out), (pool, self.candidate_fan_out))
        )
        batch = question_batch(
            self.source,
            MaskedDraw(queries, query_graph, self.fates(asked.take(number))),
            np.full(number.size, now),
            self.ids,
            self.budget,
            key,
            self.cache,
            [(pool, pool_graph, np.full(destination.size, now))],
        )
        seen = np.zeros((number.size, destination.size, NUM_SEEN_FEATURES), dtype=np.float32)
        if seen.size:  # looking up pairs goes through all labels and destinations
            seen = self.pairs(asked, number, moment).features(destination)
        positive = self._positive(asked, number, destination)
        return RecommendBatch(
            **vars(batch),
            question=torch.from_numpy(number),
            query=torch.arange(number.size),
            candidate=query_graph.row.size + torch.arange(destination.size),
            destination=torch.from_numpy(destination),
            key=torch.full((number.size,), self.cut),
            seen=torch.from_numpy(seen),
            positive=torch.from_numpy(positive),
            log_chance=torch.zeros(destination.size),
            moment=torch.tensor([now, cutoff]),
        )

    def _seeds(self, asked: Questions, number: Ints, cutoff: int) -> Seeds:
        queries = Seeds.at(asked.row[number], cutoff)
        queries.cut[:] = self.cut
        return queries

    def pairs(self, asked: Questions, number: Ints, moment: tuple[int, int]) -> Pairs:
        """What is known of these questions [Q] and all destinations."""
        now, cutoff = moment
        queries = self._seeds(asked, number, cutoff)
        return self.seen.pairs(queries, asked.entity[number], now)

    def _positive(self, asked: Questions, number: Ints, destination: Ints) -> npt.NDArray[np.bool_]:
        """[Q, P]: which destinations are labels of which questions."""
        place = np.full(self.num_destinations, -1, dtype=np.int64)
        place[destination] = np.arange(destination.size)
        positive = np.zeros((number.size, destination.size), dtype=np.bool_)
        for i, n in enumerate(number):
            at = place[asked.destination[asked.start[n] : asked.stop[n]]]
            positive[i, at[at >= 0]] = True
        return positive


class TrainingLinks(Dataset[RecommendBatch]):
    """Endless training batches by index: questions of one seed time, and destinations: all of them,
    or the questions' own and as many more, drawn at random.

    Args:
        stale: as of ``TrainingQuestions``; one for each batch.
    """

    def __init__(
        self, sampler: RecommendSampler, questions: Questions, stale: Ints, seed: int
    ) -> None:
        self.sampler, self.stale, self.seed = sampler, stale, seed
        self.questions = questions.take(np.flatnonzero(questions.stop > questions.start))
        self._order = np.argsort(self.questions.now, kind="stable")
        self._sorted = self.questions.now[self._order]

    def __getitem__(self, index: int) -> RecommendBatch:
        rng = np.random.default_rng([self.seed, _STREAM, index])
        asked, config = self.questions, self.sampler.config
        now = int(asked.now[rng.integers(len(asked))])
        low, high = np.searchsorted(self._sorted, [now, now + 1])
        here = self._order[low:high]
        number = np.sort(rng.choice(here, min(config.size, here.size), replace=False))
        cutoff = now - int(rng.choice(self.stale)) if self.stale.size else now
        pool, log_chance = self._pool(asked, number, self.sampler.visible(cutoff), rng)
        batch = self.sampler.pose(asked, number, pool, (now, cutoff), int(rng.integers(1, 2**62)))
        return replace(batch, log_chance=torch.from_numpy(log_chance))

    def _pool(
        self, asked: Questions, number: Ints, visible: Ints, rng: np.random.Generator
    ) -> tuple[Ints, npt.NDArray[np.float32]]:
        """Candidates [P] of those that are visible, and the logarithm of about the chance that each
        is among them."""
        size, most = self.sampler.num_destinations, self.sampler.config.candidates
        if visible.size <= most:
            return visible, np.zeros(visible.size, dtype=np.float32)
        own = [asked.destination[asked.start[n] : asked.stop[n]] for n in number]
        labels = np.concatenate(own)
        drawn = rng.choice(visible, most, replace=False)
        pool = np.union1d(labels[np.isin(labels, visible)], drawn)
        # a destination comes as somebody's label as often as it does among all labels
        share = np.bincount(asked.destination, minlength=size)[pool] / asked.destination.size
        missed = (1 - share) ** labels.size * (1 - most / visible.size)
        return pool, np.log1p(-missed).astype(np.float32)


class AskedLinks(Dataset[RecommendBatch]):
    """All questions, once, those of one moment together, without candidates: for these see
    ``destinations``."""

    def __init__(self, sampler: RecommendSampler, questions: Questions) -> None:
        self.sampler, self.questions = sampler, questions
        size = sampler.config.eval_size
        moments = np.stack([questions.now, questions.cutoff], axis=1)
        _, group = np.unique(moments, axis=0, return_inverse=True)
        order = np.argsort(group.ravel(), kind="stable")
        ends = np.flatnonzero(np.diff(group.ravel()[order])) + 1
        runs = np.split(order, ends) if order.size else []
        self.chunks = [run[i : i + size] for run in runs for i in range(0, run.size, size)]

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, index: int) -> RecommendBatch:
        number = self.chunks[index] if index < len(self) else np.zeros(0, dtype=np.int64)
        first = number[:1]
        moment = [*self.questions.now[first], *self.questions.cutoff[first]] or [0, 0]
        none = np.zeros(0, dtype=np.int64)
        now, cutoff = map(int, moment)
        return self.sampler.pose(self.questions, number, none, (now, cutoff), 0)

    def destinations(self, moment: tuple[int, int]) -> Iterator[RecommendBatch]:
        """All rows of the destination table that are there as of a moment (now, cutoff), in
        chunks."""
        none = np.zeros(0, dtype=np.int64)
        for rows in self._chunks(moment):
            yield self.sampler.pose(self.questions, none, rows, moment, 0)

    def pairs(
        self, number: Ints, moment: tuple[int, int]
    ) -> Iterator[tuple[Ints, npt.NDArray[np.float32]]]:
        """The same destinations [P], in chunks, and what is known of them and each question [Q]:
        [Q, P, NUM_SEEN_FEATURES]."""
        pairs = self.sampler.pairs(self.questions, number, moment)
        for rows in self._chunks(moment):
            yield rows, pairs.features(rows)

    def _chunks(self, moment: tuple[int, int]) -> list[Ints]:
        rows = self.sampler.visible(moment[1])
        return [rows[i : i + _CHUNK] for i in range(0, rows.size, _CHUNK)]
