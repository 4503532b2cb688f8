"""From cells to one row per task, regime and method: mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.cells import Cell, cell_path, read_cells
from benchmarks.published import Published
from rfm.data.tasks import Regime

COLUMNS = (
    "task", "regime", "method", "metric", "mean", "std", "seeds", "validation", "seconds",
    "checkpoint", "pretraining databases",
)  # fmt: skip
CONTEXT = "context"
_ABSENT = "(absent)"
_WHERE = frozenset({"seed", "seeds", "tasks", "run_dir", "results", "out", "cache", "root"})


@dataclass(frozen=True)
class Summary:
    """The cells of one method on one task in one regime, by seed; never empty."""

    cells: tuple[Cell, ...]

    @property
    def first(self) -> Cell:
        return self.cells[0]

    @property
    def mean(self) -> float:
        return self._over_seeds(lambda cell: cell.test)

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the test score over seeds; of one seed there is none."""
        return stdev(cell.test for cell in self.cells) if len(self.cells) > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Means over seeds of the ends of the bootstrap interval, where one was drawn."""
        low, high = (self._over_seeds(lambda c: c.low), self._over_seeds(lambda c: c.high))
        return (low, high) if low < high else None

    @property
    def validation(self) -> float:
        return self._over_seeds(lambda cell: cell.validation)

    @property
    def seconds(self) -> float:
        """Of one seed."""
        return self._over_seeds(lambda cell: cell.seconds)

    @property
    def commits(self) -> tuple[str, ...]:
        return tuple(sorted({str(cell.versions.get("commit", "unknown")) for cell in self.cells}))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all seeds, each once; and that the seeds were run with different code."""
        said = dict.fromkeys(text for cell in self.cells for text in cell.warnings)
        if len(self.commits) > 1:
            said[f"seeds were run at different commits: {', '.join(self.commits)}"] = None
        return tuple(said)

    @property
    def config(self) -> Mapping[str, Any]:
        """What all seeds have in common."""
        return {**without_places(self.first.config)}

    def _over_seeds(self, value: Callable[[Cell], float]) -> float:
        return fmean(value(cell) for cell in self.cells)


def summarise(results: Path) -> list[Summary]:
    """All cells of a folder, grouped; sorted by regime, task and method.

    Raises:
        ValueError: if there are none; for damaged ones; and, naming both files, for cells that go
            under the same names and yet cannot be averaged: another metric, checkpoint, list of
            pretraining databases or config (seed and folders apart).
    """
    summaries = grouped(results, read_cells(results))
    if not summaries:
        raise ValueError(
            f"{results}: no results, wanted files <regime>/<database>/<task>/<method>/seed-<n>.json"
        )
    return summaries


def grouped(results: Path, cells: Iterable[Cell]) -> list[Summary]:
    """Some cells of a folder, as ``summarise`` does all."""
    groups: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    metrics: dict[str, Cell] = {}
    for cell in cells:
        group = groups[cell.regime, cell.task, cell.method]
        for other, wanted in (
            (metrics.setdefault(cell.task, cell), ("metric",)),
            ((group or [cell])[0], ("checkpoint", "pretraining", "config")),
        ):
            _check_same(results, other, cell, wanted)
        _check_score(results, cell, group)
        group.append(cell)
    by_seed = (sorted(groups[key], key=lambda cell: cell.seed) for key in sorted(groups))
    return [Summary(tuple(cells)) for cells in by_seed]


def without_places(config: Any) -> Any:
    """A config, at any depth, apart from seeds, folders and what else the same command ran."""
    if isinstance(config, Mapping):
        return {k: without_places(v) for k, v in config.items() if k not in _WHERE}
    return config


def csv_table(summaries: Sequence[Summary], published: Sequence[Published]) -> str:
    """``COLUMNS``, one line per task, regime and method, and ``CONTEXT`` where any has one;
    published scores of the same tasks and regimes come last in each regime, named as such, and have
    no seeds."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    more = [CONTEXT] if any(one.first.context >= 0 for one in summaries) else []
    writer.writerow([*COLUMNS, *more])
    regimes: list[Regime] = list(dict.fromkeys(one.first.regime for one in summaries))
    for regime in regimes:
        here = [one for one in summaries if one.first.regime == regime]
        writer.writerows(_csv_row(one, bool(more)) for one in here)
        for task in dict.fromkeys(one.first.task for one in here):
            other = scored_on(published, regime, task)
            writer.writerows([*_csv_published(p, task), *("" for _ in more)] for p in other)
    return text.getvalue()


def scored_on(published: Sequence[Published], regime: Regime, task: str) -> list[Published]:
    """Those with a score on a task in a regime."""
    return [one for one in published if one.regime == regime and task in one.scores]


def _csv_row(one: Summary, with_context: bool) -> list[Any]:
    cell = one.first
    context = [cell.context if cell.context >= 0 else ""] if with_context else []
    return [
        cell.task, cell.regime, cell.method, cell.metric, _rounded(one.mean), _rounded(one.std),
        len(one.cells), _rounded(one.validation), round(one.seconds, 1), cell.checkpoint,
        " ".join(cell.pretraining), *context,
    ]  # fmt: skip


def _csv_published(one: Published, task: str) -> list[Any]:
    words = [f"published: {one.source}"]
    words += [f"regime {one.stated}"] if one.inferred else []
    words += ["not reproduced later"] if task in one.not_reproduced else []
    metric, score = one.scores[task]
    name = f"{one.method} ({'; '.join(words)})"
    return [task, one.regime, name, metric, score, "", "", "", "", "", ""]


def _rounded(value: float | None) -> float | str:
    return "" if value is None or math.isnan(value) else round(value, 6)


def _check_same(results: Path, one: Cell, other: Cell, wanted: Sequence[str]) -> None:
    for name in wanted:
        values = [without_places(getattr(cell, name)) for cell in (one, other)]
        if values[0] != values[1]:
            raise ValueError(
                f"{_path(results, one)} and {_path(results, other)} differ in {name}: "
                f"{_shown_difference(*values)}. "
                "They cannot stand in one table or mean: give one another method name, or delete it"
            )


def _shown_difference(one: Any, other: Any) -> str:
    """Of two configs only the keys that differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = sorted(k for k in {*one, *other} if one.get(k, _ABSENT) != other.get(k, _ABSENT))
        one, other = ({k: d.get(k, _ABSENT) for k in keys} for d in (one, other))
    return " and ".join(json.dumps(d, sort_keys=True, default=str) for d in (one, other))


def _check_score(results: Path, cell: Cell, group: Sequence[Cell]) -> None:
    path = _path(results, cell)
    if cell.seed in [other.seed for other in group]:
        raise ValueError(f"{path}: seed {cell.seed} comes twice, wanted each in a file of its name")
    if not math.isfinite(cell.test):
        raise ValueError(f"{path}: the test score is {cell.test}, wanted a number: delete it")


def _path(results: Path, cell: Cell) -> Path:
    return cell_path(results, cell.task, cell.regime, cell.method, cell.seed)
