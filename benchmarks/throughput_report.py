"""What throughput must reach, and how what was measured compares."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "<": operator.lt,
    "is": operator.eq,
}


@dataclass(frozen=True)
class Bar:
    """``key`` of the results must compare so to ``bound``; ``what`` it is, in a few words."""

    key: str
    sign: str
    bound: float | bool
    what: str

    def met(self, results: Mapping[str, Any]) -> bool | None:
        """``None``: not measured."""
        value = results.get(self.key)
        return None if value is None else _COMPARE[self.sign](value, self.bound)


BARS = (
    Bar("sampler_numba_over_numpy", ">=", 3.0, "sampler: numba over numpy, rel-f1, one thread"),
    Bar("sampler_numba_over_numpy_5m", ">=", 1.8, "the same on the large synthetic database"),
    Bar("sampler_identical", "is", True, "numba and numpy give the same subgraphs"),
    Bar("tokenise_cells_over_rows", ">=", 4.0, "distinct cells over whole row strings"),
    Bar("tokenise_same_ids", "is", True, "the same ids inside cells"),
    Bar("prepare_seconds", "<", 360.0, "preparing all databases, tokenizer included"),
    Bar("bytes_per_row", "<=", 200.0, "prepared stores on disk"),
    Bar("prepare_peak_ratio", "<", 1.5, "peak memory, large over a fifth of it"),
    Bar("open_seconds", "<", 1.0, "opening the large prepared database"),
    Bar("bucket_speedup", ">=", 1.7, "length buckets over padding to the longest"),
    Bar(
        "dedup_factor",
        ">=",
        2.0,
        "de-duplication: encoder's work, without over with, rel-f1, 512 seeds",
    ),
    Bar("dedup_loss_difference", "<=", 1e-5, "loss with and without de-duplication"),
    Bar("loader_share", "<", 0.05, "drawing a batch over a training step, tiny"),
    Bar("gemm_share", ">=", 0.6, "row encoder small over bare matrix products"),
    Bar("generator_rows_per_second", ">=", 100_000.0, "synthetic databases, one core"),
)


def verdicts(results: Mapping[str, Any]) -> dict[str, list[str]]:
    """Keys of the bars that were missed, and of those that were not measured."""
    return {
        "bars_missed": [bar.key for bar in BARS if bar.met(results) is False],
        "bars_not_measured": [bar.key for bar in BARS if bar.met(results) is None],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """A table of the bars and one of everything else that is a number."""
    words = {True: "met", False: "MISSED", None: "not measured"}
    lines = ["| what | key | measured | bar | |", "|---|---|---|---|---|"]
    for bar in BARS:
        value = _shown(results.get(bar.key))
        wanted = "yes" if bar.sign == "is" else f"{bar.sign} {_shown(bar.bound)}"
        lines.append(
            f"| {bar.what} | `{bar.key}` | {value} | {wanted} | {words[bar.met(results)]} |"
        )
    lines += ["", "| also | measured |", "|---|---|"]
    lines += [f"| `{key}` | {_shown(value)} |" for key, value in _others(results).items()]
    return "\n".join(lines)


def csv_lines(results: Mapping[str, Any]) -> list[list[Any]]:
    """Rows (key, measured, bar, met), bars first, with a header."""
    lines: list[list[Any]] = [["key", "measured", "bar", "met"]]
    for bar in BARS:
        lines.append([bar.key, results.get(bar.key), f"{bar.sign} {bar.bound}", bar.met(results)])
    lines += [[key, value, "", ""] for key, value in _others(results).items()]
    return lines


def _others(results: Mapping[str, Any]) -> dict[str, bool | int | float]:
    """Everything that is a number and has no bar."""
    named = {bar.key for bar in BARS}
    flat = _flat(results).items()
    return {k: v for k, v in flat if k not in named and isinstance(v, bool | int | float)}


def _flat(results: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
