"""Heads: what answers a task.

Legend: S questions (seeds), C numbers that answer one, D width; in a recommendation Q questions, P
destinations, F features of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfm.config import setting
from rfm.data.batch import NUM_SEEN_FEATURES, SEEN_FEATURES, RecommendBatch, TaskBatch
from rfm.nn.backbone import States
from rfm.nn.gather import take
from rfm.nn.objectives import Link

AnswerType = Literal[
    "binary_classification",
    "multiclass_classification",
    "multilabel_classification",
    "regression",
    "recommendation",
]
_SEEN_WIDTH = 32
_AT_FIRST = {"near_lately": 2.0, "children_lately": 2.0}  # of the features of a pair


@dataclass(frozen=True)
class HeadConfig:
    """What a head answers.

    task: ``database/task``. outputs: C; how many destinations are recommended. low, high: the range
    of the training targets, to which predictions are clipped; center, scale: by which they are
    standardised; quadratic: standardised errors up to which the loss is quadratic (regression).
    """

    task: str
    task_type: AnswerType
    outputs: int = setting(ge=1)
    center: float = 0.0
    scale: float = setting(1.0, gt=0)
    low: float = 0.0
    high: float = 1.0
    quadratic: float = setting(0.5, gt=0)
    reads: bool = setting(True, help="what the masked label has read, besides the states")
    told: int = setting(0, ge=0, help="numbers that a question is told beside its rows, H")


class EntityHead(nn.Module):
    """A question's masked label and node, and what it is told (when it is asked, what past labels
    alone say, what the entity's latest children come to) -> logits, or a standardised number [S,
    C]."""

    def __init__(self, width: int, config: HeadConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        inputs = 3 if config.reads else 1
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(inputs))
        self.inner = nn.Linear(inputs * width, width)
        self.told = nn.Linear(config.told, width, bias=False)
        self.straight = nn.Linear(config.told, config.outputs, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, config.outputs)
        for weight in (self.out.weight, self.out.bias, self.straight.weight):
            nn.init.zeros_(weight)

    def forward(self, states: States, batch: TaskBatch) -> Tensor:
        parts = [states.node[: batch.num_seeds]]
        if self.config.reads:
            parts += [states.mask, states.read]
        normed = [norm(part.float()) for norm, part in zip(self.norms, parts, strict=True)]
        inner_SD = F.gelu(self.inner(torch.cat(normed, dim=1)) + self.told(batch.told))
        out_SC: Tensor = self.out(self.dropout(inner_SD)) + self.straight(batch.told)
        return out_SC

    def losses(self, states: States, batch: TaskBatch) -> Tensor:
        """Loss [S] against labels [S, C] as ``TaskRows`` has them: cross-entropy, or Huber's loss
        of standardised numbers, which single outliers do not sway."""
        config, label_SC = self.config, batch.label
        out_SC: Tensor = self(states, batch)
        if config.task_type == "multiclass_classification":
            label_S = label_SC[:, 0].long()
            return F.cross_entropy(out_SC, label_S, reduction="none", ignore_index=-1)
        if config.task_type == "regression":
            target_SC = (label_SC - config.center) / config.scale
            beta = config.quadratic
            return F.smooth_l1_loss(out_SC, target_SC, reduction="none", beta=beta).mean(1)
        return F.binary_cross_entropy_with_logits(out_SC, label_SC, reduction="none").mean(1)

    def answers(self, states: States, batch: TaskBatch) -> Tensor:
        """[S, C]: probabilities, or numbers within the range of the training targets."""
        config = self.config
        out_SC: Tensor = self(states, batch)
        if config.task_type == "multiclass_classification":
            return out_SC.softmax(dim=1)
        if config.task_type == "regression":
            return (out_SC * config.scale + config.center).clamp(config.low, config.high)
        return out_SC.sigmoid()


class LinkHead(nn.Module):
    """A question and destinations -> scores [Q, P]: two towers, as pretrained by the link
    objective, and what is known of each pair: whether it has been seen before, and how popular the
    destination is. It starts from what is going on: destinations that rows of late point at, from
    anywhere and from around the entity."""

    def __init__(self, width: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.link = Link(width)
        self.seen = nn.Linear(NUM_SEEN_FEATURES, 1)
        self.more = nn.Sequential(
            nn.Linear(NUM_SEEN_FEATURES, _SEEN_WIDTH), nn.GELU(), nn.Linear(_SEEN_WIDTH, 1)
        )
        at_first = [_AT_FIRST.get(name, 0.0) for name in SEEN_FEATURES]
        self.seen.weight.data.copy_(torch.tensor([at_first]))
        for layer in (self.seen, self.more[2]):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.more[2].weight)  # type: ignore[arg-type]

    def queries(self, states: States, batch: RecommendBatch) -> Tensor:
        """[Q, D]."""
        query_QD = take(states.node, batch.query)
        told_QD: Tensor = self.link.queries(query_QD, take(states.relation, batch.key))
        return told_QD

    def candidates(self, states: States, batch: RecommendBatch) -> Tensor:
        """[P, D]."""
        candidate_PD: Tensor = self.link.candidate(take(states.node, batch.candidate))
        return candidate_PD

    def scores(self, query_QD: Tensor, candidate_PD: Tensor, seen_QPF: Tensor) -> Tensor:
        """[Q, P] of the vectors of both, and what is known of each pair."""
        of_pair_QP: Tensor = (self.seen(seen_QPF) + self.more(seen_QPF)).squeeze(2)
        of_towers_QP: Tensor = (query_QD @ candidate_PD.T).float() / query_QD.shape[1] ** 0.5
        return of_pair_QP + of_towers_QP

    def losses(self, states: States, batch: RecommendBatch) -> Tensor:
        """Cross-entropy [Q] between the softmax over the candidates and the even distribution over
        the true ones, corrected for how likely each candidate is drawn."""
        query_QD, candidate_PD = self.queries(states, batch), self.candidates(states, batch)
        logits_QP = self.scores(query_QD, candidate_PD, batch.seen) - batch.log_chance
        weight_QP = batch.positive / batch.positive.sum(1, keepdim=True).clamp(min=1)
        loss_Q: Tensor = -(weight_QP * logits_QP.log_softmax(dim=1)).sum(1)
        return loss_Q


def make_head(width: int, config: HeadConfig, dropout: float = 0.0) -> EntityHead | LinkHead:
    """The head that a config describes."""
    if config.task_type == "recommendation":
        return LinkHead(width, config)
    return EntityHead(width, config, dropout)
