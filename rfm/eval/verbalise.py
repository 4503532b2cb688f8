"""Answers without any example: what the model expects in the masked cell of the label.

Of two classes and of numbers the value head is asked, of several classes the BART decoder, which
scores the name of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rfm.data.batch import EpisodeBatch, TextTargets, pad_tokens
from rfm.data.laid import LaidTask
from rfm.data.targets import MAX_NAME_TOKENS
from rfm.data.tokenizer import EOS, PAD
from rfm.nn.backbone import States
from rfm.nn.model import RelationalModel


@torch.no_grad()
def verbalise(
    model: RelationalModel, laid: LaidTask, batch: EpisodeBatch, shares: Sequence[float] = (0.5,)
) -> Tensor:
    """[S, C] probabilities of the classes, or [S, H] what each number is below with probabilities
    ``shares`` [H], in the units of the laid task.

    Raises:
        ValueError: for numbers of which none is known: they have no scale.
    """
    states = model.backbone(batch)
    if laid.task.names:
        return _by_name(model, laid, states, batch.num_seeds)
    stats = laid.column.stats
    marginal = torch.from_numpy(stats.marginal)
    low, high = (float(stats.rank(stats.standardise(np.array([x])))[0]) for x in (0.0, 1.0))
    if batch.classes and low == high:  # one class is all that is known, or none
        low, high = 0.25, 0.75
        marginal = torch.linspace(0, 1, marginal.shape[0]).round() / 2 + 0.25
    elif not batch.classes and not laid.num_known:
        raise ValueError(
            f"{laid.task.name}: no number is known before it is asked for, so that answers have no "
            "scale: give labelled rows that are earlier"
        )
    targets = replace(batch, marginal=marginal.to(states.node.device)).cells()
    atom_ST, weight_ST = model.masked_row.value_quantiles(states, targets)
    if batch.classes:
        above_ST = ((atom_ST - low) / (high - low)).clamp(0, 1)
        share_S = (weight_ST * above_ST).sum(1)
        return torch.stack([1 - share_S, share_S], dim=1)
    rank_SH = _below(atom_ST, weight_ST, shares).cpu().numpy()
    z_SH = np.interp(rank_SH, stats.knot_u, stats.knot_z)
    return torch.from_numpy(stats.raw(z_SH))


def _below(atom_ST: Tensor, weight_ST: Tensor, shares: Sequence[float]) -> Tensor:
    """The smallest atoms [S, H] that shares [H] of the weight are not above."""
    atom_ST, order = atom_ST.sort(dim=1)
    until_ST = weight_ST.gather(1, order).cumsum(1)
    share_H = until_ST.new_tensor(shares)
    at_SH = (until_ST[:, None] < share_H[:, None]).sum(2).clamp(max=atom_ST.shape[1] - 1)
    return atom_ST.gather(1, at_SH)


def _by_name(model: RelationalModel, laid: LaidTask, states: States, size: int) -> Tensor:
    end, pad = (laid.tokenizer.id(token) for token in (EOS, PAD))
    name = list(laid.column.name_tokens[:MAX_NAME_TOKENS])
    each = torch.arange(size, device=states.node.device)
    nats = []
    for text in laid.tokenizer.encode(list(laid.task.names)):
        target = [*text, end]
        given = pad_tokens([[end, *name, *target[:-1]]], pad).to(each.device)
        label = pad_tokens([[-100] * len(name) + target], -100).to(each.device)
        targets = TextTargets(
            mask=each,
            row=each,
            node=each,
            given=given.expand(each.shape[0], -1),
            label=label.expand(each.shape[0], -1),
            marginal=torch.zeros(each.shape[0], device=each.device),
            column=torch.zeros_like(each),
        )
        nats.append(model.masked_row.text_nats(model.backbone.row_encoder, states, targets)[0])
    return torch.stack(nats, dim=1).neg().softmax(dim=1)
