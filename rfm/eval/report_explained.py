"""What moved the answers: signals over all explanations, and ten examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.api.types import is_integer

from rfm.eval.explain_signals import OUTCOMES
from rfm.eval.report_numbers import steps, total_signals
from rfm.eval.report_parts import Bars, Example, Section, count, scale_bars, signed, spell

if TYPE_CHECKING:
    from rfm.eval.report import PredictionRun

_TOTALS, _EXAMPLES, _SIGNALS = 15, 10, 5
_LEAST = 0.005  # of what moved an answer: less rounds to nothing


def signals_section(run: PredictionRun) -> Section:
    """The strongest paths, tables and columns over all explanations."""
    title = "Top signals"
    totals = total_signals(run.explanations)
    if not totals:
        why = "predictions were not explained" if not run.explanations else "none names a signal"
        return Section("signals", title, [f"Which signals moved the answers is not known: {why}."])
    explained = len(run.explanations)
    items = []
    shown = [total for total in totals[:_TOTALS] if total.strength >= _LEAST] or totals[:1]
    for total in shown:
        way = "raises" if total.weight > 0 else "lowers" if total.weight < 0 else "moves"
        steady = abs(total.weight) >= 0.8 * total.strength
        said = f"{way} the answer" if steady else f"{way} it on the whole, but not always"
        through = [_through(total.path)] if _leads_on(total.path) else []
        note = " · ".join([*through, f"in {total.appears} of {explained}", said])
        name = _name(total.table, total.column)
        items.append((name, f"{total.strength:.1%}", total.strength, note))
    sentence = (
        "How large a share each path, table and column has in what moved an answer, on average "
        f"over {count(explained, 'explained prediction')}."
    )
    weaker = len(totals) - len(shown)
    rest = f"; {count(weaker, 'weaker one')} not shown" if weaker else ""
    return Section(
        "signals", title, [sentence], [], [scale_bars(items, f"Strongest signals{rest}.")]
    )


def examples(run: PredictionRun) -> list[Example]:
    """Ten explained predictions: of numbers the highest, some in the middle and the lowest."""
    chosen = list(run.explanations)
    if len(chosen) > _EXAMPLES:
        chosen = _spread(chosen, run)
    return [_example(explanation, run) for explanation in chosen]


def _spread(explanations: list[Mapping[str, Any]], run: PredictionRun) -> list[Mapping[str, Any]]:
    if run.task_type not in ("binary_classification", "regression"):
        return explanations[:_EXAMPLES]
    value = np.array([float(one["prediction"]) for one in explanations])
    order = np.argsort(-np.nan_to_num(value, nan=-np.inf), kind="stable")
    n, middle = len(order), (len(order) - 2) // 2
    places = [0, 1, 2, 3, middle - 1, middle, middle + 1, n - 3, n - 2, n - 1]
    return [explanations[order[place]] for place in sorted(set(places))]


def _example(explanation: Mapping[str, Any], run: PredictionRun) -> Example:
    chances = run.task_type in ("binary_classification", "multiclass_classification")
    return Example(
        spell(explanation["entity"]),
        _moment(explanation["time"]) if "time" in explanation else "",
        _answer(explanation, run),
        str(explanation.get("top_signal", "")),
        _signal_bars(list(explanation["signals"]), chances),
    )


def _answer(explanation: Mapping[str, Any], run: PredictionRun) -> str:
    prediction = explanation["prediction"]
    if run.task_type == "binary_classification":
        return f"{float(prediction):.1%}"
    if run.task_type == "multiclass_classification" and explanation.get("chosen"):
        return f"{spell(str(explanation['chosen']))} ({float(prediction):.1%})"
    return spell(prediction)


def _moment(time: Any) -> str:
    """A time, or unix seconds; empty for what has none."""
    moment = pd.Timestamp(np.int64(time).astype("datetime64[s]")) if is_integer(time) else time
    return "" if pd.isna(moment) else spell(moment)


def _signal_bars(signals: Sequence[Mapping[str, Any]], chances: bool) -> Bars:
    """The first signals of an answer, which is a chance or a number."""
    shown = [one for one in signals if not abs(float(one["weight"])) < _LEAST] or signals[:1]
    shown = shown[:_SIGNALS]
    items = []
    for one in shown:
        weight, name = float(one["weight"]), _name(str(one["table"]), str(one["column"]))
        words, path = str(one.get("words", "")) or name, steps(one["path"])
        parts = [name] if name not in words else []
        parts += [_through(path)] if _leads_on(path) and " → ".join(path) not in words else []
        parts += [count(len(one["rows"]), "row")] if len(one.get("rows", ())) else []
        occluded = float(one.get("occluded", np.nan))
        if np.isfinite(occluded) and one.get("checked", True):
            parts.append(f"without: {_points(occluded) if chances else signed(occluded)}")
        items.append((words, _percent(weight), weight, " · ".join(parts)))
    weaker = len(signals) - len(shown)
    rest = f"{count(weaker, 'weaker signal')} not shown." if weaker else ""
    return scale_bars(items, rest, negative=True)


def _points(change: float) -> str:
    points = signed(round(100 * change, 1))
    return f"{points} points"


def _percent(weight: float) -> str:
    return f"{weight:+.0%}".replace("-", "−") if np.isfinite(weight) else "–"


def _name(table: str, column: str) -> str:
    if table == OUTCOMES:
        return OUTCOMES if column else f"{OUTCOMES} (how many, how old)"
    return f"{spell(table)}.{spell(column)}" if column else f"{spell(table)} (its rows)"


def _leads_on(path: Sequence[str]) -> bool:
    """Whether a path leads further than to the entity itself and its own past outcomes."""
    return bool(path) and not path[0].startswith(f"{OUTCOMES}.")


def _through(path: Sequence[str]) -> str:
    return f"through {' → '.join(map(spell, path))}"
