"""What an import decides and finds, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rfm.data.importing.plan import Plan, TablePlan
from rfm.data.importing.time_columns import missing_times
from rfm.data.importing.write import Written


def plan_text(
    plan: Plan,
    counts: Mapping[str, int],
    splits: tuple[str, str],
    left_out: Mapping[str, str],
    warnings: Sequence[str],
) -> str:
    """Tables, keys, types, edges and row counts, each decision with its reason.

    Args:
        left_out: tables of the source that the folder has not -> why.
    """
    lines = []
    for name, table in plan.tables.items():
        part = "" if table.facts.staged.whole else f" (judged by the first {table.facts.rows:,})"
        lines.append(f"{name}  {counts[name]:,} rows{part}")
        lines += [f"  {line}" for line in _table_lines(table)]
    edges = [(t.name, link) for t in plan.tables.values() for link in t.links]
    lines.append(f"{len(plan.tables)} tables, {sum(counts.values()):,} rows, {len(edges)} edges:")
    lines += [f"  {name}.{link.column} -> {link.parent}" for name, link in edges]
    if plan.ambiguous:
        lines.append(
            "Not decided; say it with overrides=<yaml> (tables: {t: {fkeys: {c: parent}}}):"
        )
    lines += [
        f"  {g.table}.{g.column} -> {' | '.join(g.candidates)}? {g.reason}" for g in plan.ambiguous
    ]
    if left_out:
        lines.append("left out: " + "; ".join(f"{t}: {why}" for t, why in left_out.items()))
    lines += [f"warning: {warning}" for warning in warnings]
    if not any(table.time_name for table in plan.tables.values()):
        lines.append("no table has times: all rows are visible at any time, none can be forecast")
    lines.append(f"validation from {splits[0]}, test from {splits[1]}")
    return "\n".join(lines)


def decisions(
    plan: Plan,
    written: Mapping[str, Written],
    left_out: Mapping[str, str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The same for machines, as it is written to `import.yaml`."""
    tables = {
        name: {
            "source": table.facts.staged.table.shown,
            "rows": table.facts.rows,
            "pkey": {"columns": list(table.key), "reason": table.key_reason},
            "time_col": {
                "column": table.time.column or table.inherited_as or None,
                "reason": table.time.reason,
                "refused": dict(table.time.refused),
                "rows_without": written[name].filled_times,
            },
            "fkeys": [
                {
                    "column": link.column,
                    "columns": list(link.columns),
                    "parent": link.parent,
                    "reason": link.reason,
                    "rows_without_parent": written[name].lost_links.get(link.column, 0),
                }
                for link in table.links
            ],
            "notes": list(table.notes),
        }
        for name, table in plan.tables.items()
    }
    ambiguous = [
        {"column": f"{g.table}.{g.column}", "candidates": list(g.candidates), "reason": g.reason}
        for g in plan.ambiguous
    ]
    return {
        "tables": tables,
        "left_out": dict(left_out),
        "ambiguous": ambiguous,
        "warnings": list(warnings),
    }


def write_decisions(path: Path, content: Mapping[str, Any]) -> None:
    text = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1000)
    path.write_text(text, encoding="utf-8")


def losses(plan: Plan, written: Mapping[str, Written]) -> list[str]:
    """What rows lose or are given, one line each."""
    lines = []
    for name, done in written.items():
        for column, rows in done.lost_links.items():
            lines.append(f"{name}.{column}: {rows:,} of {done.rows:,} rows point at no row: null")
        if done.filled_times:
            column = plan.tables[name].time_name
            lines.append(
                f"{name}.{column}: {done.filled_times:,} of {done.rows:,} rows have no time: they "
                "get the latest one, so that nothing sees them early"
            )
    return lines


def _table_lines(table: TablePlan) -> list[str]:
    key = f"{table.key_column} ({', '.join(table.key)})" if table.key else "none"
    lines = [f"primary key: {key}: {table.key_reason}"]
    time = table.time.column or table.inherited_as or "none"
    lines.append(f"time column: {time}: {table.time.reason}")
    lines += [f"  not {column}: {why}" for column, why in table.time.refused.items()]
    own = table.facts.columns.get(table.time.column)
    if own is not None and (untimed := missing_times(own)):
        lines.append(f"  {untimed:,} rows without a time get the latest one")
    for link in table.links:
        lines.append(
            f"foreign key: {link.column} ({', '.join(link.columns)}) -> {link.parent}: "
            f"{link.reason}"
        )
    roles = {table.time.column, *table.key, *(c for link in table.links for c in link.columns)}
    sources = {c.name: c for c in table.facts.staged.table.columns}
    for column, name in table.names.items():
        if column in roles:
            continue
        facts, source = table.facts.columns[column], sources[column]
        shown = table.kinds.get(column) or facts.sort
        note = f", {source.note}" if source.note else ""
        about = "" if facts.unique or facts.distinct < 2 else "about "
        lines.append(
            f"{name}: {shown} ({source.declared}{note}), {about}{facts.distinct:,} values, "
            f"{facts.nulls:,} nulls"
        )
    return lines + list(table.notes)
