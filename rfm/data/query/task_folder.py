"""A compiled query as a RelBench task folder, for ``rfm.data.tasks`` and ``relbench`` to open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rfm.data.database import Database
from rfm.data.query.answers import Labels, labels
from rfm.data.query.compiled import CompiledQuery
from rfm.data.query.counts import Counts
from rfm.data.query.run import LIMITS, Limits, tables_of
from rfm.data.query.splits import check_times, split_times
from rfm.data.task_rows import SPLITS, Ints, TaskSplit
from rfm.files import content_hash, publish

_SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}  # of entities without times


@dataclass(frozen=True)
class Written:
    """A task folder; its name is that of the task. rows: of each split. counts: of its anchor
    times."""

    path: Path
    rows: Mapping[TaskSplit, int]
    counts: Mapping[TaskSplit, Counts]

    def words(self) -> str:
        """A line for each split."""
        lines = [
            f"{split}: {self.rows[split]} rows of {self.counts[split].words()}" for split in SPLITS
        ]
        return "\n".join(lines)


def write_task(
    compiled: CompiledQuery,
    database: Database,
    folder: Path,
    times: Mapping[TaskSplit, Ints] = {},
    num_eval_timestamps: int = 1,
    seed: int = 0,
    limits: Limits = LIMITS,
) -> Written:
    """Write ``folder/tasks/<name>/{manifest.yaml,train,val,test.parquet}``.

    Equal questions of equal data have equal names; what is there already is kept.

    Static targets of tables with times are split by the time of each row (train up to the
    validation timestamp, test after the test timestamp), those of tables without times at random:
    70, 15 and 15% of the entities, asked right before the validation timestamp, then, and at the
    test timestamp.

    Args:
        times: anchor times (unix seconds) of all splits; empty: those of ``split_times``.
        num_eval_timestamps: of these, how many for validation and test.
        seed: of the random split.

    Raises:
        ValueError: for times that do not fit (``check_times``), and splits without any label.
    """
    windows = max((times[s].size for s in times if s != "train"), default=num_eval_timestamps)
    times = dict(times) or split_times(compiled, database, num_eval_timestamps)
    check_times(compiled, database, times)
    found = {
        split: _split(compiled, database, split, times[split], seed, limits) for split in SPLITS
    }
    for split, rows in found.items():
        if len(rows) == 0:
            raise ValueError(
                f"{split} has no labelled rows: {rows.counts.words()}; ask about more entities or "
                "a longer window, or choose other times (val_timestamp and test_timestamp, or the "
                "anchor times themselves)"
            )
    name = _name(compiled, database, times, seed)
    path = folder / "tasks" / name
    with publish(path) as temporary:
        temporary.mkdir(parents=True)
        manifest = replace(compiled, name=name).manifest(windows)
        manifest.save(temporary / "manifest.yaml")
        for split, rows in found.items():
            pq.write_table(_table(compiled, rows), temporary / f"{split}.parquet")
    counts = {split: rows.counts for split, rows in found.items()}
    return Written(path, {split: len(rows) for split, rows in found.items()}, counts)


def _name(
    compiled: CompiledQuery, database: Database, times: Mapping[TaskSplit, Ints], seed: int
) -> str:
    """By everything that its files depend on."""
    tables = {name: database.fingerprint(name) for name in tables_of(compiled.bound)}
    spelled = {split: t.tolist() for split, t in times.items()}
    stamps = [database.val_timestamp, database.test_timestamp, seed]
    digest = content_hash([compiled.name, tables, spelled, stamps])
    return f"{compiled.name.rpartition('-')[0]}-{digest[:12]}"


def _table(compiled: CompiledQuery, rows: Labels) -> pa.Table:
    columns = {
        compiled.time_column: pa.array(rows.time.astype("datetime64[s]")).cast("timestamp[us]"),
        compiled.entity_column: pa.array(rows.entity),
        compiled.target_column: rows.label,
    }
    return pa.table(columns)


def _split(
    compiled: CompiledQuery,
    database: Database,
    split: TaskSplit,
    times: Ints,
    seed: int,
    limits: Limits,
) -> Labels:
    """The rows of a split."""
    val, test = database.val_timestamp, database.test_timestamp
    if compiled.kind == "forecast":
        found = labels(compiled, database, times, limits)
        # whoever comes after the test timestamp is in no task table of RelBench
        return _take(found, database.times(compiled.entity_table)[found.entity] <= test)
    tables = (compiled.entity_table, compiled.bound.child)
    if any(t and database.tables[t].time_column is not None for t in tables):
        found = labels(compiled, database, times, limits)
        begin = {"train": np.iinfo(np.int64).min, "val": val, "test": test}[split]
        return _take(found, found.time > begin)
    anchor = {"train": val - compiled.timedelta, "val": val, "test": test}[split]
    found = labels(compiled, database, [anchor], limits)
    count = database.tables[compiled.entity_table].num_rows
    place = np.random.default_rng(seed).permutation(count)[found.entity] / count
    low = {"train": 0.0, "val": _SHARES["train"], "test": 1 - _SHARES["test"]}[split]
    return _take(found, (place >= low) & (place < low + _SHARES[split]))


def _take(found: Labels, kept: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Labels:
    label = found.label.filter(pa.array(kept))
    return Labels(found.entity[kept], found.time[kept], label, found.counts)
