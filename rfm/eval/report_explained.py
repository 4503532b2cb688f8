"""What moved the answers: signals over all explanations, and ten examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rfm.eval.report_numbers import total_signals
from rfm.eval.report_parts import Bars, Example, Section, count, scale_bars, signed, spell

if TYPE_CHECKING:
    from rfm.eval.report import PredictionRun

_TOTALS, _EXAMPLES, _SIGNALS = 15, 10, 5


def signals_section(run: PredictionRun) -> Section:
    """The strongest paths, tables and columns over all explanations."""
    title = "Top signals"
    totals = total_signals(run.explanations)
    if not totals:
        why = "predictions were not explained" if not run.explanations else "none names a signal"
        return Section("signals", title, [f"Which signals moved the answers is not known: {why}."])
    explained = len(run.explanations)
    items = []
    for total in totals[:_TOTALS]:
        way = "raises" if total.weight > 0 else "lowers" if total.weight < 0 else "moves"
        steady = abs(total.weight) >= 0.8 * total.strength
        said = f"{way} the answer" if steady else f"{way} it on the whole, but not always"
        through = [_through(total.path)] if total.path else []
        note = " · ".join([*through, f"in {total.appears} of {explained}", said])
        name = _name(total.table, total.column)
        items.append((name, f"{total.strength:.3g}", total.strength, note))
    sentence = (
        f"Mean strength (size of the weight) of each path, table and column over "
        f"{count(explained, 'explained prediction')}; 0 where it is not among the signals."
    )
    rest = f"; {len(totals) - _TOTALS:,} weaker ones are not shown" if len(totals) > _TOTALS else ""
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
    prediction, signals = explanation["prediction"], list(explanation["signals"])
    binary = run.task_type == "binary_classification"
    return Example(
        spell(explanation["entity"]),
        spell(explanation["time"]) if "time" in explanation else "",
        f"{float(prediction):.1%}" if binary else spell(prediction),
        str(explanation.get("top_signal", "")),
        _signal_bars(signals),
    )


def _signal_bars(signals: Sequence[Mapping[str, Any]]) -> Bars:
    shown = sorted(signals, key=lambda one: -abs(np.nan_to_num(float(one["weight"]))))[:_SIGNALS]
    items = []
    for one in shown:
        weight, name = float(one["weight"]), _name(str(one["table"]), str(one["column"]))
        words = str(one.get("words", "")) or name
        parts = [name] if words != name else []
        parts += [_through(one["path"])] if len(one["path"]) else []
        parts += [count(len(one["rows"]), "row")] if len(one.get("rows", ())) else []
        if "occluded" in one and np.isfinite(float(one["occluded"])):
            parts.append(f"without: {signed(float(one['occluded']))}")
        items.append((words, signed(weight), weight, " · ".join(parts)))
    weaker = len(signals) - len(shown)
    rest = f"{count(weaker, 'weaker signal')} not shown." if weaker else ""
    return scale_bars(items, rest, negative=True)


def _name(table: str, column: str) -> str:
    return f"{spell(table)}.{spell(column)}" if column else f"{spell(table)} (its rows)"


def _through(path: Sequence[str]) -> str:
    return f"through {' → '.join(spell(str(step)) for step in path)}"
