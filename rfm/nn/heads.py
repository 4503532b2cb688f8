"""Heads: what answers a task.

Legend: S questions (seeds), C numbers that answer one, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rfm.config import setting
from rfm.nn.backbone import States

AnswerType = Literal[
    "binary_classification", "multiclass_classification", "multilabel_classification", "regression"
]
_ROBUST = 0.5  # standard deviations up to which the loss of a regression is quadratic


@dataclass(frozen=True)
class HeadConfig:
    """What a head answers.

    task: ``database/task``. outputs: C. low, high: the range of the training targets, to which
    predictions are clipped; center, scale: by which they are standardised (regression).
    """

    task: str
    task_type: AnswerType
    outputs: int = setting(ge=1)
    center: float = 0.0
    scale: float = setting(1.0, gt=0)
    low: float = 0.0
    high: float = 1.0
    reads: bool = setting(True, help="what the masked label has read, besides the states")


class EntityHead(nn.Module):
    """A question's masked label and node -> logits, or a standardised number [S, C]."""

    def __init__(self, width: int, config: HeadConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        inputs = 3 if config.reads else 1
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(inputs))
        self.inner = nn.Linear(inputs * width, width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, config.outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, states: States, num_seeds: int) -> Tensor:
        parts = [states.node[:num_seeds]]
        if self.config.reads:
            parts += [states.mask, states.read]
        normed = [norm(part.float()) for norm, part in zip(self.norms, parts, strict=True)]
        inner_SD = F.gelu(self.inner(torch.cat(normed, dim=1)))
        out_SC: Tensor = self.out(self.dropout(inner_SD))
        return out_SC


def answer_losses(config: HeadConfig, out_SC: Tensor, label_SC: Tensor) -> Tensor:
    """Loss [S] of logits, or of standardised numbers, against labels [S, C] as ``TaskRows`` has
    them: cross-entropy, or Huber's loss, which single outliers do not sway."""
    if config.task_type == "multiclass_classification":
        return F.cross_entropy(out_SC, label_SC[:, 0].long(), reduction="none", ignore_index=-1)
    if config.task_type == "regression":
        target_SC = (label_SC - config.center) / config.scale
        return F.smooth_l1_loss(out_SC, target_SC, reduction="none", beta=_ROBUST).mean(1)
    return F.binary_cross_entropy_with_logits(out_SC, label_SC, reduction="none").mean(1)


def answers(config: HeadConfig, out_SC: Tensor) -> Tensor:
    """[S, C]: probabilities, or numbers within the range of the training targets."""
    if config.task_type == "multiclass_classification":
        return out_SC.softmax(dim=1)
    if config.task_type == "regression":
        return (out_SC * config.scale + config.center).clamp(config.low, config.high)
    return out_SC.sigmoid()
