"""Ask a model about a task that it was never trained for: from labelled examples, in one pass.

The examples are rows of the task whose labels are known by an anchor, the timestamp at which the
questions' split begins; they are encoded once for all questions. In the frozen regime they are
given the questions' staleness; in the rolling regime each question sees the database up to its own
seed time, the examples up to theirs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rfm.data.attach import visible_database
from rfm.data.batch import MAX_CLASSES, EpisodeBatch
from rfm.data.cached import RowStates
from rfm.data.episodes import center_and_spread
from rfm.data.label_history import Floats
from rfm.data.laid import LaidTask
from rfm.data.prepare import prepare
from rfm.data.ready_made import as_generated
from rfm.data.serialise import TokenIds
from rfm.data.store import RowStore
from rfm.data.support import draw_support, parents_of
from rfm.data.task_rows import SPLITS, Ints, TaskSplit
from rfm.data.tasks import Regime, Task, check_seed_times
from rfm.data.tokenizer import Tokenizer
from rfm.eval.ask_config import ContextConfig as ContextConfig
from rfm.eval.asking import anchor_of
from rfm.eval.predictions import Predictions
from rfm.eval.row_cache import cache_rows
from rfm.eval.verbalise import verbalise
from rfm.eval.zero_shot_links import ZeroShotLinks
from rfm.nn.in_context import Examined, answers
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating

_log = logging.getLogger("rfm")
_STREAM = 6
_AT_ONCE = 4_096  # queries


Reader: TypeAlias = Callable[[Examined], Tensor]
"""Of examples and queries together -> [Q, C] probabilities, or numbers [Q, 1]."""


@dataclass(frozen=True)
class ZeroShotAnswer:
    """predictions: of all rows of a split. examples: how many they are made of. warnings: what a
    reader must know of them."""

    predictions: Predictions
    examples: int
    warnings: tuple[str, ...]


class ZeroShot:
    """One task, asked of a model as it is.

    Raises:
        ValueError: for a type of task that cannot be asked so, see ``check_askable``; if no seed
            time of a split is within the database, see ``check_seed_times``.
    """

    def __init__(
        self,
        model: RelationalModel,
        task: Task,
        cache: Path,
        config: ContextConfig,
        cached: bool = True,
    ) -> None:
        """
        Args:
            cache: folder of prepared data. cached: keep the states of all rows there, too; else
                they are encoded whenever they are sampled.
        """
        check_askable(model, task, config.max_tokens)
        check_seed_times(task)
        self.model, self.task, self.config = model, task, config
        self.tokenizer = Tokenizer.from_json(model.tokenizer)
        serialisation = model.about.get("serialisation", "compact")
        self.store: RowStore = prepare(visible_database(task), self.tokenizer, cache, serialisation)
        encoder, ids = model.backbone.row_encoder, TokenIds.of(self.tokenizer)
        self.states: tuple[RowStates, int] | None = None
        if cached:
            self.states = (cache_rows(encoder, [self.store], ids, cache, config.max_tokens), 0)
        time = np.concatenate([task.rows(split).time for split in SPLITS])
        self.place = np.argsort(np.argsort(time, kind="stable"))  # of each split's rows among all
        starts = np.cumsum([0, *(len(task.rows(split)) for split in SPLITS)])[:-1].tolist()
        self.start = dict(zip(SPLITS, starts, strict=True))
        self.asked = as_generated(task)
        self.rows = self.asked.rows
        self._encoded: dict[tuple[TaskSplit, Regime], Examined] = {}

    def anchor(self, split: TaskSplit) -> int:
        """Until when labels of examples are known, unix seconds."""
        return anchor_of(self.task, split)

    def ask(
        self,
        split: TaskSplit,
        regime: Regime,
        context: int,
        seed: int,
        readers: Mapping[str, Reader],
        shares: Sequence[float] = (0.5,),
    ) -> dict[str, ZeroShotAnswer]:
        """Answers of readers to all rows of a split, from ``context`` examples. Where there is no
        example, that of the verbaliser, under the first name alone.

        Args:
            shares: what the verbaliser says of a number: what it is below with these probabilities.
        """
        laid = self.lay(split)
        values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in readers}
        for draw in range(self.config.draws):
            support, told_by = self.draw(split, regime, context, seed, draw)
            examples = self.rows.label[support]
            warnings = check_examples(self.task, examples, context)
            if self.asked.given and regime == "frozen":
                warnings.append(
                    f"{self.task.full_name}: rows of the frozen regime are not there yet, so that "
                    "answers come of their numbers and of past labels alone"
                )
            if support.size:
                found = self._answers(laid, split, regime, support, told_by, readers)
            else:
                found = {next(iter(readers)): self._verbalised(laid, split, regime, shares)}
            for name, value in found.items():
                values[name].append(value)
        return {
            name: ZeroShotAnswer(
                Predictions.of(self.task, split, np.mean(own, axis=0)),
                support.size,
                tuple(warnings),
            )
            for name, own in values.items()
            if own
        }

    def draw(
        self, split: TaskSplit, regime: Regime, context: int, seed: int, draw: int
    ) -> tuple[Ints, Ints]:
        """Examples [K] of one draw, by number, and their cutoffs [K]: as stale as questions are."""
        stale = self.task.rows(split).time - self.task.cutoffs(split, regime)
        known, asked = self.known(split), np.unique(self.task.rows(split).entity)
        parents = parents_of(self.store, self.asked.entity_table, self.anchor(split))
        rng = np.random.default_rng([seed, _STREAM, draw])
        support = draw_support(self.rows, known, context, self.config.mix, asked, parents, rng)
        return support, self.rows.time[support] - rng.choice(stale, support.size)

    def known(self, split: TaskSplit) -> Ints:
        """Numbers of the rows whose labels are known by the anchor, in the order of time."""
        return np.flatnonzero(self.asked.known <= self.anchor(split))

    @torch.no_grad()
    def _answers(
        self,
        laid: LaidTask,
        split: TaskSplit,
        regime: Regime,
        support: Ints,
        told_by: Ints,
        readers: Mapping[str, Reader],
    ) -> dict[str, npt.NDArray[np.float64]]:
        """[n, C] answers to the rows of a split, from examples [K] as of their cutoffs [K]."""
        with evaluating(self.model):
            shown = self.examine(laid, support, told_by, support.size)
            if (split, regime) not in self._encoded:
                number, cutoff = self.number(split), self.task.cutoffs(split, regime)
                kept = {key: one for key, one in self._encoded.items() if key[1] == regime}
                asked = self.examine(laid, number, cutoff, 0)
                self._encoded = {**kept, (split, regime): asked}
            asked, out = self._encoded[split, regime], dict[str, npt.NDArray[np.float64]]()
            for name, reader in readers.items():
                answer = torch.cat([reader(part) for part in _joined(shown, asked)])
                out[name] = self._raw(split, answer.double().cpu().numpy())
            return out

    @torch.no_grad()
    def _verbalised(
        self, laid: LaidTask, split: TaskSplit, regime: Regime, shares: Sequence[float]
    ) -> npt.NDArray[np.float64]:
        number, cutoff = self.number(split), self.task.cutoffs(split, regime)
        with evaluating(self.model):
            parts = [
                verbalise(self.model, laid, batch, shares).cpu().numpy()
                for batch in self._batches(laid, number, cutoff, 0)
            ]
        return self._raw(split, np.concatenate(parts).astype(np.float64))

    def examine(self, laid: LaidTask, number: Ints, cutoff: Ints, support: int) -> Examined:
        """Rows of the task [n], by number, as of their cutoffs [n]: as the head sees them.

        Args:
            support: how many of them are examples: all or none.
        """
        batches = self._batches(laid, number, cutoff, support)
        return Examined.join([self.model.examine(one, self.model.backbone(one)) for one in batches])

    def _batches(
        self, laid: LaidTask, number: Ints, cutoff: Ints, support: int
    ) -> Iterator[EpisodeBatch]:
        """Rows, however many there are, where the model is."""
        device = next(self.model.parameters()).device
        for start in range(0, number.size, self.config.size):
            span = slice(start, start + self.config.size)
            yield laid.batch(number[span], cutoff[span], support, 0).to(device)

    def number(self, split: TaskSplit) -> Ints:
        """[n]: where the rows of a split are among all."""
        first = self.start[split]
        return self.place[first : first + len(self.task.rows(split))]

    def unit(self, split: TaskSplit) -> tuple[float, float]:
        """Median and spread of the numbers known by the anchor."""
        known = self.rows.label[self.known(split)]
        return (0.0, 1.0) if self.asked.classes else center_and_spread(known)

    def _raw(self, split: TaskSplit, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What readers answer, in the task's own units, as ``Predictions`` has it."""
        center, unit = self.unit(split)
        if self.asked.classes == 0:
            return np.asarray(value * unit + center)
        return value[:, 1:] if self.task.task_type == "binary_classification" else value

    def lay(self, split: TaskSplit) -> LaidTask:
        """The task laid over its database, with numbers in units of those known by the anchor."""
        center, unit = self.unit(split)
        return LaidTask(
            self.store,
            self.asked.relabelled_as((self.rows.label - center) / unit),
            self.anchor(split),
            self.tokenizer,
            self.model.settings.hops,
            self.config,
            self.states,
        )


class ZeroShotRecommendation:
    """A recommendation, asked of a model as it is."""

    def __init__(
        self,
        model: RelationalModel,
        task: Task,
        cache: Path,
        config: ContextConfig,
        cached: bool = True,
    ) -> None:
        """See ``ZeroShot``."""
        check_askable(model, task, config.max_tokens)
        self.task, self.config = task, config
        self.links = ZeroShotLinks(model, task, cache, config.question, cached)
        self.store = self.links.sampler.store

    def ask(
        self,
        split: TaskSplit,
        regime: Regime,
        context: int,
        seed: int,
        readers: Mapping[str, Reader],
        shares: Sequence[float] = (0.5,),
    ) -> dict[str, ZeroShotAnswer]:
        """The best destinations for all rows of a split, under the first name; other readers, and
        shares, have no answer."""
        mix, rngs = self.config.mix, self._rngs(seed)
        predictions, count = self.links.ask(split, regime, context, mix, rngs)
        warnings = []
        if count < context:
            name = self.task.full_name
            warnings.append(f"{name}: {count} examples are known, fewer than context={context}")
            _log.warning("%s", warnings[0])
        return {next(iter(readers)): ZeroShotAnswer(predictions, count, tuple(warnings))}

    def weigh(self, split: TaskSplit, regime: Regime, context: int, seed: int) -> Floats:
        """What the numbers known of a pair are worth in these answers, see ``ZeroShotLinks``."""
        return self.links.weigh(split, regime, context, self.config.mix, self._rngs(seed))[0]

    def _rngs(self, seed: int) -> list[np.random.Generator]:
        draws = range(self.config.draws)
        return [np.random.default_rng([seed, _STREAM, draw]) for draw in draws]


def open_zero_shot(
    model: RelationalModel, task: Task, cache: Path, config: ContextConfig, cached: bool = True
) -> ZeroShot | ZeroShotRecommendation:
    """A task, to be asked of a model as it is; see ``ZeroShot``."""
    kind = ZeroShotRecommendation if task.task_type == "recommendation" else ZeroShot
    return kind(model, task, cache, config, cached)


def in_context(model: RelationalModel, shares: Sequence[float] = (0.5,)) -> Reader:
    """The model's own reader; of numbers it tells what they are below with these probabilities."""
    return lambda both: answers(model.in_context(both), both, shares)


def _joined(shown: Examined, asked: Examined) -> Iterator[Examined]:
    """Examples with some queries after them, part by part."""
    for start in range(0, asked.state.shape[0], _AT_ONCE):
        yield shown.followed_by(asked.take(slice(start, start + _AT_ONCE)))


def check_askable(model: RelationalModel, task: Task, max_tokens: int) -> None:
    """
    Raises:
        ValueError: for a type of task that cannot be answered from examples, too many classes, a
            model that never learnt to, and rows longer than it reads.
    """
    most = model.backbone.row_encoder.bart.config.max_position_embeddings
    if max_tokens > most:
        raise ValueError(
            f"max_tokens={max_tokens}, but the checkpoint reads at most {most} per row"
        )
    if task.task_type == "multilabel_classification":
        raise ValueError(
            f"{task.full_name} is a {task.task_type}: the checkpoint was never trained for lists "
            "of labels; make a task of each label, or fine-tune (python -m finetune)"
        )
    if len(task.classes) > MAX_CLASSES:
        raise ValueError(
            f"{task.full_name} has {len(task.classes)} classes, wanted at most {MAX_CLASSES}: "
            "merge the rare ones, or fine-tune (python -m finetune)"
        )
    if task.task_type != "recommendation" and not model.about.get("episodes"):
        raise ValueError(
            "the checkpoint was never trained to answer from examples: pretrain it with episodes, "
            "python -m pretrain config=configs/pretrain/in_context.yaml checkpoint=<folder>"
        )


def check_examples(task: Task, examples: Floats, wanted: int) -> list[str]:
    """Says how the classes of examples [K] are balanced; warnings of what is amiss with them."""
    name = task.full_name
    if not examples.size:
        why = "context=0" if not wanted else "no label is known by the anchor"
        warning = f"{name}: {why}: answered by what the model expects in the masked cell"
        _log.warning("%s", warning)
        return [warning]
    warnings = []
    if examples.size < wanted:
        warnings.append(f"{name}: {examples.size} labels are known, fewer than context={wanted}")
    value, count = np.unique(examples, return_counts=True)
    if task.task_type != "regression":
        names = task.classes or ("0", "1")
        shares = (f"{names[int(v)]}: {c}" for v, c in zip(value, count, strict=True))
        _log.info("%s: %d examples, by class %s", name, examples.size, ", ".join(shares))
    if value.size == 1:
        warnings.append(
            f"{name}: all {examples.size} examples have the label {value[0]:g}: they tell nothing "
            "apart, so that answers say little; take a larger context"
        )
    for warning in warnings:
        _log.warning("%s", warning)
    return warnings
