"""Rows of synthetic databases before they have cells: times, links and latent states.

Latent states follow the foreign keys: a row's state is its community's mean, plus mixtures of
its parents' states, plus noise. Static tables and entities come first, events are simulated in
``synthetic_events``, items and bridges come last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfm.data.synthetic_links import Ints, Popularity
from rfm.data.synthetic_plan import Column, Plan, TablePlan

LATENTS = 5
"""Width of a latent state; the last entry of an event's is its recency."""

COMMUNITIES = 8

Floats = NDArray[np.float32]


@dataclass
class Rows:
    """``time`` ``[n]`` unix seconds, ascending, empty for static tables; ``parents`` row numbers,
    -1 for null; ``latent`` ``[n, LATENTS]``; ``values`` the cells that do not come from latents
    (numbers as shown, categories as codes)."""

    count: int
    time: NDArray[np.int64]
    parents: dict[str, Ints]
    latent: Floats
    community: Ints
    values: dict[str, NDArray[Any]] = field(default_factory=dict)

    def visible(self, time: NDArray[np.int64] | int) -> NDArray[Any] | int:
        """How many rows, in row order, exist at ``time``."""
        return np.searchsorted(self.time, time, "right") if len(self.time) else self.count


class Population:
    """The rows of all tables made so far, and how children choose among them."""

    def __init__(self, rng: np.random.Generator, plan: Plan) -> None:
        self.plan = plan
        self.rows: dict[str, Rows] = {}
        self.popularity: dict[str, Popularity] = {}
        self.community_mean = rng.normal(size=(COMMUNITIES, LATENTS)).astype(np.float32)
        share = (1.0 + np.arange(COMMUNITIES)) ** -0.7
        self.community_end = np.cumsum(share / share.sum())
        self.mixing = {
            (table.name, link.column): (
                rng.normal(size=(LATENTS, LATENTS)) * 0.7 / np.sqrt(LATENTS)
            ).astype(np.float32)
            for table in plan.tables.values()
            for link in table.links
        }

    def draw_communities(self, rng: np.random.Generator, count: int) -> Ints:
        places = np.searchsorted(self.community_end, rng.random(count))
        return np.minimum(places, COMMUNITIES - 1).astype(np.int32)

    def add(self, rng: np.random.Generator, table: TablePlan, rows: Rows) -> None:
        self.rows[table.name] = rows
        referred = any(
            link.parent == table.name for t in self.plan.tables.values() for link in t.links
        )
        if referred and table.role in ("lookup", "entity"):
            self.popularity[table.name] = Popularity(rng, rows.community, COMMUNITIES)

    def mix_parents(self, table: TablePlan, parents: dict[str, Ints]) -> Floats | float:
        """Sum of the parents' latent states, each through its foreign key's matrix, ``[n, L]``."""
        total: Any = 0.0
        for column, parent in parents.items():
            name = table.parent(column)
            if name == table.name:
                continue
            mixed = self.rows[name].latent @ self.mixing[table.name, column]
            total = total + np.where(parent[:, None] >= 0, mixed[parent], np.float32(0))
        mixture: Floats | float = total
        return mixture


def make_rows(rng: np.random.Generator, population: Population, table: TablePlan) -> Rows:
    """Rows of a lookup, an entity or a bridge table."""
    if table.role == "bridge":
        return _make_bridge(rng, population, table)
    plan, count = population.plan, table.rows
    time = np.empty(0, np.int64)
    if table.time_column:
        early = rng.random(count) < float(rng.uniform(0.4, 0.7))
        span = np.where(early, plan.step, plan.end - plan.start)
        time = np.sort(plan.start + 1 + (rng.random(count) * (span - 1)).astype(np.int64))
    community = population.draw_communities(rng, count)
    parents = {}
    for link in table.links:
        if link.parent == table.name:
            earlier = np.arange(count)
            parent = np.where(earlier > 0, (earlier * rng.random(count) ** 2).astype(np.int32), -1)
            drop = rng.random(count) < max(0.1, link.null_share)
        else:
            rows = population.rows[link.parent]
            visible = rows.visible(time) if len(time) else rows.count
            parent = population.popularity[link.parent].draw(rng, community, visible)
            drop = rng.random(count) < link.null_share
        parents[link.column] = np.where(drop, -1, parent).astype(np.int32)
    latent = 0.6 * rng.standard_normal((count, LATENTS), dtype=np.float32)
    latent += 0.5 * population.community_mean[community] + population.mix_parents(table, parents)
    for link in table.links:
        if link.parent == table.name:
            parent = parents[link.column]
            latent += np.where(parent[:, None] >= 0, 0.4 * latent[parent], 0.0)
    latent /= latent.std() + 1e-6
    values = {
        column.name: draw_exogenous(rng, column, count)
        for column in table.columns
        if column.source == "exogenous"
    }
    return Rows(count, time, parents, latent.astype(np.float32), community, values)


def draw_exogenous(rng: np.random.Generator, column: Column, count: int) -> NDArray[Any]:
    """Cells that depend on nothing else: a normal number, or the codes of a category."""
    if column.kind == "f":
        return show_number(column, rng.standard_normal(count))
    share = rng.dirichlet(np.full(len(column.options), 3.0))
    codes = np.searchsorted(np.cumsum(share), rng.random(count))
    return np.minimum(codes, len(share) - 1).astype(np.int32)


def show_number(column: Column, values: NDArray[Any]) -> NDArray[np.float64]:
    """A standardised number as its column shows it."""
    return np.round(column.center + column.scale * values.astype(np.float64), 2)


def _make_bridge(rng: np.random.Generator, population: Population, table: TablePlan) -> Rows:
    """Pairs of two entities, each pair once, later than both."""
    plan, count = population.plan, table.rows
    left, right = table.links[0], table.links[1]
    time = np.empty(0, np.int64)
    if table.time_column:
        time = np.sort(rng.integers(plan.start + 1, plan.end + 1, count))
    pairs = []
    community = population.draw_communities(rng, count)
    for link in (left, right):
        rows = population.rows[link.parent]
        visible = rows.visible(time) if len(time) else rows.count
        parent = population.popularity[link.parent].draw(rng, community, visible)
        community = np.where(parent >= 0, rows.community[parent], community)
        pairs.append(parent)
    code = pairs[0].astype(np.int64) * (population.rows[right.parent].count + 1) + pairs[1]
    _, first = np.unique(code, return_index=True)
    keep = np.sort(first[(pairs[0][first] >= 0) & (pairs[1][first] >= 0)])
    parents = {left.column: pairs[0][keep], right.column: pairs[1][keep]}
    latent = population.mix_parents(table, parents)
    latent = latent + 0.6 * rng.standard_normal((len(keep), LATENTS), dtype=np.float32)
    return Rows(len(keep), time[keep] if len(time) else time, parents, latent, community[keep])


def make_items(rng: np.random.Generator, population: Population, table: TablePlan) -> Rows:
    """Parts of an event: a random number for each, at its time or somewhat later."""
    plan, link = population.plan, table.links[0]
    events = population.rows[link.parent]
    mean = min(8.0, table.rows / max(events.count, 1))
    number = rng.poisson(mean, events.count)
    parent = np.repeat(np.arange(events.count, dtype=np.int32), number)
    time = events.time[parent]
    if rng.random() < 0.5:
        delay = rng.exponential(0.1 * plan.step, len(parent)).astype(np.int64)
        time = time + np.where(rng.random(len(parent)) < 0.5, delay, 0)
    order = np.argsort(time, kind="stable")
    order = order[: int(np.searchsorted(time[order], plan.end, "right"))]
    parent, time = parent[order], time[order]
    community = events.community[parent]
    parents = {link.column: parent}
    for other in table.links[1:]:
        visible = population.rows[other.parent].visible(events.time)
        limit = visible[parent] if isinstance(visible, np.ndarray) else visible
        chosen = population.popularity[other.parent].draw(rng, community, limit)
        chosen[rng.random(len(chosen)) < other.null_share] = -1
        parents[other.column] = chosen
    latent = rng.standard_normal((len(parent), LATENTS), dtype=np.float32)
    latent *= 0.6
    latent += population.mix_parents(table, parents)
    return Rows(len(parent), time, parents, latent, community)
