"""Rows as sentences: what a language model is told about an entity at a seed time.

    <description of the task and of the answer>

    <examples: neighbourhoods of other entities, each with its answer>

    drivers: forename Ayrton, surname Senna, dob 12345 days ago     the entity's own row
    teams: name McLaren                                             its parents
    results 30 days ago: grid 3, position 5                         its latest children
    did not finish, 60 days ago: no                                 labels known by the cutoff
    did not finish:

All times are relative to the seed time. Rows come from a store in which every cell is spelled out
(``serialisation="text"``), made of the database without the task's hidden columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from rfm.data.graph import STATIC
from rfm.data.sampler import Seeds, Subgraph, fan_outs, sample
from rfm.data.schema import words
from rfm.data.store import RowStore
from rfm.data.task_rows import SPLITS, Ints
from rfm.data.tasks import Task
from rfm.data.tokenizer import Tokenizer

Flags = npt.NDArray[np.bool_]
_SECONDS_PER_DAY = 86_400
NO, YES = "no", "yes"


@dataclass(frozen=True)
class Story:
    """What is said about an entity, in lines: ``own`` first, ``children`` from the oldest to the
    latest, ``labels`` likewise."""

    own: tuple[str, ...]
    children: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """The pieces of a prompt, in this order; ``examples`` and then ``children`` may be dropped,
    the first ones first. ``ask`` is what the answer follows."""

    header: str
    examples: tuple[str, ...]
    own: str
    children: tuple[str, ...]
    ask: str


@dataclass(frozen=True, eq=False)
class Labels:
    """Labelled rows of all splits, in the order in which their labels become known.

    entity, time, known [n]: ``known`` is seed time + ``timedelta``. label [n] float64.
    """

    entity: Ints
    time: Ints
    known: Ints
    label: npt.NDArray[np.float64]
    _places: dict[int, Ints] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task) -> Labels:
        rows = [task.rows(split) for split in SPLITS]
        kept = [np.flatnonzero(r.labelled & (r.label[:, 0] >= 0 if task.classes else True))
                for r in rows]  # fmt: skip
        entity, time, label = (
            np.concatenate([values[at] for values, at in zip(parts, kept, strict=True)])
            for parts in (
                [r.entity for r in rows],
                [r.time for r in rows],
                [r.label[:, 0] for r in rows],
            )
        )
        order = np.lexsort((entity, time))
        time = time[order]
        return cls(entity[order], time, time + task.timedelta, label[order])

    def available(self, cutoff: int) -> int:
        """How many are known at a time: the first so many."""
        return int(np.searchsorted(self.known, cutoff, side="right"))

    def of_entity(self, entity: int, cutoff: int, limit: int) -> Ints:
        """The latest places [at most limit] of an entity's labels that are known by the cutoff."""
        if not self._places:
            order = np.argsort(self.entity, kind="stable")
            cuts = np.flatnonzero(np.diff(self.entity[order])) + 1
            self._places.update(
                {int(self.entity[group[0]]): group for group in np.split(order, cuts) if group.size}
            )
        places = self._places.get(entity, np.zeros(0, np.int64))
        known = places[: np.searchsorted(self.known[places], cutoff, side="right")]
        return known[known.size - min(limit, known.size) :]

    def examples(
        self, entity: int, cutoff: int, count: int, pool: int, balanced: bool, key: Sequence[int]
    ) -> Ints:
        """Places [at most count] of other entities' labels, known by the cutoff, drawn by ``key``
        from the latest ``pool``; with as many of each label, as far as there are, if balanced."""
        there = self.available(cutoff)
        latest = np.arange(max(0, there - pool), there)
        latest = latest[self.entity[latest] != entity]
        order = np.random.default_rng(key).permutation(latest)
        if balanced:
            label = self.label[order]
            turn = np.zeros(order.size, dtype=np.int64)
            for value in np.unique(label):
                turn[label == value] = np.arange(int((label == value).sum()))
            order = order[np.argsort(turn, kind="stable")]
        chosen: Ints = order[:count]
        return chosen


@dataclass(frozen=True, eq=False)
class Teller:
    """Tells stories about a task's entities from the task's database, as text.

    children: per foreign key. most_children, most_labels: in all.
    """

    task: Task
    store: RowStore
    tokenizer: Tokenizer
    labels: Labels
    children: int
    most_children: int
    most_labels: int

    def stories(self, entity: Ints, cutoff: Ints, time: Ints) -> list[Story]:
        """One for each entity [n], which sees rows and labels up to ``cutoff`` [n], told at
        ``time`` [n] (unix seconds)."""
        graph = self.store.graph
        rows = entity + graph.rows_of(self.task.entity_table).start
        fan_out = fan_outs(graph, (self.children,))
        sub = sample(graph, Seeds.at(rows, cutoff), fan_out)
        first = np.searchsorted(sub.seed[entity.size :], np.arange(entity.size + 1)) + entity.size
        is_child = _children(sub)
        given = self.task.kind == "autocomplete"
        return [
            self._story(
                sub, np.arange(first[i], first[i + 1]), is_child, i, int(entity[i]), int(cutoff[i]),
                int(time[i]), given or int(graph.row_time[rows[i]]) <= int(cutoff[i]),
            )
            for i in range(entity.size)
        ]  # fmt: skip

    def _story(
        self,
        sub: Subgraph,
        near: Ints,
        is_child: Flags,
        seed: int,
        entity: int,
        cutoff: int,
        time: int,
        seen: bool,
    ) -> Story:
        own: list[str] = []
        children: list[str] = []
        if seen:
            own = [self._row(int(sub.row[at]), time) for at in (seed, *near[~is_child[near]])]
            below = near[is_child[near]]
            row_time = np.asarray(self.store.graph.row_time[sub.row[below]])
            below = below[np.argsort(row_time, kind="stable")]
            below = below[max(0, below.size - self.most_children) :]
            children = [self._row(int(sub.row[at]), time) for at in below]
        places = self.labels.of_entity(entity, cutoff, self.most_labels)
        said = [
            f"{words(self.task.target)}, {ago(time - int(self.labels.time[at]))}: "
            f"{self.answer(float(self.labels.label[at]))}"
            for at in places
        ]
        return Story(tuple(own), tuple(children), tuple(said))

    def answer(self, label: float) -> str:
        """How a label is spelled."""
        if self.task.task_type == "binary_classification":
            return YES if label == 1 else NO
        if self.task.task_type == "multiclass_classification":
            return self.task.classes[int(label)]
        return f"{label:.4g}"

    def _row(self, row: int, time: int) -> str:
        """A global row in one line; its cells that are null are left out."""
        graph = self.store.graph
        number = int(graph.table_of(row))
        table, local = self.store.tables[number], row - int(graph.table_start[number])
        when = int(graph.row_time[row])
        cells = []
        for i, column in enumerate(table.columns):
            index = int(table.cells[local, i])
            if index < 0 or column.is_time:
                continue
            text = self.tokenizer.decode(table.text(local, i).tolist())
            if column.kind == "datetime":
                moment = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
                if not pd.isna(moment):
                    text = ago(time - int(moment.timestamp()))
            cells.append(f"{words(column.name)} {text}")
        said = "" if when == STATIC else f" {ago(time - when)}"
        return f"{words(table.name)}{said}: {', '.join(cells)}".rstrip(" :")


def _children(sub: Subgraph) -> Flags:
    """[R]: rows that a seed found along f2p."""
    is_child = np.zeros(sub.row.size, dtype=np.bool_)
    is_child[sub.edge_index[0][sub.edge_type % 2 == 0]] = True
    return is_child


def ago(seconds: int) -> str:
    """``30 days ago``, ``today``, ``in 2 days``."""
    days = round(seconds / _SECONDS_PER_DAY)
    if days == 0:
        return "today"
    unit = "day" if abs(days) == 1 else "days"
    return f"{days} {unit} ago" if days > 0 else f"in {-days} {unit}"
