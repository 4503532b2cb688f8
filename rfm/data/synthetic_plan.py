"""What a synthetic database is going to be: plain types, no row and no chance in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

DAY = 86_400

Role = Literal["lookup", "entity", "event", "item", "bridge"]
Source = Literal["latent", "exogenous", "simulated"]
Signal = Literal["own_columns", "one_hop", "two_hop", "recency", "own_past_labels"]
SIGNALS: tuple[Signal, ...] = ("own_columns", "one_hop", "two_hop", "recency", "own_past_labels")


@dataclass(frozen=True)
class Link:
    """A foreign key: its column, the parent table, the share of nulls drawn on purpose."""

    column: str
    parent: str
    null_share: float


@dataclass(frozen=True)
class Column:
    """A cell column. ``latent`` cells come from the row's latent state, ``exogenous`` ones from
    independent draws (readable nowhere else), ``simulated`` ones from the event simulation."""

    name: str
    kind: str
    options: tuple[str, ...]
    missing: float
    center: float
    scale: float
    source: Source = "latent"


@dataclass(frozen=True)
class TablePlan:
    """``rows`` is exact for lookups and entities, expected for the others."""

    name: str
    words: str
    role: Role
    primary_key: str | None
    time_column: str | None
    links: tuple[Link, ...]
    columns: tuple[Column, ...]
    rows: int
    mean_rate: float = 0.0
    extra_events: float = 0.0

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    def parent(self, column: str) -> str:
        return next(link.parent for link in self.links if link.column == column)

    @property
    def actor(self) -> str:
        """The table whose rows an event happens to, or whose parts an item is."""
        return self.links[0].parent


@dataclass(frozen=True)
class Rule:
    """How often an event happens: ``logit P(any event in the next window) =
    base + gain * score + season * sin(2 pi window / period)``, with the score of the signal.

    Columns: score = (number_weight * u + effects[category] - shift) / spread in table
    ``attributes``, u the number less its center over its scale; reached from the entity through
    the foreign keys ``hops``, or from the entity's past rows in ``history`` through the foreign
    key ``via``, taking their last score or 1.5 times their mean. An empty ``via`` with a
    ``history`` is u of the history's own ``number``, divided by its spread.
    ``recency``: 2 exp(-age of the last row in ``history`` / (decay * step)) - 1, and -1 without.
    ``own_past_labels``: sum of lags[k] * (+1 or -1, 0 when unknown) over the labels 1, 2, ...
    windows back.
    """

    signal: Signal
    base: float
    gain: float
    season: float
    period: int
    mean_rate: float
    hops: tuple[str, ...] = ()
    history: str = ""
    via: str = ""
    aggregate: Literal["last", "mean"] = "last"
    attributes: str = ""
    number: str = ""
    number_weight: float = 0.0
    category: str = ""
    effects: tuple[float, ...] = ()
    decay: float = 0.0
    lags: tuple[float, ...] = ()


@dataclass(frozen=True)
class TaskPlan:
    name: str
    table: str
    aggregate: Literal["exists", "count", "sum"]
    target: str


@dataclass(frozen=True)
class Plan:
    """``tables`` lists parents before their children; times are unix seconds."""

    domain: str
    start: int
    step: int
    windows: int
    tables: dict[str, TablePlan]
    rules: dict[str, Rule]
    tasks: tuple[TaskPlan, ...]

    @property
    def end(self) -> int:
        return self.start + self.step * self.windows


def mark_columns(
    tables: dict[str, TablePlan], name: str, columns: tuple[str, ...], source: Source
) -> dict[str, TablePlan]:
    """Tables in which these columns have the source and no missing cell."""
    marked = tuple(
        replace(column, source=source, missing=0.0) if column.name in columns else column
        for column in tables[name].columns
    )
    return {**tables, name: replace(tables[name], columns=marked)}
