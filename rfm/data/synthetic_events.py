"""Simulation of synthetic events, window by window.

Every event table has an actor, its first parent. In each window of the plan's step an actor has
no event, or one plus a Poisson number of them. The probability comes from the table's rule, which
reads only what is visible at the start of the window, or, without a rule, from the actor's state.
The states of the actors move as autoregressions, so that values drift.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rfm.data.synthetic_links import Ints
from rfm.data.synthetic_plan import Rule, TablePlan
from rfm.data.synthetic_rows import LATENTS, Floats, Population, Rows, show_number
from rfm.data.synthetic_rules import attribute_scores, logit, sigmoid

NEVER = np.iinfo(np.int64).min // 4


@dataclass
class Outcome:
    """What happened to the actors that existed at the start of each window (list over windows,
    arrays ``[alive]``), and what the rule expected before."""

    probability: list[Floats] = field(default_factory=list)
    expected: dict[str, list[Floats]] = field(default_factory=dict)
    observed: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    shift: float = 0.0
    spread: float = 1.0

    def note(self, what: str, expected: NDArray[Any], observed: NDArray[Any]) -> None:
        self.expected.setdefault(what, []).append(expected.astype(np.float32))
        self.observed.setdefault(what, []).append(observed.astype(np.int64))


@dataclass
class Trail:
    """Scores of an actor's past rows in one table: the last, the sum, how many."""

    last: Floats
    total: Floats
    number: Ints

    def follow(self, actor: Ints, score: Floats) -> None:
        self.last[actor] = score
        self.total += np.bincount(actor, score, len(self.total)).astype(np.float32)
        self.number += np.bincount(actor, minlength=len(self.number)).astype(np.int32)


class EventTable:
    """The moving state of one event table during the simulation."""

    def __init__(self, rng: np.random.Generator, population: Population, table: TablePlan) -> None:
        self.table, self.plan, self.population = table, population.plan, population
        self.actors = population.rows[table.actor]
        count = self.actors.count
        self.rule = self.plan.rules.get(table.name)
        self.outcome = Outcome()
        self.static = self._static_scores() if self.rule else np.empty(0, np.float32)
        self.last_time = np.full(count, NEVER)
        self.labels: list[NDArray[np.int8]] = []
        self.favourite = {link.column: np.full(count, -1, np.int32) for link in table.links[1:]}
        self.loyalty = float(rng.uniform(0.4, 0.85))
        self.hidden = rng.standard_normal(count, dtype=np.float32)
        self.direction = rng.normal(size=LATENTS).astype(np.float32) / np.sqrt(LATENTS)
        self.trend = rng.normal(scale=0.6, size=LATENTS).astype(np.float32)
        self.season = rng.normal(scale=0.4, size=LATENTS).astype(np.float32)
        self.period = int(rng.integers(4, 13))
        self.trails: dict[str, Trail] = {}
        self.far_scores: dict[str, Floats] = {}
        self.drawn: list[dict[str, NDArray[Any]]] = []
        starts = self.plan.start + self.plan.step * np.arange(self.plan.windows)
        self.alive = np.array([self.actors.visible(int(start)) for start in starts])
        self.made = 0

    def _static_scores(self) -> Floats:
        """Scores that the actors have once and for all through ``hops``, ``[actors]``."""
        rule = self.rule
        assert rule is not None
        if rule.history or not rule.attributes:
            return np.empty(0, np.float32)
        row = np.arange(self.actors.count, dtype=np.int32)
        table = self.plan.tables[self.table.actor]
        for hop in rule.hops:
            parent = self.population.rows[table.name].parents[hop]
            row = np.where(row >= 0, parent[row], -1)
            table = self.plan.tables[table.parent(hop)]
        rows = self.population.rows[table.name]
        weight = np.bincount(row[row >= 0], minlength=rows.count).astype(np.float64)
        if not weight.any():
            weight += 1
        score, self.outcome.shift, self.outcome.spread = attribute_scores(
            rule, table, rows.values, weight
        )
        return np.where(row >= 0, score[row], 0).astype(np.float32)

    def listen(self, other: EventTable) -> None:
        """Let ``other``'s rule read the rows of this table."""
        rule = other.rule
        assert rule is not None
        count = self.actors.count
        zeros = np.zeros(count, np.float32)
        self.trails[other.table.name] = Trail(zeros, zeros.copy(), np.zeros(count, np.int32))
        if rule.via:
            table = self.plan.tables[rule.attributes]
            weight = self.population.popularity[table.name].weight
            values = self.population.rows[table.name].values
            scores, shift, spread = attribute_scores(rule, table, values, weight)
            self.far_scores[other.table.name] = scores
            other.outcome.shift, other.outcome.spread = shift, spread
        else:
            other.outcome.spread = float(np.sqrt(1.25))

    def score(self, tables: dict[str, EventTable], window: int, alive: int) -> Floats:
        """The signal at the start of a window, ``[alive]``."""
        rule = self.rule
        assert rule is not None
        if rule.signal == "own_past_labels":
            total = np.zeros(alive, np.float32)
            for weight, label in zip(rule.lags, reversed(self.labels), strict=False):
                total[: len(label)] += np.float32(weight) * label
            return total
        if rule.signal == "recency":
            last = tables[rule.history].last_time[:alive]
            age = self.plan.start + window * self.plan.step - last
            return (2 * np.exp(-age / (rule.decay * self.plan.step)) - 1).astype(np.float32)
        if not rule.history:
            return self.static[:alive]
        trail = tables[rule.history].trails[self.table.name]
        if rule.aggregate == "last":
            return trail.last[:alive]
        mean = 1.5 * trail.total[:alive] / np.maximum(trail.number[:alive], 1)
        return mean.astype(np.float32)

    def probability(
        self, score: NDArray[Any], window: int, rule: Rule | None
    ) -> NDArray[np.float64]:
        if rule is None:
            phase = np.sin(2 * np.pi * window / self.period)
            return sigmoid(logit(self.table.mean_rate) + score + 0.3 * phase)
        phase = np.sin(2 * np.pi * window / rule.period)
        return sigmoid(rule.base + rule.gain * score + rule.season * phase)

    def happen(self, rng: np.random.Generator, window: int, score: Floats, state: Floats) -> None:
        """Draw the events of one window; ``score`` ``[alive]``, ``state`` ``[actors, L]``."""
        alive = len(score)
        probability = self.probability(score, window, self.rule)
        active = rng.random(alive) < probability
        extra = self._extra_events(window) * np.exp(0.4 * np.clip(score, -2, 2)) / 1.08
        chosen = np.nonzero(active)[0].astype(np.int32)
        actor = np.repeat(chosen, 1 + rng.poisson(extra[chosen]))
        start = self.plan.start + window * self.plan.step
        time = start + np.sort(rng.integers(1, self.plan.step + 1, len(actor)))
        actor = rng.permutation(actor)
        row: dict[str, NDArray[Any]] = {"time": time, **self._link(rng, actor, start)}
        row["latent"] = self._state_of(rng, row, window, state)
        row |= self._simulated(rng, actor, score)
        if self.rule:
            self._record(row, actor, active, probability, extra)
        for target, trail in self.trails.items():
            rule = self.plan.rules[target]
            if rule.via:
                parent = row[rule.via]
                followed = np.where(parent >= 0, self.far_scores[target][parent], 0)
            else:
                column = self.table.column(rule.number)
                followed = (row[rule.number] - column.center) / column.scale / np.sqrt(1.25)
            trail.follow(actor, followed.astype(np.float32))
        self.last_time[actor] = time
        self.made += len(actor)
        self.labels = [*self.labels[-2:], np.where(active, 1, -1).astype(np.int8)]
        noise = rng.standard_normal(len(self.hidden), dtype=np.float32)
        self.hidden = np.float32(0.95) * self.hidden + np.float32(0.3122) * noise
        self.drawn.append(row)

    def _extra_events(self, window: int) -> float:
        """Mean of an actor's events beyond the first; steers to the planned number of rows."""
        wanted = self.table.rows * self.alive[:window].sum() / self.alive.sum()
        if window < 3 or not wanted:
            return self.table.extra_events
        ratio = 1 + 2 * (wanted - self.made) / wanted
        steered = (1 + self.table.extra_events) * float(np.clip(ratio, 0.3, 3.0)) - 1
        return max(0.05, steered)

    def _link(self, rng: np.random.Generator, actor: Ints, start: int) -> dict[str, Ints]:
        parents = {self.table.links[0].column: actor}
        community = self.actors.community[actor]
        for link in self.table.links[1:]:
            visible = self.population.rows[link.parent].visible(start)
            fresh = self.population.popularity[link.parent].draw(rng, community, visible)
            usual = self.favourite[link.column][actor]
            again = (usual >= 0) & (rng.random(len(actor)) < self.loyalty)
            parent = np.where(again, usual, fresh)
            self.favourite[link.column][actor] = parent
            lost = rng.random(len(actor)) < link.null_share
            parents[link.column] = np.where(lost, -1, parent).astype(np.int32)
        return parents

    def _state_of(
        self, rng: np.random.Generator, row: dict[str, NDArray[Any]], window: int, state: Floats
    ) -> Floats:
        """Latent states of new events: actor, other parents, trend, season, recency, noise."""
        actor = row[self.table.links[0].column]
        others = {link.column: row[link.column] for link in self.table.links[1:]}
        latent: Floats = np.float32(0.5) * rng.standard_normal(
            (len(actor), LATENTS), dtype=np.float32
        )
        latent += np.float32(0.7) * state[actor] + self.population.mix_parents(self.table, others)
        latent += self.trend * np.float32(window / self.plan.windows - 0.5)
        latent += self.season * np.float32(np.sin(2 * np.pi * window / self.period))
        age = (row["time"] - self.last_time[actor]) / self.plan.step
        latent[:, -1] = 2 * np.exp(-age) - 1
        return latent

    def _simulated(
        self, rng: np.random.Generator, actor: Ints, score: Floats
    ) -> dict[str, NDArray[Any]]:
        values: dict[str, NDArray[Any]] = {}
        for column in self.table.columns:
            if column.source == "simulated" and column.kind == "i":
                values[column.name] = 1 + rng.poisson(units_mean(score)[actor])
            elif column.source == "simulated":
                noise = np.float32(0.5) * rng.standard_normal(len(actor), dtype=np.float32)
                values[column.name] = show_number(column, self.hidden[actor] + noise)
        return values

    def _record(
        self,
        row: dict[str, NDArray[Any]],
        actor: Ints,
        active: NDArray[np.bool_],
        probability: NDArray[Any],
        extra: NDArray[Any],
    ) -> None:
        alive = len(active)
        outcome = self.outcome
        outcome.note("exists", probability, active)
        expected = probability * (1 + extra)
        outcome.note("count", expected, np.bincount(actor, minlength=alive))
        for column in self.table.columns:
            if column.source == "simulated" and column.kind == "i":
                assert self.rule is not None
                observed = np.bincount(actor, row[column.name], alive)
                outcome.note(column.name, expected * (1 + units_mean(self._seen)), observed)

    def look(self, tables: dict[str, EventTable], window: int, state: Floats) -> Floats:
        """What decides this window, taken before anything in it happens, ``[alive]``."""
        alive = int(self.alive[window])
        if self.rule:
            self._seen = self.score(tables, window, alive)
        else:
            self._seen = (state[:alive] @ self.direction).astype(np.float32)
        return self._seen

    def finish(self) -> Rows:
        """All drawn events as rows, in time order."""
        joined = {}
        for key in list(self.drawn[0]):
            joined[key] = np.concatenate([row.pop(key) for row in self.drawn])
        columns = [link.column for link in self.table.links]
        actor = joined[columns[0]]
        return Rows(
            count=len(actor),
            time=joined.pop("time"),
            latent=joined.pop("latent"),
            parents={column: joined.pop(column) for column in columns},
            community=self.actors.community[actor],
            values=joined,
        )


def units_mean(score: NDArray[Any]) -> NDArray[Any]:
    """Mean of an event's units beyond the first, from the score of its actor."""
    mean: NDArray[Any] = 1.5 * np.exp(0.3 * np.clip(score, -2, 2))
    return mean


def simulate_events(
    rng: np.random.Generator, population: Population
) -> tuple[dict[str, Rows], dict[str, Outcome]]:
    """Rows of all event tables, and the outcomes of those that have a rule."""
    plan = population.plan
    events = {
        name: EventTable(rng, population, table)
        for name, table in plan.tables.items()
        if table.role == "event"
    }
    for event in events.values():
        if event.rule and event.rule.history and event.rule.signal != "recency":
            events[event.rule.history].listen(event)
    actors = sorted({event.table.actor for event in events.values()})
    states = {name: population.rows[name].latent.copy() for name in actors}
    for window in range(plan.windows):
        scores = {
            name: event.look(events, window, states[event.table.actor])
            for name, event in events.items()
        }
        for name, event in events.items():
            event.happen(rng, window, scores[name], states[event.table.actor])
        for name in actors:
            home = population.rows[name].latent
            noise = rng.standard_normal(home.shape, dtype=np.float32)
            moved = np.float32(0.85) * states[name] + np.float32(0.15) * home
            states[name] = moved + np.float32(0.3) * noise
    rows = {name: event.finish() for name, event in events.items()}
    outcomes = {name: event.outcome for name, event in events.items() if event.rule}
    return rows, outcomes
