"""Metrics: a CSV that survives a restart, lines or a bar while training, curves at the end."""

from __future__ import annotations

import csv
import logging
import math
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from rfm.config import setting
from rfm.files import publish

_log = logging.getLogger("rfm")
WandbMode = Literal["offline", "online", "disabled"]
_HEADER = ["step", "metric", "value"]


@dataclass(frozen=True)
class LogConfig:
    """What is written down, how often, and when the run stops early."""

    every: int = setting(20, ge=1, help="steps between metrics")
    val_every: int = setting(100, ge=1, help="steps between validations")
    val_batches: int = setting(2, ge=1, help="validation batches per database")
    final_batches: int = setting(4, ge=1, help="the same after the last step")
    checkpoint_every: int = setting(500, ge=1, help="steps between checkpoints")
    stop_after: int = setting(0, ge=0, help="save and stop at this step; resume goes on; 0: never")
    wandb: WandbMode = "offline"
    wandb_project: str = "rfm"


def make_loggers(config: LogConfig, run_dir: Path) -> tuple[MetricsFile, list[Logger]]:
    """The CSV file, and wandb unless it is disabled."""
    others: list[Logger] = []
    if config.wandb != "disabled":
        from lightning.pytorch.loggers import WandbLogger

        run_dir.mkdir(parents=True, exist_ok=True)
        offline = config.wandb == "offline"
        others.append(
            WandbLogger(
                project=config.wandb_project,
                name=run_dir.name,
                save_dir=run_dir,
                offline=offline,
                settings={"silent": True, "console": "off"},
            )
        )
    return MetricsFile(run_dir, config.every), others


class MetricsFile(Logger):
    """``metrics.csv``: step, metric, value; one line each, appended as they come.

    On resume the lines after the resumed step are dropped, so that none is there twice.

    Args:
        every: steps between the lines of training.
    """

    def __init__(self, run_dir: Path, every: int) -> None:
        super().__init__()
        self.path = run_dir / "metrics.csv"
        self.every = every
        self._last: tuple[int | None, set[str]] = (None, set())

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """The run directory holds the config."""

    @rank_zero_only
    def begin(self, step: int) -> None:
        """Keep what was logged before ``step``: Lightning numbers steps from 0."""
        kept = [row for row in read_metrics(self.path) if row[0] < step]
        with publish(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_HEADER)
            writer.writerows(kept)

    def plot(self, out: Path) -> None:
        """Training losses (smoothed) and validation of each objective, as one PNG."""
        plot_curves(self.path, out)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append what is not there yet of this step."""
        there = self._last[1] if self._last[0] == step else set()
        rows = [(step, n, value) for n, value in metrics.items() if n not in {"epoch", *there}]
        self._last = step, there | metrics.keys()
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(rows)

    def log_training(self, trainer: Trainer) -> None:
        """Write the losses of the step just done now, before its checkpoint, and not after it as
        Lightning does."""
        if trainer.global_step % self.every == 0:
            logged = trainer.logged_metrics.items()
            train = {name: float(v) for name, v in logged if name.startswith("train/")}
            self.log_metrics(train, trainer.global_step - 1)


def read_metrics(path: Path) -> list[tuple[int, str, float]]:
    """Lines of a ``metrics.csv``; a last line cut short by a crash is left out."""
    if not path.is_file():
        return []
    rows = []
    with path.open(newline="") as file:
        try:
            for row in csv.reader(file):
                if len(row) == 3 and row != _HEADER:
                    rows.append((int(row[0]), row[1], float(row[2])))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} is damaged: {error}; move it away") from None
    return rows


class PlainProgress(Callback):
    """A line every ``every`` steps where there is no terminal, which has a progress bar."""

    def __init__(self, every: int, steps: int) -> None:
        self.every, self.steps = every, steps
        self._start, self._first, self._rows = 0.0, 0, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start, self._first = time.monotonic(), trainer.global_step
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.begin(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows += sum(bucket.token.shape[0] for bucket in batch.buckets)
        step, seconds = trainer.global_step, time.monotonic() - self._start
        within = (batch_idx + 1) % trainer.accumulate_grad_batches > 0
        if within or (step % self.every and step != self.steps) or on_terminal():
            return
        done = max(1, step - self._first)
        means = {
            name.removeprefix("train/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/")
        }
        _log.info(
            "step %d/%d  %s  %.0f rows/s  %.0f s, %.0f s left",
            step, self.steps, "  ".join(f"{n} {v:.3f}" for n, v in sorted(means.items())),
            self._rows / max(seconds, 1e-9), seconds, seconds / done * (self.steps - step),
        )  # fmt: skip


def on_terminal() -> bool:
    return sys.stderr.isatty()


def plot_curves(metrics: Path, out: Path) -> None:
    """What ``MetricsFile.plot`` draws."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    series: dict[str, list[tuple[int, float]]] = {}
    for step, name, value in read_metrics(metrics):
        if math.isfinite(value):
            series.setdefault(name, []).append((step, value))
    figure, axes = plt.subplots(2, 3, figsize=(15, 8), constrained_layout=True)
    for i, objective in enumerate(("value", "text", "link")):
        _plot_smoothed(axes[0, i], series.get(f"train/{objective}", []))
        axes[0, i].set_title(f"training: {objective}")
        names = [n for n in series if n.startswith(f"val/{objective}/") and n.count("/") == 2]
        for name in sorted(names):
            steps, values = zip(*series[name], strict=True)
            axes[1, i].plot(steps, values, marker=".", label=name.rsplit("/", 1)[1])
        axes[1, i].set_title(f"validation: {objective}")
        axes[1, i].set_xlabel("step")
        if names:
            axes[1, i].legend(fontsize=6)
    with publish(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def _plot_smoothed(axis: Any, points: list[tuple[int, float]]) -> None:
    if not points:
        return
    steps, values = zip(*points, strict=True)
    smooth, mean = [], values[0]
    for value in values:
        mean += (value - mean) * 0.1
        smooth.append(mean)
    axis.plot(steps, values, alpha=0.25)
    axis.plot(steps, smooth)
    if max(values) > 0:
        axis.set_yscale("log")
