"""Answers as they would be if some rows, or what they say in one column, were not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rfm.data.hidden import NOTHING, Hidden
from rfm.data.laid import LaidTask
from rfm.data.task_rows import Ints
from rfm.eval.explain_blanks import SomeRows, blank
from rfm.eval.explain_rows import QUESTION, EdgePath, leads_to_labels
from rfm.nn.attribution import scores
from rfm.nn.in_context import Examined
from rfm.nn.model import RelationalModel

MOST = 64  # rows that one signal names: as many as the means that are told are of
_AT_ONCE = 64  # answers


def _no_rows() -> Ints:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Asked:
    """One question about an entity: the row of the task, by number, and its cutoff. told [F]: what
    it is told. row [n], path: the global rows that it sees, and how they are reached. chosen: the
    class whose odds are looked at."""

    number: int
    cutoff: int
    entity: int
    told: npt.NDArray[np.float32]
    row: Ints
    path: Sequence[EdgePath]
    chosen: int = 0

    def sees(self, path: EdgePath) -> Ints:
        """Global rows at the end of a path, at most ``MOST``."""
        return self.row[[one == path for one in self.path]][:MOST]


@dataclass(frozen=True, eq=False)
class Without:
    """A question that does not see some global rows; that is told nothing of a column at the end of
    a path; or to which some rows are null in that column."""

    asked: Asked
    hidden: Ints = field(default_factory=_no_rows)
    subject: tuple[EdgePath, int] = ((), -1)
    null: Ints = field(default_factory=_no_rows)


@dataclass(frozen=True, eq=False)
class Situation:
    """A task laid over its database, and the examples of each draw. worth: see ``explain``."""

    model: RelationalModel
    laid: LaidTask
    rows: SomeRows
    shown: tuple[Examined, ...]
    worth: tuple[float, ...] = ()

    def choose(self, asked: Examined) -> Tensor:
        """[Q] the classes whose chances are looked at: the second of two that are no or yes, the
        likeliest of those with names; 0 of numbers."""
        if asked.classes <= 2 and not self.laid.task.names:
            return torch.full_like(asked.told[:, 0], float(asked.classes == 2)).long()
        logits = [self.model.in_context(shown.followed_by(asked)) for shown in self.shown]
        chance = torch.stack([one.softmax(1) for one in logits]).mean(0)
        return (chance * chance.new_tensor(self.worth or (1.0,))).argmax(1)

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
        seen = self.see([Without(asked, rows) for rows in hidden])
        return self.read(seen, torch.full_like(seen.told[:, 0], asked.chosen).long())

    def without_column(self, asked: Asked, path: EdgePath, column: int) -> Without:
        """The question if one column were null in the rows at the end of a path. Past labels leave
        the component with their rows, which still count in what is told."""
        start = int(self.laid.store.graph.table_start[self.laid.task.entity_table])
        rows = asked.sees(path) if path else np.array([start + asked.entity])
        if leads_to_labels(self.laid, path):
            return Without(asked, hidden=rows, subject=(path, column))
        return Without(asked, null=rows, subject=(path, column))

    @torch.no_grad()
    def see(self, asked: Sequence[Without]) -> Examined:
        """Questions [V] as the head sees them."""
        spans = (asked[start : start + _AT_ONCE] for start in range(0, len(asked), _AT_ONCE))
        return Examined.join([self._examine(span) for span in spans])

    def _examine(self, asked: Sequence[Without]) -> Examined:
        laid, hidden = self.laid, Hidden.of([one.hidden for one in asked])
        number = np.array([one.asked.number for one in asked])
        cutoff = np.array([one.asked.cutoff for one in asked])
        batch = laid.batch(number, cutoff, 0, 0, hidden)
        told = batch.told.clone()
        for v, one in enumerate(asked):
            if one.subject[1] >= 0:  # as of nulls
                is_it = [subject == one.subject for subject in laid.told.subjects]
                told[v] = torch.from_numpy(np.where(is_it, 0, one.asked.told))
        seen = laid.sample(number, cutoff, 0, 0, hidden)[1]
        node = np.flatnonzero(Hidden.of([one.null for one in asked]).among(seen.seed, seen.row))
        column = np.array([one.subject[1] for one in asked])[seen.seed[node]]
        batch = blank(batch, laid.store, self.rows, node, (seen.row[node], column))
        batch = replace(batch, told=told).to(next(self.model.parameters()).device)
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
            return self._latest_first(asked.sees(path))
        child = children.latest(path[0] // 2, entity, cutoff, NOTHING)[0][0]
        child = child[child >= 0]
        if len(path) == 1:
            return np.asarray(child[self._is_known(child, column)], dtype=np.int64)
        if path[1] % 2:
            return self._parents(child, path[1], cutoff)
        return self._latest_first(asked.sees(path))

    def _latest_first(self, row: Ints) -> Ints:
        time = np.asarray(self.laid.store.graph.row_time[row])
        return row[np.argsort(time, kind="stable")[::-1]]

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

    def all_rows(self, asked: Asked) -> Ints:
        """All global rows that a question knows of, but for itself and its entity."""
        beyond = [path not in ((), QUESTION) for path in asked.path]
        paths = dict.fromkeys(path for path, _ in self.laid.told.subjects)
        told = [self.name_rows(asked, path, -1) for path in paths]
        return np.unique(np.concatenate([asked.row[beyond], *told]))
