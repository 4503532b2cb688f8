"""What moved an answer, part by part: a path of foreign keys and a column at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from rfm.data.batch import EpisodeBatch
from rfm.data.hidden import NOTHING
from rfm.data.laid import LaidTask
from rfm.eval.explain_occlusion import Asked
from rfm.eval.explain_rows import (
    KNOWN,
    QUESTION,
    EdgePath,
    Layout,
    MeanStates,
    leads_to_labels,
    walk,
)
from rfm.nn.attribution import HeadMoves, split_by_rows
from rfm.nn.backbone import Rows
from rfm.nn.model import RelationalModel


@dataclass(eq=False)
class Part:
    """What is said of one column at the end of one path: by numbers told (which, and how much each
    moved the score), and by states."""

    told: dict[int, float] = field(default_factory=dict)
    states: float = 0.0

    @property
    def moved(self) -> float:
        return sum(self.told.values()) + self.states


Key: TypeAlias = tuple[EdgePath, int]
"""A path and a column, -1 for rows as such: see ``Told.subjects``."""


@dataclass(frozen=True, eq=False)
class Looked:
    """One question as the backbone sees it."""

    asked: Asked
    batch: EpisodeBatch
    rows: Rows


def split_moves(
    model: RelationalModel,
    laid: LaidTask,
    means: MeanStates,
    one: Looked,
    moves: HeadMoves,
    at: int,
) -> dict[Key, Part]:
    """The parts of question ``at`` of some moves."""
    parts: dict[Key, Part] = {}
    told = moves.told[at].tolist()
    for f, (subject, moved) in enumerate(zip(laid.told.subjects, told, strict=True)):
        parts.setdefault(subject, Part()).told[f] = moved
    states = _by_rows(model, laid, means, one, moves, at)
    total = sum(abs(moved) for moved in states.values())
    whole = abs(float(moves.state[at] + moves.expected[at]))
    for key, moved in states.items():
        parts.setdefault(key, Part()).states += moved * whole / max(total, 1e-12)
    return parts


def _by_rows(
    model: RelationalModel,
    laid: LaidTask,
    means: MeanStates,
    one: Looked,
    moves: HeadMoves,
    at: int,
) -> dict[Key, float]:
    """What pulled the states, of rows (column -1) and of cells: of no unit. When past labels became
    known counts as of their rows: it is how many and how old they are once more."""
    seen = laid.sample(*one.asked.times(1), 0, 0, NOTHING)[1]
    layout = Layout.of(laid, one.batch, one.rows, seen)
    pull = (moves.state_pull[at : at + 1], moves.expected_pull[at : at + 1])
    baseline = means.like(layout, one.rows)
    of_row, of_cell = split_by_rows(model, one.batch, one.rows, baseline, pull)
    path = dict(zip(one.batch.row.tolist(), walk(seen), strict=True))
    found: dict[Key, float] = {}
    for u, moved in enumerate(of_row.tolist()):
        if path[u] == QUESTION:  # its row says nothing, and is like no other row of its table
            continue
        found[path[u], -1] = found.get((path[u], -1), 0.0) + moved
    of_cells = zip(
        one.rows.cells.row.tolist(), layout.column.tolist(), of_cell.tolist(), strict=True
    )
    for u, column, moved in of_cells:
        is_time = column == KNOWN and leads_to_labels(laid, path[u])
        key = (path[u], -1 if is_time else column)
        found[key] = found.get(key, 0.0) + moved
    return found
