"""Pretraining objectives: reconstruct masked cells, tell the true parent from others.

Legend: X masked texts, V masked values, Q queries, P candidates, T quantile levels, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from rfm.data.batch import LEVELS, LinkTargets, TextTargets, ValueTargets
from rfm.nn.backbone import States
from rfm.nn.gather import take
from rfm.nn.row_encoder import RowEncoder


@dataclass(frozen=True)
class Loss:
    """A sum over ``count`` items; no items is legal."""

    total: Tensor
    count: Tensor

    @classmethod
    def over(cls, items: Tensor, weight: Tensor) -> Loss:
        """Items [n] that stand for ``weight`` [n] counted things each."""
        return cls(items.float().sum(), weight.float().sum())


def weigh(
    losses: Mapping[str, Loss], weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to differentiate, and each objective's mean, over the batches of all ranks.

    Counts differ between ranks, so each mean is taken over the global count; the factor of the
    number of ranks undoes the averaging of gradients by DDP. Gradients then equal those of one
    process that sees all the batches at once.
    """
    counts = torch.stack([loss.count.detach() for loss in losses.values()])
    totals = torch.stack([loss.total.detach() for loss in losses.values()])
    ranks = 1
    if dist.is_available() and dist.is_initialized():
        ranks = dist.get_world_size()
        both = torch.stack([counts, totals])
        dist.all_reduce(both)
        counts, totals = both
    terms = [
        weights[name] * ranks * loss.total / count
        for (name, loss), count in zip(losses.items(), counts.clamp(min=1), strict=True)
    ]
    means = totals / counts  # not a number where there was nothing
    return torch.stack(terms).sum(), dict(zip(losses, means, strict=True))


def quantile_loss(atom_VT: Tensor, weight_VT: Tensor, target_V: Tensor) -> Tensor:
    """Mean pinball loss [V] over all levels of the quantiles of weighted atoms: half their CRPS
    (Gneiting and Raftery 2007, eq. 21). With T equal weights, this is the mean over the T levels
    (t + 1/2) / T of the pinball loss of the sorted atoms."""
    error_V = (weight_VT * (atom_VT - target_V[:, None]).abs()).sum(1)
    apart_VTT = (atom_VT[:, :, None] - atom_VT[:, None, :]).abs()
    spread_V = (weight_VT[:, :, None] * weight_VT[:, None, :] * apart_VTT).sum((1, 2))
    return (error_V - spread_V / 2) / 2


class MaskedRow(nn.Module):
    """Masked cells of a row from its other cells and its relational context.

    Values: quantiles of their rank, from the mask's token state, what the mask has read in its
    component, and the row's state after GraphSAGE. They start as the column's training quantiles,
    which are then moved, for what is measured, and weighed, for what is yes or no. Texts: the BART
    decoder, attending to the row's tokens, to what was read and to the row's state.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        changes = nn.Linear(2 * width, 2 * len(LEVELS))
        self.quantiles = nn.Sequential(nn.Linear(3 * width, 2 * width), nn.GELU(), changes)
        self.context = nn.Linear(width, width)
        self.read = nn.Linear(width, width)
        nn.init.zeros_(changes.weight)
        nn.init.zeros_(changes.bias)

    def value_quantiles(self, states: States, targets: ValueTargets) -> tuple[Tensor, Tensor]:
        """Atoms [V, T] of the predicted distributions of the ranks, and their weights [V, T]."""
        mask_VD, read_VD = take(states.mask, targets.mask), take(states.read, targets.mask)
        node_VD = take(states.node, targets.node).to(mask_VD.dtype)
        told_V = torch.cat([mask_VD, node_VD, read_VD.to(mask_VD.dtype)], dim=1)
        shift_VT, logit_VT = self.quantiles(told_V).float().chunk(2, dim=1)
        return targets.marginal + shift_VT, logit_VT.softmax(1)

    def value_losses(self, states: States, targets: ValueTargets) -> Tensor:
        """Quantile loss [V]."""
        atom_VT, weight_VT = self.value_quantiles(states, targets)
        return quantile_loss(atom_VT, weight_VT, targets.rank)

    def text_nats(
        self, row_encoder: RowEncoder, states: States, targets: TextTargets
    ) -> tuple[Tensor, Tensor]:
        """Nats [X] of the masked texts, and how many tokens [X] they are of."""
        context_XD = self.context(take(states.node, targets.node))
        token_XLD = take(states.token.flatten(1), targets.row)
        token_XLD = token_XLD.view(targets.row.shape[0], *states.token.shape[1:]).to(
            context_XD.dtype
        )
        read_XD = self.read(take(states.read, targets.mask)).to(context_XD.dtype)
        memory_XSD = torch.cat([context_XD[:, None], read_XD[:, None], token_XLD], dim=1)
        real_XS = F.pad(states.real[targets.row], (2, 0), value=True)
        nats_X = row_encoder.text_nats(targets.given, targets.label, (memory_XSD, real_XS))
        return nats_X, (targets.label >= 0).sum(1)


class Link(nn.Module):
    """Score candidate parents for a child row whose foreign key was cut.

    As values start from the training quantiles, links start from popularity: the logarithm of how
    many children a candidate has through that foreign key, with a weight by foreign key. What the
    states add to it starts at zero.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        key = nn.Linear(2 * width, width)
        self.candidate = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), key)
        self.popularity = nn.Linear(width, 1)
        nn.init.zeros_(key.weight)
        nn.init.zeros_(key.bias)
        nn.init.zeros_(self.popularity.weight)
        nn.init.ones_(self.popularity.bias)

    def scores(self, states: States, targets: LinkTargets) -> Tensor:
        """Scores [Q, P]; minus infinity where a candidate does not stand for election."""
        relation_QD = take(states.relation, targets.relation).to(states.node.dtype)
        query_QD = self.queries(take(states.node, targets.query), relation_QD)
        candidate_PD = self.candidate(take(states.node, targets.candidate))
        scores_QP: Tensor = (query_QD @ candidate_PD.T).float() / query_QD.shape[1] ** 0.5
        weight_Q1 = self.popularity(relation_QD).float()
        scores_QP = scores_QP + weight_Q1 * targets.popularity.log1p()
        return scores_QP.masked_fill(~targets.allowed, -torch.inf)

    def queries(self, query_QD: Tensor, relation_QD: Tensor) -> Tensor:
        """What the candidates are compared with, [Q, D]: of child rows, and the foreign keys that
        they are asked for."""
        told_QD: Tensor = self.query(torch.cat([query_QD, relation_QD.to(query_QD.dtype)], dim=1))
        return told_QD

    def losses(self, scores_QP: Tensor, targets: LinkTargets) -> Tensor:
        """Cross-entropy [Q] of the true parent among the candidates, of which the likely ones stand
        in for themselves alone, and the others for many more that were not drawn."""
        if scores_QP.shape[0] == 0:
            return scores_QP.sum(1)
        logits_QP = scores_QP - targets.log_chance
        return F.cross_entropy(logits_QP, targets.positive, reduction="none")


def reciprocal_rank(scores_QP: Tensor, positive_Q: Tensor) -> Tensor:
    """1 / rank [Q] of the true parent; among equal scores the middle rank, if not a number the
    last."""
    true_Q1 = scores_QP.gather(1, positive_Q[:, None])
    above = (~(scores_QP <= true_Q1)).sum(1)
    equal = ((scores_QP == true_Q1).sum(1) - 1).clamp(min=0)
    return 1.0 / (1.0 + above + equal / 2.0)
