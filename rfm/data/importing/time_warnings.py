"""What is doubtful about the times of planned tables, and what to say if they are others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from rfm.data.importing.plan import Link, TablePlan
from rfm.data.importing.profile import ColumnFacts, Facts
from rfm.data.importing.time_columns import (
    called_a_time,
    lacking,
    missing_times,
    refused_name,
    time_form,
)

_MOST = 0.5  # of a column's values, without which it is no time of its rows
Plans = Mapping[str, TablePlan]


def time_warnings(facts: Facts, plans: Plans, decided: AbstractSet[str]) -> list[str]:
    """One line each.

    Args:
        decided: tables of which the user has said what their time is.
    """
    found = [line for plan in plans.values() for line in _lacking(plan)]
    for name, plan in plans.items():
        if name not in decided and not plan.time.column:
            found += _not_taken(facts, plan)
    return [*found, *_timeless(plans, decided)]


def _lacking(plan: TablePlan) -> list[str]:
    """Of a time column with values that are no times: how many, and an example."""
    column = plan.facts.columns.get(plan.time.column)
    said = lacking(column) if column is not None else ""
    return [f"{plan.name}.{plan.time.column}: of {plan.facts.rows:,} values {said}"] * bool(said)


def _not_taken(facts: Facts, plan: TablePlan) -> Iterator[str]:
    """Of a table without a time of its own: columns that may be it all the same."""
    keys = {*plan.key, *(c for link in plan.links for c in link.columns)}
    for name, column in plan.facts.columns.items():
        if name in keys or name not in plan.names or refused_name(name):
            continue
        where = f"{plan.name}.{name}: is not taken as the time of {plan.name}"
        if 0 < missing_times(column) <= _MOST * column.rows and name in plan.time.refused:
            why = plan.time.refused[name]
            yield f"{where}: {why}; if it is, say `{plan.name}: {{time_col: {name}}}` in overrides="
        elif called_a_time(name) and time_form(column) is None and column.nulls < column.rows:
            yield (
                f"{where}, though called like one: {_example(facts, plan, column)} is not read as "
                "a time; wanted a date, a timestamp, ISO texts (2020-01-31), or Unix seconds or "
                "milliseconds"
            )


def _example(facts: Facts, plan: TablePlan, column: ColumnFacts) -> str:
    if column.sort == "integer":
        return str(column.low)
    *_, odd = facts.readable(plan.facts.path, column, "datetime")
    return repr(odd)


def _timeless(plans: Plans, decided: AbstractSet[str]) -> list[str]:
    """Of tables that point at others with times, and have none: what that means."""
    found = []
    for name, plan in plans.items():
        timed = [link for link in plan.links if plans[link.parent].time_name]
        if timed and not plan.time_name and name not in decided:
            link = max(timed, key=lambda link: _happens(plans, link))
            parent = plans[link.parent]
            column = parent.time.column or parent.inherited_as
            found.append(
                f"{name}: has no time of its own, so that its rows are visible at any time, even "
                f"before their row of {link.parent}, and nothing of them can be forecast; if they "
                f"happen with it, say `{name}: {{time_col: {link.column}.{column}}}` in overrides="
            )
    return found


def _happens(plans: Plans, link: Link) -> tuple[bool, int]:
    """How much a parent is like something that happens: there are more admissions than drugs."""
    return not any(map(refused_name, link.columns)), plans[link.parent].facts.rows
