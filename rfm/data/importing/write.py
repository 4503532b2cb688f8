"""The RelBench folder of a plan: row numbers for keys, the manifest, original keys.

Keys are sorted and joined by DuckDB, which spills what memory does not hold; whole rows are only
streamed (`rfm.data.importing.rows`). So no table need fit into memory.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from rfm.data.importing.duck_connection import utc
from rfm.data.importing.plan import Link, Plan, TablePlan
from rfm.data.importing.profile import Facts, scan
from rfm.data.importing.rows import Cells, write_rows
from rfm.data.sql_quoting import identifier

_log = logging.getLogger("rfm")
_CASTS = {"number": "DOUBLE", "boolean": "BOOLEAN", "datetime": "TIMESTAMP", "text": "VARCHAR"}
_CASTS["category"] = "VARCHAR"
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
        if ranked[name].moved:
            sql = f"SELECT file_row_number::BIGINT AS r FROM {scan(ranked[name].path)} ORDER BY s"
            _copy(facts, sql, rows)
        write_rows(table.facts.staged, cells, computed, rows, path, work)
        computed.unlink(missing_ok=True)
        rows.unlink(missing_ok=True)
        if table.key and not _counts_from_zero(table):
            _write_keys(facts, table, ranked[name], folder / "keys" / f"{name}.parquet")
        lost = _lost(facts, table, path)
        written[name] = Written(table.facts.rows, lost, untimed_rows(table))
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
        expected[name] = Written(table.facts.rows, lost, untimed_rows(table))
    return expected


def untimed_rows(table: TablePlan) -> int:
    """Rows without a time, though their table has them."""
    return table.facts.columns[table.time.column].nulls if table.time.column else 0


def write_manifest(
    plan: Plan, folder: Path, name: str, splits: tuple[str, str], about: str
) -> None:
    """`manifest.yaml`, and `kinds.yaml` where the user said what columns are."""
    val, test = splits
    tables = {
        table.name: {
            "pkey": table.key_column or None,
            "time_col": table.names[table.time.column] if table.time.column else None,
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

    The beginning of that day, where these are different days within the time range; else the
    second. Without any time: 2000-01-01 and 2001-01-01, which nothing depends on.
    """
    parts = [
        f"SELECT date_trunc('second', {_moment(table)}) AS t FROM {scan(table.facts.path)}"
        for table in plan.tables.values()
        if table.time.column
    ]
    if not parts:
        return "2000-01-01", "2001-01-01"
    rows = f"(SELECT t FROM ({' UNION ALL '.join(parts)}) WHERE t IS NOT NULL)"
    for unit in ("day", "second"):
        counted = facts.connection.execute(
            f"SELECT d, n FROM (SELECT date_trunc('{unit}', t)::TIMESTAMP AS d, count(*) AS n "
            f"FROM {rows} GROUP BY d) ORDER BY d"
        ).fetchall()
        moments = [_quantile(counted, share) for share in (0.8, 0.9)]
        if counted[0][0] < moments[0] < moments[1]:
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
        cell, join = _parent_row(table, link, parent, ranked[link.parent].path, f"p{i}")
        computed[link.column] = cell
        joins += [join] * bool(join)
    new = [link.column for link in table.links if link.column not in table.names.values()]
    cells = [Cells(table.key_column, repeats=False)] if table.key and not table.key_in_place else []
    for column, name in table.names.items():
        at, sort = table.facts.columns[column].at, table.facts.columns[column].sort
        if name in computed:
            pass
        elif column == table.time.column:
            computed[name] = f"coalesce({_moment(table, 't.')}, {_latest(facts, table)})"
        elif column in table.kinds and name != table.key_column:
            computed[name] = _cast(f"t.{at}", sort, table.kinds[column])
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


def _cast(cell: str, sort: str, kind: str) -> str:
    if kind == "datetime" and sort == "text":
        return utc(cell)
    return f"{cell}::{_CASTS[kind]}"


def _parent_row(
    table: TablePlan, link: Link, parent: TablePlan, path: Path, alias: str
) -> tuple[str, str]:
    """The parent's row number as an expression, and the join that it needs, if any."""
    ours = [table.facts.columns[c] for c in link.columns]
    theirs = [parent.facts.columns[c] for c in link.parent_columns]
    if len(theirs) == 1 and link.parent_columns == parent.key and theirs[0].counts_rows:
        mine, key = ours[0], theirs[0]
        if mine.sort == "integer":
            value = f"t.{mine.at}::BIGINT"
            return (
                f"CASE WHEN {value} BETWEEN {key.low} AND {key.high} THEN {value} - {key.low} END",
                "",
            )
    keys = ", ".join(c.at for c in theirs)
    on = []
    for mine, key in zip(ours, theirs, strict=True):
        as_text = "::VARCHAR" if (mine.sort == "text") != (key.sort == "text") else ""
        a, b = f"t.{mine.at}{as_text}", f"{alias}.{key.at}{as_text}"
        on.append(f"lower({a}) = lower({b})" if link.folded else f"{a} = {b}")
    join = (
        f"LEFT JOIN (SELECT {keys}, file_row_number AS r FROM {scan(path)}) {alias} "
        f"ON {' AND '.join(on)}"
    )
    return f"{alias}.r::BIGINT", join


def _moment(table: TablePlan, alias: str = "") -> str:
    """The time of a row, as an expression; `alias` (with a dot) is the staged file's."""
    at = alias + table.facts.columns[table.time.column].at
    return {
        "time": at,
        "text": utc(at),
        "seconds": f"make_timestamp({at}::BIGINT * 1000000)",
        "milliseconds": f"make_timestamp({at}::BIGINT * 1000)",
    }[table.time.form]


def _latest(facts: Facts, table: TablePlan) -> str:
    """The latest time, for rows that have none: they must not be seen before they were there."""
    if not table.time.column or not table.facts.columns[table.time.column].nulls:
        return "NULL"
    sql = f"SELECT epoch_us(max({_moment(table)})) FROM {scan(table.facts.path)}"
    row = facts.connection.execute(sql).fetchone()
    assert row is not None
    return f"make_timestamp({int(row[0])}::BIGINT)"


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
    facts.connection.execute(f"COPY ({sql}) TO {_text(path)} (FORMAT parquet)")


def _lost(facts: Facts, table: TablePlan, path: Path) -> dict[str, int]:
    """Per foreign key the rows that had a value without a parent row."""
    lost = {}
    for link in table.links:
        present = " AND ".join(f"{table.facts.columns[c].at} IS NOT NULL" for c in link.columns)
        row = facts.connection.execute(
            f"SELECT count(*) FROM {scan(table.facts.path)} WHERE {present}"
        ).fetchone()
        assert row is not None
        if missing := int(row[0]) - _count(path, link.column):
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


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(
        yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
