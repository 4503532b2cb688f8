"""The Lightning Trainer of a run, from config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from rfm.config import setting
from rfm.nn.bf16_linear import has_fast_bf16
from rfm.train.metrics import LogConfig, on_terminal
from rfm.train.optim import OptimConfig, warm_average
from rfm.train.run_dir import new_run_dir

StrategyName = Literal["auto", "ddp", "sharded"]


@dataclass(frozen=True)
class TrainerConfig:
    """Where and how to compute."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = setting(
        0, ge=0, help="processes per node; 0: as torchrun says, all GPUs, or one on CPU"
    )
    nodes: int = setting(1, ge=1)
    strategy: StrategyName = setting("auto", help="auto: ddp if there are several; sharded: FSDP2")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", help="auto: bf16 where the hardware has it; on a CPU of the row encoder's products"
    )
    compile: bool = setting(False, help="torch.compile the row encoder")
    deterministic: bool = setting(False, help="only deterministic kernels on GPU")


def uses_gpu(config: TrainerConfig) -> bool:
    return config.accelerator != "cpu" and torch.cuda.is_available()


def processes(config: TrainerConfig) -> tuple[int, int]:
    """Processes per node, and nodes: as asked, as torchrun started them, or one per GPU."""
    started = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    gpus = torch.cuda.device_count() if uses_gpu(config) else 0
    devices = config.devices or started or gpus or 1
    if started and config.devices not in (0, started):
        raise ValueError(
            f"trainer.devices={config.devices}, but torchrun started {started} processes: leave "
            "trainer.devices out, or give both the same number"
        )
    world = int(os.environ.get("WORLD_SIZE", "0")) if started else 0
    return devices, max(config.nodes, world // started if started else 1)


def make_trainer(
    config: TrainerConfig,
    optim: OptimConfig,
    log: LogConfig,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
    first: Sequence[Callback] = (),
    stop_at: int = 0,
    from_start: bool = False,
) -> Trainer:
    """A trainer for ``optim.steps`` optimiser steps over endless batches.

    Args:
        first: callbacks that come before the averaging of weights: they see the averaged ones when
            a validation ends.
        stop_at: stop at this step of the schedule; 0: at its end.
        from_start: validate before the first step, too.
    """
    gpu = uses_gpu(config)
    devices, nodes = processes(config)
    averaging = [Averaging(optim.ema)] if optim.ema > 0 else []
    bar = [TQDMProgressBar()] if on_terminal() else []
    return Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(config.strategy, devices * nodes),
        precision=_precision(config),
        max_steps=stop_at or optim.steps,
        max_epochs=-1,
        accumulate_grad_batches=optim.accumulate,
        gradient_clip_val=optim.clip or None,
        use_distributed_sampler=False,
        val_check_interval=log.val_every * optim.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=-1 if from_start else 0,
        log_every_n_steps=log.every,
        logger=list(loggers),
        callbacks=[*first, *averaging, *callbacks, *bar],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=on_terminal(),
        deterministic=config.deterministic,
        plugins=_plugins(),
    )


def _plugins() -> list[Any]:
    # our own checkpoint on SIGUSR1 makes the job requeue-able; Lightning must not do it too
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


class Averaging(WeightAveraging):
    """Exponentially averaged weights, which validation and the saved model use."""

    def __init__(self, decay: float) -> None:
        def average(averaged: torch.Tensor, current: torch.Tensor, updates: Any) -> torch.Tensor:
            return warm_average(averaged, current, updates, decay)

        super().__init__(use_buffers=False, avg_fn=average)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A finished run that is resumed has no training to end, where Lightning would do this."""
        self._copy_average_to_current(pl_module)


def _strategy(name: StrategyName, processes: int) -> Strategy | str:
    if name == "sharded":
        return ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)
    if name == "ddp" or processes > 1:
        return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True)
    return "auto"


def _precision(config: TrainerConfig) -> Any:
    # on a CPU the layers themselves choose: see bf16_on_cpu
    return "bf16-mixed" if uses_gpu(config) and decided(config).precision == "bf16" else "32-true"


def check_trainer(config: TrainerConfig, optim: OptimConfig) -> None:
    """
    Raises:
        ValueError: for what cannot work, here or together.
    """
    if config.accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator=gpu, but torch sees no GPU: use auto or cpu")
    if config.strategy == "sharded" and optim.ema > 0:
        raise ValueError("trainer.strategy=sharded does not keep averaged weights: set optim.ema=0")
    processes(config)


def decided(config: TrainerConfig) -> TrainerConfig:
    """The same with the precision that ``auto`` stands for on this machine, so that a run is not
    gone on with in another."""
    if config.precision != "auto":
        return config
    fast = torch.cuda.is_bf16_supported() if uses_gpu(config) else has_fast_bf16()
    return replace(config, precision="bf16" if fast else "fp32")


def bf16_on_cpu(config: TrainerConfig) -> bool:
    """Whether a CPU computes and takes the row encoder's matrix products in bfloat16.

    Autocast would do so with all layers, whose ever new shapes are compiled for longer than they
    save.
    """
    return not uses_gpu(config) and decided(config).precision == "bf16"


def choose_run_dir(asked: Path | None, name: str, config: TrainerConfig) -> Path:
    """The run directory that was asked for, else a new one.

    Raises:
        ValueError: for several processes without one: they could not agree on a new name.
    """
    if asked is not None and asked.exists() and not asked.is_dir():
        raise ValueError(f"run_dir={asked} is a file: give a folder")
    if asked is not None and (asked / "model").is_file():
        raise ValueError(f"run_dir={asked} holds a file where its model would go: give another")
    if asked is not None:
        return asked
    devices, nodes = processes(config)
    if devices * nodes > 1:
        raise ValueError("run_dir is needed where several processes run: give run_dir=<folder>")
    return new_run_dir(name)


def loader_workers(asked: int, config: TrainerConfig) -> int:
    """Loader processes per device: drawing a batch costs a CPU little beside a step."""
    return asked if asked >= 0 else (4 if uses_gpu(config) else 0)
