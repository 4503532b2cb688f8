"""What moved an answer, part by part: a path of foreign keys and a column at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rfm.data.batch import EpisodeBatch
from rfm.data.laid import LaidTask
from rfm.data.sampler import Subgraph
from rfm.eval.explain_occlusion import Asked
from rfm.eval.explain_rows import KNOWN, QUESTION, EdgePath, Layout, MeanStates, leads_to_labels
from rfm.nn.attribution import HeadMoves, each_its_own, split_by_rows
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
    """Questions as the backbone sees them. path: how each row that they see was reached."""

    asked: Sequence[Asked]
    seen: Subgraph
    path: Sequence[EdgePath]
    batch: EpisodeBatch
    rows: Rows


def split_moves(
    model: RelationalModel, laid: LaidTask, means: MeanStates, looked: Looked, moves: HeadMoves
) -> list[dict[Key, Part]]:
    """The parts of some moves, by question."""
    found = []
    for at, states in enumerate(_by_rows(model, laid, means, looked, moves)):
        parts: dict[Key, Part] = {}
        told = moves.told[at].tolist()
        for f, (subject, moved) in enumerate(zip(laid.told.subjects, told, strict=True)):
            parts.setdefault(subject, Part()).told[f] = moved
        total = sum(abs(moved) for moved in states.values())
        whole = abs(float(moves.state[at] + moves.expected[at]))
        for key, moved in states.items():
            parts.setdefault(key, Part()).states += moved * whole / max(total, 1e-12)
        found.append(parts)
    return found


def _by_rows(
    model: RelationalModel, laid: LaidTask, means: MeanStates, looked: Looked, moves: HeadMoves
) -> list[dict[Key, float]]:
    """By question what pulled its states, of rows (column -1) and of cells: of no unit. When past
    labels became known counts as of their rows: it is how many and how old they are once more."""
    layout = Layout.of(laid, looked.batch, looked.rows, looked.seen)
    batch, rows, cell = each_its_own(looked.batch, looked.rows)
    layout = layout.take(looked.batch.row, cell)
    pull = (moves.state_pull, moves.expected_pull)
    of_row, of_cell = split_by_rows(model, batch, rows, means.like(layout, rows), pull)
    found: list[dict[Key, float]] = [{} for _ in looked.asked]
    owner, path = looked.seen.seed.tolist(), looked.path
    for node, moved in enumerate(of_row.tolist()):
        if path[node] == QUESTION:  # its row says nothing, and is like no other row of its table
            continue
        own, key = found[owner[node]], (path[node], -1)
        own[key] = own.get(key, 0.0) + moved
    of_cells = zip(rows.cells.row.tolist(), layout.column.tolist(), of_cell.tolist(), strict=True)
    for node, column, moved in of_cells:
        is_time = column == KNOWN and leads_to_labels(laid, path[node])
        own, key = found[owner[node]], (path[node], -1 if is_time else column)
        own[key] = own.get(key, 0.0) + moved
    return found
