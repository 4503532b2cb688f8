"""A language model on serialised tables, without any training: the bar that pretrained text sets.

Each question is a prompt (``benchmarks.language_prompt``): the entity's own row, its parents, its
latest children, its labels that are known by the cutoff, after a few answered examples of other
entities. The answer is read off the probabilities that the model gives to the possible answers:
of ``yes`` and ``no``, of the classes, or of a few quantiles of the training labels, whose mean by
these probabilities is the answer of a regression.

Published in this way: Llama 3.2 3B, 0.6806 mean AUROC on RelBench's classification (Wydmuch et al.
2024, arXiv 2411.11829).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from benchmarks.answer import ASKED, Answer
from benchmarks.language_prompt import NO, YES, Labels, Prompt, Story, Teller
from benchmarks.language_scores import LanguageScorer
from rfm.config import setting
from rfm.data.attach import visible_database
from rfm.data.prepare import prepare
from rfm.data.schema import words
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.predictions import Predictions
from rfm.files import default_cache

_TYPES = ("binary_classification", "multiclass_classification", "regression")
_SECONDS_PER_DAY = 86_400
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LanguageModelSettings:
    """Which model, and what it is told."""

    language_model: str = setting("", help="Hugging Face causal LM: a folder or an id")
    cache: Path = setting(factory=default_cache, help="prepared stores")
    children: int = setting(16, ge=0, help="latest children per foreign key")
    most_children: int = setting(32, ge=0, help="latest children in all")
    labels: int = setting(20, ge=0, help="latest past labels of the entity")
    examples: int = setting(8, ge=0, help="answered examples of other entities")
    example_children: int = setting(4, ge=0, help="latest children and past labels of each example")
    pool: int = setting(1_000, ge=1, help="examples come from so many latest labels")
    quantiles: int = setting(9, ge=2, help="possible answers of a regression")
    context: int = setting(4_096, ge=16, help="tokens, if the model can read as many")
    batch: int = setting(8, ge=1, help="prompts at once")
    vocab_size: int = setting(8_192, ge=300, le=65_536, help="of the store's own tokenizer")


def language_model(
    task: Task, regime: Regime, seed: int, settings: LanguageModelSettings
) -> Answer:
    """Ask the model about every row of validation and test.

    Raises:
        ValueError: for no model or one that cannot be loaded, a task that is neither
            classification into one class nor regression, and questions that do not fit into the
            context even without examples and children.
    """
    check_type(task)
    scorer = LanguageScorer.load(settings.language_model, settings.context)
    reader = Reader(task, regime, seed, settings)
    validation, test = (ask(scorer, reader, split) for split in ASKED)
    config = {**asdict(settings), "questions": scorer.asked, "questions_cut": scorer.cut}
    return Answer(validation, test, config)


def ask(scorer: LanguageScorer, reader: Reader, split: TaskSplit) -> Predictions:
    """The model's answers to a split."""
    value = [
        reader.value(scorer.log_probabilities(prompts, reader.spelled))
        for prompts in reader.prompts(split)
    ]
    return Predictions.of(reader.task, split, np.concatenate(value))


def check_type(task: Task) -> None:
    """
    Raises:
        ValueError: for a type of task that is not asked about in words.
    """
    if task.task_type not in _TYPES:
        raise ValueError(
            f"{task.full_name}: the language model answers {', '.join(_TYPES)}, got "
            f"{task.task_type}: leave the method out for this task"
        )


class Reader:
    """Prompts of a task, and what the model's answers to them mean."""

    def __init__(
        self, task: Task, regime: Regime, seed: int, settings: LanguageModelSettings
    ) -> None:
        self.task, self.regime, self.seed, self.settings = task, regime, seed, settings
        database = visible_database(task)
        tokenizer = mixture_tokenizer([database], settings.vocab_size, settings.cache)
        store = prepare(database, tokenizer, settings.cache, "text")
        self.labels = Labels.of(task)
        self.teller = Teller(
            task,
            store,
            tokenizer,
            self.labels,
            settings.children,
            settings.most_children,
            settings.labels,
        )
        self.spelled, self.numbers = self._answers()
        self.header = self._header()

    def _answers(self) -> tuple[tuple[str, ...], Floats]:
        """How the possible answers are spelled, and the numbers that they stand for."""
        if self.task.task_type == "binary_classification":
            return (NO, YES), np.array([0.0, 1.0])
        if self.task.task_type == "multiclass_classification":
            return self.task.classes, np.arange(len(self.task.classes), dtype=np.float64)
        rows = self.task.rows("train")
        levels = (np.arange(self.settings.quantiles) + 0.5) / self.settings.quantiles
        found = np.unique(np.quantile(rows.label[rows.labelled, 0], levels))
        spelled = tuple(dict.fromkeys(self.teller.answer(float(value)) for value in found))
        return spelled, np.array([float(text) for text in spelled])

    def _header(self) -> str:
        """What the task is, in its manifest's words, and how it is answered."""
        manifest = yaml.safe_load((self.task.folder / "manifest.yaml").read_text(encoding="utf-8"))
        description = " ".join(str(manifest.get("description") or "").split())
        days = self.task.timedelta / _SECONDS_PER_DAY
        horizon = f" within {days:g} days" if self.task.kind == "forecast" else ""
        regression = self.task.task_type == "regression"
        kind = "a number" if regression else f"one of: {', '.join(self.spelled)}"
        target = words(self.task.target)
        return f"{description}\nAnswer with the {target}{horizon}: {kind}.\n\n".lstrip()

    def prompts(self, split: TaskSplit) -> Iterator[list[Prompt]]:
        """The questions of a split in the order of its rows, ``settings.batch`` at a time."""
        rows, cutoff = self.task.rows(split), self.task.cutoffs(split, self.regime)
        for start in range(0, len(rows), self.settings.batch):
            span = slice(start, start + self.settings.batch)
            yield self._prompts(rows.entity[span], cutoff[span], rows.time[span])

    def _prompts(self, entity: Ints, cutoff: Ints, time: Ints) -> list[Prompt]:
        chosen = [
            self.labels.examples(
                int(e), int(c), self.settings.examples, self.settings.pool,
                self.task.task_type != "regression", [self.seed, int(e), abs(int(t))],
            )
            for e, c, t in zip(entity, cutoff, time, strict=True)
        ]  # fmt: skip
        places = np.unique(np.concatenate([np.zeros(0, np.int64), *chosen]))
        told = self._examples(places)
        questions = self.teller.stories(entity, cutoff, time)
        return [
            Prompt(
                self.header,
                tuple(told[int(place)] for place in own),
                _lines(story.own),
                tuple(_lines([line]) for line in story.children),
                _lines(story.labels) + f"{words(self.task.target)}:",
            )
            for own, story in zip(chosen, questions, strict=True)
        ]

    def _examples(self, places: Ints) -> dict[int, str]:
        """Labelled rows [n], told as of their own seed times, with their answers."""
        labels = self.labels
        time = labels.time[places]
        stories = self.teller.stories(labels.entity[places], time, time) if places.size else []
        return {
            int(place): self._example(story, self.teller.answer(float(labels.label[place])))
            for place, story in zip(places, stories, strict=True)
        }

    def _example(self, story: Story, answer: str) -> str:
        latest = [
            told[max(0, len(told) - self.settings.example_children) :]
            for told in (story.children, story.labels)
        ]
        lines = (*story.own, *latest[0], *latest[1])
        return _lines(lines) + f"{words(self.task.target)}: {answer}\n\n"

    def value(self, log_probability: Floats) -> Floats:
        """Predictions [n, C] from log-probabilities [n, A] of the possible answers."""
        shifted = np.exp(log_probability - log_probability.max(axis=1, keepdims=True))
        probability: Floats = shifted / shifted.sum(axis=1, keepdims=True)
        if self.task.task_type == "multiclass_classification":
            return probability
        return np.asarray((probability * self.numbers).sum(axis=1, keepdims=True))


def _lines(texts: Sequence[str]) -> str:
    return "".join(f"{text}\n" for text in texts)
