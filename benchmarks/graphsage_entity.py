"""GraphSAGE from scratch on classification and regression, after RelBench's ``gnn_entity.py``.

Legend: S seeds, C outputs, D width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.answer import Answer
from benchmarks.graphsage_data import Sampling
from benchmarks.graphsage_train import (
    GraphSAGESettings,
    build_network,
    first_row,
    fit,
    open_sampling,
)
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.predictions import METRICS, Predictions, higher_is_better, score

Floats = npt.NDArray[np.float64]
_TAILS = (0.02, 0.98)  # regression answers stay between these quantiles of the training labels


@dataclass(frozen=True)
class Scale:
    """Of a regression's labels: the training median and standard deviation, and the range of
    answers."""

    center: float
    spread: float
    low: float
    high: float

    @classmethod
    def of(cls, label: Floats) -> Scale:
        spread, (low, high) = float(label.std()), np.quantile(label, _TAILS)
        return cls(float(np.median(label)), spread or 1.0, float(low), float(high))


class EntityNetwork(nn.Module):
    """GraphSAGE and a linear head: the logits or the standardised number of each seed."""

    def __init__(self, task: Task, sampling: Sampling, settings: GraphSAGESettings) -> None:
        super().__init__()
        self.sampling = sampling
        self.table, self.first = first_row(sampling, task.entity_table)
        self.sage = build_network(sampling, settings)
        self.head = nn.Linear(settings.width, task.outputs)

    def forward(
        self,
        entity: npt.NDArray[np.int64],
        cutoff: npt.NDArray[np.int64],
        time: npt.NDArray[np.int64],
        rng_seed: int,
    ) -> Tensor:
        """Outputs [S, C] for entities [S] that see the database up to ``cutoff`` [S] at the seed
        times ``time`` [S]."""
        batch = self.sampling.batch(entity + self.first, cutoff, time, rng_seed)
        out: Tensor = self.head(self.sage(batch.to(self.head.weight.device), self.table))
        return out


def graphsage_entity(
    task: Task, regime: Regime, seed: int, settings: GraphSAGESettings, device: torch.device
) -> Answer:
    """Train, select the epoch on validation, answer both splits."""
    rows = task.rows("train")
    kept = np.flatnonzero(rows.labelled)
    label, cutoff = rows.label[kept], task.cutoffs("train", regime)[kept]
    scale = Scale.of(label[:, 0])
    network = EntityNetwork(task, open_sampling(task, settings), settings).to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.lr)
    rng = np.random.default_rng(seed)

    def train(epoch: int) -> int:
        order = rng.permutation(kept.size)
        starts = range(0, kept.size, settings.batch)[: settings.epoch_steps]
        for start in starts:
            at = order[start : start + settings.batch]
            own = kept[at]
            output = network(rows.entity[own], cutoff[at], rows.time[own], int(rng.integers(2**31)))
            value = loss(task, output, torch.from_numpy(label[at]).to(device), scale)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        return len(starts)

    def validate() -> float:
        return score(task, "val", answer(network, task, "val", regime, scale, settings.batch))

    higher = higher_is_better(METRICS[task.task_type])
    curve = fit(network, train, validate, higher, settings)
    validation, test = (
        answer(network, task, split, regime, scale, settings.batch) for split in ("val", "test")
    )
    return Answer(validation, test, asdict(settings), curve)


def loss(task: Task, output: Tensor, label: Tensor, scale: Scale) -> Tensor:
    """Of outputs [S, C] against labels [S, C] float64: cross entropy, or L1."""
    if task.task_type == "multiclass_classification":
        return F.cross_entropy(output, label[:, 0].long())
    if task.task_type == "regression":
        return F.l1_loss(output, ((label - scale.center) / scale.spread).to(output.dtype))
    return F.binary_cross_entropy_with_logits(output, label.to(output.dtype))


@torch.no_grad()
def answer(
    network: EntityNetwork,
    task: Task,
    split: TaskSplit,
    regime: Regime,
    scale: Scale,
    batch: int,
) -> Predictions:
    """Predictions of all rows of a split; the same whenever asked."""
    rows, cutoff = task.rows(split), task.cutoffs(split, regime)
    parts = []
    for start in range(0, len(rows), batch):
        span = slice(start, start + batch)
        output = network(rows.entity[span], cutoff[span], rows.time[span], 0)
        parts.append(output.double().cpu())
    output = torch.cat(parts)
    if task.task_type == "regression":
        value = (output * scale.spread + scale.center).clamp(scale.low, scale.high)
    elif task.task_type == "multiclass_classification":
        value = output.softmax(dim=1)
    else:
        value = output.sigmoid()
    return Predictions.of(task, split, value.numpy())
