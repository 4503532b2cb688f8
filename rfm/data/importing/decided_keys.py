"""Primary and foreign keys that need no guess: the user says them, or the source declares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rfm.data.importing.overrides import TableOverride
from rfm.data.importing.plan import Link
from rfm.data.importing.primary_keys import infer_primary_key
from rfm.data.importing.profile import Facts, TableFacts


@dataclass
class Keys:
    """Primary keys of the source's columns, as they are found."""

    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def find_keys(
    facts: Facts,
    tables: Mapping[str, TableFacts],
    stems: Mapping[str, tuple[str, ...]],
    overrides: Mapping[str, TableOverride],
    warnings: list[str],
) -> Keys:
    keys = Keys()
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


def declared_links(
    facts: Facts,
    tables: Mapping[str, TableFacts],
    places: Mapping[tuple[str, str], str],
    overrides: Mapping[str, TableOverride],
    keys: Keys,
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
            elif (
                parent.name not in keys.columns
                and parent.name in overrides
                and overrides[parent.name].says_key
            ):
                warnings.append(
                    f"{shown}: overrides give {parent.name} no primary key; kept as a column"
                )
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


def given_links(
    tables: Mapping[str, TableFacts],
    overrides: Mapping[str, TableOverride],
    keys: Keys,
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
