"""Decide what becomes of each table.

What the user says wins, then what the source declares, then what is inferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from rfm.data.importing.decided_keys import Keys, declared_links, find_keys, given_links
from rfm.data.importing.folder_names import free, plain
from rfm.data.importing.foreign_keys import LinkInference
from rfm.data.importing.names import table_stems
from rfm.data.importing.overrides import TableOverride, check_override
from rfm.data.importing.plan import Link, Plan, TablePlan
from rfm.data.importing.profile import Facts, TableFacts
from rfm.data.importing.time_columns import Form, TimeGuess, infer_time_column, time_form


def make_plan(
    facts: Facts,
    tables: Mapping[str, TableFacts],
    places: Mapping[tuple[str, str], str],
    overrides: Mapping[str, TableOverride],
) -> Plan:
    """Decide everything.

    Args:
        tables: by their names in the folder; all have rows.
        places: (schema, name) of the source -> name in the folder, of all imported tables.

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
    plans = {}
    for name, table in tables.items():
        said = overrides.get(name, TableOverride())
        links = [*given[name], *declared[name]]
        links += [
            Link((g.column,), g.parent, keys.columns[g.parent], f"inferred: {g.reason}")
            for g in guesses
            if g.table == name and g.parent and g.column not in said.drop
        ]
        plans[name] = _table_plan(table, keys, links, said, stems[name])
    ambiguous = tuple(g for g in guesses if not g.parent)
    return Plan(plans, ambiguous, (*warnings, *_timeless(plans)))


def _timeless(plans: Mapping[str, TablePlan]) -> list[str]:
    """Of tables that happen with others, and have no time of their own: what that means."""
    found = []
    for name, plan in plans.items():
        timed = [link for link in plan.links if plans[link.parent].time.column]
        if timed and not plan.time.column:
            link = timed[0]
            found.append(
                f"{name}: has no time of its own, so that its rows are visible at any time, even "
                f"before their row of {link.parent}, and nothing of them can be forecast; import a "
                f"view with the time of {link.parent} instead (views=)"
            )
    return found


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
    key_column = ""
    if key:
        key_column = names.get(key[0], "") if len(key) == 1 else ""
        if not key_column or key_column in used:  # of several columns, or a foreign key as well
            key_column = free(f"{table.name}_key", taken)
    kept = ""
    if said.keep_key and len(key) == 1 and names.get(key[0]) == key_column:
        kept = free(f"{key_column}_original", taken)
    made = [key, *(link.columns for link in links)]
    # keys of several columns hold when their row came to be, too: (sensor_id, measured_at)
    in_keys = {c for k in made for c in k if len(k) == 1 or table.columns[c].sort != "time"}
    time = _time(table, own, in_keys, said)
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


def _time(
    table: TableFacts, own: tuple[str, ...], taken: set[str], said: TableOverride
) -> TimeGuess:
    if not said.says_time:
        return infer_time_column(table, own, taken | said.drop)
    if not said.time_column:
        return TimeGuess("", "time", "given", {})
    column = table.columns[said.time_column]
    form: Form | None = time_form(column)
    if form is None or column.nulls == column.rows:
        raise ValueError(
            f"overrides: {table.name}: time_col {said.time_column} holds no times: wanted a date, "
            "a timestamp, ISO texts, or Unix seconds or milliseconds"
        )
    return TimeGuess(said.time_column, form, "given", {})
