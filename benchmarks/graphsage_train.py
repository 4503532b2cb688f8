"""What the from-scratch GraphSAGE of entity tasks and of recommendation have in common: settings,
what is sampled, and training with early stopping on validation."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from benchmarks.graphsage_data import Sampling
from benchmarks.graphsage_model import HeteroGraphSAGE
from rfm.config import setting
from rfm.data.attach import visible_database
from rfm.data.prepare import prepare
from rfm.data.sampler import Strategy, fan_outs
from rfm.data.tasks import Task, check_seed_times
from rfm.data.tokenizer import mixture_tokenizer
from rfm.files import default_cache


@dataclass(frozen=True)
class GraphSAGESettings:
    """RelBench's example, with fewer neighbours and narrower columns, so that a CPU can train it.

    The example has fan_out=(128,64), strategy=uniform, column_width=128, blocks=4, 10 epochs of at
    most 2000 steps, and for links a learning rate of 0.001 and 20 epochs.
    """

    cache: Path = setting(factory=default_cache, help="prepared stores")
    vocab_size: int = setting(4_096, ge=300, le=65_536, help="tokens that texts are hashed by")
    fan_out: tuple[int, ...] = setting((32, 8), help="children per hop and foreign key")
    strategy: Strategy = setting("last", help="which children: the latest, or any")
    width: int = setting(128, ge=2)
    column_width: int = setting(32, ge=1)
    blocks: int = setting(2, ge=1, help="residual blocks of a table's encoder")
    dropout: float = setting(0.2, ge=0, lt=1, help="of the tables' encoders")
    aggregation: Literal["sum", "mean", "max"] = "sum"
    lr: float = setting(0.005, gt=0)
    link_lr: float = setting(0.001, gt=0, help="learning rate for recommendation")
    batch: int = setting(512, ge=1, help="seed rows per step")
    epochs: int = setting(20, ge=1)
    epoch_steps: int = setting(200, ge=1, help="at most so many steps per epoch")
    patience: int = setting(5, ge=1, help="stop after so many epochs without a better validation")
    destinations: int = setting(256, ge=2, help="that a recommendation is told from, per step")

    def __post_init__(self) -> None:
        if not self.fan_out or min(self.fan_out) < 0:
            raise ValueError(
                f"fan_out={list(self.fan_out)}: wanted one or more numbers of children, 0 or more"
            )


Curve = tuple[tuple[int, float], ...]


def open_sampling(task: Task, settings: GraphSAGESettings) -> Sampling:
    """The task's database without its hidden columns, prepared, and without any label."""
    database = visible_database(task)
    tokenizer = mixture_tokenizer([database], settings.vocab_size, settings.cache)
    store = prepare(database, tokenizer, settings.cache)
    check_seed_times(task)
    fan_out = fan_outs(store.graph, settings.fan_out)
    return Sampling(store, fan_out, settings.strategy, task.kind == "autocomplete")


def build_network(sampling: Sampling, settings: GraphSAGESettings) -> HeteroGraphSAGE:
    return HeteroGraphSAGE(
        sampling,
        settings.width,
        settings.column_width,
        settings.blocks,
        settings.dropout,
        settings.aggregation,
    )


def first_row(sampling: Sampling, table: str) -> tuple[str, int]:
    """A table's name in batches, and its first global row."""
    graph = sampling.store.graph
    return f"t{graph.tables.index(table)}", graph.rows_of(table).start


def fit(
    network: nn.Module,
    train: Callable[[int], int],
    validate: Callable[[], float],
    higher: bool,
    settings: GraphSAGESettings,
) -> Curve:
    """Train until validation does not get better; the network is left as it was best.

    Args:
        train: trains the epoch of this number and returns its steps.
        validate: the validation score.
    """
    curve: list[tuple[int, float]] = []
    best, best_epoch, steps = math.nan, 0, 0
    state = copy.deepcopy(network.state_dict())
    for epoch in range(settings.epochs):
        network.train()
        steps += train(epoch)
        network.eval()
        with torch.no_grad():
            value = validate()
        curve.append((steps, value))
        if math.isnan(best) or (value > best if higher else value < best):
            best, best_epoch = value, epoch
            state = copy.deepcopy(network.state_dict())
        elif epoch - best_epoch >= settings.patience:
            break
    network.load_state_dict(state)
    network.eval()
    return tuple(curve)
