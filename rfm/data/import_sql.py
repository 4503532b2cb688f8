"""Any SQL database, DuckDB file or folder of CSV and parquet files as a RelBench folder.

    rfm import <URL | file | folder> out=<folder> [--dry-run] ...

`source` is a SQLAlchemy URL (postgresql://user@host/database), a .duckdb or .sqlite file, or a
folder of *.csv, *.tsv, *.csv.gz and *.parquet files. It is only read. Keys that it declares are
kept; others, time columns and types are inferred, and `overrides` changes what is inferred wrongly:
see `--dry-run`, which shows every decision with its reason, and writes nothing.

The folder holds `manifest.yaml`, `db/<table>.parquet`, the source's own keys in
`keys/<table>.parquet`, every decision in `import.yaml` and a picture in `schema.svg`.
"""

from __future__ import annotations

import fnmatch
import logging
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from rfm.config import setting
from rfm.data.database import Database, open_database
from rfm.data.importing.connect import connect
from rfm.data.importing.folder_names import folder_names
from rfm.data.importing.overrides import TableOverride, narrow_table, read_import_overrides
from rfm.data.importing.place import check_out, replacing
from rfm.data.importing.plan import Plan
from rfm.data.importing.planning import make_plan
from rfm.data.importing.profile import Facts, TableFacts
from rfm.data.importing.report import decisions, losses, plan_text, write_decisions
from rfm.data.importing.source import Source, SourceTable
from rfm.data.importing.stage import stage_table
from rfm.data.importing.write import (
    derive_splits,
    expect_written,
    write_manifest,
    write_tables,
)
from rfm.data.schema import suggest
from rfm.files import remove

_log = logging.getLogger("rfm")
_BASE_MEGABYTES = 300  # Python, Arrow and its batches, beside what DuckDB may hold
_REST = 1.2  # seconds for inference and writing, per second of reading
_WORK = ".import"


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What to import, and how."""

    schemas: tuple[str, ...] = setting((), help="schemas to read; empty: the default one")
    include: tuple[str, ...] = setting((), help="tables to take (patterns such as sales_*)")
    exclude: tuple[str, ...] = setting((), help="tables to leave out (patterns)")
    views: bool | list[str] = setting(False, help="true: all views as tables, or a list of them")
    where: dict[str, str] = setting(
        factory=dict, help="rows to take of a table, as a SQL condition of the source"
    )
    overrides: Path | None = setting(None, help="YAML of what is not to be inferred")
    inherit_times: bool = setting(
        True, help="tables that happen with their parents, such as order lines, have their time"
    )
    dry_run: bool = setting(False, help="show what would be done, write nothing")
    dry_run_rows: int = setting(1_000_000, ge=1, help="rows of each table a dry run looks at")
    val_timestamp: str | None = setting(None, help="first time of validation, such as 2020-01-31")
    test_timestamp: str | None = setting(None, help="first time of test")
    name: str | None = setting(None, help="name of the database; by default that of the folder")
    overwrite: bool = setting(False, help="replace a database that is in out=")
    memory: int = setting(384, ge=64, help="megabytes that sorts and joins may hold; more spills")
    threads: int = setting(2, ge=1, help="threads that infer and write")


@dataclass(frozen=True)
class Import:
    """What an import came to. `plan_text` is what a dry run prints; `database` is what was
    written, None after a dry run alone."""

    plan: Plan
    splits: tuple[str, str]
    counts: Mapping[str, int]  # rows per table of the folder
    plan_text: str
    warnings: tuple[str, ...]
    seconds: float
    database: Database | None


@dataclass(frozen=True)
class _Read:
    """The tables of a source, read into files."""

    tables: Mapping[str, TableFacts]
    places: Mapping[tuple[str, str], str]
    counts: Mapping[str, int]
    left_out: Mapping[str, str]  # tables of the source -> why
    warnings: tuple[str, ...]
    seconds: float


def import_database(source: str, out: Path, options: ImportConfig) -> Import:
    """Import a database; `out` is whole or, after any failure, as it was.

    Raises:
        ValueError: a source that cannot be read, options that do not fit it, a folder that is there
            already. No password is ever part of a message.
    """
    began = time.perf_counter()
    out = out.expanduser().resolve()
    given = _given_splits(options)
    said = read_import_overrides(options.overrides)
    if options.dry_run:
        with tempfile.TemporaryDirectory(prefix="rfm-import-") as temporary:
            return _dry_run(source, options, said, given, Path(temporary), began)
    check_out(out, options.overwrite, source)
    with replacing(out, options.overwrite, source) as folder:
        work = folder / _WORK
        work.mkdir(parents=True)
        with _facts(options, work) as facts:
            read, shown = _read(source, options, said, facts, work, 0)
            plan = make_plan(facts, read.tables, read.places, said, options.inherit_times)
            splits = given or derive_splits(facts, plan)
            written = write_tables(facts, plan, folder, work)
        name = _database_name(options, out)
        write_manifest(plan, folder, name, splits, f"Imported from {shown}.")
        warnings = (*read.warnings, *plan.warnings, *losses(plan, written))
        done = decisions(plan, written, read.left_out, warnings)
        write_decisions(folder / "import.yaml", done)
        remove(work)
        _draw(folder)
    for warning in warnings:
        _log.warning("%s", warning)
    text = plan_text(plan, read.counts, splits, read.left_out, warnings)
    seconds = time.perf_counter() - began
    return Import(plan, splits, read.counts, text, warnings, seconds, open_database(out))


def _dry_run(
    source: str,
    options: ImportConfig,
    said: Mapping[str, TableOverride],
    given: tuple[str, str] | None,
    work: Path,
    began: float,
) -> Import:
    with _facts(options, work) as facts:
        read, _ = _read(source, options, said, facts, work, options.dry_run_rows)
        plan = make_plan(facts, read.tables, read.places, said, options.inherit_times)
        splits = given or derive_splits(facts, plan)
        warnings = (*read.warnings, *plan.warnings, *losses(plan, expect_written(facts, plan)))
    looked = sum(table.rows for table in read.tables.values())
    cells = {name: len(table.columns) for name, table in read.tables.items()}
    share = sum(read.counts[n] * c for n, c in cells.items()) / max(
        sum(read.tables[n].rows * c for n, c in cells.items()), 1
    )
    estimate = read.seconds * share * (1 + _REST)
    size = sum(t.path.stat().st_size for t in read.tables.values()) * share
    lines = [
        plan_text(plan, read.counts, splits, read.left_out, warnings),
        f"an import: about {estimate:.0f} s (from {looked:,} rows that were read in "
        f"{read.seconds:.1f} s), at most about {options.memory + _BASE_MEGABYTES} MB of memory and "
        f"{2.5 * size / 1e6:,.0f} MB of disk",
    ]
    seconds = time.perf_counter() - began
    return Import(plan, splits, read.counts, "\n".join(lines), warnings, seconds, None)


def _read(
    source: str,
    options: ImportConfig,
    said: Mapping[str, TableOverride],
    facts: Facts,
    work: Path,
    limit: int,
) -> tuple[_Read, str]:
    """Stream the wanted tables to files, and look at them. Tables without rows are left out."""
    opened = connect(source, options.memory, work / "spill")
    empty: dict[str, str] = {}
    staged, counts, began = {}, {}, time.perf_counter()
    try:
        tables, left_out = _wanted(opened, options)
        names = folder_names(tables)
        _check_names(options.where, list(names.values()), "where")
        _check_names(said, list(names.values()), "overrides")
        for i, table in enumerate(tables):
            name = names[table.schema, table.name]
            if name in said and said[name].left_out:
                left_out[name] = "by overrides"
                continue
            table = narrow_table(opened, table, tables, said.get(name, TableOverride()))
            if not table.readable:
                why = "; ".join(dict.fromkeys(c.note for c in table.columns if c.note))
                empty[name] = f"no column can be read ({why or 'it has none'})"
                continue
            where, path = options.where.get(name, ""), work / f"{i}.parquet"
            found = stage_table(opened, table, where, limit, path)
            if not found.rows:
                empty[name] = "has no rows"
                continue
            staged[name] = found
            counts[name] = found.rows if found.whole else opened.count(table, where)
            _log.info("%s: %d rows read", name, found.rows)
    finally:
        opened.close()
    seconds = time.perf_counter() - began
    if not staged:
        without = ", ".join(f"{name}: {why}" for name, why in (left_out | empty).items())
        raise ValueError(f"source={opened.shown}: no table has rows; {without}")
    looked = {name: facts.table(name, found) for name, found in staged.items()}
    places = {key: name for key, name in names.items() if name in staged}
    warnings = tuple(f"{name}: {why}, left out" for name, why in empty.items())
    return _Read(looked, places, counts, left_out | empty, warnings, seconds), opened.shown


def _wanted(source: Source, options: ImportConfig) -> tuple[list[SourceTable], dict[str, str]]:
    """Tables of the source that the options ask for, and why others are left out."""
    tables = source.tables(options.schemas, bool(options.views))
    if not isinstance(options.views, bool):
        views = [t.name for t in tables if t.is_view]
        _check_names(options.views, views, "views")
        tables = [t for t in tables if not t.is_view or t.name in options.views]
    for option, patterns in (("include", options.include), ("exclude", options.exclude)):
        for pattern in patterns:
            if not any(_matches(t, [pattern]) for t in tables):
                known = suggest(pattern, [t.name for t in tables])
                raise ValueError(f"{option}: {pattern!r} is no table; {known}")
    left_out = {}
    for table in tables:
        if options.include and not _matches(table, options.include):
            left_out[table.shown] = "not in include"
        elif _matches(table, options.exclude):
            left_out[table.shown] = "by exclude"
    wanted = [table for table in tables if table.shown not in left_out]
    if not wanted:
        raise ValueError(
            f"source={source.shown}: no tables"
            + (" are left by include and exclude" if tables else " in it; give schemas=[...]?")
        )
    return wanted, left_out


def _matches(table: SourceTable, patterns: Sequence[str]) -> bool:
    names = (table.name, table.shown)
    return any(name == p or fnmatch.fnmatchcase(name, p) for name in names for p in patterns)


def _check_names(given: Mapping[str, Any] | Sequence[str], known: list[str], option: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{option}: no table {name!r}; {suggest(name, known)}")


def _given_splits(options: ImportConfig) -> tuple[str, str] | None:
    val, test = options.val_timestamp, options.test_timestamp
    if val is None and test is None:
        return None
    if val is None or test is None:
        raise ValueError("give both val_timestamp and test_timestamp, or neither")
    moments = []
    for name, text in (("val_timestamp", val), ("test_timestamp", test)):
        try:
            moments.append(pd.Timestamp(text))
        except ValueError:
            raise ValueError(f"{name}={text}: wanted an ISO date such as 2020-01-31") from None
    if moments[0] >= moments[1]:
        raise ValueError(f"val_timestamp={val} must come before test_timestamp={test}")
    return val, test


def _database_name(options: ImportConfig, out: Path) -> str:
    name = options.name or re.sub(r"^\.+", "", out.absolute().name) or "database"
    if "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"name={name!r}: names a folder, wanted no slash and no leading dot")
    return name


@contextmanager
def _facts(options: ImportConfig, work: Path) -> Iterator[Facts]:
    facts = Facts(options.memory, options.threads, work / "spill")
    try:
        yield facts
    except duckdb.OutOfMemoryException:
        raise ValueError(
            f"memory={options.memory} MB is too little for this database; give more, or fewer "
            f"threads= than {options.threads}"
        ) from None
    finally:
        facts.close()


def _draw(folder: Path) -> None:
    from rfm.data.schema_picture import draw_schema

    draw_schema(open_database(folder), folder / "schema.svg")


@dataclass(frozen=True, kw_only=True)
class ImportCommand(ImportConfig):
    source: str = setting(help="a database URL, a .duckdb or .sqlite file, or a folder of files")
    out: Path | None = setting(None, help="the folder to write; a dry run needs none")


def import_command(config: ImportCommand) -> Mapping[str, Any]:
    """What the command does: import, show every decision, and say in numbers what it came to."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if config.out is None and not config.dry_run:
        raise ValueError("out: required; give the folder to write, out=shop, or dry_run=true")
    done = import_database(config.source, config.out or Path(), replace(config))
    print(done.plan_text)
    return {
        "out": None if done.database is None else str(done.database.folder),
        "tables": len(done.plan.tables),
        "rows": sum(done.counts.values()),
        "foreign_keys": sum(len(t.links) for t in done.plan.tables.values()),
        "ambiguous": len(done.plan.ambiguous),
        "warnings": list(done.warnings),
        "val_timestamp": done.splits[0],
        "test_timestamp": done.splits[1],
        "seconds": round(done.seconds, 2),
    }
