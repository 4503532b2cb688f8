"""Which column of a table without a declared key is its primary key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rfm.data.importing.names import STRONG_ID_WORDS, abbreviates, ends_with, split_id, stem
from rfm.data.importing.profile import ColumnFacts, TableFacts

_ENOUGH = 0.6
# unique by nature in a table of people or things, and yet nothing that rows are told apart by
_DESCRIPTIONS = {"name", "title", "email", "mail", "phone", "url", "description", "address", "text"}


@dataclass(frozen=True)
class KeyGuess:
    """The column taken for the primary key (empty: none), and why."""

    column: str
    reason: str


def infer_primary_key(
    table: TableFacts,
    tables: Mapping[str, TableFacts],
    stems: Mapping[str, tuple[str, ...]],
) -> KeyGuess:
    """The unique column without nulls whose name or values say most that it is the key.

    A unique column that is named for another table is that table's key here: a foreign key.
    """
    scored = []
    for place, column in enumerate(table.columns.values()):
        if column.unique and column.rows:
            score, why = _score(column, table, tables, stems)
            scored.append((score, -place, column.name, why))
    if not scored:
        return KeyGuess("", "no column is unique and without nulls")
    score, _, name, why = max(scored)
    least = _ENOUGH if table.rows > 1 else 0.8  # in one row everything is unique
    if score < least:
        return KeyGuess("", f"unique columns ({name}, ...) do not look like a key: {why}")
    return KeyGuess(name, f"unique, {why}")


def _score(
    column: ColumnFacts,
    table: TableFacts,
    tables: Mapping[str, TableFacts],
    stems: Mapping[str, tuple[str, ...]],
) -> tuple[float, str]:
    own = stems[table.name]
    body, ending = split_id(table.plain[column.name], list(stems.values()))
    others = [name for name, s in stems.items() if s == body and name != table.name]
    if len(body) == 1 and not abbreviates(body[0], "".join(own)):
        others += [name for name, s in stems.items() if abbreviates(body[0], "".join(s))]
    if body != own and others and ending:
        return 0.0, f"{column.name} is named for table {others[0]}"
    if not body and ending in STRONG_ID_WORDS:
        return 1.0, f"called {column.name}"
    if ending and body and (ends_with(body, own) or ends_with(own, body)):
        return 0.95, f"{column.name} is named for its table"
    if ending in STRONG_ID_WORDS:
        return 0.8, f"{column.name} is called a key"
    if column.counts_rows and table.rows > 1:
        return 0.7, f"{column.name} counts the rows"
    if ending and not body:
        return 0.65, f"called {column.name}"
    # a natural key: other tables have a column of this name, where its values come back
    elsewhere = [
        other.name
        for other in tables.values()
        if other.name != table.name
        for c in other.columns.values()
        if stem(other.plain[c.name]) == stem(table.plain[column.name])
        and not c.unique
        and c.sort == column.sort
    ]
    if elsewhere and not set(body) & _DESCRIPTIONS:
        return 0.6, f"{column.name} comes back in {elsewhere[0]}"
    return 0.1, f"nothing but its being unique says so of {column.name}"
