"""Why an answer is what it is: which tables, columns and paths of foreign keys moved it.

An answer from examples is moved away from that to the examples' mean question by the numbers that
the question is told and by the states of the rows and cells that it sees. Gradient x (input - mean)
along the way shares the movement out among the numbers exactly, but for the steps of the way
(integrated gradients), and the states' part of it among rows and cells by their own gradient x
(state - mean). All is summed by path, table and column; the strongest are checked by occlusion: the
rows that they name are deleted, from the component and from what the numbers are made of, and the
question is asked again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rfm.config import setting
from rfm.data.batch import EpisodeBatch
from rfm.data.hidden import NOTHING
from rfm.data.laid import LaidTask
from rfm.data.serialise import TokenIds
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime
from rfm.eval.explain_occlusion import Asked, Situation
from rfm.eval.explain_rows import QUESTION, EdgePath, Layout, MeanStates, SomeRows, walk
from rfm.eval.explain_words import Facts, path_words, say, table_at
from rfm.eval.zero_shot import ZeroShot, ZeroShotRecommendation
from rfm.nn.attribution import HeadMoves, split_by_head, split_by_rows
from rfm.nn.backbone import Rows
from rfm.nn.in_context import Examined
from rfm.nn.modes import evaluating


@dataclass(frozen=True)
class ExplainConfig:
    """How closely answers are looked at."""

    points: int = setting(8, ge=1, help="steps from the examples' mean to the question")
    signals: int = setting(10, ge=1, help="signals kept per answer, the strongest")
    checked: int = setting(5, ge=0, help="of these, how many are checked by occlusion")


@dataclass(frozen=True)
class Signal:
    """What moved one answer.

    path: the foreign keys walked from the entity to the table, "" where it is the entity itself.
    column: "" where it is about the rows as such: how many they are, how old, what they are taken
    whole. rows: numbers of rows within the table, the latest first, at most 64 of them. weight: its
    share of all that moved the answer, from -1 to 1, more than 0 where it raised the answer.
    occluded: by how much the answer changes when these rows are deleted (or the cell, where it is
    one of the entity's own), in the answer's unit; 0 where that was not checked. words: a sentence.
    """

    path: str
    table: str
    column: str
    rows: tuple[int, ...]
    weight: float
    occluded: float
    checked: bool
    words: str


@dataclass(frozen=True)
class Explanation:
    """Of the answer to a question about an entity (a row of the entity table) at a time (unix
    seconds).

    answer: the chance of the class ``chosen`` (of two classes: of the second), or a number, the
    mean of its distribution, in the task's unit. baseline: the same of the examples' mean question.
    signals: the strongest first. note: why there is none, "" where there are some.
    """

    entity: int
    time: int
    answer: float
    baseline: float
    chosen: str
    signals: tuple[Signal, ...]
    note: str = ""

    @property
    def top_signal(self) -> str:
        """The strongest signal in words, else why there is none."""
        return self.signals[0].words if self.signals else self.note

    def as_dict(self) -> dict[str, Any]:
        """For JSON, which has no number for an answer that is not known."""
        found = {**asdict(self), "top_signal": self.top_signal}
        known = np.isfinite([self.answer, self.baseline]).all()
        return found if known else {**found, "answer": None, "baseline": None}


@dataclass(eq=False)
class _Part:
    """What is said of one column at the end of one path: by numbers told (which, and how much each
    moved the score), and by states."""

    told: dict[int, float] = field(default_factory=dict)
    states: float = 0.0

    @property
    def moved(self) -> float:
        return sum(self.told.values()) + self.states


Parts = dict[tuple[EdgePath, int], _Part]


class Explainer:
    """Explains answers to the rows of one split, from the same examples as ``ZeroShot.ask``."""

    def __init__(
        self,
        asker: ZeroShot,
        split: TaskSplit,
        regime: Regime,
        context: int,
        seed: int,
        config: ExplainConfig,
    ) -> None:
        """
        Raises:
            ValueError: if there is no example.
        """
        self.asker, self.split, self.regime, self.config = asker, split, regime, config
        draws = range(asker.config.draws)
        drawn = [asker.draw(split, regime, context, seed, draw) for draw in draws]
        if not drawn[0][0].size:
            raise ValueError(
                f"{asker.task.full_name}: no example to explain answers with: give context=1 or "
                "more, and a split that begins after some labels are known"
            )
        model, ids = asker.model, TokenIds.of(asker.tokenizer)
        encoder, tokens = model.backbone.row_encoder, asker.config.max_tokens
        rows = SomeRows(encoder, asker.store, ids, tokens, asker.states)
        laid = asker.lay(split).reading(rows, 0)
        self.means: MeanStates
        with torch.no_grad(), evaluating(model):
            shown = [self._examine(laid, *one) for one in drawn]
        self.means = MeanStates.over([place for _, places in shown for place in places])
        self.situation = Situation(model, laid, rows, tuple(one for one, _ in shown))

    def _examine(
        self, laid: LaidTask, number: Ints, cutoff: Ints
    ) -> tuple[Examined, list[tuple[Layout, Rows]]]:
        """Examples as the head sees them, and the rows that they see."""
        model, size, places = self.asker.model, self.asker.config.size, []
        parts = list[Examined]()
        for start in range(0, number.size, size):
            some, until = number[start : start + size], cutoff[start : start + size]
            batch, seen = (
                laid.batch(some, until, some.size, 0),
                laid.sample(some, until, some.size, 0, NOTHING)[1],
            )
            batch = batch.to(next(model.parameters()).device)
            rows = model.backbone.encode(batch)
            places.append((Layout.of(laid, batch, rows, seen), rows))
            parts.append(model.examine(batch, model.backbone.relate(batch, rows)))
        return Examined.join(parts), places

    def ask(self, at: int) -> Asked:
        """Row ``at`` of the split as a question."""
        asker = self.asker
        number = int(asker.number(self.split)[at])
        cutoff = int(asker.task.cutoffs(self.split, self.regime)[at])
        entity = int(asker.rows.entity[number])
        asked = Asked(number, cutoff, entity, int(asker.asked.classes == 2))
        if asker.asked.classes <= 2:
            return asked
        with torch.no_grad(), evaluating(asker.model):
            seen = self._see(asked)[0]
            both = [shown.followed_by(seen) for shown in self.situation.shown]
            chance = torch.stack([asker.model.in_context(one).softmax(1) for one in both])
        return replace(asked, chosen=int(chance.mean(0).argmax(1)))

    def first_row(self, table: str) -> int:
        """The global row of row 0 of a table, the task's own included."""
        store = self.situation.laid.store
        number = next(t for t, one in enumerate(store.tables) if one.name == table)
        return int(store.graph.table_start[number])

    def _see(self, asked: Asked) -> tuple[Examined, EpisodeBatch, Rows]:
        model = self.asker.model
        batch = self.situation.laid.batch(*asked.times(1), 0, 0)
        batch = batch.to(next(model.parameters()).device)
        rows = model.backbone.encode(batch)
        return model.examine(batch, model.backbone.relate(batch, rows)), batch, rows

    def explain(self, at: int) -> Explanation:
        """Of row ``at`` of the split."""
        with evaluating(self.asker.model):
            asked = self.ask(at)
            moves, parts = self._split(asked)
            signals = self._signals(asked, parts)
        names = self.asker.task.classes
        return Explanation(
            entity=asked.entity,
            time=int(self.asker.rows.time[asked.number]),
            answer=self._raw(moves.score),
            baseline=self._raw(moves.baseline),
            chosen=names[asked.chosen] if names else "",
            signals=signals,
        )

    def _raw(self, score: Tensor) -> float:
        """A chance of log-odds [1], or a number in the task's unit of a number [1]."""
        if self.asker.asked.classes:
            return float(score.sigmoid()[0])
        center, unit = self.asker.unit(self.split)
        return float(score[0]) * unit + center

    def _split(self, asked: Asked) -> tuple[HeadMoves, Parts]:
        """What moved the score of an answer, by path and column."""
        situation, model = self.situation, self.asker.model
        with torch.no_grad():
            seen, batch, rows = self._see(asked)
        chosen = torch.tensor([asked.chosen], device=seen.told.device)
        each = [
            split_by_head(model, shown, seen, chosen, self.config.points)
            for shown in situation.shown
        ]
        moves = HeadMoves.mean(each)
        parts: Parts = {}
        for f, (subject, moved) in enumerate(
            zip(situation.laid.told.subjects, moves.told[0].tolist(), strict=True)
        ):
            parts.setdefault(subject, _Part()).told[f] = moved
        for key, moved in self._by_rows(asked, moves, batch, rows).items():
            parts.setdefault(key, _Part()).states += moved
        return moves, parts

    def _by_rows(
        self, asked: Asked, moves: HeadMoves, batch: EpisodeBatch, rows: Rows
    ) -> dict[tuple[EdgePath, int], float]:
        """What the states moved, shared out among rows (column -1) and cells."""
        laid = self.situation.laid
        seen = laid.sample(*asked.times(1), 0, 0, NOTHING)[1]
        layout, paths = Layout.of(laid, batch, rows, seen), walk(seen)
        pull = (moves.state_pull, moves.expected_pull)
        of_row, of_cell = split_by_rows(
            self.asker.model, batch, rows, self.means.like(layout, rows), pull
        )
        at = {int(u): path for u, path in zip(batch.row.tolist(), paths, strict=True)}
        found: dict[tuple[EdgePath, int], float] = {}
        for u, moved in enumerate(of_row.tolist()):
            found[at[u], -1] = found.get((at[u], -1), 0.0) + moved
        for u, c, moved in zip(
            rows.cells.row.tolist(), layout.column.tolist(), of_cell.tolist(), strict=True
        ):
            found[at[u], c] = found.get((at[u], c), 0.0) + moved
        total = sum(abs(moved) for moved in found.values())
        whole = abs(float(moves.state[0] + moves.expected[0]))
        return {key: moved * whole / max(total, 1e-12) for key, moved in found.items()}

    def _signals(self, asked: Asked, parts: Parts) -> tuple[Signal, ...]:
        order = sorted(parts, key=lambda key: -abs(parts[key].moved))[: self.config.signals]
        named = {key: self.situation.name_rows(asked, *key) for key in order}
        changed = self._occlude(asked, order[: self.config.checked], named)
        total = max(sum(abs(part.moved) for part in parts.values()), 1e-12)
        facts = Facts.of(self.asker, self.situation, asked, self.asker.unit(self.split))
        return tuple(
            self._signal(facts, key, parts[key], total, named[key], changed) for key in order
        )

    def _signal(
        self,
        facts: Facts,
        key: tuple[EdgePath, int],
        part: _Part,
        total: float,
        rows: Ints,
        changed: dict[tuple[EdgePath, int], float],
    ) -> Signal:
        path, column = key
        laid = self.situation.laid
        t = table_at(laid, path)
        own = rows if path else np.array([int(laid.store.graph.table_start[t]) + facts.entity])
        own = own[:0] if path == QUESTION else own
        return Signal(
            path=path_words(laid, path),
            table=laid.store.tables[t].name,
            column=laid.store.tables[t].columns[column].name if column >= 0 else "",
            rows=tuple((own - int(laid.store.graph.table_start[t])).tolist()),
            weight=part.moved / total,
            occluded=changed.get(key, 0.0),
            checked=key in changed,
            words=say(facts, path, column, rows, part.told, part.moved),
        )

    def _occlude(
        self,
        asked: Asked,
        keys: Sequence[tuple[EdgePath, int]],
        named: dict[tuple[EdgePath, int], Ints],
    ) -> dict[tuple[EdgePath, int], float]:
        """By how much the answer changes if the rows, or the entity's cells, were not there."""
        unit = 1.0 if self.asker.asked.classes else self.asker.unit(self.split)[1]
        deleted = [key for key in keys if named[key].size]
        nulled = [key for key in keys if key[0] == () and key[1] >= 0]
        hidden = [np.zeros(0, np.int64), *(named[key] for key in deleted)]
        answer = self.situation.without_rows(asked, hidden)
        other = self.situation.without_cells(asked, [column for _, column in nulled])
        found = zip([*deleted, *nulled], [*answer[1:], *other], strict=True)
        return {key: float(value - answer[0]) * unit for key, value in found}


def explain(
    asker: ZeroShot | ZeroShotRecommendation,
    split: TaskSplit,
    regime: Regime,
    context: int,
    seed: int,
    at: Ints,
    config: ExplainConfig = ExplainConfig(),
) -> tuple[Explanation, ...]:
    """Why the answers to rows ``at`` [n] of a split are what they are, as ``asker.ask`` gives them
    from the same ``context`` and ``seed``."""
    rows = asker.task.rows(split)
    note = ""
    if isinstance(asker, ZeroShotRecommendation):
        note = "recommendations are not explained"
    elif not context or not asker.known(split).size:
        note = "answers without examples are not explained"
    if isinstance(asker, ZeroShotRecommendation) or note:
        nan = float("nan")
        return tuple(
            Explanation(int(rows.entity[i]), int(rows.time[i]), nan, nan, "", (), note) for i in at
        )
    explainer = Explainer(asker, split, regime, context, seed, config)
    return tuple(explainer.explain(int(i)) for i in at)
