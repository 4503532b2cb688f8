"""Decide what becomes of each table.

What the user says wins, then what the source declares, then what is inferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rfm.data.importing.decided_keys import Keys, declared_links, find_keys, given_links
from rfm.data.importing.folder_names import free, plain
from rfm.data.importing.foreign_keys import LinkInference
from rfm.data.importing.inherited_times import inherit_as_said, inherit_times
from rfm.data.importing.names import table_stems
from rfm.data.importing.overrides import TableOverride, check_kinds, check_override
from rfm.data.importing.plan import Link, Plan, TablePlan
from rfm.data.importing.profile import ColumnFacts, Facts, TableFacts
from rfm.data.importing.time_columns import (
    MOST_MISSING,
    TimeGuess,
    infer_time_column,
    time_form,
)
from rfm.data.importing.time_warnings import time_warnings


def make_plan(
    facts: Facts,
    tables: Mapping[str, TableFacts],
    places: Mapping[tuple[str, str], str],
    overrides: Mapping[str, TableOverride],
    inherit: bool,
) -> Plan:
    """Decide everything.

    Args:
        tables: by their names in the folder; all have rows.
        places: (schema, name) of the source -> name in the folder, of all imported tables.
        inherit: tables that happen with their parents have the time of these.

    Raises:
        ValueError: for overrides that do not fit.
    """
    for name, said in overrides.items():
        if name in tables:
            dropped = [c.name for c in tables[name].staged.table.columns if c.name in said.drop]
            check_override(said, name, [*tables[name].columns, *dropped], tables)
    warnings: list[str] = []
    stems = table_stems(list(tables))
    keys = find_keys(facts, tables, stems, overrides, warnings)
    declared = declared_links(facts, tables, places, overrides, keys, warnings)
    given, known = given_links(tables, overrides, keys, declared)
    guesses = LinkInference(
        facts,
        tables,
        {t: columns[0] for t, columns in keys.columns.items() if len(columns) == 1},
        stems,
    ).infer(known, only_sure=any(declared.values()))
    plans: dict[str, TablePlan] = {}
    for name, table in tables.items():
        said = overrides.get(name, TableOverride())
        table = _with_said_time(facts, table, said)
        warnings += check_kinds(facts, table, said)
        links = [*given[name], *declared[name]]
        links += [
            Link((g.column,), g.parent, keys.columns[g.parent], f"inferred: {g.reason}")
            for g in guesses
            if g.table == name and g.parent and g.column not in said.drop
        ]
        plans[name] = _table_plan(table, keys, links, said, stems[name])
    decided = {name for name, said in overrides.items() if said.says_time}
    if inherit:
        plans = inherit_times(plans, stems, decided)
    plans = inherit_as_said(plans, overrides)
    if inherit and decided:  # from those, too
        plans = inherit_times(plans, stems, decided)
    warnings += time_warnings(facts, plans, decided)
    ambiguous = tuple(g for g in guesses if not g.parent)
    return Plan(plans, ambiguous, tuple(warnings))


def _table_plan(
    table: TableFacts,
    keys: Keys,
    links: Sequence[Link],
    said: TableOverride,
    own: tuple[str, ...],
) -> TablePlan:
    taken: set[str] = set()
    names = {c: free(plain(c), taken) for c in table.columns if c not in said.drop}
    key = keys.columns.get(table.name, ())
    placed, used = [], set()
    for link in links:
        column = names.get(link.columns[0], "") if len(link.columns) == 1 else ""
        if not column or column in used:
            column = free(f"{link.parent}_key", taken)
        used.add(column)
        placed.append(replace(link, column=column))
    made = [key, *(link.columns for link in links)]
    # keys of several columns hold when their row came to be, too: (sensor_id, measured_at)
    in_keys = {c for k in made for c in k if len(k) == 1 or table.columns[c].sort != "time"}
    if len(key) == 1 and _is_moment(table.columns[key[0]]):  # and a day that is a key
        in_keys -= {*key} - {c for link in links for c in link.columns}
    time = _time(table, own, in_keys, said)
    key_column = ""
    if key:
        key_column = names.get(key[0], "") if len(key) == 1 else ""
        # of several columns, or a foreign key or the time as well
        if not key_column or key_column in used or key == (time.column,):
            key_column = free(f"{table.name}_key", taken)
    kept = ""
    if said.keep_key and len(key) == 1 and names.get(key[0]) == key_column:
        kept = free(f"{key_column}_original", taken)
    if key == (time.column,):
        reason = f"{time.reason}, though its key; time_col: null if its rows are known in advance"
        time = replace(time, reason=reason)
    unread = [c for c in table.staged.table.columns if not c.type and c.name not in said.drop]
    notes = [f"{c.name} is left out: {c.note}" for c in unread]
    notes += [
        f"{c.name} is read {c.note}"
        for c in table.staged.table.columns
        if c.type and c.note.startswith(("as text,", "as numbers,", "numbers such"))
    ]
    notes += [
        f"{c.name}: {n} values are NaN or infinite, and null now"
        for c in table.columns.values()
        if (n := table.staged.infinite.get(c.at, 0))
    ]
    notes += [f"{c} is left out, as given" for c in sorted(said.drop)]
    stays = {*said.kinds, *said.drop, *key, time.column}
    stays |= {c for link in links for c in link.columns}
    notes += [note for n, c in table.columns.items() if n not in stays and (note := _mixed(c))]
    notes += [f"{c} is called {n}" for c, n in names.items() if c != n]
    return TablePlan(
        table,
        key,
        key_column,
        keys.reasons[table.name],
        tuple(placed),
        time,
        names,
        kept,
        said.kinds,
        tuple(notes),
    )


def _mixed(column: ColumnFacts) -> str:
    """Of texts that are times or numbers but for a few: what would make them so."""
    kind = {"time": "datetime"}.get(column.holds.kind, column.holds.kind)
    if not column.unread or column.unread > MOST_MISSING * column.rows:
        return ""
    return (
        f"{column.name}: {column.rows - column.nulls - column.unread:,} of "
        f"{column.rows - column.nulls:,} texts are {column.holds.kind}s, others are not, such as "
        f"{column.holds.odd!r}; `columns: {{{column.name}: {kind}}}` reads those as null"
    )


def _is_moment(column: ColumnFacts) -> bool:
    return column.holds.kind == "time" and column.holds.fit == column.rows


def _time(
    table: TableFacts, own: tuple[str, ...], taken: set[str], said: TableOverride
) -> TimeGuess:
    if not said.says_time:
        return infer_time_column(table, own, taken | said.drop)
    column = table.columns.get(said.time_column)
    form = None if column is None else time_form(column, said=True)
    # of a parent's time see `rfm.data.importing.inherited_times`
    return TimeGuess("" if form is None else said.time_column, form or "time", "given", {})


def _with_said_time(facts: Facts, table: TableFacts, said: TableOverride) -> TableFacts:
    """The table, where the user says its time column: with what that holds, looked at closely."""
    column = table.columns.get(said.time_column)
    if column is None:
        return table
    if column.sort == "text":
        holds, *_ = facts.holds(table.path, column.at, "time", column.sort)
        column = replace(column, holds=holds)
    if time_form(column, said=True) is None:
        read = f"{column.holds.fit:,} of {column.rows - column.nulls:,} values can be read as one"
        if column.sort == "integer":
            read = f"its numbers reach from {column.low} to {column.high}"
        raise ValueError(
            f"overrides: {table.name}: time_col {said.time_column} holds no times: {read}; wanted "
            "a date, a timestamp, ISO texts, or Unix seconds or milliseconds of 1986 to 2102, with "
            "null where there is none"
        )
    return replace(table, columns={**table.columns, column.name: column})
