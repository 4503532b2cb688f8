"""Two towers of GraphSAGE for recommendation, after RelBench's ``gnn_recommendation.py``: the
states of the asked entity and of the destinations, each as of the seed time, and their product.

Legend: S seeds, P destinations to choose from, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.answer import Answer
from benchmarks.graphsage_data import Sampling
from benchmarks.graphsage_train import (
    GraphSAGESettings,
    build_network,
    first_row,
    fit,
    open_sampling,
)
from rfm.data.task_rows import Ints, TaskRows, TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.predictions import Predictions, score


class TwoTowers(nn.Module):
    """One GraphSAGE, and a linear head for each side."""

    def __init__(self, task: Task, sampling: Sampling, settings: GraphSAGESettings) -> None:
        super().__init__()
        self.sampling = sampling
        self.sage = build_network(sampling, settings)
        self.sides = nn.ModuleList(nn.Linear(settings.width, settings.width) for _ in range(2))
        self.tables = [
            first_row(sampling, name) for name in (task.entity_table, task.destination_table)
        ]
        self.scale = settings.width**-0.5

    def side(self, side: int, rows: Ints, cutoff: Ints, time: Ints, rng_seed: int) -> Tensor:
        """States [n, D] of rows [n] of the entity table (side 0) or the destinations' (side 1),
        which see the database up to ``cutoff`` [n] at ``time`` [n]."""
        table, first = self.tables[side]
        batch = self.sampling.batch(rows + first, cutoff, time, rng_seed)
        head = self.sides[side]
        out: Tensor = head(self.sage(batch.to(self.device), table))
        return out

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def forward(
        self, entity: Ints, destination: Ints, cutoff: Ints, time: Ints, rng_seed: int
    ) -> Tensor:
        """Scores [S, P] of destinations [P] for entities [S], all as of ``time[0]``."""
        at = np.zeros(destination.size, dtype=np.int64)
        state_SD = self.side(0, entity, cutoff, time, rng_seed)
        place_PD = self.side(1, destination, cutoff[at], time[at], rng_seed)
        return state_SD @ place_PD.T * self.scale


def graphsage_links(
    task: Task, regime: Regime, seed: int, settings: GraphSAGESettings, device: torch.device
) -> Answer:
    """Train, select the epoch on validation, answer both splits."""
    rows, cutoff = task.rows("train"), task.cutoffs("train", regime)
    network = TwoTowers(task, open_sampling(task, settings), settings).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.link_lr)
    rng, total = np.random.default_rng(seed), destinations(task)

    def train(epoch: int) -> int:
        steps = 0
        for at in same_time(rows, settings.batch, rng):
            asked, positive = choices(rows, at, total, settings.destinations, rng)
            output = network(
                rows.entity[at], asked, cutoff[at], rows.time[at], int(rng.integers(2**31))
            )
            value = loss(output, torch.from_numpy(positive).to(device))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            steps += 1
            if steps == settings.epoch_steps:
                break
        return steps

    def validate() -> float:
        return score(task, "val", recommend(network, task, "val", regime, settings))

    curve = fit(network, train, validate, True, settings)
    validation, test = (
        recommend(network, task, split, regime, settings) for split in ("val", "test")
    )
    return Answer(validation, test, asdict(settings), curve)


def destinations(task: Task) -> int:
    return task.database.tables[task.destination_table].num_rows


def same_time(rows: TaskRows, batch: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Labelled rows in batches that share their seed time, so that the states of destinations are
    the same for all of a batch; in random order."""
    labelled = rng.permutation(np.flatnonzero(rows.labelled))
    labelled = labelled[np.argsort(rows.time[labelled], kind="stable")]
    cuts = np.flatnonzero(np.diff(rows.time[labelled])) + 1
    batches = [
        group[start : start + batch]
        for group in np.split(labelled, cuts)
        for start in range(0, group.size, batch)
    ]
    for i in rng.permutation(len(batches)):
        yield batches[i]


def choices(
    rows: TaskRows, at: Ints, total: int, limit: int, rng: np.random.Generator
) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Destinations [P] that rows [S] choose from, all of them or those of these rows and random
    others, and which are right [S, P]."""
    own = [rows.destination[rows.start[i] : rows.start[i + 1]] for i in at]
    asked = np.arange(total)
    if total > limit:
        others = rng.choice(total, limit, replace=False)
        asked = np.unique(np.concatenate([*own, others]))
    positive = np.zeros((at.size, asked.size), dtype=np.bool_)
    for i, found in enumerate(own):
        positive[i, np.searchsorted(asked, found)] = True
    return asked, positive


def loss(output: Tensor, positive: Tensor) -> Tensor:
    """Cross entropy of scores [S, P] against equal shares of the right destinations [S, P]."""
    share = positive / positive.sum(dim=1, keepdim=True)
    return -(output.log_softmax(dim=1) * share).sum(dim=1).mean()


@torch.no_grad()
def recommend(
    network: TwoTowers, task: Task, split: TaskSplit, regime: Regime, settings: GraphSAGESettings
) -> Predictions:
    """The best destinations of all rows of a split, among all that are there by the cutoff."""
    rows, cutoff = task.rows(split), task.cutoffs(split, regime)
    total = destinations(task)
    best = np.zeros((len(rows), min(task.top_k, total)), dtype=np.float64)
    first = network.tables[1][1]
    there = np.asarray(network.sampling.store.graph.row_time[first : first + total])
    moments, group = np.unique(np.stack([rows.time, cutoff]), axis=1, return_inverse=True)
    for number, (time, end) in enumerate(moments.T):
        parts = []
        for start in range(0, total, settings.destinations):
            asked = np.arange(start, min(start + settings.destinations, total))
            parts.append(network.side(1, asked, np.full_like(asked, end), asked * 0 + time, 0))
        place = torch.cat(parts)
        unseen = torch.from_numpy(there > end).to(place.device)
        own = np.flatnonzero(group.ravel() == number)
        for start in range(0, own.size, settings.batch):
            at = own[start : start + settings.batch]
            state = network.side(0, rows.entity[at], cutoff[at], rows.time[at], 0)
            scores = (state @ place.T).masked_fill(unseen, -torch.inf)
            best[at] = scores.topk(best.shape[1], dim=1).indices.cpu().numpy()
    return Predictions.of(task, split, best)
