"""Pretraining as a LightningModule: it calls the model, sums the losses and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from transformers import BartModel

from rfm.config import setting
from rfm.data.batch import PretrainBatch
from rfm.data.mixture import Mixture
from rfm.eval.pretraining import OBJECTIVES, ColumnOwners, table, tally
from rfm.nn.model import RelationalModel
from rfm.nn.objectives import weigh
from rfm.train.optim import OptimConfig, make_optimizer, make_schedule

_CLOSED_FORM = 20.0  # times as fast: a hundred weights, which must go farther than matrices do


@dataclass(frozen=True)
class LossWeights:
    """Factors of the mean losses; about equal shares at the start."""

    value: float = setting(10.0, ge=0, help="of masked values, per value")
    text: float = setting(0.5, ge=0, help="of masked texts, per token")
    link: float = setting(1.0, ge=0, help="of links, per cut link")
    context: float = setting(2.0, ge=0, help="of episodes, per query")
    expected: float = setting(
        10.0, ge=0, help="of labels of episodes, expected without examples, per question"
    )


class Pretrainer(LightningModule):
    """Holds the model; is not the model."""

    def __init__(
        self,
        model: RelationalModel,
        mixture: Mixture,
        weights: LossWeights,
        optim: OptimConfig,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.weights, self.optim, self.seed = weights, optim, seed
        names = [store.name for store in mixture.stores]
        self.owners = ColumnOwners.of(names, mixture.columns, mixture.relations)
        self.sharded = False
        self.sums = torch.zeros(0)
        self.report: list[dict[str, Any]] = []

    def configure_model(self) -> None:
        """Shard the layers over the data-parallel ranks (FSDP2), where the strategy asks for it."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not self.sharded:
            assert self.device_mesh is not None
            self.sharded = True
            shard(self.model, self.device_mesh["data_parallel"])

    def transfer_batch_to_device(
        self, batch: PretrainBatch, device: torch.device, dataloader_idx: int
    ) -> PretrainBatch:
        return batch.to(device, non_blocking=True)

    def on_train_batch_start(self, batch: PretrainBatch, batch_idx: int) -> None:
        # dropout draws by step, so that a resumed run draws the same
        torch.manual_seed(hash((self.seed, self.trainer.global_step, batch_idx, self.global_rank)))

    def training_step(self, batch: PretrainBatch, batch_idx: int) -> Tensor:
        losses = self.model(batch).losses()
        total, means = weigh(losses, vars(self.weights))
        self.log_dict({f"train/{name}": mean for name, mean in means.items()})
        loss = sum(vars(self.weights)[name] * mean.nan_to_num() for name, mean in means.items())
        self.log("train/loss", loss, prog_bar=True)  # of all ranks, as the means are
        return total

    def on_validation_epoch_start(self) -> None:
        self.sums = torch.zeros(len(self.owners.names), len(OBJECTIVES), 4, dtype=torch.float64)

    def validation_step(self, batch: PretrainBatch, batch_idx: int) -> None:
        self.sums += tally(self.model, batch, self.owners)

    def on_validation_epoch_end(self) -> None:
        sums = self.trainer.strategy.reduce(self.sums.to(self.device), reduce_op="sum")
        self.report = table(sums.cpu(), self.owners.names)
        if self.trainer.state.fn == TrainerFn.VALIDATING:  # the last, of a resumed run or not
            self.log("step", float(self.trainer.global_step), rank_zero_only=True)
        for row in self.report:
            prefix = f"val/{row['objective']}/{row['database']}"
            self.log(prefix, row["model"], rank_zero_only=True)
            for other in ("marginal", "without_edges"):
                self.log(f"{prefix}/{other}", row[other], rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        closed_form = self.model.in_context.closed_form()
        optimizer = make_optimizer(self.model, self.optim, closed_form, _CLOSED_FORM, False)
        schedule = make_schedule(optimizer, self.optim)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def shard(model: RelationalModel, mesh: DeviceMesh) -> None:
    """Shard the parameters over a mesh (FSDP2), in place.

    Only modules that every rank calls equally often may gather by themselves: GraphSAGE's layers.
    BART runs once per length bucket, of which ranks have different numbers, so that it is gathered
    once per step with all the rest.
    """
    for module in (model.backbone.enter, *model.backbone.sage.layers):
        fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    register_fsdp_forward_method(model, "compare")


def whole(model: RelationalModel) -> RelationalModel:
    """The model with all of its parameters, to be saved; of a sharded one a copy is made.

    Every rank must call it.
    """
    if not isinstance(model, FSDPModule):
        return model
    bart = BartModel(model.backbone.row_encoder.bart.config)
    copy = RelationalModel(model.settings, bart, model.tokenizer, model.about)
    copy.load_state_dict(
        get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    )
    return copy
