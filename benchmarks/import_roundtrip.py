"""Databases written to SQLite and PostgreSQL without any key, imported by inference alone.

    python -m benchmarks.import_roundtrip data.root=<folder> [postgres=<URL of an empty database>]

prints per database, and for all, how many primary keys, foreign keys and time columns are right; a
table that takes its parent's time, though it had none, is wrong. `repeated=true` imports each
database once more, without the time columns that repeat a parent's, and prints how many tables take
the very times back.
The databases fall into two halves by the order of their names (every second one), so that rules
that were thought of while looking at one half can be read on the other.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.import_media import write_postgres, write_sqlite
from rfm.config import run_command, setting
from rfm.data.database import Database, open_database
from rfm.data.import_sql import Import, ImportConfig, import_database
from rfm.data.locate import list_databases


@dataclass(frozen=True)
class Score:
    """Counts over tables and foreign keys; those that are wrong, in words."""

    tables: int = 0
    keys_right: int = 0
    times_right: int = 0
    links: int = 0  # true ones
    links_found: int = 0
    links_right: int = 0
    ambiguous: int = 0
    wrong: tuple[str, ...] = ()

    def __add__(self, other: Score) -> Score:
        return Score(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Score)))

    @property
    def precision(self) -> float:
        return self.links_right / max(self.links_found, 1)

    @property
    def recall(self) -> float:
        return self.links_right / max(self.links, 1)

    def numbers(self) -> dict[str, float]:
        """The four that count."""
        return {
            "primary_keys": round(self.keys_right / max(self.tables, 1), 4),
            "fkey_precision": round(self.precision, 4),
            "fkey_recall": round(self.recall, 4),
            "time_columns": round(self.times_right / max(self.tables, 1), 4),
        }


def score_import(truth: Database, done: Import) -> Score:
    """Compare what was decided with the manifest of the original."""
    total = Score()
    for name, table in truth.tables.items():
        plan = done.plan.tables[name]
        wrong = []
        key = plan.key[0] if len(plan.key) == 1 else None
        if key != table.primary_key:
            wrong.append(f"{name}: primary key {key}, not {table.primary_key}: {plan.key_reason}")
        time = plan.time.column or plan.inherited_as or None
        if time != table.time_column:
            wrong.append(f"{name}: time {time}, not {table.time_column}: {plan.time.reason}")
        true = set(table.foreign_keys.items())
        found = {(link.columns[0], link.parent) for link in plan.links}
        reasons = {link.columns[0]: link.reason for link in plan.links}
        wrong += [f"{name}.{c} -> {p}: wrong: {reasons[c]}" for c, p in sorted(found - true)]
        wrong += [f"{name}.{c} -> {p}: not found" for c, p in sorted(true - found)]
        total += Score(
            1,
            key == table.primary_key,
            time == table.time_column,
            len(true),
            len(found),
            len(true & found),
            sum(g.table == name and len(g.candidates) > 0 for g in done.plan.ambiguous),
            tuple(f"{truth.name}: {w}" for w in wrong),
        )
    return total


@dataclass(frozen=True)
class _Data:
    root: Path = setting(Path("../shared/data"), help="folder of RelBench folders")


@dataclass(frozen=True)
class RoundtripConfig:
    data: _Data = setting(factory=_Data)
    databases: tuple[str, ...] = setting((), help="names; empty: all")
    postgres: str | None = setting(None, help="URL of a database that may be emptied")
    wrong: bool = setting(True, help="list what is wrong")
    repeated: bool = setting(False, help="import without times that repeat a parent's, too")


@dataclass
class Totals:
    """Scores per medium and database."""

    scores: dict[str, dict[str, Score]] = field(default_factory=dict)

    def all(self, medium: str, names: Sequence[str]) -> Score:
        return sum((self.scores[medium][name] for name in names), Score())


def repeated_times(truth: Database) -> set[str]:
    """Tables whose times are those of the rows that a foreign key of theirs points at."""
    found = set()
    for name, table in truth.tables.items():
        for column, parent in table.foreign_keys.items():
            if table.time_column is None or truth.tables[parent].time_column is None:
                continue
            rows = truth.parents(name, column)
            same = truth.times(parent)[rows[rows >= 0]] == truth.times(name)[rows >= 0]
            if parent != name and same.sum() > 0.99 * table.num_rows:
                found.add(name)
    return found


def score_repeated(truth: Database, source: str, folder: Path) -> dict[str, int]:
    """Import without such times: how many tables there are, take times from parents, and have the
    same times then; and tables that take times though none was taken from them."""
    tables = repeated_times(truth)
    dropped = {t: {"columns": {truth.tables[t].time_column: "drop"}} for t in tables}
    overrides = folder / "dropped.yaml"
    overrides.write_text(yaml.safe_dump({"tables": dropped}))
    done = import_database(source, folder / "repeated", ImportConfig(overrides=overrides))
    assert done.database is not None
    taken = {name for name, plan in done.plan.tables.items() if plan.inherited}
    same = {n for n in taken & tables if np.mean(done.database.times(n) == truth.times(n)) > 0.99}
    return {
        "tables": len(tables),
        "inherit": len(taken & tables),
        "same": len(same),
        "others": len(taken - tables),
    }


def run(config: RoundtripConfig) -> Mapping[str, Any]:
    logging.getLogger("rfm").setLevel(logging.ERROR)
    names = list(config.databases) or list_databases(config.data.root)
    totals, repeated = Totals(), Counter[str]()
    for name in names:
        truth = open_database(name, config.data.root)
        with tempfile.TemporaryDirectory() as folder:
            source = write_sqlite(truth, Path(folder) / "x.sqlite", declared=False)
            done = import_database(source, Path(folder) / name, ImportConfig())
            totals.scores.setdefault("sqlite", {})[name] = score_import(truth, done)
            if config.repeated:
                repeated.update(score_repeated(truth, source, Path(folder)))
            if config.postgres is not None:
                import psycopg

                with psycopg.connect(config.postgres) as connection:
                    write_postgres(truth, connection, declared=False)
                out = Path(folder) / f"{name}-pg"
                done = import_database(config.postgres, out, ImportConfig())
                totals.scores.setdefault("postgresql", {})[name] = score_import(truth, done)
        for medium, scores in totals.scores.items():
            print(f"{medium:11} {name:22} {json.dumps(scores[name].numbers())}", flush=True)
            if config.wrong:
                print(*(f"    {w}" for w in scores[name].wrong), sep="\n", flush=True)
    return {"repeated": dict(repeated)} | {
        medium: {
            "all": totals.all(medium, names).numbers(),
            "even": totals.all(medium, names[::2]).numbers(),
            "odd": totals.all(medium, names[1::2]).numbers(),
            "counts": {k: v for k, v in asdict(totals.all(medium, names)).items() if k != "wrong"},
        }
        for medium in totals.scores
    }


if __name__ == "__main__":
    run_command(RoundtripConfig, run, prog="python -m benchmarks.import_roundtrip", doc=__doc__)
