"""Scores that others have published (``published.yaml``), read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from rfm.data.tasks import Regime
from rfm.eval.predictions import METRICS

PUBLISHED = Path(__file__).with_name("published.yaml")
_KEYS = ("method", "source", "regime", "scores", "not_reproduced")


@dataclass(frozen=True)
class Published:
    """A method's published scores.

    stated: the words for its regime, e.g. ``not stated, probably frozen``; ``regime`` is what they
    come down to. scores: task -> (metric, score). not_reproduced: tasks whose score nobody got
    again later: no target.
    """

    method: str
    source: str
    regime: Regime
    stated: str
    scores: Mapping[str, tuple[str, float]]
    not_reproduced: frozenset[str] = frozenset()

    @property
    def inferred(self) -> bool:
        """Whether the source does not state the regime."""
        return self.stated != self.regime


def read_published(path: Path = PUBLISHED) -> list[Published]:
    """All methods, in the order of the file.

    Raises:
        ValueError: for what is no YAML list, and for a malformed entry, which is named.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: got {type(entries).__name__}, wanted a list of methods")
    methods = [_read_entry(entry, f"{path}: entry {i + 1}") for i, entry in enumerate(entries)]
    seen: set[tuple[str, str, str]] = set()
    for one in methods:
        key = (one.method, one.source, one.regime)
        if key in seen:
            raise ValueError(
                f"{path}: {one.method!r} of {one.source!r} comes twice, wanted it once"
            )
        seen.add(key)
    return methods


def _read_entry(entry: Any, where: str) -> Published:
    if not isinstance(entry, dict) or not {*_KEYS[:4]} <= set(entry) <= {*_KEYS}:
        raise ValueError(
            f"{where}: got {entry!r:.200}, wanted a mapping with {', '.join(_KEYS[:4])} and "
            f"perhaps {_KEYS[4]}"
        )
    for key in _KEYS[:3]:
        if not (isinstance(entry[key], str) and entry[key].strip()):
            raise ValueError(f"{where}: {key} is {entry[key]!r}, wanted text")
    where = f"{where} ({entry['method']})"
    scores = _read_scores(entry["scores"], where)
    doubted = entry.get("not_reproduced", [])
    if not isinstance(doubted, list) or not {*map(str, doubted)} <= set(scores):
        raise ValueError(
            f"{where}: not_reproduced is {doubted!r}, wanted a list of tasks of scores"
        )
    return Published(
        method=entry["method"],
        source=entry["source"],
        regime=_read_regime(entry["regime"], where),
        stated=entry["regime"],
        scores=scores,
        not_reproduced=frozenset(doubted),
    )


def _read_regime(text: str, where: str) -> Regime:
    named: list[Regime] = [regime for regime in get_args(Regime) if regime in text.split()]
    if len(named) != 1:
        raise ValueError(
            f"{where}: regime is {text!r}, wanted {' or '.join(get_args(Regime))}, or words that "
            "hold one of the two, such as 'not stated, probably frozen'"
        )
    return named[0]


def _read_scores(given: Any, where: str) -> dict[str, tuple[str, float]]:
    if not isinstance(given, dict) or not given:
        raise ValueError(f"{where}: scores is {given!r:.200}, wanted task: {{metric: score}}")
    scores = {}
    for task, pair in given.items():
        if not isinstance(task, str) or len([p for p in task.split("/") if p]) != 2:
            raise ValueError(f"{where}: task is {task!r}, wanted database/task")
        if not isinstance(pair, dict) or len(pair) != 1:
            raise ValueError(f"{where}: {task} has {pair!r:.200}, wanted one {{metric: score}}")
        ((metric, value),) = pair.items()
        if metric not in METRICS.values():
            known = ", ".join(METRICS.values())
            raise ValueError(f"{where}: {task} has metric {metric!r}, wanted one of {known}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise ValueError(f"{where}: {task} has {metric} {value!r}, wanted a number")
        scores[task] = (str(metric), float(value))
    return scores
