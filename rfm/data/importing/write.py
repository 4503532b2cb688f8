"""The RelBench folder of a plan: row numbers for keys, the manifest, original keys.

Keys are sorted and joined by DuckDB, which spills what memory does not hold; whole rows are only
streamed (`rfm.data.importing.rows`). So no table need fit into memory.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from rfm.data.importing.inherited_times import is_calendar
from rfm.data.importing.plan import Plan, TablePlan
from rfm.data.importing.profile import Facts, scan
from rfm.data.importing.row_sql import latest_above, parent_row, row_time
from rfm.data.importing.rows import Cells, write_rows
from rfm.data.importing.text_values import as_kind
from rfm.data.importing.time_columns import missing_times
from rfm.data.sql_quoting import identifier, literal

_log = logging.getLogger("rfm")
_REPEATED = 0.1  # different values, as a share of rows, below which a dictionary is shorter


@dataclass(frozen=True)
class Written:
    """What came of a table that its plan did not know."""

    rows: int
    lost_links: Mapping[str, int]  # foreign key -> rows whose parent is not there: null now
    filled_times: int  # rows without a time, which have the latest one now


def write_tables(facts: Facts, plan: Plan, folder: Path, work: Path) -> dict[str, Written]:
    """`db/<table>.parquet`, and `keys/<table>.parquet` where the key is not the row number.

    Rows come in the order of the primary key, without one in the source's.
    """
    (folder / "db").mkdir()
    ranked = {name: _rank(facts, table, plan, work) for name, table in plan.tables.items()}
    written = {}
    for name, table in plan.tables.items():
        path, stem = folder / "db" / f"{name}.parquet", table.facts.path.stem
        computed, rows = work / f"{stem}-computed.parquet", work / f"{stem}-rows.parquet"
        cells = _compute(facts, table, plan, ranked, computed)
        untimed = _fill_times(facts, plan, table, cells, computed)
        if ranked[name].moved:
            sql = f"SELECT file_row_number::BIGINT AS r FROM {scan(ranked[name].path)} ORDER BY s"
            _copy(facts, sql, rows)
        write_rows(table.facts.staged, cells, computed, rows, path, work)
        computed.unlink(missing_ok=True)
        rows.unlink(missing_ok=True)
        if table.key and not _counts_from_zero(table):
            _write_keys(facts, table, ranked[name], folder / "keys" / f"{name}.parquet")
        written[name] = Written(table.facts.rows, _lost(facts, table, path), untimed)
    return written


def expect_written(facts: Facts, plan: Plan) -> dict[str, Written]:
    """What `write_tables` would say, as far as the rows tell that were read: of parents of which
    not all were read, nothing."""
    expected = {}
    for name, table in plan.tables.items():
        lost: dict[str, int] = {}
        for link in table.links:
            parent = plan.tables[link.parent].facts
            if parent.staged.whole:
                ours = [table.facts.columns[c].at for c in link.columns]
                theirs = [parent.columns[c].at for c in link.parent_columns]
                *_, rows, found = facts.contained(
                    table.facts.path, ours, parent.path, theirs, link.folded
                )
                lost |= {link.column: rows - found} if rows > found else {}
        expected[name] = Written(table.facts.rows, lost, _untimed_rows(facts, plan, table))
    return expected


def write_manifest(
    plan: Plan, folder: Path, name: str, splits: tuple[str, str], about: str
) -> None:
    """`manifest.yaml`, and `kinds.yaml` where the user said what columns are."""
    val, test = splits
    tables = {
        table.name: {
            "pkey": table.key_column or None,
            "time_col": table.time_name or None,
            "fkeys": {link.column: link.parent for link in table.links},
        }
        for table in plan.tables.values()
    }
    content = {
        "name": name,
        "manifest_version": 1,
        "description": about,
        "val_timestamp": val,
        "test_timestamp": test,
        "tables": tables,
    }
    _write_yaml(folder / "manifest.yaml", content)
    kinds = {
        table.name: {table.names[c]: kind for c, kind in table.kinds.items() if c in table.names}
        for table in plan.tables.values()
        if table.kinds
    }
    if kinds:
        _write_yaml(folder / "kinds.yaml", {name: kinds})


def derive_splits(facts: Facts, plan: Plan) -> tuple[str, str]:
    """Validation and test timestamp: by then 80 % and 90 % of all rows with a time were there.

    Times that are a parent's count, too: where only days have times of their own, and sales have
    these, a calendar that goes on for years says nothing. So calendars count only by themselves.
    The beginning of that day, where these are different days within the time range; else the
    second. Without any time: 2000-01-01 and 2001-01-01, which nothing depends on.
    """
    timed = [table for table in plan.tables.values() if table.time_name]
    if not timed:
        return "2000-01-01", "2001-01-01"
    counted = [table for table in timed if not is_calendar(table)] or timed
    parts = [_of_times("date_trunc('second', {}) AS t", plan, table) for table in counted]
    rows = f"(SELECT t FROM ({' UNION ALL '.join(parts)}) WHERE t IS NOT NULL)"
    for unit in ("day", "second"):
        by_unit = facts.connection.execute(
            f"SELECT d, n FROM (SELECT date_trunc('{unit}', t)::TIMESTAMP AS d, count(*) AS n "
            f"FROM {rows} GROUP BY d) ORDER BY d"
        ).fetchall()
        moments = [_quantile(by_unit, share) for share in (0.8, 0.9)]
        if by_unit[0][0] < moments[0] < moments[1]:
            break
    else:
        moments[1] = max(moments[1], moments[0] + datetime.timedelta(seconds=1))
    val, test = (m.date().isoformat() if m == _midnight(m) else m.isoformat(" ") for m in moments)
    return val, test


@dataclass(frozen=True)
class _Ranked:
    """A table's keys in the order of its rows in the folder: the row number of `path` is the row.

    Where rows are moved, `path` has keys alone, and each one's staged row as `s`.
    """

    path: Path
    moved: bool


def _rank(facts: Facts, table: TablePlan, plan: Plan, work: Path) -> _Ranked:
    at = [table.facts.columns[c].at for c in table.key]
    if not at or (len(at) == 1 and at[0] in table.facts.staged.rising):
        return _Ranked(table.facts.path, False)
    pointed = [link for t in plan.tables.values() for link in t.links if link.parent == table.name]
    used = {*at, *(table.facts.columns[c].at for link in pointed for c in link.parent_columns)}
    path = work / f"{table.facts.path.stem}-keys.parquet"
    columns, order = ", ".join(sorted(used)), ", ".join(at)
    sql = f"SELECT {columns}, file_row_number AS s FROM {scan(table.facts.path)} ORDER BY {order}"
    _copy(facts, sql, path)
    return _Ranked(path, True)


def _compute(
    facts: Facts, table: TablePlan, plan: Plan, ranked: Mapping[str, _Ranked], path: Path
) -> list[Cells]:
    """Write the columns that are not as they are staged, in their final order, if there are any;
    say for all columns of the folder where they come from."""
    computed, joins = {}, []
    for i, link in enumerate(table.links):
        parent = plan.tables[link.parent]
        cell, join = parent_row(table, link, parent, scan(ranked[link.parent].path), f"p{i}")
        computed[link.column] = cell
        joins += [join] * bool(join)
    new = [link.column for link in table.links if link.column not in table.names.values()]
    if table.inherited:
        computed[table.inherited_as], more = row_time(plan, table)
        joins += more
        new.append(table.inherited_as)
    cells = [Cells(table.key_column, repeats=False)] if table.key and not table.key_in_place else []
    for column, name in table.names.items():
        at, sort = table.facts.columns[column].at, table.facts.columns[column].sort
        if name in computed:
            pass
        elif column == table.time.column:
            computed[name], _ = row_time(plan, table)
        elif column in table.kinds and name != table.key_column:
            computed[name] = as_kind(f"t.{at}", sort, table.kinds[column])
        else:
            repeats = table.facts.columns[column].distinct < _REPEATED * table.facts.rows
            is_key = name == table.key_column
            cells.append(Cells(name, staged="" if is_key else at, repeats=repeats and not is_key))
            continue
        cells.append(Cells(name, computed=f"n{list(computed).index(name)}"))
    cells += [Cells(name, computed=f"n{list(computed).index(name)}") for name in new]
    if table.kept_key:
        cells.append(
            Cells(table.kept_key, staged=table.facts.columns[table.key[0]].at, repeats=False)
        )
    if computed:
        chosen = ", ".join(f"{cell} AS n{i}" for i, cell in enumerate(computed.values()))
        order = "t.file_row_number" if joins else ""
        if ranked[table.name].moved:
            rows = f"SELECT s, file_row_number AS r FROM {scan(ranked[table.name].path)}"
            joins.append(f"JOIN ({rows}) o ON o.s = t.file_row_number")
            order = "o.r"
        sql = f"SELECT {chosen} FROM {scan(table.facts.path)} t {' '.join(joins)}"
        _copy(facts, sql + f" ORDER BY {order}" * bool(order), path)
    return cells


def _fill_times(
    facts: Facts, plan: Plan, table: TablePlan, cells: Sequence[Cells], path: Path
) -> int:
    """Give the rows without a time the latest one, so that nothing sees them before they were
    there; how many they are."""
    own = table.facts.columns.get(table.time.column)
    if not table.time_name or (own is not None and not missing_times(own)):
        return 0
    at = next(cell.computed for cell in cells if cell.name == table.time_name)
    n, latest = facts.row(f"SELECT count(*) - count({at}), epoch_us(max({at})) FROM {scan(path)}")
    if n:
        if latest is None:  # no row has its parent
            (latest,) = facts.row(latest_above(plan, table))
        time = f"coalesce({at}, make_timestamp({latest}::BIGINT)) AS {at}"
        filled = path.with_suffix(".filled")
        columns = f"* EXCLUDE (file_row_number) REPLACE ({time})"
        _copy(facts, f"SELECT {columns} FROM {scan(path)}", filled)
        filled.replace(path)
    return int(n)


def _untimed_rows(facts: Facts, plan: Plan, table: TablePlan) -> int:
    """Rows without a time, though their table has them; 0 where not all parents were read."""
    if table.time.column:
        return missing_times(table.facts.columns[table.time.column])
    if not table.inherited or not _read_above(plan, table):
        return 0
    return int(facts.row(_of_times("count(*) - count({})", plan, table))[0])


def _read_above(plan: Plan, table: TablePlan) -> bool:
    """Whether all rows were read that a table's times are of: the parents', and of those that
    inherit it themselves theirs. A row may have the time of another one of its table."""
    return all(
        plan.tables[time.link.parent].facts.staged.whole
        and (bool(time.column) or _read_above(plan, plan.tables[time.link.parent]))
        for time in table.inherited
    )


def _of_times(cell: str, plan: Plan, table: TablePlan) -> str:
    """A question to a table's times, `{}`."""
    time, joins = row_time(plan, table)
    return f"SELECT {cell.format(time)} FROM {scan(table.facts.path)} t {' '.join(joins)}"


def _counts_from_zero(table: TablePlan) -> bool:
    """Whether the key's own values are the row numbers; then they need not be written down."""
    column = table.facts.columns[table.key[0]]
    return len(table.key) == 1 and column.counts_rows and column.low == 0


def _write_keys(facts: Facts, table: TablePlan, ranked: _Ranked, path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    columns = ", ".join(
        f"{table.facts.columns[c].at} AS {identifier(table.names.get(c, c))}" for c in table.key
    )
    _copy(facts, f"SELECT {columns} FROM {scan(ranked.path)}", path)


def _copy(facts: Facts, sql: str, path: Path) -> None:
    facts.connection.execute(f"COPY ({sql}) TO {literal(path)} (FORMAT parquet)")


def _lost(facts: Facts, table: TablePlan, path: Path) -> dict[str, int]:
    """Per foreign key the rows that had a value without a parent row."""
    lost = {}
    for link in table.links:
        present = facts.present(table.facts.path, [table.facts.columns[c].at for c in link.columns])
        if missing := present - _count(path, link.column):
            lost[link.column] = missing
    return lost


def _count(path: Path, column: str) -> int:
    """Values of a column of a written file that are not null, by its footer."""
    with pq.ParquetFile(path) as file:
        place, metadata = file.schema_arrow.get_field_index(column), file.metadata
        groups = [metadata.row_group(g).column(place) for g in range(metadata.num_row_groups)]
        return sum(group.num_values - group.statistics.null_count for group in groups)


def _quantile(counted: list[tuple[Any, ...]], share: float) -> datetime.datetime:
    """The first moment by the end of which a share of all rows were there."""
    total, seen = sum(int(n) for _, n in counted), 0
    for moment, n in counted:
        seen += int(n)
        if seen >= share * total:
            return datetime.datetime.fromisoformat(str(moment))
    raise AssertionError(share)


def _midnight(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(
        yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
