"""Questions of the tasks of ``tests/task_folders.py``: opened, asked, taken apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from rfm.data import questions as questions_module
from rfm.data import recommend as recommend_module
from rfm.data.attach import AttachedTask, attach_task
from rfm.data.batch import RecommendBatch, TaskBatch
from rfm.data.cached import RowStates
from rfm.data.database import open_database
from rfm.data.prepare import prepare
from rfm.data.questions import QuestionConfig, Questions, QuestionSampler, TrainingQuestions
from rfm.data.recommend import AskedLinks, RecommendSampler, TrainingLinks
from rfm.data.sampler import Subgraph, sample
from rfm.data.serialise import TokenIds
from rfm.data.store import RowStore, Serialisation
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime, Task, open_task
from rfm.data.tokenizer import Tokenizer, mixture_tokenizer
from rfm.eval.predict import ask_all
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from rfm.train.finetuner import head_config

SMALL = QuestionConfig(
    children=6, history=8, grandchildren=2, max_rows=60, size=8, eval_size=16, bucket_rows=8
)
CENTER, SCALE = 0.5, 2.0  # of regressions' past labels
AnyBatch = TaskBatch | RecommendBatch


@dataclass(frozen=True)
class Asker:
    """A task, attached and prepared, and what asks its questions."""

    attached: AttachedTask
    store: RowStore
    tokenizer: Tokenizer
    sampler: QuestionSampler

    @property
    def task(self) -> Task:
        return self.attached.task

    def asked(self, split: TaskSplit, regime: Regime) -> Questions:
        return self.sampler.ask([split], regime)

    def batches(self, questions: Questions) -> list[AnyBatch]:
        """Of all questions; in a recommendation with all destinations that there are by then."""
        sampler = self.sampler
        if not isinstance(sampler, RecommendSampler):
            every = ask_all(sampler, questions)
            return [every[i] for i in range(len(every))]
        chunks = AskedLinks(sampler, questions).chunks
        return [pose(sampler, questions, chunk) for chunk in chunks]

    def one_by_one(self, questions: Questions) -> Iterator[tuple[int, AnyBatch]]:
        """(number, batch) of every question, each in a batch of its own."""
        for i in range(len(questions)):
            yield i, self.batch(questions, i)

    def batch(self, questions: Questions, i: int) -> AnyBatch:
        number, sampler = np.array([i]), self.sampler
        if isinstance(sampler, RecommendSampler):
            return pose(sampler, questions, number)
        return sampler.batch(questions, number, 0)

    def component(self, questions: Questions, i: int) -> tuple[AnyBatch, Subgraph]:
        """A question's batch, and the component that was sampled for it."""
        module = recommend_module if self.task.top_k else questions_module
        with mock.patch.object(module, "sample", wraps=sample) as spy:
            found = []
            spy.side_effect = lambda *args: found.append(sample(*args)) or found[-1]
            batch = self.batch(questions, i)
        return batch, found[0]

    def training(self, stale: Ints, count: int) -> list[AnyBatch]:
        """The first training batches."""
        questions = self.asked("train", "rolling")
        endless: Any
        if isinstance(self.sampler, RecommendSampler):
            endless = TrainingLinks(self.sampler, questions, stale, 3)
        else:
            endless = TrainingQuestions(self.sampler, questions, stale, 3)
        return [endless[i] for i in range(count)]

    def own_rows(self, rows: Ints) -> Ints:
        """Those of some global rows that are of the attached table, as numbers within it."""
        own = self.store.graph.rows_of(self.attached.table)
        return rows[(rows >= own.start) & (rows < own.stop)] - own.start


def pose(sampler: RecommendSampler, questions: Questions, number: Ints) -> RecommendBatch:
    """Questions of one moment and all destinations that there are by then."""
    moment = moment_of(questions, number)
    return sampler.pose(questions, number, sampler.visible(moment[1]), moment, 0)


def moment_of(questions: Questions, number: Ints) -> tuple[int, int]:
    return int(questions.now[number[0]]), int(questions.cutoff[number[0]])


def ask(
    folder: Path,
    name: str,
    cache: Path,
    tokenizer: Tokenizer | None = None,
    serialisation: Serialisation = "compact",
    config: QuestionConfig = SMALL,
    states: RowStates | None = None,
    **changes: Any,
) -> Asker:
    """A task of a folder; ``changes`` are those of ``QuestionConfig``."""
    database = open_database(folder)
    task = open_task(database, name)
    tokenizer = tokenizer or mixture_tokenizer([database], 400, cache)
    config = replace(config, **changes)
    attached = attach_task(task, cache, entity_cells=not config.graph)
    store = prepare(attached.database, tokenizer, cache, serialisation)
    kind = RecommendSampler if task.top_k else QuestionSampler
    sampler = kind(attached, store, TokenIds.of(tokenizer), 2, config, states)
    if not task.top_k:
        sampler.tell(CENTER, SCALE)
    return Asker(attached, store, tokenizer, sampler)


def known_rows(task: Task, splits: Sequence[TaskSplit] = ("train", "val", "test")) -> Ints:
    """When the label of each row of the attached table is known [n], unix seconds."""
    found = []
    for split in splits:
        rows = task.rows(split)
        found.append(np.repeat(rows.time, np.maximum(1, np.diff(rows.start))) + task.timedelta)
    return np.concatenate(found)


def untrained(asker: Asker, seed: int = 1) -> RelationalModel:
    """An untrained model with a head for the asker's task, whose every part counts."""
    torch.manual_seed(seed)
    model = build_model(BackboneConfig(), asker.tokenizer, 40, compiled=False)
    model.about = {"databases": {}, "serialisation": "compact"}
    model.add_head(head_config(asker.sampler))
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()
