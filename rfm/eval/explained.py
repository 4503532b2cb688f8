"""Explanations of answers to a query, from examples."""

from __future__ import annotations

from rfm.data.questions import QuestionSampler
from rfm.data.task_rows import Ints
from rfm.eval.ask import Answers
from rfm.eval.explain import Explanation, explain


def explain_answers(answers: Answers, at: Ints) -> tuple[Explanation, ...]:
    """Why some of the answers, rows ``at`` [n], are what they are.

    Raises:
        ValueError: for answers of a head that was fine-tuned.
    """
    config, asker = answers.config, answers.asker
    if isinstance(asker, QuestionSampler):
        raise ValueError(
            "answers of a fine-tuned head are not explained, those from examples are: ask the "
            "checkpoint that it was fine-tuned from"
        )
    return explain(asker, "test", "rolling", config.context, config.seed, at)
