"""Forecast tasks of synthetic databases: labels, the SQL that regenerates them, the truth.

The truth of a task is what its planted rule expected for each row of the task table: a model that
has found the rule can reach this score, and none can do better except by luck.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rfm.data.synthetic_cells import timestamps
from rfm.data.synthetic_events import Outcome
from rfm.data.synthetic_plan import DAY, Plan, TaskPlan
from rfm.data.synthetic_rows import Rows

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Calendar:
    """The windows at which the splits start, and the seeds of each split as window numbers."""

    val: int
    test: int
    seeds: dict[str, NDArray[np.int64]]

    @property
    def num_eval_timestamps(self) -> int:
        return max(len(self.seeds["val"]), len(self.seeds["test"]))


def make_calendar(plan: Plan, rows: dict[str, Rows]) -> Calendar:
    """Split times near 75% and 87% of the event rows; the seeds that RelBench would use."""
    times = [r.time for name, r in rows.items() if plan.tables[name].role in ("event", "item")]
    window = [np.minimum((t - plan.start - 1) // plan.step, plan.windows - 1) for t in times]
    per_window = sum(np.bincount(w, minlength=plan.windows) for w in window)
    done = np.cumsum(per_window) / np.sum(per_window)
    val = max(5, int(np.argmin(np.abs(done - 0.75))) + 1)
    val = min(val, plan.windows - 4)
    test = max(val + 1, int(np.argmin(np.abs(done - 0.87))) + 1)
    test = min(test, plan.windows - 2)
    timed = [r.time for r in rows.values() if len(r.time)]
    first = -(-(min(int(t[0]) for t in timed) - plan.start) // plan.step)
    last = (max(int(t[-1]) for t in timed) - plan.start) // plan.step
    number = max(1, min(test - val, last - test))
    seeds = {
        "train": np.arange(first, val),
        "val": np.arange(val, min(val + number, test)),
        "test": np.arange(test, min(test + number, last)),
    }
    assert all(len(seed) for seed in seeds.values()), "no event in the last windows"
    return Calendar(val, test, seeds)


def day_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%d")


def write_task(
    folder: Path, plan: Plan, task: TaskPlan, outcome: Outcome, actors: Rows, calendar: Calendar
) -> None:
    """Write manifest, label tables and truth of one task into ``folder``."""
    folder.mkdir(parents=True)
    task_manifest(plan, task, calendar).save(folder / "manifest.yaml")
    what = task.aggregate if task.aggregate != "sum" else task.target
    entity_column = entity_column_of(plan, task)
    scores: dict[str, dict[str, float]] = {}
    born = int(actors.visible(plan.start + calendar.test * plan.step))
    for split in SPLITS:
        windows = calendar.seeds[split]
        alive = [min(len(outcome.observed[what][window]), born) for window in windows]
        seed = np.repeat(plan.start + windows * plan.step, alive)
        entity = np.concatenate([np.arange(n) for n in alive])
        target, expected = (
            np.concatenate([series[what][w][:n] for w, n in zip(windows, alive, strict=True)])
            for series in (outcome.observed, outcome.expected)
        )
        labels = target if task.aggregate == "exists" else target.astype(np.float64)
        keys = {"timestamp": timestamps(seed), entity_column: pa.array(entity)}
        pq.write_table(
            pa.table({**keys, task.target: pa.array(labels)}), folder / f"{split}.parquet"
        )
        pq.write_table(
            pa.table({**keys, "expected": pa.array(expected)}), folder / f"truth_{split}.parquet"
        )
        scores[split] = score_truth(task.aggregate, target, expected.astype(np.float64))
    truth = {**describe_rule(plan, task, outcome), "score": scores}
    (folder / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")


def describe_rule(plan: Plan, task: TaskPlan, outcome: Outcome) -> dict[str, Any]:
    """All that is needed to compute the rule's probability again from the tables."""
    rule = plan.rules[task.table]
    known: dict[str, Any] = {
        "signal": rule.signal,
        "aggregate": task.aggregate,
        "events": task.table,
        "rule": asdict(rule),
        "start": plan.start,
        "step": plan.step,
        "shift": outcome.shift,
        "spread": outcome.spread,
    }
    if rule.number:
        column = plan.tables[rule.attributes].column(rule.number)
        known |= {"center": column.center, "scale": column.scale}
    if rule.category:
        known["options"] = plan.tables[rule.attributes].column(rule.category).options
    return known


def score_truth(
    aggregate: str, target: NDArray[Any], expected: NDArray[np.float64]
) -> dict[str, float]:
    """``auroc`` of a binary task (0.5 if only one class is there), ``r2`` and ``mae`` else."""
    if aggregate == "exists":
        return {"auroc": auroc(target, expected), "positive_share": float(target.mean())}
    error = target - expected
    spread = float(np.sum((target - target.mean()) ** 2))
    r2 = 1 - float(np.sum(error**2)) / spread if spread else 0.0
    return {"r2": r2, "mae": float(np.abs(error).mean())}


def auroc(target: NDArray[Any], score: NDArray[Any]) -> float:
    """Area under the ROC curve, ties counting half; 0.5 if only one class is there."""
    positive = int(np.sum(target > 0))
    negative = len(target) - positive
    if not positive or not negative:
        return 0.5
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    wins = float(rank[target > 0].sum()) - positive * (positive + 1) / 2
    return wins / (positive * negative)


def entity_column_of(plan: Plan, task: TaskPlan) -> str:
    """The entity column of the task table: named like the entity's key, never just ``id``."""
    entity = plan.tables[plan.tables[task.table].actor]
    assert entity.primary_key is not None
    return entity.primary_key if entity.primary_key.lower() != "id" else f"{entity.words}_id"


def task_manifest(plan: Plan, task: TaskPlan, calendar: Calendar) -> Any:
    """The ``relbench.manifest.TaskManifest`` of a task."""
    from relbench.manifest import TaskManifest  # slow import, only needed to write

    events = plan.tables[task.table]
    entity = plan.tables[events.actor]
    days = plan.step // DAY
    asked = {
        "exists": f"whether there is any row in {events.name}",
        "count": f"how many rows there are in {events.name}",
        "sum": f"the sum of {task.target} in {events.name}",
    }[task.aggregate]
    return TaskManifest(
        name=task.name,
        kind="forecast",
        task_type="binary_classification" if task.aggregate == "exists" else "regression",
        description=f"Predict for each row of {entity.name} {asked} in the next {days} days.",
        entity_table=entity.name,
        entity_col=entity_column_of(plan, task),
        target_col=task.target,
        time_col="timestamp",
        timedelta=f"{days} days",
        num_eval_timestamps=calendar.num_eval_timestamps,
        sql=task_sql(plan, task),
    )


def task_sql(plan: Plan, task: TaskPlan) -> str:
    """The duckdb query of a task, over ``timestamps(timestamp)`` and the tables."""
    events = plan.tables[task.table]
    entity = plan.tables[events.actor]
    key = events.links[0].column
    value = {
        "exists": f'CAST(COUNT(v."{key}") > 0 AS BIGINT)',
        "count": f'CAST(COUNT(v."{key}") AS DOUBLE)',
        "sum": f'CAST(COALESCE(SUM(v."{task.target}"), 0) AS DOUBLE)',
    }[task.aggregate]
    born = f'e."{entity.time_column}" <= t.timestamp' if entity.time_column else "TRUE"
    return f"""SELECT
    t.timestamp AS timestamp,
    e."{entity.primary_key}" AS "{entity_column_of(plan, task)}",
    {value} AS "{task.target}"
FROM
    timestamps t
JOIN
    "{entity.name}" e
ON
    {born}
LEFT JOIN
    "{events.name}" v
ON
    v."{key}" = e."{entity.primary_key}"
    AND v."{events.time_column}" > t.timestamp
    AND v."{events.time_column}" <= t.timestamp + INTERVAL '{{timedelta}}'
GROUP BY
    t.timestamp, e."{entity.primary_key}\""""
