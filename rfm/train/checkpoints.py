"""Checkpoints to resume from: whole or absent, saved on time, on a signal, and at the end."""

from __future__ import annotations

import logging
import re
import signal
import zipfile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from rfm.config import is_first_process
from rfm.files import full_disk_said, remove
from rfm.train.metrics import MetricsFile

_log = logging.getLogger("rfm")
_NAME = re.compile(r"step-(\d+)\.ckpt")


def checkpoints(run_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [
        (int(match.group(1)), path)
        for path in (run_dir / "checkpoints").glob("step-*.ckpt")
        if (match := _NAME.fullmatch(path.name))
    ]
    return [path for _, path in sorted(found)]


def find_resume(resume: str, run_dir: Path) -> Path | None:
    """The checkpoint to go on from, or None to start; says which.

    Args:
        resume: ``auto`` (the last complete checkpoint of ``run_dir``, if any), ``never``, or a
            path to a checkpoint.

    Raises:
        ValueError: if the path does not exist.
    """
    if resume == "never":
        _log.info("resume=never: starting from step 0")
        return None
    if resume != "auto":
        if not resume or not _is_whole(Path(resume)):
            what = "no checkpoint, or truncated" if Path(resume).exists() else "no such checkpoint"
            raise ValueError(
                f"resume={resume}: {what}; wanted auto, never, or a path such as "
                f"{run_dir / 'checkpoints' / 'step-000100.ckpt'}"
            )
        _log.info("resuming from %s, as asked", resume)
        return Path(resume).resolve()
    found = checkpoints(run_dir)
    if not found:
        _log.info("resume=auto: no checkpoint in %s, starting from step 0", run_dir)
        return None
    if not _is_whole(found[-1]):
        raise ValueError(
            f"{found[-1]} is no checkpoint of a run, or was truncated: delete it, and resume=auto "
            "takes the one before; or start over with resume=never"
        )
    _log.info("resume=auto: resuming from %s", found[-1])
    return found[-1]


def start_over(run_dir: Path) -> None:
    """Remove the checkpoints and the model of an earlier run, and say so: before anything of the
    new one is written, whose they might be taken for."""
    old = checkpoints(run_dir)
    if (run_dir / "model").is_dir():
        old.append(run_dir / "model")
    if old and is_first_process():
        _log.info("resume=never: removing %s", ", ".join(str(path) for path in old))
        for path in old:
            remove(path)


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint is one of Lightning's and can be read; of a sharded one, which is a
    folder, all but the shards."""
    if path.is_dir() and not (path / ".metadata").is_file():
        return False
    file = path / "meta.pt" if path.is_dir() else path
    try:
        if is_first_process():  # all of it, once
            with zipfile.ZipFile(file) as archive:
                if archive.testzip() is not None:
                    return False
        state = torch.load(file, map_location="cpu", mmap=True, weights_only=False)
    except Exception:  # of whatever a file may hold that is no checkpoint
        return False
    return isinstance(state, dict) and "pytorch-lightning_version" in state


class Checkpoints(Callback):
    """Saves every ``every`` steps and at the end, and saves and stops on SIGTERM, SIGUSR1 or at
    ``stop_after``.

    A checkpoint is written under a temporary name and then renamed, so that one that can be seen
    is complete, whenever the process dies. It comes after the metrics of its step, which a crash
    would otherwise lose. All ranks stop at the same step. The last ``keep`` stay.
    """

    def __init__(self, run_dir: Path, every: int, stop_after: int, keep: int = 2) -> None:
        self.folder = run_dir / "checkpoints"
        self.every, self.stop_after, self.keep = every, stop_after, keep
        self.stopped_by = ""
        self._signal = ""
        self._saved = -1
        self._previous: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved = trainer.global_step
        if trainer.is_global_zero:
            self._clear(trainer.global_step)
        trainer.strategy.barrier()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            self._previous[number] = signal.signal(number, self._remember)

    def _clear(self, step: int) -> None:
        """Remove what a crash left unfinished, and checkpoints of an earlier run after ``step``."""
        for path in [*self.folder.glob(".step-*.ckpt"), *checkpoints(self.folder.parent)]:
            if path.name.startswith("."):
                remove(path)
            elif int(path.stem[len("step-") :]) > step:
                _log.info("removing %s, of an earlier run that went further", path)
                remove(path)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number).name

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step == self._saved or (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # within an accumulation
        validates = (batch_idx + 1) % int(trainer.val_check_interval) == 0
        stop = trainer.strategy.reduce_boolean_decision(bool(self._signal), all=False)
        if stop or step == self.stop_after:
            self.stopped_by = self._signal or ("a signal" if stop else f"stop_after={step}")
            trainer.should_stop = True
            if not validates:
                trainer.limit_val_batches = 0  # or Lightning would validate once more
            self.save(trainer)
            _log.info("stopped by %s at step %d; resume=auto goes on", self.stopped_by, step)
        elif self._is_due(trainer) and not validates:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == TrainerFn.FITTING and self._is_due(trainer):
            self.save(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        return trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def save(self, trainer: Trainer) -> None:
        """Write the checkpoint of this step; every rank must call it."""
        step = trainer.global_step
        if step == self._saved:
            return
        self._saved = step
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.log_training(trainer)
        path = self.folder / f"step-{step:06d}.ckpt"
        temporary = path.with_name(f".{path.name}")
        try:
            with full_disk_said(path):
                trainer.save_checkpoint(temporary)
        except ValueError:
            if trainer.is_global_zero:
                remove(temporary)
            raise
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            temporary.replace(path)
            for old in checkpoints(self.folder.parent)[: -self.keep]:
                remove(old)
        trainer.strategy.barrier()
