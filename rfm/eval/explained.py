"""Explanations of answers to a query, in the database's own keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rfm.data.database import Database
from rfm.data.original_keys import keys_of_rows
from rfm.data.questions import QuestionSampler
from rfm.data.schema import shown_time
from rfm.data.task_rows import Ints
from rfm.eval.ask import Answers
from rfm.eval.explain import explain
from rfm.eval.explain_signals import OUTCOMES
from rfm.eval.zero_shot import ZeroShotRecommendation


def explain_answers(answers: Answers, at: Ints) -> list[dict[str, Any]]:
    """Why some of the answers, rows ``at`` [n], are what they are: see ``Explanation``, whose rows
    are told by their keys here (text, where JSON has nothing for one; lists of composite ones), of
    past outcomes by the entity's key and the time that they were asked for.

    Raises:
        ValueError: for answers of a head that was fine-tuned.
    """
    config, asker, task = answers.config, answers.asker, answers.posed.task
    if isinstance(asker, QuestionSampler):
        raise ValueError(
            "answers of a fine-tuned head are not explained, those from examples are: ask the "
            "checkpoint that it was fine-tuned from"
        )
    keys, found = _Keys(task.database), list[dict[str, Any]]()

    def named(table: str, rows: Sequence[int]) -> list[Any]:
        if table != OUTCOMES or isinstance(asker, ZeroShotRecommendation):
            return keys.of(table, rows)
        asked = asker.rows.take(np.asarray(rows, dtype=np.int64))
        times = [shown_time(time) for time in asked.time.tolist()]
        whose = keys.of(task.entity_table, asked.entity.tolist())
        return [list(pair) for pair in zip(whose, times, strict=True)]

    worth = answers.worth
    for one in explain(asker, "test", "rolling", config.context, config.seed, at, worth=worth):
        said = one.as_dict()
        said["entity"] = keys.of(task.entity_table, [one.entity])[0]
        if task.destination_table and one.chosen:
            said["chosen"] = keys.of(task.destination_table, [int(one.chosen)])[0]
        said["signals"] = [
            {**signal, "rows": named(signal["table"], signal["rows"])} for signal in said["signals"]
        ]
        found.append(said)
    return found


class _Keys:
    """Original keys of rows, each table's read once."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.tables: dict[str, list[Any]] = {}

    def of(self, table: str, rows: Sequence[int]) -> list[Any]:
        if table not in self.database.tables:
            return list(rows)
        if table not in self.tables:
            every = np.arange(self.database.tables[table].num_rows)
            self.tables[table] = keys_of_rows(self.database, table, every)
        return [_spelled(self.tables[table][row]) for row in rows]


def _spelled(key: Any) -> Any:
    if isinstance(key, tuple):
        return [_spelled(part) for part in key]
    return key if isinstance(key, bool | int | float | str | None) else str(key)
