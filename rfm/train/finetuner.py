"""Fine-tuning as a LightningModule: it calls the model and logs; the best weights are kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from rfm.config import setting
from rfm.data.batch import RecommendBatch, TaskBatch
from rfm.data.questions import QuestionSampler
from rfm.data.task_rows import Ints
from rfm.data.tasks import Task
from rfm.eval.predict import Answerer, Asked
from rfm.eval.predictions import higher_is_better, score_rows
from rfm.nn.heads import EntityHead, HeadConfig, LinkHead
from rfm.nn.model import RelationalModel
from rfm.train.optim import OptimConfig, make_schedule, make_tuning_optimizer

AnyTaskBatch: TypeAlias = TaskBatch | RecommendBatch
Parts = Literal["all", "graph", "head"]
_SIGMA = 1.4826  # times the median absolute deviation: the standard deviation of a normal one
_NARROWEST = 0.1  # of the standard deviation, where most targets are the same
_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class TuneConfig:
    """What is tuned, and when it is enough."""

    parts: Literal["auto", "all", "graph", "head"] = setting(
        "auto",
        help="all weights; graph: all but the row encoder, whose states are cached; head: the head "
        "alone; auto: graph on a CPU, all on a GPU and without a checkpoint",
    )
    dropout: float = setting(0.0, ge=0, lt=1, help="in the head")
    reads: bool = setting(
        True, help="the head sees what the masked label has read, not the question's node alone"
    )
    stale: bool = setting(
        True, help="frozen: training rows see as old a database as validation rows do"
    )
    val_every: int = setting(25, ge=1, help="steps between validations")
    val_rows: int = setting(2000, ge=1, help="validation rows that choose the step, at most")
    patience: int = setting(8, ge=0, help="validations without a better one to stop; 0: never")
    lrs: tuple[float, ...] = setting(
        (), gt=0, help="learning rates of which the best on validation is kept; empty: optim.lr"
    )
    head_lr_factor: float = setting(
        4.0,
        gt=0,
        help="times optim.lr: the learning rate of a head that has not been pretrained at all "
        "(that of a recommendation has)",
    )
    refit: bool = setting(False, help="train anew on train and val, for the best number of steps")


class Finetuner(LightningModule):
    """Holds the model; is not the model.

    Args:
        model: with its head, the last of its heads.
        asked: the questions that are validated on: rows [n] of the validation split.
        head_lr_factor: see ``TuneConfig``.
    """

    def __init__(
        self,
        model: RelationalModel,
        task: Task,
        parts: Parts,
        optim: OptimConfig,
        asked: Asked,
        rows: Ints,
        seed: int,
        head_lr_factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.model, self.task, self.asked, self.rows = model, task, asked, rows
        self.optim, self.seed, self.head_lr_factor = optim, seed, head_lr_factor
        choose_parts(model, parts)
        self.answered, self.answerer = torch.zeros(0), Answerer(model, asked)

    def transfer_batch_to_device(
        self, batch: AnyTaskBatch, device: torch.device, dataloader_idx: int
    ) -> AnyTaskBatch:
        return batch.to(device, non_blocking=True)

    def on_train_batch_start(self, batch: AnyTaskBatch, batch_idx: int) -> None:
        torch.manual_seed(hash((self.seed, self.trainer.global_step, batch_idx, self.global_rank)))

    def training_step(self, batch: AnyTaskBatch, batch_idx: int) -> Tensor:
        head = self.model.head
        loss = head.losses(self.model.backbone(batch), batch).mean()  # type: ignore[arg-type]
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        shape = len(self.asked.questions), self.model.head.config.outputs
        self.answered = torch.zeros(shape, device=self.device, dtype=torch.float64)
        self.answerer = Answerer(self.model, self.asked)

    def validation_step(self, batch: AnyTaskBatch, batch_idx: int) -> None:
        self.answered[batch.question] = self.answerer(batch)

    def validation_score(self) -> float:
        """The task's metric on the validation questions that were answered last."""
        answered = self.trainer.strategy.reduce(self.answered, reduce_op="sum")
        assert isinstance(answered, Tensor)
        return score_rows(self.task, "val", self.rows, answered.cpu().numpy())

    def configure_optimizers(self) -> Any:
        head = self.model.head
        new = head if isinstance(head, EntityHead) else None
        optimizer = make_tuning_optimizer(self.model, self.optim, new, self.head_lr_factor)
        schedule = make_schedule(optimizer, self.optim)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def choose_parts(model: RelationalModel, parts: Parts) -> None:
    """Let only these parts be trained; never what the task does not ask for: the decoder, the
    objectives. Several processes would wait for gradients that never come."""
    model.train().requires_grad_(False)
    model.head.requires_grad_(True)
    head = model.head
    if isinstance(head, LinkHead):
        head.link.popularity.requires_grad_(False)  # ``seen`` has it
    if parts == "head":
        return
    model.backbone.requires_grad_(True)
    if isinstance(head, LinkHead) or not head.config.reads:
        model.backbone.cell_attention.requires_grad_(False)  # no mask reads anything
    row_encoder = model.backbone.row_encoder
    row_encoder.bart.decoder.requires_grad_(False)
    row_encoder.bart.shared.requires_grad_(True)  # the decoder's, too
    if parts == "graph":
        row_encoder.freeze()


def decide_parts(parts: str, checkpoint: str, gpu: bool) -> Parts:
    """What ``auto`` stands for."""
    if parts != "auto":
        return parts  # type: ignore[return-value]
    return "all" if gpu or checkpoint == "none" else "graph"


def head_config(sampler: QuestionSampler, reads: bool = True) -> HeadConfig:
    """The head that a task needs. The sampler will tell questions in the same way."""
    task = sampler.attached.task
    outputs = task.top_k or task.outputs
    scale: dict[str, float] = {}
    if task.task_type == "regression":
        scale = target_scale(task.rows("train").label)
    told = 0
    if task.task_type != "recommendation":
        told = sampler.tell(scale.get("center", 0.0), scale.get("scale", 1.0))
    return HeadConfig(task.full_name, task.task_type, outputs, reads=reads, told=told, **scale)


def target_scale(label: npt.NDArray[np.float64]) -> dict[str, float]:
    """How targets are standardised and clipped by training labels (NaN: null), as ``HeadConfig``
    has it. The loss is quadratic up to half of their robust spread: of targets with a long tail,
    half of a standard deviation is nearly everywhere, and would teach means where the metric asks
    for medians."""
    label = label[~np.isnan(label)]
    center, spread = float(np.median(label)), float(label.std()) or 1.0
    around = _SIGMA * float(np.median(np.abs(label - center)))
    return {
        "center": center,
        "scale": spread,
        "low": float(label.min()),
        "high": float(label.max()),
        "quadratic": 0.5 * min(max(around / spread, _NARROWEST), 1.0),
    }


class KeepBest(Callback):
    """Remembers the weights of the best validation, and stops when there has been no better one
    for ``patience`` validations (0: never). It must come before the callback that averages weights:
    what it remembers are the averaged ones, which were validated."""

    def __init__(self, metric: str, patience: int) -> None:
        self.metric, self.patience = metric, patience
        self.sign = 1.0 if higher_is_better(metric) else -1.0
        self.curve: list[tuple[int, float]] = []
        self.step, self.weights = 0, dict[str, Tensor]()

    @property
    def score(self) -> float:
        """The best so far."""
        return max((score for _, score in self.curve), key=lambda s: self.sign * s)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Finetuner)
        score = pl_module.validation_score()
        pl_module.log(f"val/{self.metric}", score, rank_zero_only=True)
        better = not self.curve or self.sign * score > self.sign * self.score
        self.curve.append((trainer.global_step, score))
        _log.info("step %d  validation %s %.4f", trainer.global_step, self.metric, score)
        if better:
            self.step, self.weights = trainer.global_step, trained_weights(pl_module.model)
        behind = sum(step > self.step for step, _ in self.curve)
        if self.patience and behind >= self.patience:
            trainer.should_stop = True


def trained_weights(model: RelationalModel) -> dict[str, Tensor]:
    """Copies of the weights that are trained, by name."""
    named = model.named_parameters()
    return {name: p.detach().cpu().clone() for name, p in named if p.requires_grad}
