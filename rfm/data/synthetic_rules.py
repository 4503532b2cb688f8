"""Rules of synthetic events: which visible past decides whether an event happens next."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rfm.data.synthetic_plan import SIGNALS, Rule, Signal, TablePlan, mark_columns

LAGS = ((1.0, 0.6, 0.3), (0.0, 1.0), (0.0, 0.0, 1.0), (0.4, 1.0), (-0.5, 1.0))


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


def sigmoid(values: NDArray[Any]) -> NDArray[Any]:
    probability: NDArray[Any] = 1 / (1 + np.exp(-values))
    return probability


def plan_rule(
    rng: np.random.Generator,
    tables: dict[str, TablePlan],
    target: str,
    signal: Signal | Literal["mixed"],
) -> tuple[Rule, dict[str, TablePlan]]:
    """Draw the rule of the event table ``target``; marks the columns it reads as its own."""
    kind: Signal = SIGNALS[int(rng.integers(len(SIGNALS)))] if signal == "mixed" else signal
    common: dict[str, Any] = {
        "signal": kind,
        "season": float(rng.uniform(0, 0.3)),
        "period": int(rng.integers(4, 13)),
    }
    if kind in ("recency", "own_past_labels"):
        low, high = float(rng.uniform(0.05, 0.12)), float(rng.uniform(0.83, 0.94))
        common |= {
            "base": (logit(high) + logit(low)) / 2,
            "gain": (logit(high) - logit(low)) / 2,
            "mean_rate": 0.35,
        }
        if kind == "own_past_labels":
            lags = np.array(LAGS[int(rng.integers(len(LAGS)))])
            return Rule(**common, lags=tuple((lags / np.abs(lags).sum()).tolist())), tables
        history = _choose_history(rng, tables, target).name
        return Rule(**common, history=history, decay=float(rng.uniform(0.6, 1.1))), tables
    gain, rate = float(rng.uniform(2.0, 3.5)), float(rng.uniform(0.2, 0.45))
    base = logit(rate) * float(np.sqrt(1 + np.pi * gain**2 / 8))
    common |= {"base": base, "gain": gain, "mean_rate": rate}
    source = _choose_source(rng, tables, target, kind)
    table = tables[str(source["attributes"])]
    numbers = [column.name for column in table.columns if column.kind == "f"]
    number = numbers[int(rng.integers(len(numbers)))]
    if source["history"] and not source["via"]:
        tables = mark_columns(tables, table.name, (number,), "simulated")
        return Rule(**common, **source, number=number, number_weight=1.0), tables
    categories = [column for column in table.columns if column.kind == "="]
    category = categories[int(rng.integers(len(categories)))]
    tables = mark_columns(tables, table.name, (number, category.name), "exogenous")
    rule = Rule(
        **common,
        **source,
        number=number,
        number_weight=float(rng.choice([-1, 1]) * rng.uniform(0.6, 1.4)),
        category=category.name,
        effects=tuple(rng.normal(size=len(category.options)).tolist()),
    )
    return rule, tables


def _choose_source(
    rng: np.random.Generator, tables: dict[str, TablePlan], target: str, kind: Signal
) -> dict[str, Any]:
    """Where the columns of the rule stand: ``hops``, ``history``, ``via`` and ``attributes``."""
    entity = tables[tables[target].actor]
    if kind == "own_columns":
        return {"hops": (), "history": "", "via": "", "attributes": entity.name}
    sources: list[dict[str, Any]] = []
    for link in (link for link in entity.links if link.parent != entity.name):
        if kind == "one_hop":
            sources.append({"hops": (link.column,), "attributes": link.parent})
            continue
        parent = tables[link.parent]
        sources += [
            {"hops": (link.column, second.column), "attributes": second.parent}
            for second in parent.links
            if second.parent not in (parent.name, entity.name)
        ]
    for _ in range(2):
        history = _choose_history(rng, tables, target)
        aggregate = str(rng.choice(["last", "mean"]))
        if kind == "one_hop":
            sources.append({"history": history.name, "aggregate": aggregate})
            continue
        far = [link for link in history.links[1:] if link.parent != entity.name]
        history = history if far else tables[target]
        far = [link for link in history.links[1:] if link.parent != entity.name]
        sources += [
            {
                "history": history.name,
                "via": link.column,
                "attributes": link.parent,
                "aggregate": aggregate,
            }
            for link in far
        ]
    if not sources:  # an event without a second parent: its own past values stand in
        sources.append({"history": target, "aggregate": "last"})
    source = sources[int(rng.integers(len(sources)))]
    source = {"hops": (), "history": "", "via": "", **source}
    return {"attributes": source["history"], **source}


def _choose_history(
    rng: np.random.Generator, tables: dict[str, TablePlan], target: str
) -> TablePlan:
    """An event table of the same entities, another one than ``target`` where there is one."""
    actor = tables[target].actor
    others = [
        table
        for table in tables.values()
        if table.role == "event" and table.actor == actor and table.name != target
    ]
    return others[int(rng.integers(len(others)))] if others else tables[target]


def attribute_scores(
    rule: Rule, table: TablePlan, values: dict[str, NDArray[Any]], weight: NDArray[Any]
) -> tuple[NDArray[np.float32], float, float]:
    """Scores of the rows of ``rule.attributes``, with shift and spread under the row weights."""
    column = table.column(rule.number)
    raw = rule.number_weight * (values[rule.number] - column.center) / column.scale
    raw = raw + np.array(rule.effects)[values[rule.category]]
    weight = weight / weight.sum()
    shift = float(weight @ raw)
    spread = float(np.sqrt(weight @ (raw - shift) ** 2)) or 1.0
    return ((raw - shift) / spread).astype(np.float32), shift, spread
