"""Where planted rules read, as signals name it, and what is said of how often they come first."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from benchmarks.explained import (
    ExplainedConfig,
    decided_rows,
    past_paths,
    planted_paths,
    summarise,
    ways_of_asking,
    without_rule,
)
from benchmarks.planted import PlantedConfig, planted_tasks
from rfm.data.synthetic_plan import Signal
from rfm.data.tasks import Task
from rfm.eval.zero_shot import ContextConfig

ASK = ContextConfig()


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Task, dict[str, Any]]]:
    cache = tmp_path_factory.mktemp("planted")
    count = len(get_args(Signal))
    return list(planted_tasks(PlantedConfig("none", count=count, rows=1_500, seed=7, cache=cache)))


def end_of(task: Task, path: str) -> str:
    """The table at the end of a path, each of whose steps must be a foreign key of the last."""
    table, tables = task.entity_table, task.database.tables
    for step in path.split(", then ") if path else ():
        link, _, parent = step.partition(" -> ")
        child, column = link.split(".")
        target = tables[child].foreign_keys[column] if child in tables else task.entity_table
        assert (child, target) == (table, parent) if parent else target == table
        table = parent or child
    return table


def test_planted_paths_lead_to_the_table_that_is_read(
    tasks: list[tuple[Task, dict[str, Any]]],
) -> None:
    seen = set()
    for task, truth in tasks:
        paths, columns = planted_paths(task, truth)
        assert paths
        for path, table in paths:
            assert end_of(task, path) == table
            if table in task.database.tables:
                assert columns <= {*task.database.tables[table].columns}
        if truth["signal"] not in ("own_past_labels",):
            assert bool(columns) == (truth["signal"] != "recency")
        assert all(end_of(task, path) == table for path, table in past_paths(task, truth) if path)
        seen.add(truth["signal"])
    assert len(seen) >= 4


def test_what_is_hidden_is_what_the_rule_reads(tasks: list[tuple[Task, dict[str, Any]]]) -> None:
    blind = 0
    for task, truth in tasks:
        less, _, ask = without_rule(task, truth, Path("."), ASK)
        hidden = set(less.hidden) - set(task.hidden)
        assert hidden
        assert all(column in task.database.tables[table].columns for table, column in hidden)
        assert (ask.history == 0) == (truth["signal"] == "own_past_labels")
        ways = {how: (one, ask) for how, one, ask in ways_of_asking(task, truth, ASK)}
        assert ways["as it is"] == (task, ASK)
        if "blind" in ways:
            one, ask = ways["blind"]
            assert ask.history == 0
            assert {table for table, _ in set(one.hidden) - set(task.hidden)} == {truth["events"]}
            blind += 1
        half = decided_rows(task)
        assert half.size / 2 <= half.sum() < half.size
    assert 0 < blind < len(tasks)


def test_shares_are_of_the_questions_that_count() -> None:
    row = {
        "database": "a", "task": "b", "signal": "recency", "asked": "as it is", "auroc": 0.8,
        "hidden": 0.6, "decided": 1, "planted": 1, "beside": 1, "column": 1, "named": 0.2,
        "random": 0.1, "deleted": 3, "top": "",
    }  # fmt: skip
    rows = [
        row,
        {**row, "planted": 0, "decided": 0},
        {**row, "task": "c", "hidden": 0.7, "planted": 0},  # not half of 0.3 is lost
        {**row, "task": "d", "auroc": 0.55, "hidden": 0.5, "planted": 0, "deleted": 0},
    ]
    found = summarise(ExplainedConfig("none"), rows)
    own = found["as it is"]["recency"]
    assert own == found["both"]["all"]
    assert own["all"] == {"questions": 4, "planted": 0.25}
    assert own["answered"] == {"questions": 2, "planted": 0.5}
    assert own["read"] == {"questions": 2, "planted": 0.5}
    assert found["deletion"]["questions"] == 3
    assert found["deletion"]["named moves more"] == 1
    assert np.isclose(found["deletion"]["named"], 0.2)
