"""Fine-tune a model on one task, once: train, choose the step on validation rows, predict."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from lightning import seed_everything
from lightning.pytorch.loggers import Logger

from rfm.data.datamodule import BatchData
from rfm.data.questions import QuestionSampler, TrainingQuestions
from rfm.data.recommend import RecommendSampler, TrainingLinks
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime
from rfm.eval.predict import ask_all, predict
from rfm.eval.predictions import METRICS, Predictions, score
from rfm.nn.model import RelationalModel
from rfm.train.finetuner import Finetuner, KeepBest, Parts, TuneConfig, trained_weights
from rfm.train.metrics import LogConfig, PlainProgress, WandbMode
from rfm.train.optim import OptimConfig
from rfm.train.trainer import TrainerConfig, loader_workers, make_trainer

_log = logging.getLogger("rfm")


def tuning_optim() -> OptimConfig:
    """How a task is learnt, unless something else is said."""
    return OptimConfig(steps=300, lr=5e-4, warmup=20, ema=0.98)


@dataclass(frozen=True)
class Tuned:
    """metric: the task's. validation, test: scores on all rows of the splits. curve: (step, score
    on the validation rows that chose the step). predictions: by split."""

    metric: str
    validation: float
    test: float
    steps: int
    lr: float
    seconds: float
    curve: tuple[tuple[int, float], ...]
    predictions: dict[TaskSplit, Predictions]


@dataclass(frozen=True)
class Run:
    """What a run is made of besides the model."""

    regime: Regime
    parts: Parts
    tune: TuneConfig
    optim: OptimConfig
    trainer: TrainerConfig
    workers: int
    seed: int


def tune(
    model: RelationalModel, sampler: QuestionSampler, run: Run, loggers: Sequence[Logger]
) -> Tuned:
    """Train the last head of a model, and the parts of it that are asked for, in place.

    Raises:
        ValueError: see ``score``.
    """
    start = time.monotonic()
    task = sampler.attached.task
    before = trained_weights(model)
    tried: list[tuple[Run, KeepBest]] = []
    for lr in run.tune.lrs or (run.optim.lr,):
        model.load_state_dict(before, strict=False)
        with_lr = replace(run, optim=replace(run.optim, lr=lr))
        best = KeepBest(METRICS[task.task_type], run.tune.patience)
        _fit(model, sampler, with_lr, ["train"], run.optim.steps, loggers, best)
        _log.info("lr %g: validation %s %.4f at step %d", lr, best.metric, best.score, best.step)
        tried.append((with_lr, best))
    run, best = max(tried, key=lambda one: one[1].sign * one[1].score)
    model.load_state_dict(best.weights, strict=False)
    validation = _answer(model, sampler, "val", run.regime)
    if run.tune.refit and best.step:
        _log.info("once more on train and val rows, %d steps", best.step)
        model.load_state_dict(before, strict=False)
        _fit(model, sampler, run, ["train", "val"], best.step, loggers, None)
    test = _answer(model, sampler, "test", run.regime)
    return Tuned(
        metric=best.metric,
        validation=score(task, "val", validation),
        test=score(task, "test", test),
        steps=best.step,
        lr=run.optim.lr,
        seconds=time.monotonic() - start,
        curve=tuple(best.curve),
        predictions={"val": validation, "test": test},
    )


def _answer(
    model: RelationalModel, sampler: QuestionSampler, split: TaskSplit, regime: Regime
) -> Predictions:
    asked = ask_all(sampler, sampler.ask([split], regime))
    return Predictions.of(sampler.attached.task, split, predict(model, asked))


def _fit(
    model: RelationalModel,
    sampler: QuestionSampler,
    run: Run,
    splits: Sequence[TaskSplit],
    steps: int,
    loggers: Sequence[Logger],
    best: KeepBest | None,
) -> None:
    seed_everything(run.seed, verbose=False)
    task = sampler.attached.task
    stale = np.zeros(0, dtype=np.int64)
    if run.regime == "frozen" and run.tune.stale:
        stale = task.staleness()
    questions = sampler.ask(splits, "rolling")
    train: TrainingLinks | TrainingQuestions
    if isinstance(sampler, RecommendSampler):
        train = TrainingLinks(sampler, questions, stale, run.seed)
    else:
        train = TrainingQuestions(sampler, questions, stale, run.seed)
    chosen = validation_rows(len(task.rows("val")), run.tune.val_rows)
    val = ask_all(sampler, sampler.ask(["val"], run.regime).take(chosen))
    log = log_config(steps, run.tune)
    trainer = make_trainer(
        run.trainer,
        run.optim,
        log if best is not None else replace(log, val_every=steps + 1),
        loggers,
        [PlainProgress(log.val_every, steps)],
        [best] if best is not None else [],
        stop_at=steps,
        from_start=best is not None,
    )
    module = Finetuner(
        model, task, run.parts, run.optim, val, chosen, run.seed, run.tune.head_lr_factor
    )
    trainer.fit(module, BatchData(train, val, loader_workers(run.workers, run.trainer)))
    model.to(trainer.strategy.root_device)


def log_config(steps: int, tune: TuneConfig, wandb: WandbMode = "disabled") -> LogConfig:
    """How often a run of so many steps writes and validates."""
    return LogConfig(every=min(20, steps), val_every=min(tune.val_every, steps), wandb=wandb)


def validation_rows(rows: int, most: int) -> Ints:
    """Which rows of the validation split choose the step: all, or as many as may, the same in all
    runs."""
    if rows <= most:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
