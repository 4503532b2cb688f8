"""Seeded generator of relational databases as RelBench folders.

A database is a pure function of ``(seed, index)`` and the other settings: a schema in the words of
one domain (``synthetic_schema``), rows whose latent states follow the foreign keys and time
(``synthetic_rows``, ``synthetic_events``), cells that follow the latent states
(``synthetic_cells``), and forecast tasks with a planted and recorded signal (``synthetic_rules``,
``synthetic_tasks``).

    python -m rfm.data.synthetic out=<folder> count=100 seed=0 rows=20000 signal=two_hop
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from rfm.config import run_command, setting
from rfm.data.synthetic_cells import write_table
from rfm.data.synthetic_events import simulate_events
from rfm.data.synthetic_plan import Plan
from rfm.data.synthetic_rows import Population, make_items, make_rows
from rfm.data.synthetic_schema import plan_database
from rfm.data.synthetic_tasks import Calendar, day_text, make_calendar, write_task
from rfm.files import full_disk_said

SignalChoice = Literal["mixed", "own_columns", "one_hop", "two_hop", "recency", "own_past_labels"]
VERSION = 1
"""Of the recipe: raise it when the same settings give other databases."""

RECORD = "synthetic.json"


@dataclass(frozen=True)
class SyntheticConfig:
    """What the databases are like; see the module text."""

    seed: int = setting(0, ge=0, help="chance; a database is a function of seed and index")
    rows: int = setting(20_000, ge=500, help="rows of a database, approximately")
    tables: tuple[int, int] = setting((3, 12), ge=3, le=24, help="fewest and most tables")
    signal: SignalChoice = "mixed"
    missing: float = setting(
        0.1, ge=0.0, le=0.5, help="share of missing cells in the columns that have any"
    )

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: want 0 or more")
        if self.rows < 500:
            raise ValueError(f"rows={self.rows}: want 500 or more, tasks need events to count")
        if not 3 <= self.tables[0] <= self.tables[1] <= 24:
            raise ValueError(
                f"tables={list(self.tables)}: want [fewest, most] with 3 <= fewest <= most <= 24"
            )
        if self.signal not in get_args(SignalChoice):
            raise ValueError(f"signal={self.signal!r}: want one of {get_args(SignalChoice)}")
        if not 0 <= self.missing <= 0.5:
            raise ValueError(f"missing={self.missing}: want a share from 0 to 0.5")


def database_name(index: int, config: SyntheticConfig) -> str:
    return f"synthetic-{config.seed}-{index:04d}"


def generate_database(out: Path, index: int, config: SyntheticConfig) -> Path:
    """Write database ``index`` under ``out`` and return its folder.

    A complete folder with the same settings is left as it is; one of other settings is replaced.
    An interrupted run leaves nothing under the final name.

    Raises:
        ValueError: a negative index, ``out`` is a file, or a folder of this name exists that this
            generator did not write.
    """
    if index < 0:
        raise ValueError(f"index={index}: want 0 or more")
    if out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file: give a folder, it is made if it does not exist")
    folder = out / database_name(index, config)
    settings = {"version": VERSION, "index": index, **asdict(config)}
    wanted = json.loads(json.dumps(settings))
    if folder.exists():
        record = read_record(folder)
        if record.get("settings") == wanted:
            return folder
        if not record:
            raise ValueError(
                f"{folder} exists and has no {RECORD}, so it is not a synthetic database: "
                "move it away or choose another out="
            )
    unfinished = out / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "db").mkdir(parents=True)
    try:
        with full_disk_said(folder):
            facts = _write_database(unfinished, folder.name, index, config)
            text = json.dumps({"settings": settings, **facts}, indent=2)
            (unfinished / RECORD).write_text(text + "\n", encoding="utf-8")
            _move(unfinished, folder, wanted)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _move(unfinished: Path, folder: Path, wanted: dict[str, Any]) -> None:
    """Put a finished database in its place; another process may have put the same one there."""
    if folder.exists() and read_record(folder).get("settings") != wanted:
        shutil.rmtree(folder)
    try:
        unfinished.replace(folder)
    except OSError:
        if read_record(folder).get("settings") != wanted:
            raise


def generate_databases(out: Path, count: int, config: SyntheticConfig) -> list[Path]:
    """Write databases 0 to ``count - 1`` under ``out`` and return their folders.

    Raises:
        ValueError: ``count`` < 1, and as ``generate_database``.
    """
    if count < 1:
        raise ValueError(f"count={count}: want 1 or more databases")
    folders = []
    for index in range(count):
        start = time.perf_counter()
        folders.append(generate_database(out, index, config))
        record = read_record(folders[-1])
        print(
            f"{folders[-1].name}: {record['domain']}, {record['tables']} tables, "
            f"{record['rows']:,} rows, {time.perf_counter() - start:.2f} s",
            file=sys.stderr,
        )
    return folders


def read_record(folder: Path) -> dict[str, Any]:
    """Settings and facts of a finished synthetic database; empty if it is not one."""
    path = folder / RECORD
    if not path.exists():
        return {}
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _write_database(folder: Path, name: str, index: int, config: SyntheticConfig) -> dict[str, Any]:
    """Draw and write everything; each part has a generator of its own."""

    def generator(*key: int) -> np.random.Generator:
        return np.random.default_rng([config.seed, index, *key])

    plan = plan_database(generator(0), config.rows, config.tables, config.signal, config.missing)
    population = Population(generator(1), plan)
    order = list(plan.tables)
    for table in plan.tables.values():
        if table.role in ("lookup", "entity", "bridge"):
            rng = generator(2, order.index(table.name))
            population.add(rng, table, make_rows(rng, population, table))
    events, outcomes = simulate_events(generator(3), population)
    for name_of_table, rows in events.items():
        population.add(generator(1), plan.tables[name_of_table], rows)
    for table in plan.tables.values():
        if table.role == "item":
            rng = generator(2, order.index(table.name))
            population.add(rng, table, make_items(rng, population, table))
    calendar = make_calendar(plan, population.rows)
    for task in plan.tasks:
        actors = population.rows[plan.tables[task.table].actor]
        task_folder = folder / "tasks" / task.name
        write_task(task_folder, plan, task, outcomes[task.table], actors, calendar)
    counts = {}
    for number, table in enumerate(plan.tables.values()):
        rows = population.rows.pop(table.name)
        counts[table.name] = rows.count
        path = folder / "db" / f"{table.name}.parquet"
        write_table(path, generator(4, number), table, rows, plan)
        del rows
    _write_manifest(folder, name, plan, calendar)
    return {"domain": plan.domain, "tables": len(counts), "rows": sum(counts.values())}


def _write_manifest(folder: Path, name: str, plan: Plan, calendar: Calendar) -> None:
    from relbench.manifest import DatasetManifest, TableSpec  # slow import

    DatasetManifest(
        name=name,
        description=f"Synthetic database about a {plan.domain}.",
        val_timestamp=day_text(plan.start + calendar.val * plan.step),
        test_timestamp=day_text(plan.start + calendar.test * plan.step),
        tables={
            table.name: TableSpec(
                pkey=table.primary_key,
                time_col=table.time_column,
                fkeys={link.column: link.parent for link in table.links},
            )
            for table in plan.tables.values()
        },
    ).save(folder / "manifest.yaml")


@dataclass(frozen=True)
class CommandConfig(SyntheticConfig):
    """The command line: where to, how many, and the settings of ``SyntheticConfig``."""

    out: Path = Path("synthetic")
    count: int = setting(10, ge=1, help="number of databases")


def main(config: CommandConfig) -> dict[str, Any]:
    start = time.perf_counter()
    settings = {name: getattr(config, name) for name in SyntheticConfig.__dataclass_fields__}
    folders = generate_databases(config.out, config.count, SyntheticConfig(**settings))
    seconds = time.perf_counter() - start
    rows = sum(int(read_record(folder)["rows"]) for folder in folders)
    return {
        "out": str(config.out),
        "count": len(folders),
        "seed": config.seed,
        "rows": rows,
        "seconds": round(seconds, 3),
        "rows_per_second": round(rows / seconds),
    }


if __name__ == "__main__":
    run_command(CommandConfig, main, prog="python -m rfm.data.synthetic", doc=__doc__)
