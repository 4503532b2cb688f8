"""Answers as they would be if some rows, or what they say in one column, were not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rfm.data.batch import EpisodeBatch
from rfm.data.hidden import NOTHING, Hidden
from rfm.data.laid import LaidTask
from rfm.data.task_rows import Ints
from rfm.eval.explain_rows import QUESTION, EdgePath, SomeRows, leads_to_labels, walk
from rfm.nn.attribution import scores
from rfm.nn.in_context import Examined
from rfm.nn.model import RelationalModel

MOST = 64  # rows that one signal names: as many as the means that are told are of
_AT_ONCE = 64  # answers


@dataclass(frozen=True, eq=False)
class Asked:
    """One question about an entity: the row of the task, by number, and its cutoff. chosen: the
    class whose odds are looked at."""

    number: int
    cutoff: int
    entity: int
    chosen: int

    def times(self, count: int) -> tuple[Ints, Ints]:
        """It, so many times."""
        return np.full(count, self.number), np.full(count, self.cutoff)


@dataclass(frozen=True, eq=False)
class Situation:
    """A task laid over its database, and the examples of each draw."""

    model: RelationalModel
    laid: LaidTask
    rows: SomeRows
    shown: tuple[Examined, ...]

    def choose(self, asked: Examined) -> Tensor:
        """[Q] the classes whose chances are looked at: the second of two that are no or yes, the
        likeliest of those with names; 0 of numbers."""
        if asked.classes <= 2 and not self.laid.task.names:
            return torch.full_like(asked.told[:, 0], float(asked.classes == 2)).long()
        logits = [self.model.in_context(shown.followed_by(asked)) for shown in self.shown]
        return torch.stack([one.softmax(1) for one in logits]).mean(0).argmax(1)

    def read(self, asked: Examined, chosen: Tensor) -> npt.NDArray[np.float64]:
        """[Q] chances of the chosen classes [Q], or means of numbers; averaged over draws."""
        found = []
        for shown in self.shown:
            both = shown.followed_by(asked)
            score = scores(self.model.in_context(both), both, chosen)
            found.append(score.sigmoid() if asked.classes else score)
        return torch.stack(found).mean(0).double().cpu().numpy()

    @torch.no_grad()
    def without_rows(self, asked: Asked, hidden: Sequence[Ints]) -> npt.NDArray[np.float64]:
        """[V] answers to a question if each time some global rows were not there, for the question
        itself and what it is told of (the examples keep theirs)."""
        seen = self.see_without_rows(asked, hidden)
        return self.read(seen, torch.full_like(seen.told[:, 0], asked.chosen).long())

    @torch.no_grad()
    def see_without_rows(self, asked: Asked, hidden: Sequence[Ints]) -> Examined:
        """The same questions [V], as the head sees them."""
        parts = []
        for start in range(0, len(hidden), _AT_ONCE):
            some = Hidden.of(hidden[start : start + _AT_ONCE])
            number, cutoff = asked.times(some.ptr.size - 1)
            parts.append(self._examine(self.laid.batch(number, cutoff, 0, 0, some)))
        return Examined.join(parts)

    @torch.no_grad()
    def see_without_column(self, asked: Asked, path: EdgePath, column: int) -> Examined:
        """A question [1] if one column were null in the rows at the end of a path, as the head sees
        it. Past labels leave the component with their rows, which still count in what is told."""
        laid, (number, cutoff) = self.laid, asked.times(1)
        told = torch.from_numpy(laid.told(number, cutoff))
        told[:, [subject == (path, column) for subject in laid.told.subjects]] = 0  # as of nulls
        rows = self._sampled(asked, path)
        if leads_to_labels(laid, path):
            batch = laid.batch(number, cutoff, 0, 0, Hidden.of([rows]))
        else:
            if not path:
                start = int(laid.store.graph.table_start[laid.task.entity_table])
                rows = np.array([start + asked.entity])
            laid = laid.reading(self.rows.without(rows, column), 0)
            batch = laid.batch(number, cutoff, 0, 0)
        return self._examine(replace(batch, told=told))

    def _examine(self, batch: EpisodeBatch) -> Examined:
        batch = batch.to(next(self.model.parameters()).device)
        return self.model.examine(batch, self.model.backbone(batch))

    def name_rows(self, asked: Asked, path: EdgePath, column: int) -> Ints:
        """Global rows, at most ``MOST``, the latest first, at the end of a path from the entity: of
        whose column a question knows something, or of which (-1) it knows at all. None at the
        entity itself, without which there would be no question."""
        if path in ((), QUESTION):
            return np.zeros(0, np.int64)
        laid = self.laid
        entity, cutoff = np.array([asked.entity]), np.array([asked.cutoff])
        children = laid.told.children
        if leads_to_labels(laid, path):
            if not any(one == path for one, _ in laid.told.subjects):
                return np.zeros(0, np.int64)
            return laid.first + laid.told.labels(path, asked.entity, asked.cutoff)[::-1][:MOST]
        if path[0] % 2 or len(path) > 2 or not children.is_there(entity, cutoff, NOTHING)[0]:
            return self._sampled(asked, path)
        child = children.latest(path[0] // 2, entity, cutoff, NOTHING)[0][0]
        child = child[child >= 0]
        if len(path) == 1:
            return np.asarray(child[self._is_known(child, column)], dtype=np.int64)
        return (
            self._sampled(asked, path) if not path[1] % 2 else self._parents(child, path[1], cutoff)
        )

    def _parents(self, child: Ints, edge: int, cutoff: Ints) -> Ints:
        graph = self.laid.store.graph
        key = graph.foreign_keys[edge // 2]
        local = child[:16] - int(graph.table_start[key.child])
        parent: Ints = np.asarray(graph.parent[graph.parent_start[edge // 2] + local], np.int64)
        parent = parent[parent >= 0]
        parent = parent[np.asarray(graph.row_time[parent]) <= cutoff]
        first: Ints = np.sort(np.unique(parent, return_index=True)[1])
        return np.asarray(parent[first], dtype=np.int64)

    def _is_known(self, row: Ints, column: int) -> npt.NDArray[np.bool_]:
        """[n]: whether rows of one table have a cell in the column; all have where it is -1."""
        if column < 0 or not row.size:
            return np.ones(row.size, dtype=np.bool_)
        t = int(self.laid.store.graph.table_of(row[0]))
        table, local = self.laid.store.tables[t], row - int(self.laid.store.graph.table_start[t])
        if table.is_value[column]:
            return ~np.isnan(table.values(local, column))
        return np.asarray(table.cells[local, column] >= 0)

    def _sampled(self, asked: Asked, path: EdgePath) -> Ints:
        seen = self.laid.sample(*asked.times(1), 0, 0, NOTHING)[1]
        return seen.row[[one == path for one in walk(seen)]][:MOST]

    def all_rows(self, asked: Asked) -> Ints:
        """All global rows that a question knows of, but for itself and its entity."""
        seen = self.laid.sample(*asked.times(1), 0, 0, NOTHING)[1]
        beyond = [path not in ((), QUESTION) for path in walk(seen)]
        paths = dict.fromkeys(path for path, _ in self.laid.told.subjects)
        told = [self.name_rows(asked, path, -1) for path in paths]
        return np.unique(np.concatenate([seen.row[beyond], *told]))
