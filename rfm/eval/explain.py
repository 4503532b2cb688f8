"""Why an answer is what it is: which tables, columns and paths of foreign keys moved it.

An answer from examples is moved away from that to the examples' mean question by the numbers that
the question is told and by the states of the rows and cells that it sees. Gradient x (input - mean)
along the way shares the movement out among the numbers exactly, but for the steps of the way
(integrated gradients), and the states' part of it among rows and cells by their own gradient x
(state - mean). All is summed by path, table and column; the strongest are checked by occlusion: the
rows that they name are deleted, from the component and from what the numbers are made of, or one
column of these rows is made null, and the question is asked again. A signal said to raise an answer
that is higher without it comes after all others, and says so. (Where rows are few, and that raises
it, it should be higher still without them; and that they are old cannot be checked so.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rfm.config import setting
from rfm.data.hidden import NOTHING
from rfm.data.laid import LaidTask
from rfm.data.serialise import TokenIds
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime
from rfm.eval.explain_blanks import SomeRows
from rfm.eval.explain_links import explain_links
from rfm.eval.explain_occlusion import Asked, Situation, Without
from rfm.eval.explain_parts import Key, Looked, Part, split_moves
from rfm.eval.explain_rows import QUESTION, Layout, MeanStates, walk
from rfm.eval.explain_signals import OUTCOMES
from rfm.eval.explain_signals import Explanation as Explanation
from rfm.eval.explain_signals import Signal as Signal
from rfm.eval.explain_words import (
    Facts,
    column_name,
    doubt,
    expected_change,
    path_words,
    say,
    table_at,
    table_name,
)
from rfm.eval.zero_shot import ZeroShot, ZeroShotRecommendation
from rfm.nn.attribution import HeadMoves, split_by_head
from rfm.nn.backbone import Rows
from rfm.nn.in_context import Examined
from rfm.nn.modes import evaluating

_AT_ONCE = 32  # questions
_ROUNDING = 1e-3  # of a chance, or of the spread of numbers: states are kept in half precision


@dataclass(frozen=True)
class ExplainConfig:
    """How closely answers are looked at."""

    points: int = setting(8, ge=1, help="steps from the examples' mean to the question")
    signals: int = setting(10, ge=1, help="signals kept per answer, the strongest")
    checked: int = setting(5, ge=0, help="of these, how many are checked by occlusion")


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
        worth: Sequence[float] = (),
    ) -> None:
        """
        Args:
            worth: see ``explain``.

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
        with torch.no_grad(), evaluating(model):
            shown = [self._examine(laid, *one) for one in drawn]
        self.means = MeanStates.over([place for _, places in shown for place in places])
        self.situation = Situation(model, laid, rows, tuple(one for one, _ in shown), tuple(worth))

    def _examine(
        self, laid: LaidTask, number: Ints, cutoff: Ints
    ) -> tuple[Examined, list[tuple[Layout, Rows]]]:
        """Examples as the head sees them, and the rows that they see."""
        model, size, places = self.asker.model, self.asker.config.size, []
        parts = list[Examined]()
        for start in range(0, number.size, size):
            some, until = number[start : start + size], cutoff[start : start + size]
            seen = laid.sample(some, until, some.size, 0, NOTHING)[1]
            batch = laid.batch(some, until, some.size, 0)
            batch = batch.to(next(model.parameters()).device)
            rows = model.backbone.encode(batch)
            places.append((Layout.of(laid, batch, rows, seen), rows))
            parts.append(model.examine(batch, model.backbone.relate(batch, rows)))
        return Examined.join(parts), places

    def first_row(self, table: str) -> int:
        """The global row of row 0 of a table, as signals name it."""
        store = self.situation.laid.store
        if table == OUTCOMES:
            return self.situation.laid.first
        number = next(t for t, one in enumerate(store.tables) if one.name == table)
        return int(store.graph.table_start[number])

    def explain(self, at: Sequence[int]) -> tuple[Explanation, ...]:
        """Of rows ``at`` of the split."""
        with evaluating(self.asker.model):
            parts = [self._explain(at[i : i + _AT_ONCE]) for i in range(0, len(at), _AT_ONCE)]
        return tuple(one for part in parts for one in part)

    def ask(self, at: Sequence[int]) -> Sequence[Asked]:
        """Rows ``at`` of the split as questions."""
        with torch.no_grad(), evaluating(self.asker.model):
            return self._look(at)[0].asked

    def _look(self, at: Sequence[int]) -> tuple[Looked, Examined]:
        """The questions as the backbone, and as the head, sees them; with the classes chosen."""
        asker, model, laid = self.asker, self.asker.model, self.situation.laid
        number = asker.number(self.split)[at]
        cutoff = asker.task.cutoffs(self.split, self.regime)[at]
        seen = laid.sample(number, cutoff, 0, 0, NOTHING)[1]
        batch = laid.batch(number, cutoff, 0, 0).to(next(model.parameters()).device)
        rows, path = model.backbone.encode(batch), walk(seen)
        examined = model.examine(batch, model.backbone.relate(batch, rows))
        told, chosen = batch.told.cpu().numpy(), self.situation.choose(examined).tolist()
        asked = []
        for i, own in enumerate(np.flatnonzero(seen.seed == i) for i in range(len(at))):
            facts = int(number[i]), int(cutoff[i]), int(asker.rows.entity[number[i]]), told[i]
            asked.append(Asked(*facts, seen.row[own], [path[node] for node in own], chosen[i]))
        return Looked(asked, seen, path, batch, rows), examined

    def _explain(self, at: Sequence[int]) -> list[Explanation]:
        situation, model = self.situation, self.asker.model
        with torch.no_grad():
            looked, seen = self._look(at)
        asked = looked.asked
        chosen = torch.tensor([one.chosen for one in asked], device=seen.told.device)
        points, draws = self.config.points, situation.shown
        moves = HeadMoves.mean(
            [split_by_head(model, shown, seen, chosen, points) for shown in draws]
        )
        with torch.no_grad():
            answer = self._raw(situation.read(seen, chosen))
        score = moves.baseline.sigmoid() if seen.classes else moves.baseline
        baseline = self._raw(score.double().cpu().numpy())
        parts = split_moves(model, situation.laid, self.means, looked, moves)
        named = [
            {key: situation.name_rows(one, *key) for key in self._strongest(own)}
            for one, own in zip(asked, parts, strict=True)
        ]
        changed = self._occlude(asked, answer, named)
        return [
            self._explanation(
                one,
                (float(answer[i]), float(baseline[i])),
                self._signals(one, parts[i], named[i], changed[i]),
            )
            for i, one in enumerate(asked)
        ]

    def _explanation(
        self, asked: Asked, answers: tuple[float, float], signals: tuple[Signal, ...]
    ) -> Explanation:
        names = self.asker.task.classes
        return Explanation(
            entity=asked.entity,
            time=int(self.asker.rows.time[asked.number]),
            answer=answers[0],
            baseline=answers[1],
            chosen=names[asked.chosen] if names else "",
            signals=signals,
            note="" if signals else "nothing sets it apart from the mean of the examples",
        )

    def _raw(self, value: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Chances as they are; numbers in the task's unit."""
        if self.asker.asked.classes:
            return value
        center, unit = self.asker.unit(self.split)
        return value * unit + center

    def _strongest(self, parts: dict[Key, Part]) -> list[Key]:
        moved = [key for key, part in parts.items() if part.moved]
        return sorted(moved, key=lambda key: -abs(parts[key].moved))[: self.config.signals]

    def _occlude(
        self,
        asked: Sequence[Asked],
        answer: npt.NDArray[np.float64],
        named: Sequence[dict[Key, Ints]],
    ) -> list[dict[Key, float]]:
        """By how much each answer changes if rows, or one column of them, were not there."""
        situation, which, without = self.situation, list[tuple[int, Key]](), list[Without]()
        for i, (one, own) in enumerate(zip(asked, named, strict=True)):
            for (path, column), rows in list(own.items())[: self.config.checked]:
                if column < 0 and rows.size:
                    without.append(Without(one, hidden=rows))
                elif column >= 0 and (rows.size or not path):
                    without.append(situation.without_column(one, path, column))
                else:
                    continue
                which.append((i, (path, column)))
        found: list[dict[Key, float]] = [{} for _ in asked]
        if not without:
            return found
        seen = situation.see(without)
        chosen = torch.tensor([asked[i].chosen for i, _ in which], device=seen.told.device)
        with torch.no_grad():
            value = self._raw(situation.read(seen, chosen))
        for (i, key), changed in zip(which, value, strict=True):
            found[i][key] = float(changed - answer[i])
        return found

    def _signals(
        self,
        asked: Asked,
        parts: dict[Key, Part],
        named: dict[Key, Ints],
        changed: dict[Key, float],
    ) -> tuple[Signal, ...]:
        total = max(sum(abs(part.moved) for part in parts.values()), 1e-12)
        unit = self.asker.unit(self.split)
        facts = Facts.of(self.asker, self.situation, asked, unit)
        rounding = _ROUNDING * (1.0 if self.asker.asked.classes else unit[1])
        contradicted = {
            key: changed.get(key, 0.0) * expected_change(facts, parts[key].told, parts[key].moved)
            < -rounding
            for key in named
        }
        return tuple(
            self._signal(facts, key, parts[key], total, named[key], changed, contradicted[key])
            for key in sorted(named, key=lambda key: contradicted[key])
        )

    def _signal(
        self,
        facts: Facts,
        key: Key,
        part: Part,
        total: float,
        rows: Ints,
        changed: dict[Key, float],
        contradicted: bool,
    ) -> Signal:
        path, column = key
        laid = self.situation.laid
        t = table_at(laid, path)
        first = int(laid.store.graph.table_start[t])
        own = rows if path else np.array([first + facts.asked.entity])
        own = own[:0] if path == QUESTION else own
        words = say(facts, path, column, rows, part.told, part.moved)
        words += doubt(column, changed[key]) if contradicted else ""
        return Signal(
            path=path_words(laid, path),
            table=table_name(laid, t),
            column=column_name(laid, path, column),
            rows=tuple((own - first).tolist()),
            weight=part.moved / total,
            occluded=changed.get(key, 0.0),
            checked=key in changed,
            words=words,
        )


def explain(
    asker: ZeroShot | ZeroShotRecommendation,
    split: TaskSplit,
    regime: Regime,
    context: int,
    seed: int,
    at: Ints,
    config: ExplainConfig = ExplainConfig(),
    worth: Sequence[float] = (),
) -> tuple[Explanation, ...]:
    """Why the answers to rows ``at`` [n] of a split are what they are, as ``asker.ask`` gives them
    from the same ``context`` and ``seed``; of a recommendation, why the best one is the best.

    Args:
        worth: by what the chances of classes [C] are weighed where the likeliest is chosen, as one
            may stand for several; empty: by 1.
    """
    if isinstance(asker, ZeroShotRecommendation):
        return explain_links(asker, split, regime, context, seed, at.tolist())
    if not context or not asker.known(split).size:
        rows, nan = asker.task.rows(split), float("nan")
        note = "answers without examples are not explained"
        return tuple(
            Explanation(int(rows.entity[i]), int(rows.time[i]), nan, nan, "", (), note) for i in at
        )
    return Explainer(asker, split, regime, context, seed, config, worth).explain(at.tolist())
