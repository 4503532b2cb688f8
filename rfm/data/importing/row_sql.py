"""What a staged row comes to in the folder, as expressions of DuckDB: its parent's row number, and
its time, which may be its parent's."""

from __future__ import annotations

from rfm.data.importing.duck_connection import utc
from rfm.data.importing.plan import Link, ParentTime, Plan, TablePlan
from rfm.data.importing.profile import ColumnFacts, scan
from rfm.data.importing.text_values import as_time, happened
from rfm.data.importing.time_columns import Form


def parent_row(
    table: TablePlan, link: Link, parent: TablePlan, keys: str, alias: str
) -> tuple[str, str]:
    """The parent's row number, of the row `t`, and the join that it needs, if any.

    Args:
        keys: the parent's keys in the order of its rows, as a table of SQL.
    """
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
    names = ", ".join(c.at for c in theirs)
    rows = f"(SELECT {names}, file_row_number AS r FROM {keys})"
    return f"{alias}.r::BIGINT", _join(table, link, parent, rows, alias)


def row_time(plan: Plan, table: TablePlan) -> tuple[str, list[str]]:
    """The time of the row `t`, null where it has none or it stands for none, and the joins that it
    needs: a row whose time is its parents' has none if one of them has none or is not there."""
    if table.time.column:
        return _moment(table.facts.columns[table.time.column], table.time.form), []
    times = [f"h{i}.m" for i in range(len(table.inherited))]
    joins = [_time_join(plan, table, t, f"h{i}") for i, t in enumerate(table.inherited)]
    if len(times) == 1:
        return times[0], joins
    present = " AND ".join(f"{time} IS NOT NULL" for time in times)
    return f"CASE WHEN {present} THEN greatest({', '.join(times)}) END", joins


def latest_above(plan: Plan, table: TablePlan) -> str:
    """The latest time of the rows that a table's times are of, as a query."""
    above = table.inherited[0]
    parent = plan.tables[above.link.parent]
    if not above.column:
        return latest_above(plan, parent)
    moment = _moment(parent.facts.columns[above.column], above.form)
    return f"SELECT epoch_us(max({moment})) FROM {scan(parent.facts.path)} t"


def _time_join(plan: Plan, table: TablePlan, time: ParentTime, alias: str) -> str:
    link, parent = time.link, plan.tables[time.link.parent]
    if time.column:
        moment, joins = _moment(parent.facts.columns[time.column], time.form), list[str]()
    else:
        moment, joins = row_time(plan, parent)
    keys = ", ".join(f"t.{parent.facts.columns[c].at}" for c in link.parent_columns)
    rows = f"(SELECT {keys}, {moment} AS m FROM {scan(parent.facts.path)} t {' '.join(joins)})"
    return _join(table, link, parent, rows, alias)


def _join(table: TablePlan, link: Link, parent: TablePlan, rows: str, alias: str) -> str:
    """Join the one row of the parent, or none, to each row `t`."""
    on = []
    for column, parent_column in zip(link.columns, link.parent_columns, strict=True):
        mine, key = table.facts.columns[column], parent.facts.columns[parent_column]
        as_text = "::VARCHAR" if (mine.sort == "text") != (key.sort == "text") else ""
        a, b = f"t.{mine.at}{as_text}", f"{alias}.{key.at}{as_text}"
        on.append(f"lower({a}) = lower({b})" if link.folded else f"{a} = {b}")
    return f"LEFT JOIN {rows} {alias} ON {' AND '.join(on)}"


def _moment(column: ColumnFacts, form: Form) -> str:
    """The time that a column of the row `t` holds."""
    at = f"t.{column.at}"
    if form in ("seconds", "milliseconds"):
        return f"make_timestamp({at}::BIGINT * {1_000_000 if form == 'seconds' else 1000})"
    read = as_time if column.unread else utc
    moment = read(at) if form == "text" else at
    return f"CASE WHEN {happened(moment)} THEN {moment} END" if column.holds.never else moment
