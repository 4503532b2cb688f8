"""One table per regime: tasks as columns; ours, baselines and published scores as rows."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from benchmarks.published import Published
from benchmarks.ranking import HOW, Ranking, rankings
from benchmarks.summary import Summary, scored_on
from rfm.data.tasks import Regime
from rfm.eval.predictions import higher_is_better

Group: TypeAlias = Literal["ours", "baseline", "published"]
SCORE = (
    "test; mean ± standard deviation over seeds [95% bootstrap interval, its ends averaged over "
    "seeds]; bold: the best of the column as shown"
)
NOT_REPRODUCED, INFERRED = "†", "‡"


@dataclass(frozen=True)
class Score:
    """A score as shown: ``marks`` refer to the notes of the table; ``counted``: for what is best
    and for ranks."""

    metric: str
    mean: float
    std: float | None = None
    interval: tuple[float, float] | None = None
    marks: tuple[str, ...] = ()
    counted: bool = True
    best: bool = False

    @property
    def text(self) -> str:
        spread = "" if self.std is None else f" ± {shown(self.metric, self.std)}"
        return shown(self.metric, self.mean) + spread

    @property
    def interval_text(self) -> str:
        if self.interval is None:
            return ""
        return f"[{', '.join(shown(self.metric, end) for end in self.interval)}]"


@dataclass(frozen=True)
class Line:
    group: Group
    method: str
    scores: Mapping[str, Score]


@dataclass(frozen=True)
class Table:
    """Everything about one regime. tasks: task -> metric. notes: (mark, text)."""

    regime: Regime
    tasks: Mapping[str, str]
    lines: Sequence[Line]
    rankings: Sequence[Ranking]
    notes: Sequence[tuple[str, str]]

    def rank_text(self, line: Line, ranking: Ranking) -> str:
        rank = ranking.ranks.get(line.method)
        return "" if rank is None else f"{rank:.1f}"


def shown(metric: str, value: float) -> str:
    """A score with as many decimals as are published."""
    return f"{value:.4f}" if metric == "nmae" else f"{value:.3f}"


def better(metric: str) -> str:
    return f"{metric} {'↑' if higher_is_better(metric) else '↓'}"


def own_methods(summaries: Sequence[Summary], ours: Collection[str] = ()) -> set[str]:
    """Ours is what starts from a checkpoint (or from random weights, checkpoint ``none``), and the
    methods named; all others are baselines."""
    return {*ours, *(one.first.method for one in summaries if one.first.checkpoint)}


def regime_table(
    regime: Regime,
    summaries: Sequence[Summary],
    published: Sequence[Published],
    ours: Collection[str] = (),
) -> Table:
    """The table of one regime, from all summaries and all published methods.

    Raises:
        ValueError: for a published score in another metric than ours on the same task.
    """
    here = [one for one in summaries if one.first.regime == regime]
    own = own_methods(summaries, ours)
    tasks = {one.first.task: one.first.metric for one in here}
    warnings = list(dict.fromkeys(text for one in here for text in one.warnings))
    lines = [
        *_measured_lines("ours", [s for s in here if s.first.method in own], warnings),
        *_measured_lines("baseline", [s for s in here if s.first.method not in own], warnings),
        *_published_lines(regime, tasks, published),
    ]
    counted = {
        line.method: {
            t: float(shown(s.metric, s.mean)) for t, s in line.scores.items() if s.counted
        }
        for line in lines
    }
    higher = {task: higher_is_better(metric) for task, metric in tasks.items()}
    best = {
        task: (max if higher[task] else min)(of[task] for of in counted.values() if task in of)
        for task in tasks
    }
    return Table(
        regime,
        tasks,
        [_with_best(line, counted[line.method], best) for line in lines],
        rankings(counted, higher),
        [*_source_notes(lines, published), *((_mark(i), w) for i, w in enumerate(warnings))],
    )


def source_number(published: Sequence[Published], one: Published) -> str:
    sources = list(dict.fromkeys(each.source for each in published))
    return f"[{sources.index(one.source) + 1}]"


def _measured_lines(group: Group, here: Sequence[Summary], warnings: list[str]) -> list[Line]:
    scores: dict[str, dict[str, Score]] = {}
    for one in here:
        marks = tuple(_mark(warnings.index(text)) for text in one.warnings)
        score = Score(one.first.metric, one.mean, one.std, one.interval, marks)
        scores.setdefault(one.first.method, {})[one.first.task] = score
    return [Line(group, method, scores[method]) for method in sorted(scores)]


def _mark(warning: int) -> str:
    return f"w{warning + 1}"


def _published_lines(
    regime: Regime, tasks: Mapping[str, str], published: Sequence[Published]
) -> list[Line]:
    lines = []
    for one in published:
        scores = {}
        for task in tasks:
            if one not in scored_on(published, regime, task):
                continue
            metric, value = one.scores[task]
            if metric != tasks[task]:
                raise ValueError(
                    f"{task} is measured in {tasks[task]}, but published for {one.method!r} in "
                    f"{metric}: wanted one metric for each task"
                )
            doubted = task in one.not_reproduced
            marks = [NOT_REPRODUCED] * doubted + [INFERRED] * one.inferred
            scores[task] = Score(metric, value, marks=tuple(marks), counted=not doubted)
        if scores:
            name = f"{one.method} {source_number(published, one)}"
            lines.append(Line("published", name, scores))
    return lines


def _with_best(line: Line, counted: Mapping[str, float], best: Mapping[str, float]) -> Line:
    scores = {
        task: replace(score, best=counted.get(task) == best[task])
        for task, score in line.scores.items()
    }
    return replace(line, scores=scores)


def _source_notes(lines: Sequence[Line], published: Sequence[Published]) -> list[tuple[str, str]]:
    """The sources, and the marks of published scores, that these lines use."""
    names = {line.method for line in lines}
    marks = {mark for line in lines for score in line.scores.values() for mark in score.marks}
    notes: dict[str, str] = {}
    for one in published:
        number = source_number(published, one)
        if f"{one.method} {number}" in names:
            notes[number] = f"published: {one.source}"
            if one.inferred:
                earlier = [notes[INFERRED]] if INFERRED in notes else []
                notes[INFERRED] = "; ".join([*earlier, f"regime of {one.method}: {one.stated}"])
    if NOT_REPRODUCED in marks:
        notes[NOT_REPRODUCED] = "not reproduced later: counts neither as best nor in ranks"
    return sorted(notes.items())


def markdown_table(table: Table) -> str:
    """The table, how its ranks are computed, and its notes."""
    ranks = [f"rank {letter}" for letter, _ in lettered(table.rankings)]
    heads = ["", "method", *(f"{task} ({better(m)})" for task, m in table.tasks.items()), *ranks]
    rows = [[_escaped(head) for head in heads], ["---"] * len(heads)]
    for line in table.lines:
        scores = [_markdown_score(line.scores.get(task)) for task in table.tasks]
        ranked = [table.rank_text(line, ranking) for ranking in table.rankings]
        rows.append([line.group, _escaped(line.method), *scores, *ranked])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    notes = [f"- {_escaped(mark)}: {_escaped(text)}" for mark, text in table_notes(table)]
    return "\n".join([f"## Regime: {table.regime}", "", *lines, "", *notes]) + "\n"


def lettered(found: Sequence[Ranking]) -> list[tuple[str, Ranking]]:
    """A, B, ..., Z, A2, B2, ... for the rankings of a table."""
    letters = [
        chr(ord("A") + i % 26) + (str(i // 26 + 1) if i > 25 else "") for i in range(len(found))
    ]
    return list(zip(letters, found, strict=True))


def table_notes(table: Table) -> list[tuple[str, str]]:
    """What stands under the table: how to read it, over which tasks it ranks, and its marks."""
    return [
        ("score", SCORE),
        *([("rank", HOW)] if table.rankings else []),
        *((f"rank {letter}", f"{len(one.ranks)} methods on {len(one.tasks)} tasks: "
           f"{', '.join(one.tasks)}") for letter, one in lettered(table.rankings)),
        *table.notes,
    ]  # fmt: skip


def _markdown_score(score: Score | None) -> str:
    if score is None:
        return ""
    text = f"**{score.text}**" if score.best else score.text
    marks = f"<sup>{' '.join(score.marks)}</sup>" if score.marks else ""
    return " ".join(filter(None, [text + marks, score.interval_text]))


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
