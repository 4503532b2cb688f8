"""What becomes of each table: keys, time column and columns, each with its reason.

What the user says wins, then what the source declares, then what is inferred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from rfm.data.importing.foreign_keys import LinkGuess, LinkInference
from rfm.data.importing.names import table_stems
from rfm.data.importing.overrides import TableOverride, check_override
from rfm.data.importing.primary_keys import infer_primary_key
from rfm.data.importing.profile import Facts, TableFacts
from rfm.data.importing.source import SourceTable
from rfm.data.importing.time_columns import Form, TimeGuess, infer_time_column, time_form

_LONGEST = 100  # bytes of a table's name, which names a file


@dataclass(frozen=True)
class Link:
    """A foreign key: columns of the source, and the parent's columns that they equal."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    reason: str
    column: str = ""  # that holds it in the folder
    folded: bool = False  # upper and lower case are the same in these texts


@dataclass(frozen=True)
class TablePlan:
    """One table of the folder. Columns of the source go by its names, those of the folder by
    theirs (`names`)."""

    facts: TableFacts
    key: tuple[str, ...]  # of the source; empty: no primary key
    key_column: str  # of the folder; empty: no primary key
    key_reason: str
    links: tuple[Link, ...]
    time: TimeGuess
    names: Mapping[str, str]  # kept columns of the source -> of the folder
    kept_key: str  # the folder's column with the key's own values, if they are wanted
    kinds: Mapping[str, str]  # of the source's columns, as the user says
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.facts.name

    @property
    def key_in_place(self) -> bool:
        """Whether the key column of the folder stands in the place of the source's."""
        return len(self.key) == 1 and self.names.get(self.key[0]) == self.key_column


@dataclass(frozen=True)
class Plan:
    """All tables of the folder, in the source's order; what could not be decided; warnings."""

    tables: Mapping[str, TablePlan]
    ambiguous: tuple[LinkGuess, ...]
    warnings: tuple[str, ...] = ()


@dataclass
class _Keys:
    """Primary keys of the source's columns, as they are found."""

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


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
    keys = _find_keys(facts, tables, stems, overrides, warnings)
    declared = _declared_links(facts, tables, places, overrides, keys, warnings)
    given, known = _given_links(tables, overrides, keys, declared)
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


def folder_names(tables: Sequence[SourceTable]) -> dict[tuple[str, str], str]:
    """Names that can be files, and differ where case does not count."""
    taken: set[str] = set()
    names = {}
    doubled = {t.name.lower() for t in tables if sum(o.name == t.name for o in tables) > 1}
    for table in tables:
        wanted = table.name
        if table.name.lower() in doubled and table.schema:
            wanted = f"{table.schema}_{table.name}"
        names[table.schema, table.name] = _free(_safe(wanted), taken)
    return names


def _find_keys(
    facts: Facts,
    tables: Mapping[str, TableFacts],
    stems: Mapping[str, tuple[str, ...]],
    overrides: Mapping[str, TableOverride],
    warnings: list[str],
) -> _Keys:
    keys = _Keys()
    for name, table in tables.items():
        said = overrides.get(name, TableOverride())
        declared = table.staged.table.primary_key
        if said.says_key:
            columns, reason = said.key, "given"
            if columns and not _is_key(facts, table, columns):
                raise ValueError(
                    f"overrides: {name}: pkey {', '.join(columns)} is null or the same in two "
                    "rows; choose columns that tell all rows apart, or null"
                )
        elif declared and _is_key(facts, table, declared):
            columns, reason = declared, "declared"
        else:
            if declared:
                warnings.append(
                    f"{name}: the declared key {', '.join(declared)} is null or the same in two "
                    "rows, and is not used"
                )
            guess = infer_primary_key(table, tables, stems)
            columns = (guess.column,) if guess.column else ()
            reason = f"inferred: {guess.reason}" if columns else guess.reason
        keys.reasons[name] = reason
        if columns:
            keys.columns[name] = columns
    return keys


def _is_key(facts: Facts, table: TableFacts, columns: tuple[str, ...]) -> bool:
    if any(c not in table.columns or table.columns[c].nulls for c in columns):
        return False
    if any(table.columns[c].unique for c in columns):
        return True
    at = [table.columns[c].at for c in columns]
    return facts.distinct(table.path, at) == table.rows


def _is_unique(facts: Facts, table: TableFacts, columns: tuple[str, ...]) -> bool:
    """Whether columns tell all rows apart that have values in all of them."""
    if any(c not in table.columns for c in columns):
        return False
    at = [table.columns[c].at for c in columns]
    return facts.distinct(table.path, at) == facts.present(table.path, at)


def _is_folded(
    facts: Facts,
    table: TableFacts,
    columns: tuple[str, ...],
    parent: TableFacts,
    parent_columns: tuple[str, ...],
) -> bool:
    """Whether texts point at their parents only if case does not count, as in some collations."""
    ours, theirs = table.columns[columns[0]], parent.columns[parent_columns[0]]
    if len(columns) > 1 or {ours.sort, theirs.sort} != {"text"} or not parent.staged.whole:
        return False
    values, found, *_ = facts.contained(table.path, [ours.at], parent.path, [theirs.at])
    return found < values and facts.matches_folded(
        table.path, ours.at, parent.path, theirs.at, found
    )


def _declared_links(
    facts: Facts,
    tables: Mapping[str, TableFacts],
    places: Mapping[tuple[str, str], str],
    overrides: Mapping[str, TableOverride],
    keys: _Keys,
    warnings: list[str],
) -> dict[str, list[Link]]:
    """Declared foreign keys whose parents are there; a parent without a key gets one by them."""
    links: dict[str, list[Link]] = {name: [] for name in tables}
    for name, table in tables.items():
        said = overrides.get(name, TableOverride())
        for link in table.staged.table.foreign_keys:
            if set(link.columns) & {*said.links, *said.drop}:
                continue
            shown = f"{name}.{'+'.join(link.columns)} -> {link.parent[1]}"
            parent = tables.get(places.get(link.parent, ""))
            columns = link.parent_columns
            if parent is None:
                warnings.append(
                    f"{shown}: the parent is not imported or has no rows; kept as a column"
                )
            elif not columns or not set(link.columns) <= set(table.columns):
                warnings.append(f"{shown}: names columns that are not there or cannot be read")
            elif keys.columns.get(parent.name) != columns and not _is_unique(
                facts, parent, columns
            ):
                warnings.append(
                    f"{shown}: {', '.join(columns)} is not unique there; kept as a column"
                )
            elif parent.name not in keys.columns and not _is_key(facts, parent, columns):
                warnings.append(
                    f"{shown}: {', '.join(columns)} is null in some rows there, and the table has "
                    "no other key; kept as a column"
                )
            else:
                if parent.name not in keys.columns:
                    keys.columns[parent.name] = columns
                    keys.reasons[parent.name] = f"declared: {name} points at it"
                folded = _is_folded(facts, table, link.columns, parent, columns)
                reason = "declared" + ", upper and lower case are the same" * folded
                links[name].append(Link(link.columns, parent.name, columns, reason, folded=folded))
    return links


def _given_links(
    tables: Mapping[str, TableFacts],
    overrides: Mapping[str, TableOverride],
    keys: _Keys,
    declared: Mapping[str, Sequence[Link]],
) -> tuple[dict[str, list[Link]], dict[tuple[str, str], str]]:
    """The user's foreign keys, and all (table, column) -> parent that are decided."""
    given: dict[str, list[Link]] = {name: [] for name in tables}
    known = {
        (name, column): link.parent
        for name, links in declared.items()
        for link in links
        for column in link.columns
    }
    for name in tables:
        said = overrides.get(name, TableOverride())
        known |= {(name, column): "" for column in said.drop}
        for column, parent in said.links.items():
            known[name, column] = parent
            if not parent:
                continue
            if len(keys.columns.get(parent, ())) != 1:
                raise ValueError(
                    f"overrides: {name}.{column} points at {parent}, which has no primary key of "
                    "one column; give it one with pkey"
                )
            given[name].append(Link((column,), parent, keys.columns[parent], "given"))
    return given, known


def _table_plan(
    table: TableFacts,
    keys: _Keys,
    links: Sequence[Link],
    said: TableOverride,
    own: tuple[str, ...],
) -> TablePlan:
    taken: set[str] = set()
    names = {c: _free(_plain(c), taken) for c in table.columns if c not in said.drop}
    key = keys.columns.get(table.name, ())
    placed, used = [], set()
    for link in links:
        column = names.get(link.columns[0], "") if len(link.columns) == 1 else ""
        if not column or column in used:
            column = _free(f"{link.parent}_key", taken)
        used.add(column)
        placed.append(replace(link, column=column))
    key_column = ""
    if key:
        key_column = names.get(key[0], "") if len(key) == 1 else ""
        if not key_column or key_column in used:  # of several columns, or a foreign key as well
            key_column = _free(f"{table.name}_key", taken)
    kept = ""
    if said.keep_key and len(key) == 1 and names.get(key[0]) == key_column:
        kept = _free(f"{key_column}_original", taken)
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


def _plain(name: str) -> str:
    return re.sub(r"[\x00-\x1f]+", " ", name).strip() or "column"


def _safe(name: str) -> str:
    """A name that can be a file's on every system; a long one ends in its hash."""
    safe = re.sub(r"[\x00-\x1f/\\:*?\"<>|]+", "_", name).lstrip(".").strip() or "table"
    if len(safe.encode()) > _LONGEST:
        short = safe.encode()[: _LONGEST - 9].decode(errors="ignore")
        safe = f"{short}_{blake2b(name.encode(), digest_size=4).hexdigest()}"
    return safe


def _free(name: str, taken: set[str]) -> str:
    """The name, numbered where another has it: upper and lower case are the same to DuckDB and to
    some file systems."""
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free.casefold())
    return free
