"""Whether explanations name what planted a label: zero-shot on databases with planted rules.

    python -m benchmarks.explained checkpoint=<folder> [count=25] [out=<csv>]

Generates synthetic databases that no checkpoint is pretrained on, asks for their binary tasks in
the rolling regime, explains some answers, and looks whether the first signal stands on the path,
and in the table, that the rule reads. A rule that lasts also shows in the label's own past, which
says more to a model than what the rule reads: past labels, and earlier rows of the table whose
rows are foretold. So every task is asked twice: as it is, and ``blind`` to that past (neither past
labels nor the foreign key to those rows), where the rule reads something else.

An explanation is right to name what the rule reads only if the answer comes of it. So beside the
share of all questions stand two others: of questions that are *answered*, in tasks with a test
AUROC of at least ``worth``, about entities of which the rule says something (the half whose
log-odds are furthest from the mean); and of tasks in which the rule's place is *read*: at least
half of what the answers know beyond chance (AUROC - 0.5) is lost when the columns that the rule
reads are hidden.

Then the rows that first signals name are deleted, and as many others that the question knew of.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.planted import PlantedConfig, planted_tasks
from rfm.config import run_command, setting
from rfm.data.tasks import Task
from rfm.eval.explain import ExplainConfig, Explainer, Explanation, Signal
from rfm.eval.explain_occlusion import Asked
from rfm.eval.explain_signals import OUTCOMES
from rfm.eval.predictions import score
from rfm.eval.zero_shot import ContextConfig, ZeroShot, in_context
from rfm.files import default_cache, publish
from rfm.nn.model import RelationalModel
from rfm.train.process import quieten, set_up_cpu

COLUMNS = (
    "database", "task", "signal", "asked", "auroc", "hidden", "decided", "planted", "beside",
    "column", "named", "random", "deleted", "top",
)  # fmt: skip
_log = logging.getLogger("rfm")


@dataclass(frozen=True)
class ExplainedConfig:
    """Which checkpoint, and which databases."""

    checkpoint: str = setting(help="a folder or a Hub id")
    count: int = setting(25, ge=1, help="databases")
    rows: int = setting(5_000, ge=500, help="rows of each")
    seed: int = setting(2_000, ge=0, help="of the databases; pretraining has its own seed, 0")
    context: int = setting(256, ge=1, help="examples")
    questions: int = setting(16, ge=1, help="explained per task")
    worth: float = setting(0.6, ge=0.5, le=1, help="least AUROC of tasks that are answered")
    ask: ContextConfig = setting(factory=ContextConfig)
    explain: ExplainConfig = setting(factory=ExplainConfig)
    cache: Path = setting(factory=default_cache, help="synthetic databases and prepared stores")
    out: Path = setting(Path("runs/explained.csv"), help="CSV of all questions")


def explained(config: ExplainedConfig) -> dict[str, Any]:
    """Ask, explain, compare, and write the table."""
    quieten()
    set_up_cpu()
    model = RelationalModel.from_pretrained(config.checkpoint)
    planted = PlantedConfig(
        checkpoint=config.checkpoint, count=config.count, rows=config.rows, seed=config.seed,
        cache=config.cache,
    )  # fmt: skip
    rows, seconds = list[dict[str, Any]](), list[float]()
    for task, truth in planted_tasks(planted):
        if task.database.name in model.about["databases"]:
            raise ValueError(
                f"{config.checkpoint} was pretrained on {task.database.name}: give another seed"
            )
        for how, asked, ask in ways_of_asking(task, truth, config.ask):
            asker = ZeroShot(model, asked, config.cache, ask)
            less = ZeroShot(model, *without_rule(asked, truth, config.cache, ask))
            facts = {"asked": how, "signal": truth["signal"]} | {
                name: round(auroc_of(one, config.context), 4)
                for name, one in (("auroc", asker), ("hidden", less))
            }
            found, taken = explain_some(config, asker, truth)
            rows += [{**facts, **one} for one in found]
            share = np.mean([one["planted"] for one in found])
            _log.info("%s: %s, %.2f", task.full_name, facts, share)
            seconds.append(taken)
    with publish(config.out) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return {"out": config.out, "seconds": float(np.median(seconds)), **summarise(config, rows)}


def ways_of_asking(
    task: Task, truth: dict[str, Any], ask: ContextConfig
) -> Iterator[tuple[str, Task, ContextConfig]]:
    """As it is; and without the label's own past, where that is not what the rule reads."""
    yield "as it is", task, ask
    if truth["signal"] != "own_past_labels" and truth["rule"]["history"] != truth["events"]:
        blind = (*task.hidden, (truth["events"], link_of(task, truth["events"])))
        yield "blind", replace(task, hidden=blind), replace(ask, history=0)


def without_rule(
    task: Task, truth: dict[str, Any], cache: Path, ask: ContextConfig
) -> tuple[Task, Path, ContextConfig]:
    """The task without what its rule reads: columns, or the foreign key to rows that matter as
    such; and how it is asked."""
    rule, table = truth["rule"], truth["rule"]["attributes"] or truth["rule"]["history"]
    if truth["signal"] == "own_past_labels":
        ask, table = replace(ask, history=0), truth["events"]
    columns = [rule[name] for name in ("number", "category") if rule[name]]
    columns = columns or [link_of(task, table)]
    hidden = (*task.hidden, *((table, column) for column in columns))
    return replace(task, hidden=hidden), cache, ask


def auroc_of(asker: ZeroShot, context: int) -> float:
    """Of all test rows, from so many examples."""
    readers = {"own": in_context(asker.model)}
    found = asker.ask("test", "rolling", context, 0, readers)["own"]
    return score(asker.task, "test", found.predictions)


def explain_some(
    config: ExplainedConfig, asker: ZeroShot, truth: dict[str, Any]
) -> tuple[list[dict[str, Any]], float]:
    """What came first in the explanations of some questions of a task; seconds that ten take, with
    the examples encoded for them."""
    task, rng = asker.task, np.random.default_rng(config.seed)
    decided = decided_rows(task)
    at = rng.permutation(len(task.rows("test")))[: config.questions]
    start = time.perf_counter()
    explainer = Explainer(asker, "test", "rolling", config.context, 0, config.explain)
    begun = time.perf_counter()
    found = explainer.explain(at.tolist())
    taken = begun - start + (time.perf_counter() - begun) / at.size * 10
    paths, columns = planted_paths(task, truth)
    past = past_paths(task, truth)
    rows = []
    for i, one, asked in zip(at, found, explainer.ask(at.tolist()), strict=True):
        beside = [s for s in one.signals if (s.path, s.table) not in past]
        named, random, deleted = delete_rows(explainer, asked, one, rng)
        top = one.signals[0]
        rows.append(
            {
                "database": task.database.name,
                "task": task.name,
                "decided": int(decided[i]),
                "planted": int((top.path, top.table) in paths),
                "beside": int(bool(beside) and (beside[0].path, beside[0].table) in paths),
                "column": int((top.path, top.table) in paths and _stands_in(top, columns)),
                "named": round(named, 5),
                "random": round(random, 5),
                "deleted": deleted,
                "top": top.words,
            }
        )
    return rows, taken


def _stands_in(signal: Signal, columns: set[str]) -> bool:
    return not columns or signal.column in columns


def delete_rows(
    explainer: Explainer, asked: Asked, found: Explanation, rng: np.random.Generator
) -> tuple[float, float, int]:
    """How far the answer moves without the rows that the first signal with any names; without as
    many of all rows that the question knew of, the mean of four draws; and how many these are."""
    situation = explainer.situation
    every = situation.all_rows(asked)
    for signal in found.signals:
        if signal.path and signal.rows:
            start = explainer.first_row(signal.table)
            named = start + np.array(signal.rows, dtype=np.int64)
            size = min(named.size, every.size)
            others = [rng.choice(every, size, replace=False) for _ in range(4)]
            none = np.zeros(0, dtype=np.int64)
            answer = situation.without_rows(asked, [none, named, *others])
            moved = np.abs(answer - answer[0])
            return float(moved[1]), float(moved[2:].mean()), int(named.size)
    return 0.0, 0.0, 0


def decided_rows(task: Task) -> npt.NDArray[np.bool_]:
    """[n]: whether the rule's log-odds are among the half that are furthest from their mean."""
    rows = task.rows("test")
    truth = pd.read_parquet(task.folder / "truth_test.parquet")
    seconds = truth["timestamp"].astype("datetime64[s]").astype("int64").to_numpy()
    np.testing.assert_array_equal(seconds, rows.time)
    chance = truth["expected"].to_numpy(np.float64).clip(1e-4, 1 - 1e-4)
    odds = np.log(chance / (1 - chance))
    apart = np.abs(odds - odds.mean())
    return np.asarray(apart >= np.median(apart))


def link_of(task: Task, table: str) -> str:
    """The foreign key of an event table to the entities that its rows happen to: the first."""
    keys = task.database.tables[table].foreign_keys
    return next(column for column, parent in keys.items() if parent == task.entity_table)


def planted_paths(task: Task, truth: dict[str, Any]) -> tuple[set[tuple[str, str]], set[str]]:
    """Where the rule reads: (path, table), as ``Signal`` has them; and which columns, none where
    it reads of rows that they are there."""
    rule, database = truth["rule"], task.database
    columns = {rule[name] for name in ("number", "category") if rule[name]}
    if rule["signal"] == "own_past_labels":
        return past_paths(task, truth) - {("", OUTCOMES)}, columns
    if not rule["history"]:
        steps, table = [], task.entity_table
        for hop in rule["hops"]:
            parent = database.tables[table].foreign_keys[hop]
            steps.append(f"{table}.{hop} -> {parent}")
            table = parent
        return {(", then ".join(steps), table)}, columns
    history = rule["history"]
    path = f"{history}.{link_of(task, history)}"
    if rule["via"]:
        path += f", then {history}.{rule['via']} -> {rule['attributes']}"
    return {(path, rule["attributes"] or history)}, columns


def past_paths(task: Task, truth: dict[str, Any]) -> set[tuple[str, str]]:
    """Where the label's own past stands: past labels of the entity, and earlier rows of the table
    whose rows are foretold; and the time of the question, which the rule's season reads."""
    events = truth["events"]
    link = link_of(task, events)
    own = {(f"{OUTCOMES}.{task.entity_column}", OUTCOMES), (f"{events}.{link}", events)}
    return own | {("", OUTCOMES)}


def summarise(config: ExplainedConfig, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By way of asking and signal: shares of questions whose first signal is the planted one."""
    frame, out = pd.DataFrame(rows), dict[str, Any]()
    frame["all"] = True
    frame["answered"] = (frame["auroc"] >= config.worth) & (frame["decided"] == 1)
    frame["read"] = 2 * (frame["auroc"] - frame["hidden"]) >= frame["auroc"] - 0.5
    frame["read"] &= frame["auroc"] >= config.worth
    table = Table(title="First signals on the planted path: share of questions (tasks)")
    for head in ("asked", "signal", "AUROC", "hidden", "all", "column", "answered", "read"):
        table.add_column(head)
    for how in [*frame["asked"].unique(), ""]:
        own = frame[frame["asked"] == how] if how else frame
        for signal in [*own["signal"].unique(), ""] if how else [""]:
            some = own[own["signal"] == signal] if signal else own
            parts = {name: some[some[name]] for name in ("all", "answered", "read")}
            said = {name: _share(part) for name, part in parts.items()}
            table.add_row(
                how or "both", signal or "all", f"{some['auroc'].mean():.3f}",
                f"{some['hidden'].mean():.3f}", said["all"], f"{some['column'].mean():.2f}",
                said["answered"], said["read"],
            )  # fmt: skip
            out.setdefault(how or "both", {})[signal or "all"] = {
                name: {"questions": len(part), "planted": _rounded(part["planted"].mean())}
                for name, part in parts.items()
            }
    Console(stderr=True, width=120).print(table)
    deleted = frame[frame["deleted"] > 0]
    out["deletion"] = {
        "questions": len(deleted),
        "named": round(float(deleted["named"].mean()), 4),
        "random": round(float(deleted["random"].mean()), 4),
        "named moves more": round(float((deleted["named"] > deleted["random"]).mean()), 3),
    }
    return out


def _share(part: pd.DataFrame) -> str:
    tasks = part.groupby(["database", "task", "asked"]).ngroups
    return f"{part['planted'].mean():.2f} ({tasks})" if len(part) else "-"


def _rounded(share: float) -> float:
    """A share of nothing is 0."""
    return round(float(share), 3) if np.isfinite(share) else 0.0


if __name__ == "__main__":
    run_command(ExplainedConfig, explained, prog="python -m benchmarks.explained", doc=__doc__)
