"""The report of a pretraining run: does it beat what knows nothing, is the context used."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rfm.eval.pretraining import beats
from rfm.files import publish

_log = logging.getLogger("rfm")
COLUMNS = (
    "database", "objective", "metric", "items", "model", "marginal", "without_edges",
)  # fmt: skip


def write_report(rows: Sequence[dict[str, Any]], run_dir: Path) -> None:
    """Write ``pretrain.csv``, show it, and say what to do next."""
    with publish(run_dir / "pretrain.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({k: _round(v) for k, v in row.items()} for row in rows)
    if not rows:
        _log.warning("No row between the validation and the test timestamp: nothing was validated.")
    table = Table(title="Validation (rolling): rows between validation and test timestamp")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for row in rows:
        table.add_row(*(_show(row[column]) for column in COLUMNS))
    Console(stderr=True, width=110).print(table)
    _log.info(
        "\nThe pretrained model is in %s (curves: %s, all results: %s).\nNext:\n%s",
        run_dir / "model", run_dir / "curves.png", run_dir / "pretrain.csv",
        _next(run_dir / "model", any(row["objective"] == "context" for row in rows)),
    )  # fmt: skip


def _next(model: Path, answers: bool) -> str:
    """What to do with a model, which may have learnt to answer from examples."""
    if answers:
        return (
            "  rfm import shop.sqlite out=shop  # your database: a URL, a file, a folder\n"
            '  rfm predict "PREDICT COUNT(orders.*, 0, 30, days) > 0 FOR EACH customers.id" '
            f"checkpoint={model} database=shop out=answers.parquet\n"
        )
    return (
        f"  python -c 'import rfm; rfm.RelationalModel.from_pretrained(\"{model}\")'\n"
        "  python -m pretrain episodes.per_batch=2  # learns to answer queries: rfm predict\n"
        "  python -m pretrain config=configs/pretrain/small.yaml data.root=data  # of folders\n"
    )


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often the model beats the marginal, and itself without edges, per objective; and by how
    much: geometric means over the databases of model / other."""
    summary: dict[str, Any] = {}
    for objective in sorted({row["objective"] for row in rows}):
        of = [row for row in rows if row["objective"] == objective]
        summary[objective] = {
            "databases": len(of),
            "beats_marginal": sum(beats(row, "marginal") for row in of),
            "beats_without_edges": sum(beats(row, "without_edges") for row in of),
            "over_marginal": _mean_ratio(of, "marginal"),
            "over_without_edges": _mean_ratio(of, "without_edges"),
        }
    return {"validation": summary}


def _mean_ratio(rows: Sequence[dict[str, Any]], other: str) -> float:
    """Of rows in which neither is zero; not a number if there is none."""
    logs = [math.log(r["model"] / r[other]) for r in rows if r["model"] > 0 and r[other] > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def _round(value: Any) -> Any:
    return round(value, 5) if isinstance(value, float) else value


def _show(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
