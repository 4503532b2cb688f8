"""Tables and a page of results: ours, baselines and published scores, never across regimes.

    python -m benchmarks.report results=<folder> out=<folder> [data.root=<folder>]

Reads the cells of a folder of results (``benchmarks.cells``), runs nothing, and writes
``finetuned.csv``, ``finetuned.md`` and ``finetuned.html`` (``zero_shot`` where any answer was made
of examples): one self-contained page with score bars, learning curves, scores by how many examples
there are, calibration (with data.root, for the labels) and how each number came about. The same
cells give the same files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks import plots
from benchmarks.calibration import task_reliability
from benchmarks.cells import Cell
from benchmarks.published import PUBLISHED, read_published
from benchmarks.summary import Summary, csv_table, summarise
from benchmarks.tables import (
    Table,
    better,
    lettered,
    markdown_table,
    regime_table,
    shown,
    table_notes,
)
from rfm.config import run_command, setting
from rfm.data.tasks import Regime
from rfm.eval.predictions import higher_is_better
from rfm.files import publish

_TITLES = {"finetuned": "Fine-tuned scores", "zero_shot": "Zero-shot scores"}
_MACHINE = ("device", "platform", "threads", "python")


@dataclass(frozen=True)
class LabelConfig:
    """Where the labels are."""

    root: Path | None = setting(None, help="folder of RelBench folders, for calibration plots")


@dataclass(frozen=True)
class ReportConfig:
    """Which results, and where their tables go."""

    results: Path = setting(help="folder of cells")
    out: Path = setting(help="folder for finetuned.csv (or zero_shot.csv), .md and .html")
    ours: tuple[str, ...] = setting((), help="methods of ours that start from no checkpoint")
    published: Path = setting(PUBLISHED, help="published scores, YAML")
    data: LabelConfig = setting(factory=LabelConfig)


@dataclass(frozen=True)
class TaskSection:
    """A task on the page. figures: (SVG, caption). missing: plots that could not be made."""

    task: str
    figures: Sequence[tuple[Markup, str]]
    missing: Sequence[str]
    summaries: Sequence[Summary]


def report(config: ReportConfig) -> dict[str, Any]:
    """Write the report, and say where it is."""
    return write_report(
        config.results, config.out, config.data.root, ours=config.ours, published=config.published
    )


def write_report(
    results: Path,
    out: Path,
    root: Path | None = None,
    *,
    ours: Sequence[str] = (),
    published: Path = PUBLISHED,
) -> dict[str, Any]:
    """CSV, Markdown and HTML of all cells of a folder.

    Args:
        root: folder of RelBench folders; without it there are no calibration plots.
        ours: methods that are ours though they start from no checkpoint.

    Returns:
        csv, markdown, html: their paths. cells, methods, tasks: how many there are.

    Raises:
        ValueError: see ``summarise``, ``read_published``, ``regime_table``, ``task_reliability``.
    """
    summaries, others = summarise(results), read_published(published)
    regimes: list[Regime] = [
        regime for regime in get_args(Regime) if any(s.first.regime == regime for s in summaries)
    ]
    tables = [regime_table(regime, summaries, others, ours) for regime in regimes]
    sections = [
        (table, [_task_section(results, table, task, summaries, root) for task in table.tasks])
        for table in tables
    ]
    name = "zero_shot" if any(s.first.context >= 0 for s in summaries) else "finetuned"
    contents = {
        "csv": csv_table(summaries, others),
        "md": "\n".join([f"# {_TITLES[name]}\n", *(markdown_table(table) for table in tables)]),
        "html": _page(_TITLES[name], sections),
    }
    for suffix, content in contents.items():
        with publish(out / f"{name}.{suffix}") as temporary:
            temporary.write_text(content, encoding="utf-8")
    return {
        "csv": out / f"{name}.csv",
        "markdown": out / f"{name}.md",
        "html": out / f"{name}.html",
        "cells": sum(len(one.cells) for one in summaries),
        "methods": len({one.first.method for one in summaries}),
        "tasks": len({one.first.task for one in summaries}),
    }


def _task_section(
    results: Path, table: Table, task: str, summaries: Sequence[Summary], root: Path | None
) -> TaskSection:
    own = {line.method for line in table.lines if line.group == "ours"}
    here = [s for s in summaries if (s.first.regime, s.first.task) == (table.regime, task)]
    here.sort(key=lambda one: one.first.method not in own)
    colours = plots.line_colours([one.first.method for one in here])
    figures = [
        (
            plots.score_bars(task, table.regime, table.lines, here),
            "Test scores. Bars: mean over seeds, from 0.5 for AUROC, else from 0; dots: seeds; "
            "line: 95% bootstrap interval; diamonds: published.",
        )
    ]
    if learnt := [s for s in here if any(cell.curve for cell in s.cells)]:
        caption = "Validation score by step: each seed thin, their mean thick while all run."
        figures.append((plots.learning_curves(task, table.regime, learnt, colours), caption))
    if asked := [s for s in here if s.first.context >= 0]:
        caption = "Test score by how many examples the answers are made of; mean over seeds."
        figures.append((plots.by_context(task, table.regime, asked), caption))
    missing: list[str] = []
    if table.tasks[task] == "roc_auc":
        shown_methods = _for_calibration(here, own)
        found, reasons = task_reliability(results, shown_methods, root)
        missing = [f"Calibration is left out; {reason}." for reason in reasons]
        if found:
            caption = (
                "Calibration on test of ours and of the baseline that is best on validation, all "
                "seeds together; below: test rows in each bin. ECE: expected calibration error."
            )
            figures.append((plots.calibration(task, table.regime, found, colours), caption))
    return TaskSection(task, [(Markup(svg), text) for svg, text in figures], missing, here)


def _for_calibration(here: Sequence[Summary], own: set[str]) -> list[Summary]:
    """Ours, and the one baseline that validation would choose: more lines cannot be read."""
    sign = 1 if higher_is_better(here[0].first.metric) else -1
    baselines = [s for s in here if s.first.method not in own and isfinite(s.validation)]
    best = max(baselines, key=lambda one: sign * one.validation, default=None)
    return [one for one in here if one.first.method in own or one is best]


def _page(title: str, sections: Sequence[tuple[Table, Sequence[TaskSection]]]) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"yaml": _yaml, "better": better, "machine": _machine}
    template = environment.get_template("report.html")
    return template.render(
        title=title, sections=sections, notes=table_notes, lettered=lettered, shown=shown
    )


def _yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=True, allow_unicode=True) if config else "(none)"


def _machine(cell: Cell) -> str:
    """Where a cell was run, in words."""
    known = [(name, cell.versions[name]) for name in _MACHINE if name in cell.versions]
    packages = cell.versions.get("packages", {})
    return ", ".join(f"{name} {value}" for name, value in [*known, *sorted(packages.items())])


if __name__ == "__main__":
    run_command(ReportConfig, report, prog="python -m benchmarks.report", doc=__doc__)
