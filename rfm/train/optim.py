"""AdamW with warm-up and cosine decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from rfm.config import setting


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, schedule and what happens to gradients and weights on the way."""

    steps: int = setting(120, ge=1, help="optimiser steps")
    lr: float = setting(1e-3, gt=0)
    warmup: int = setting(20, ge=0, help="steps of linear warm-up")
    final_lr: float = setting(0.05, ge=0, le=1, help="share of lr left at the end of the cosine")
    weight_decay: float = setting(0.05, ge=0, help="of matrices; not of biases, norms, embeddings")
    betas: tuple[float, float] = setting((0.9, 0.98), ge=0, lt=1)
    clip: float = setting(1.0, ge=0, help="largest gradient norm, 0: no clipping")
    accumulate: int = setting(1, ge=1, help="batches per optimiser step")
    ema: float = setting(0.999, ge=0, lt=1, help="decay of the averaged weights, 0: none")


def make_optimizer(
    model: nn.Module,
    config: OptimConfig,
    faster: Iterable[nn.Parameter] = (),
    factor: float = 1.0,
    faster_decay: bool = True,
) -> torch.optim.AdamW:
    """AdamW: matrices decay, vectors and embeddings do not.

    Args:
        faster: parameters that learn ``factor`` times as fast. faster_decay: of these, too,
            matrices decay.
    """
    chosen = {id(p) for p in faster}
    embeddings = {
        id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim >= 2 and id(p) not in embeddings]
    others = [p for p in trained if p.ndim < 2 or id(p) in embeddings]
    groups = [
        {
            "params": [p for p in parameters if (id(p) in chosen) == is_faster],
            "weight_decay": decay if faster_decay or not is_faster else 0.0,
            "lr": config.lr * (factor if is_faster else 1.0),
        }
        for parameters, decay in ((decayed, config.weight_decay), (others, 0.0))
        for is_faster in (False, True)
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=config.lr, betas=config.betas
    )


def make_tuning_optimizer(
    model: nn.Module, config: OptimConfig, new: nn.Module | None = None, factor: float = 1.0
) -> AnchoredAdamW:
    """The same for fine-tuning: what has been pretrained decays towards the weights it has now.

    Args:
        new: a part that has not been pretrained, which learns ``factor`` times as fast.
    """
    faster = new.parameters() if new is not None else ()
    return AnchoredAdamW(make_optimizer(model, config, faster, factor).param_groups, config)


class AnchoredAdamW(torch.optim.AdamW):
    """AdamW whose weight decay pulls towards the weights at the start instead of zero (L2-SP; Li et
    al. 2018, arXiv 1802.01483), decoupled from the gradient as AdamW's own."""

    def __init__(self, groups: list[dict[str, Any]], config: OptimConfig) -> None:
        groups = [{"params": g["params"], "lr": g["lr"], "pull": g["weight_decay"]} for g in groups]
        super().__init__(groups, lr=config.lr, betas=config.betas, weight_decay=0.0)
        self.anchors = [[p.detach().clone() for p in g["params"]] for g in groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group, anchors in zip(self.param_groups, self.anchors, strict=True):
            for parameter, anchor in zip(group["params"], anchors, strict=True):
                parameter.lerp_(anchor.to(parameter.device), group["lr"] * group["pull"])
        return loss


def make_schedule(optimizer: torch.optim.Optimizer, config: OptimConfig) -> LambdaLR:
    """Linear warm-up, then a cosine down to ``final_lr * lr`` at the last step."""

    def factor(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / (config.warmup + 1)
        span = max(1, config.steps - config.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - config.warmup) / span)))
        return config.final_lr + (1 - config.final_lr) * cosine

    return LambdaLR(optimizer, factor)


def warm_average(
    averaged: torch.Tensor, current: torch.Tensor, updates: torch.Tensor | int, decay: float
) -> torch.Tensor:
    """One update of exponentially averaged weights, whose memory is short at first."""
    rate = min(decay, (1.0 + float(updates)) / (10.0 + float(updates)))
    # weights that stay as they are must do so to the last bit
    return averaged.lerp(current.to(averaged.dtype), 1 - rate)
