"""What each rank does in tests of several processes, and how to start them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from rfm.data.batch import PretrainBatch
from rfm.nn.model import RelationalModel
from rfm.nn.objectives import weigh
from rfm.train.pretrainer import shard, whole
from tests.tiny_model import OBJECTIVE_WEIGHTS


def spawn(function: Callable[..., None], ranks: int, folder: Path, *args: Any) -> None:
    """Run ``function(rank, *args)`` in processes joined by gloo."""
    torch.multiprocessing.spawn(  # type: ignore[no-untyped-call]
        _join, args=(function, ranks, folder, args), nprocs=ranks
    )


def _join(rank: int, function: Callable[..., None], ranks: int, folder: Path, args: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/{function.__name__}", rank=rank, world_size=ranks
    )
    try:
        function(rank, *args)
    finally:
        dist.destroy_process_group()


class Step(nn.Module):
    """The loss that a training step differentiates."""

    def __init__(self, model: RelationalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: PretrainBatch) -> Tensor:
        return weigh(self.model(batch).losses(), OBJECTIVE_WEIGHTS)[0]


def alone(model: Path, batches: Sequence[PretrainBatch]) -> dict[str, Tensor]:
    """Gradients of one process that sees all batches at once."""
    step = Step(load(model))
    losses = [step.model(batch).losses() for batch in batches]
    terms = []
    for name, weight in OBJECTIVE_WEIGHTS.items():
        count = torch.stack([loss[name].count for loss in losses]).sum().clamp(min=1)
        terms.append(weight * torch.stack([loss[name].total for loss in losses]).sum() / count)
    torch.stack(terms).sum().backward()
    return {n: p.grad for n, p in step.model.named_parameters() if p.grad is not None}


def load(model: Path) -> RelationalModel:
    """To be trained, as a run does, on batches that hold no episodes."""
    loaded = RelationalModel.from_pretrained(model).train()
    loaded.in_context.requires_grad_(False)
    return loaded


def ddp_gradients(rank: int, model: Path, cases: Path, out: Path) -> None:
    """Each case's gradients, each rank seeing one of its batches; twice, to show unused ones."""
    found = {}
    for name, batches in torch.load(cases, weights_only=False).items():
        inner = load(model)
        step = DistributedDataParallel(Step(inner), gradient_as_bucket_view=True)
        for _ in range(2):  # DDP notices in the second what was unused in the first
            step.zero_grad()
            step(batches[rank]).backward()
        found[name] = {n: p.grad.clone() for n, p in inner.named_parameters() if p.grad is not None}
    torch.save(found, out / f"{rank}.pt")


def sharded_gradients(rank: int, model: Path, cases: Path, out: Path) -> None:
    """The same, sharded over a mesh of processes; and the whole model, for saving."""
    found = {}
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for name, batches in torch.load(cases, weights_only=False).items():
        inner = load(model)
        assert whole(inner) is inner
        shard(inner, mesh)
        Step(inner)(batches[rank]).backward()
        found[name] = {
            n: p.grad.full_tensor() for n, p in inner.named_parameters() if p.grad is not None
        }
        copy = whole(inner)
        if rank == 0:
            copy.save_pretrained(out / "whole")
    torch.save(found, out / f"{rank}.pt")
