"""Explanations of answers to a query, in the database's own keys."""

from __future__ import annotations

from collections import defaultdict
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
    explained = explain(
        asker, "test", "rolling", config.context, config.seed, at, worth=answers.worth
    )
    own = None if isinstance(asker, ZeroShotRecommendation) else asker.rows
    named = defaultdict[str, set[int]](set)  # rows by table
    for one in explained:
        named[task.entity_table].add(one.entity)
        if task.destination_table and one.chosen:
            named[task.destination_table].add(int(one.chosen))
        for signal in one.signals:
            if signal.table == OUTCOMES and own is not None:
                named[task.entity_table].update(
                    own.take(np.array(signal.rows, np.int64)).entity.tolist()
                )
            else:
                named[signal.table].update(signal.rows)
    keys = {table: _keys(task.database, table, sorted(rows)) for table, rows in named.items()}

    def told(table: str, rows: Sequence[int]) -> list[Any]:
        if table != OUTCOMES or own is None:
            return [keys[table][row] for row in rows]
        asked = own.take(np.asarray(rows, dtype=np.int64))
        times = [shown_time(time) for time in asked.time.tolist()]
        whose = told(task.entity_table, asked.entity.tolist())
        return [list(pair) for pair in zip(whose, times, strict=True)]

    found = list[dict[str, Any]]()
    for one in explained:
        said = one.as_dict()
        said["entity"] = keys[task.entity_table][one.entity]
        if task.destination_table and one.chosen:
            said["chosen"] = keys[task.destination_table][int(one.chosen)]
        said["signals"] = [
            {**signal, "rows": told(signal["table"], signal["rows"])} for signal in said["signals"]
        ]
        found.append(said)
    return found


def _keys(database: Database, table: str, rows: Sequence[int]) -> dict[int, Any]:
    """Original key of each row; of what is no table of the database its number."""
    if table not in database.tables:
        return {row: row for row in rows}
    keys = keys_of_rows(database, table, rows)
    return {row: _spelled(key) for row, key in zip(rows, keys, strict=True)}


def _spelled(key: Any) -> Any:
    if isinstance(key, tuple):
        return [_spelled(part) for part in key]
    return key if isinstance(key, bool | int | float | str | None) else str(key)
