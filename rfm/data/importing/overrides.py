"""What the user says of tables, which no inference changes: a YAML file.

tables:
  orders:
    pkey: id                      # or [order_id, line], or null
    time_col: ordered_at          # or null, or a parent's time: customer_id.joined_at
    fkeys: {customer_id: customers, weight: null}   # null: it is none
    columns: {note: drop, zip: text}                # drop, or a kind
    keep_key: true                # the key's own values stay as a column, too
  log: drop                       # the same as exclude=
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rfm.data.importing.profile import Facts, TableFacts
from rfm.data.importing.source import INTEGER, TIMESTAMP, Source, SourceTable
from rfm.data.schema import KINDS, suggest

_FIELDS = ("pkey", "time_col", "fkeys", "columns", "keep_key")


@dataclass(frozen=True)
class TableOverride:
    """What is said of one table; `says_key` and `says_time`, because null says something, too."""

    key: tuple[str, ...] = ()
    says_key: bool = False
    time_column: str = ""
    says_time: bool = False
    links: Mapping[str, str] = field(default_factory=dict)  # column -> parent, empty: none
    drop: frozenset[str] = frozenset()
    kinds: Mapping[str, str] = field(default_factory=dict)
    keep_key: bool = False
    left_out: bool = False


def read_import_overrides(path: Path | None) -> dict[str, TableOverride]:
    """Read the file; names are checked later, against the tables that there are.

    Raises:
        ValueError: if it cannot be read, or is of another shape.
    """
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ValueError(f"overrides={path}: cannot be read: {error}") from None
    tables = content.get("tables") if isinstance(content, dict) else None
    if not isinstance(tables, dict):
        raise ValueError(
            f"overrides={path}: wanted tables: {{orders: {{pkey: id, time_col: at, fkeys: "
            "{customer_id: customers}, columns: {note: drop}}}"
        )
    return {str(name): _table(name, said, f"overrides={path}") for name, said in tables.items()}


def narrow_table(
    source: Source, table: SourceTable, tables: Iterable[SourceTable], said: TableOverride
) -> SourceTable:
    """A table of `source` without the columns to be dropped and with those that shall be text as
    text, before any value is read: one that cannot be read is got rid of in this way.

    Columns that keys are made of (of `tables`, or as given) are read in spite of that.
    """
    own = {*table.primary_key, *said.key, *said.links, said.time_column}
    own |= {c.name for c in table.columns if said.time_column.startswith(f"{c.name}.")}
    own |= {c for link in table.foreign_keys for c in link.columns}
    own |= {
        c
        for other in tables
        for link in other.foreign_keys
        if link.parent == (table.schema, table.name)
        for c in link.parent_columns
    }
    texts = {
        c.name
        for c in table.readable
        if said.kinds.get(c.name) in ("text", "category")
        and (c.type == TIMESTAMP or (c.type == INTEGER and c.name not in own))
    }
    without = said.drop - own
    return source.narrow(table, without, texts) if without or texts else table


def check_override(
    said: TableOverride, table: str, columns: Iterable[str], tables: Iterable[str]
) -> None:
    """Whether all names of an override are there.

    Raises:
        ValueError: at the first that is not, with the closest one that is.
    """
    columns, tables = list(columns), list(tables)
    named = [*said.key, *said.links, *said.drop, *said.kinds]
    # one with a dot may be a parent's, see `rfm.data.importing.inherited_times`
    named += [said.time_column] if said.time_column and "." not in said.time_column else []
    for column in named:
        if column not in columns:
            raise ValueError(f"overrides: no column {table}.{column}; {suggest(column, columns)}")
    if said.time_column in said.drop:
        raise ValueError(f"overrides: {table}.{said.time_column} is its time_col and dropped, too")
    for column, parent in said.links.items():
        if parent and parent not in tables:
            raise ValueError(
                f"overrides: {table}.{column} points at {parent!r}, which is no table; "
                f"{suggest(parent, tables)}"
            )


def check_kinds(facts: Facts, table: TableFacts, said: TableOverride) -> list[str]:
    """Of columns that are read as the user says: how many values cannot be, and are null now.

    Raises:
        ValueError: for a column of which no value can be.
    """
    found = []
    for name, kind in said.kinds.items():
        column = table.columns[name]
        if kind in ("text", "category"):  # which any value can be
            continue
        values, read, odd = facts.readable(table.path, column, kind)
        where = f"{table.name}.{name}"
        if values and not read:
            raise ValueError(
                f"overrides: {where} cannot be of the kind {kind}: 0 of {values:,} values can be "
                f"read as that (such as {odd!r})"
            )
        if read < values:
            found.append(
                f"{where}: {values - read:,} of {values:,} values cannot be read as {kind}, such "
                f"as {odd!r}; null now"
            )
    return found


def _table(name: Any, said: Any, where: str) -> TableOverride:
    if said == "drop":
        return TableOverride(left_out=True)
    where = f"{where}: {name}"
    if not isinstance(said, dict):
        raise ValueError(f"{where}: wanted {', '.join(_FIELDS)}, or drop; got {said!r}")
    for key in said:
        if key not in _FIELDS:
            raise ValueError(f"{where}: unknown {key!r}; {suggest(str(key), _FIELDS)}")
    fkeys, columns = said.get("fkeys") or {}, said.get("columns") or {}
    if not isinstance(fkeys, dict) or not isinstance(columns, dict):
        raise ValueError(f"{where}: fkeys and columns map columns, such as {{id: customers}}")
    kinds = [*KINDS[:-1], "drop"]
    for column, kind in columns.items():
        if kind not in kinds:
            raise ValueError(
                f"{where}.{column}: unknown kind {kind!r}; {suggest(str(kind), kinds)}"
            )
    key = said.get("pkey")
    keys = [] if key is None else key if isinstance(key, list) else [key]
    return TableOverride(
        tuple(str(k) for k in keys),
        "pkey" in said,
        str(said.get("time_col") or ""),
        "time_col" in said,
        {str(c): str(p or "") for c, p in fkeys.items()},
        frozenset(str(c) for c, k in columns.items() if k == "drop"),
        {str(c): str(k) for c, k in columns.items() if k != "drop"},
        bool(said.get("keep_key", False)),
    )
