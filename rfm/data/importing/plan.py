"""What becomes of each table: keys, time column and columns, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rfm.data.importing.foreign_keys import LinkGuess
from rfm.data.importing.profile import TableFacts
from rfm.data.importing.time_columns import Form, TimeGuess


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
class ParentTime:
    """The time of a row's parent, which the row takes: by which foreign key, and which column of
    the source it is in (empty: the parent inherits it itself)."""

    link: Link
    column: str
    form: Form


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
    inherited: tuple[ParentTime, ...] = ()  # of several the latest; none: the table's own, or none
    inherited_as: str = ""  # the folder's column that holds it

    @property
    def time_name(self) -> str:
        """The time column of the folder; empty: none."""
        return self.names[self.time.column] if self.time.column else self.inherited_as

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
