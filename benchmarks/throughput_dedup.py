"""What encoding each distinct row of a batch once saves, and that it changes no loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from torch import Tensor

from benchmarks.throughput_model import loss_of
from rfm.data.assemble import assemble
from rfm.data.batch import Bucket, PretrainBatch
from rfm.data.draws import MaskedDraw, draw_masks
from rfm.data.mixture import Mixture, PretrainBatches
from rfm.data.sampler import Seeds, fan_outs, sample
from rfm.data.targets import TokenBudget
from rfm.nn.model import RelationalModel

_STREAM = 4


@dataclass(frozen=True)
class Deduplication:
    """factor: how much more the encoder would have to do without, in tokens of its buckets;
    row_factor: the same in rows (nodes per encoded row); loss, loss_without: of the first batch,
    and of that batch with a row per node."""

    factor: float
    row_factor: float
    loss: float
    loss_without: float


@torch.no_grad()
def measure_deduplication(
    model: RelationalModel, batches: Sequence[PretrainBatch]
) -> Deduplication:
    """Factors over all batches, the loss of the first.

    The value head of ``model`` gets random weights: new ones are 0, and no row would count.
    """
    head = model.masked_row.quantiles[-1]
    assert isinstance(head, torch.nn.Linear)
    torch.nn.init.normal_(head.weight, std=0.1)
    model.eval()
    every = [one_row_per_node(batch) for batch in batches]
    return Deduplication(
        factor=sum(map(_tokens, every)) / sum(map(_tokens, batches)),
        row_factor=sum(map(_rows, every)) / sum(map(_rows, batches)),
        loss=float(loss_of(model, batches[0])),
        loss_without=float(loss_of(model, every[0])),
    )


def token_factor(batches: PretrainBatches, numbers: Sequence[int]) -> float:
    """The factor of ``Deduplication``, over batches by number."""
    drawn = [batches[number] for number in numbers]
    return sum(_tokens(one_row_per_node(batch)) for batch in drawn) / sum(map(_tokens, drawn))


def _rows(batch: PretrainBatch) -> int:
    return sum(bucket.token.shape[0] for bucket in batch.buckets)


def _tokens(batch: PretrainBatch) -> int:
    return sum(bucket.token.numel() for bucket in batch.buckets)


def task_batch(
    mixture: Mixture,
    task: Path,
    count: int,
    fan_out: Sequence[int],
    budget: TokenBudget,
    number: int,
) -> PretrainBatch:
    """A batch whose seeds are training rows of a task: entities at their seed times, some of
    their cells masked.

    mixture: of one database. task: a folder of RelBench's form. fan_out: children per row and hop.
    """
    store = mixture.stores[0]
    described = yaml.safe_load((task / "manifest.yaml").read_text(encoding="utf-8"))
    frame = pd.read_parquet(task / "train.parquet")
    rng = np.random.default_rng([_STREAM, number])
    frame = frame.iloc[rng.permutation(len(frame))[:count]]
    times = frame[described["time_col"]].to_numpy().astype("datetime64[s]").astype("int64")
    first = store.graph.rows_of(described["entity_table"]).start
    entity = frame[described["entity_col"]].to_numpy().astype(np.int64)
    seeds = Seeds.at(entity + first, times)
    subgraph = sample(store.graph, seeds, fan_outs(store.graph, fan_out))
    draw = MaskedDraw(seeds, subgraph, draw_masks(store, seeds.row, rng))
    return assemble(mixture.sources, [(0, draw)], [], mixture.ids, mixture.end, budget, rng)


def one_row_per_node(batch: PretrainBatch) -> PretrainBatch:
    """The batch without de-duplication: every node has a copy of its row to itself.

    The first copy stands where the row stood and alone answers for the row's masked cells.
    """
    place = torch.empty_like(batch.row)
    buckets, start, first = [], 0, 0
    for bucket in batch.buckets:
        size = bucket.token.shape[0]
        here = torch.nonzero((batch.row >= start) & (batch.row < start + size)).flatten()
        local = batch.row[here] - start
        extra = np.ones(here.numel(), dtype=np.bool_)
        extra[np.unique(local.numpy(), return_index=True)[1]] = False
        again = torch.from_numpy(extra)
        copies = local[again]
        place[here] = first + local
        place[here[again]] = first + size + torch.arange(copies.numel())
        buckets.append(_with_copies(bucket, copies))
        start, first = start + size, first + size + copies.numel()
    return replace(batch, buckets=tuple(buckets), row=place)


def _with_copies(bucket: Bucket, rows: Tensor) -> Bucket:
    """The bucket with copies of some rows below it, whose masks are not asked about."""
    size, width = bucket.token.shape
    every = torch.cat([torch.arange(size), rows])
    at = torch.full((size * width,), -1, dtype=torch.int64)
    at[bucket.value_at] = torch.arange(bucket.value_at.numel())
    source = at.view(size, width)[every].flatten()
    value_at = torch.nonzero(source >= 0).flatten()
    return Bucket(
        token=bucket.token[every],
        role=bucket.role[every],
        real=bucket.real[every],
        value=bucket.value[source[value_at]],
        value_at=value_at,
        cell=(bucket.cell % width)[every] + torch.arange(every.numel())[:, None] * width,
        mask_at=bucket.mask_at,
    )
