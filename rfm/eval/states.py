"""Frozen features: the states of seed rows at their seed times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.assemble import context_batch
from rfm.data.sampler import Seeds, sample
from rfm.data.serialise import TokenIds
from rfm.data.targets import Source, TokenBudget
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating


@torch.no_grad()
def seed_states(
    model: RelationalModel,
    source: Source,
    ids: TokenIds,
    rows: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    fan_out: npt.NDArray[np.int32],
    budget: TokenBudget,
    batch_size: int = 256,
) -> npt.NDArray[np.float32]:
    """States [n, D] after GraphSAGE of global rows [n], each as of its time [n] (unix seconds).

    Args:
        fan_out: [hops, edge types], see ``fan_outs``.
    """
    device = next(model.parameters()).device
    states = np.zeros((rows.size, model.backbone.row_encoder.width), dtype=np.float32)
    with evaluating(model):
        for start in range(0, rows.size, batch_size):
            span = slice(start, start + batch_size)
            seeds = Seeds.at(rows[span], times[span])
            subgraph = sample(source.store.graph, seeds, fan_out)
            batch = context_batch(source, seeds, subgraph, ids, budget).to(device)
            states[span] = model.backbone(batch).node[: seeds.row.size].float().cpu().numpy()
    return states
