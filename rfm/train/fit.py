"""Fine-tune a model on the labels of a query."""

from __future__ import annotations

import copy
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml
from lightning import seed_everything

from rfm.config import setting
from rfm.data.database import Database, open_database
from rfm.data.query import CompiledQuery, compile_text, write_task
from rfm.data.questions import QuestionConfig
from rfm.data.schema import shown_time
from rfm.data.tasks import Regime, Task, list_tasks, open_task
from rfm.eval.asking import open_questions
from rfm.eval.posing import anchor_time, check_classes, check_single, is_static
from rfm.eval.predictions import check_scorable
from rfm.files import alone, content_hash, publish
from rfm.nn.model import RelationalModel
from rfm.train.finetuner import TuneConfig, decide_parts, head_config
from rfm.train.optim import OptimConfig
from rfm.train.process import without_advice
from rfm.train.trainer import TrainerConfig, decided, loader_workers, uses_gpu
from rfm.train.tuned import describe_tuning
from rfm.train.tuning import Run, Tuned, tune, tuning_optim

_log = logging.getLogger("rfm")
_AROUND = (0.1, 0.9)  # of the residuals: between what 80 % of the outcomes lie


@dataclass(frozen=True)
class FitConfig:
    """How a query is learnt."""

    regime: Regime = setting("rolling", help="frozen: the database stops where the split begins")
    seed: int = setting(0, ge=0, lt=2**32)
    question: QuestionConfig = setting(factory=QuestionConfig)
    tune: TuneConfig = setting(factory=TuneConfig)
    optim: OptimConfig = setting(factory=tuning_optim)
    trainer: TrainerConfig = setting(factory=TrainerConfig)


def fit(
    model: RelationalModel,
    compiled: CompiledQuery,
    database: Database,
    cache: Path,
    config: FitConfig,
) -> tuple[RelationalModel, Tuned]:
    """A copy of a model that has learnt to answer a query, from labels up to the database's test
    timestamp; validation labels chose the step. And what came of it: scores of both splits.

    Raises:
        ValueError: for a query without enough labels; see ``write_task``, ``check_scorable``.
    """
    check_single(compiled)
    task = write_query(compiled, database, cache)
    check_classes(task.classes, task.target)
    check_scorable(task)
    seed_everything(config.seed, verbose=False)
    own = copy.deepcopy(model)
    parts = decide_parts(config.tune.parts, "given", uses_gpu(config.trainer))
    sampler = open_questions(own, task, config.question, cache, parts != "all")
    own.add_head(head_config(sampler, config.tune.reads), config.tune.dropout)
    tuning, trainer = replace(config.tune, parts=parts), decided(config.trainer)
    workers = loader_workers(-1, trainer)
    run = Run(config.regime, parts, tuning, config.optim, trainer, workers, config.seed)
    with without_advice():
        tuned = tune(own, sampler, run, [])
    own.about["finetuned"] = {
        **describe_tuning(sampler, run, tuned, "given"),
        "query": compiled.text,
        "classes": list(task.classes),
        "around": residuals(task, tuned),
        "until": task.database.test_timestamp,
        "scores": {
            "metric": tuned.metric,
            "validation": tuned.validation,
            "test": tuned.test,
        },
    }
    return own.eval(), tuned


def residuals(task: Task, tuned: Tuned) -> list[float]:
    """Of numbers: what is added to a prediction for its low and its high, by validation rows
    (split conformal prediction); of others nothing."""
    if task.task_type != "regression":
        return []
    off = task.rows("val").label[:, 0] - tuned.predictions["val"].value[:, 0]
    return [float(x) for x in np.nanquantile(off, _AROUND)]


def write_query(compiled: CompiledQuery, database: Database, cache: Path) -> Task:
    """The query as a task of a folder in the cache, which has the database's own tables: the
    database's folder stays as it is.

    Raises:
        ValueError: see ``write_task``.
    """
    val, test = split_for(compiled, database)
    manifest = yaml.safe_load((database.folder / "manifest.yaml").read_text(encoding="utf-8"))
    manifest |= {"val_timestamp": shown_time(val), "test_timestamp": shown_time(test)}
    content = {name: database.fingerprint(name) for name in database.tables}
    kinds = {name: dict(columns) for name, columns in database.overrides.items()}
    asked = [compiled.text, compiled.name, compiled.task_type]
    folder = cache / "queries" / content_hash([str(manifest), content, kinds, asked])
    with alone(folder):
        if not folder.is_dir():
            with publish(folder) as unfinished:
                unfinished.mkdir()
                text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True)
                (unfinished / "manifest.yaml").write_text(text, encoding="utf-8")
                os.symlink((database.folder / "db").resolve(), unfinished / "db")
                same = database.with_timestamps(val, test)
                written = write_task(compile_text(compiled.text, same), same, unfinished)
                _log.info("%s", written.words())
    opened = replace(open_database(folder), overrides=database.overrides)
    return open_task(opened, list_tasks(opened)[0])


def split_for(compiled: CompiledQuery, database: Database) -> tuple[int, int]:
    """Validation and test timestamp: the database's own, where a window of the query fits between
    them and after them; else so late that one does."""
    val, test = database.val_timestamp, database.test_timestamp
    if is_static(compiled):
        return val, test
    last, window = anchor_time(compiled, database, None), compiled.timedelta
    if window <= test - val and window <= last - test:
        return val, test
    return last - 2 * window, last - window
