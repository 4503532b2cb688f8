"""LightGBM on the entity's own columns, or on everything up to two hops as aggregates.

A small fixed random search is decided by validation rows, over several seeds, because one says
little where a few hundred rows decide; they also stop each fit early. There is no refit with them.
In the frozen regime training rows are given stale cutoffs as validation rows have them, unless
validation rows do better without.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import lightgbm
import numpy as np

from benchmarks.aggregates import Features, Questions
from benchmarks.answer import Answer
from benchmarks.features import FeatureSource, database_source, entity_source
from rfm.config import setting
from rfm.data.label_history import Floats
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.predictions import METRICS, Predictions, higher_is_better, score

_log = logging.getLogger("rfm")
_OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "binary_classification": {"objective": "binary", "metric": "auc"},
    "multiclass_classification": {"objective": "multiclass", "metric": "multi_logloss"},
    "multilabel_classification": {"objective": "binary", "metric": "average_precision"},
    "regression": {"objective": "regression_l1", "metric": "l1"},
}
_SEARCHED: Mapping[str, tuple[float, ...]] = {
    "learning_rate": (0.01, 0.02, 0.05, 0.1),
    "num_leaves": (4, 8, 16, 31, 63),
    "min_data_in_leaf": (10, 20, 50, 100, 200),
    "feature_fraction": (0.1, 0.3, 0.6, 1.0),
    "bagging_fraction": (0.5, 0.8, 1.0),
    "lambda_l2": (0.0, 1.0, 10.0, 100.0),
}
_BINS: Mapping[str, Any] = {"max_bin": 63, "feature_pre_filter": False, "verbosity": -1}
_FEW = 2_000  # validation rows; of more one seed says enough
_DRAW = 20_240_527  # of the search, the training rows and their cutoffs: the same for every seed


@dataclass(frozen=True)
class BoostingConfig:
    """The search, and what it may cost."""

    trials: int = setting(10, ge=1, help="configurations tried on validation rows")
    tries: int = setting(3, ge=1, help="seeds per configuration, if validation rows are few")
    rounds: int = setting(1000, ge=1, help="trees at most")
    patience: int = setting(50, ge=1, help="trees without a better validation score")
    rows: int = setting(50_000, ge=50, help="training rows at most, drawn at random")
    joined: int = setting(30_000_000, ge=1, help="rows that one aggregation may join")
    threads: int = setting(0, ge=0, help="of LightGBM and duckdb; 0: all that there are")

    @property
    def workers(self) -> int:
        """Cores that this process may use, unless fewer are asked for."""
        if self.threads or not hasattr(os, "sched_getaffinity"):
            return self.threads or os.cpu_count() or 1
        return len(os.sched_getaffinity(0))


@dataclass(frozen=True, eq=False)
class Split:
    """Features of a split's questions, and the outcome [n, C] of each, NaN where not known."""

    features: Features
    label: Floats


@dataclass(frozen=True, eq=False)
class Data:
    """train: by how their cutoffs were drawn, ``stale`` or ``fresh``; the first is searched on."""

    train: Mapping[str, Split]
    val: Split
    test: Split


@dataclass(frozen=True, eq=False)
class Fit:
    """One LightGBM per output that needs its own, the validation predictions and their score."""

    boosters: tuple[lightgbm.Booster, ...]
    val: Floats
    score: float
    curve: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Found:
    """What the search found best, and the validation score of everything that it tried."""

    params: Mapping[str, Any]
    cutoffs: str
    tried: tuple[Mapping[str, Any], ...]


def lightgbm_entity(task: Task, regime: Regime, seed: int, *, config: BoostingConfig) -> Answer:
    """LightGBM on the columns of the entity alone."""
    return _answer(task, regime, seed, config, False)


def lightgbm_aggregates(task: Task, regime: Regime, seed: int, *, config: BoostingConfig) -> Answer:
    """LightGBM on columns and aggregates of up to two hops, and past labels."""
    return _answer(task, regime, seed, config, True)


def _answer(
    task: Task, regime: Regime, seed: int, config: BoostingConfig, aggregates: bool
) -> Answer:
    data = _data(task, regime, config, aggregates)
    found = _search(task, regime, config, aggregates)
    best = _fit(task, data.train[found.cutoffs], data.val, {**found.params, "seed": seed}, config)
    test = _predict(task, best.boosters, data.test)
    _log.info(
        "%s %s seed %d: trees %s, most gained by %s", task.full_name, regime, seed,
        [booster.best_iteration for booster in best.boosters],
        "; ".join(_top_features(best.boosters, data.val.features)),
    )  # fmt: skip
    settings = {
        **{name: value for name, value in asdict(config).items() if name != "threads"},
        "params": dict(found.params),
        "training_rows": len(data.train[found.cutoffs].label),
        "training_cutoffs": found.cutoffs,
        "tried": list(found.tried),
        "features": len(data.val.features.names),
    }
    val = Predictions.of(task, "val", best.val)
    return Answer(val, Predictions.of(task, "test", test), settings, best.curve)


@lru_cache(maxsize=2)
def _data(task: Task, regime: Regime, config: BoostingConfig, aggregates: bool) -> Data:
    """All features; the same for every seed."""
    rng = np.random.default_rng(_DRAW)
    rows = task.rows("train")
    drawn = np.flatnonzero(_is_usable(task, "train"))
    if drawn.size > config.rows:
        drawn = np.sort(rng.choice(drawn, config.rows, replace=False))
    entity, time = rows.entity[drawn], rows.time[drawn]
    cutoffs = {"fresh": time}
    if regime == "frozen" and aggregates and task.staleness().any():
        late = rng.choice(task.staleness(), drawn.size)
        cutoffs = {"stale": time - late, "fresh": time}
    asked = {name: Questions(entity, time, cutoff) for name, cutoff in cutoffs.items()}
    source = entity_source(task)
    if aggregates:
        source = database_source(task, asked["fresh"], config.joined, config.workers)
    label = rows.label[drawn]
    train = {name: Split(source.features(some), label) for name, some in asked.items()}
    val, test = (_split(task, source, split, regime) for split in ("val", "test"))
    return _varying(Data(train, val, test))


def _split(task: Task, source: FeatureSource, split: TaskSplit, regime: Regime) -> Split:
    rows = task.rows(split)
    asked = Questions(rows.entity, rows.time, task.cutoffs(split, regime))
    label = np.where(_is_usable(task, split)[:, None], rows.label, np.nan)
    return Split(source.features(asked), label)


def _is_usable(task: Task, split: TaskSplit) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows [n] that something can be learnt from: labelled, and with a class that is known."""
    rows = task.rows(split)
    usable = rows.labelled
    if task.task_type == "multiclass_classification":
        usable = usable & (rows.label[:, 0] >= 0)
    return usable


def _varying(data: Data) -> Data:
    """Without the features that are the same in all training rows."""
    keep = np.zeros(len(data.val.features.names), bool)
    for split in data.train.values():
        values = split.features.values
        first = values[:1]
        keep |= ((values != first) & ~(np.isnan(values) & np.isnan(first))).any(axis=0)

    def without(split: Split) -> Split:
        if not keep.any():  # LightGBM wants one, even if it says nothing
            nothing = np.zeros((len(split.label), 1), np.float32)
            return replace(split, features=Features(nothing, ("nothing",)))
        names = tuple(n for n, k in zip(split.features.names, keep, strict=True) if k)
        values = split.features.values[:, keep]
        return replace(split, features=Features(values, names, split.features.categories))

    train = {name: without(split) for name, split in data.train.items()}
    return Data(train, without(data.val), without(data.test))


@lru_cache(maxsize=2)
def _search(task: Task, regime: Regime, config: BoostingConfig, aggregates: bool) -> Found:
    """The best of a fixed list of configurations; then, whether fresh cutoffs would be better."""
    data = _data(task, regime, config, aggregates)
    rng = np.random.default_rng(_DRAW)
    sign = 1.0 if higher_is_better(METRICS[task.task_type]) else -1.0
    tried: list[dict[str, Any]] = []
    tries = config.tries if len(data.val.label) < _FEW else 1

    def attempt(params: Mapping[str, Any], cutoffs: str) -> None:
        fits = [
            _fit(task, data.train[cutoffs], data.val, {**params, "seed": seed}, config)
            for seed in range(tries)
        ]
        mean = float(np.mean([fit.score for fit in fits]))
        tried.append({"params": dict(params), "cutoffs": cutoffs, "validation": mean})
        _log.info("%s %s: trial %d: %.4f", task.full_name, regime, len(tried), mean)

    first, *others = data.train
    for _ in range(config.trials):
        attempt({name: rng.choice(values).item() for name, values in _SEARCHED.items()}, first)
    best = max(tried, key=lambda one: sign * one["validation"])
    for name in others:
        attempt(best["params"], name)
    best = max(tried, key=lambda one: sign * one["validation"])
    return Found(best["params"], best["cutoffs"], tuple(tried))


def _fit(
    task: Task, train: Split, val: Split, params: Mapping[str, Any], config: BoostingConfig
) -> Fit:
    outputs = train.label.shape[1]
    boosters, curves = [], []
    for c in range(outputs):
        booster, curve = _booster(task, train, val, c, params, config)
        boosters.append(booster)
        curves.append(curve)
    value = _predict(task, tuple(boosters), val)
    reached = score(task, "val", Predictions.of(task, "val", value))
    return Fit(tuple(boosters), value, reached, curves[0] if outputs == 1 else ())


def _booster(
    task: Task, train: Split, val: Split, c: int, params: Mapping[str, Any], config: BoostingConfig
) -> tuple[lightgbm.Booster, tuple[tuple[int, float], ...]]:
    """Fitted to label ``c``, and its validation metric tree by tree."""
    given: dict[str, Any] = {
        **_OBJECTIVES[task.task_type],
        **params,
        "bagging_freq": 1,
        **_BINS,
        "num_threads": config.workers,
        "deterministic": True,
        "force_row_wise": True,
    }
    if task.task_type == "multiclass_classification":
        given["num_class"] = task.outputs
    fitted, held = _binned(train, val, c)
    measured: dict[str, dict[str, list[float]]] = {}
    callbacks: list[Callable[..., Any]] = [
        lightgbm.early_stopping(config.patience, verbose=False),
        lightgbm.record_evaluation(measured),
    ]
    booster = lightgbm.train(
        given, fitted, config.rounds, valid_sets=[held], valid_names=["val"], callbacks=callbacks
    )
    curve = next(iter(measured["val"].values()))
    return booster, tuple((i + 1, float(value)) for i, value in enumerate(curve))


@lru_cache(maxsize=4)
def _binned(train: Split, val: Split, c: int) -> tuple[lightgbm.Dataset, lightgbm.Dataset]:
    """Training and labelled validation rows as LightGBM wants them, which takes longer than a short
    fit."""
    labelled = ~np.isnan(val.label).any(axis=1)
    names = train.features.names
    categories = [i for i, name in enumerate(names) if name in train.features.categories]
    fitted = lightgbm.Dataset(
        train.features.values,
        train.label[:, c],
        categorical_feature=categories,
        params=dict(_BINS),
        free_raw_data=False,
    )
    held = lightgbm.Dataset(
        val.features.values[labelled], val.label[labelled, c], reference=fitted, free_raw_data=False
    )
    return fitted, held


def _predict(task: Task, boosters: tuple[lightgbm.Booster, ...], split: Split) -> Floats:
    values = [b.predict(split.features.values, num_iteration=b.best_iteration) for b in boosters]
    columns = [np.asarray(v, dtype=np.float64).reshape(len(split.label), -1) for v in values]
    return np.concatenate(columns, axis=1)


def _top_features(boosters: tuple[lightgbm.Booster, ...], features: Features) -> list[str]:
    """The ten features that gained most, over all outputs."""
    gain = np.sum([b.feature_importance("gain") for b in boosters], axis=0)
    best: Ints = np.argsort(-gain, kind="stable")[:10]
    return [features.names[i] for i in best if gain[i] > 0]
