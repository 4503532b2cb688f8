"""Past labels and past meetings, against references that loop over all labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest

from rfm.data.batch import NUM_SEEN_FEATURES, RecommendBatch
from rfm.data.past_labels import PastLabels
from rfm.data.questions import NUM_CALENDAR, Questions
from rfm.data.task_rows import SPLITS
from rfm.data.tasks import Regime, Task
from tests.asked import CENTER, SCALE, Asker, ask
from tests.task_folders import TASKS

ENTITY_TASKS = [name for name, spec in TASKS.items() if spec["task_type"] != "recommendation"]


@dataclass(frozen=True)
class Label:
    """One labelled row: its keys by column, the second at which it is known, the label."""

    keys: dict[str, int]
    known: int
    value: list[float]


def labels_of(asker: Asker) -> list[Label | None]:
    """Of every row of the attached table; ``None`` where there is none."""
    task, found = asker.task, []
    table = asker.attached.database.tables[asker.attached.table]
    keys = pq.read_table(table.path, columns=list(table.foreign_keys)).to_pylist()
    for split in SPLITS:
        rows = task.rows(split)
        for time, label in zip(rows.time, rows.label, strict=True):
            value = vector(task, label)
            own = {c: -1 if k is None else int(k) for c, k in keys[len(found)].items()}
            known = int(time) + task.timedelta
            found.append(Label(own, known, value) if value else None)
    return found


def vector(task: Task, label: npt.NDArray[np.float64]) -> list[float]:
    if np.isnan(label).any():
        return []
    if task.task_type == "multiclass_classification":
        return [float(label[0] == c) for c in range(task.outputs)]
    if task.task_type == "regression":
        return [(float(label[0]) - CENTER) / SCALE]
    return [float(x) for x in label]


def smoothed(labels: list[Label], prior: list[float]) -> list[float]:
    total = [sum(label.value[c] for label in labels) + 2 * p for c, p in enumerate(prior)]
    return [t / (len(labels) + 2) for t in total]


def expected(
    labels: list[Label | None],
    keys: dict[str, int],
    outputs: int,
    now: int,
    cutoff: int,
    delta: int,
) -> list[float]:
    known = sorted((x for x in labels if x and x.known <= cutoff), key=lambda x: x.known)
    overall = smoothed(known, [0.0] * outputs)
    out: list[float] = []
    for column, key in keys.items():
        mine = [x for x in known if key >= 0 and x.keys[column] == key]
        for last in (mine[-3:], mine[-10:], mine):
            out += [a - b for a, b in zip(smoothed(last, overall), overall, strict=True)]
        age = max(0.0, (now - mine[-1].known) / delta) if mine else 0.0
        out += [math.log1p(len(mine)), math.log1p(age)]
    return [*calendar(now), math.log1p(max(0.0, (now - cutoff) / delta)), *out]


def calendar(now: int) -> list[float]:
    """Time of year and of week."""
    angles = [2 * math.pi * (now / 86400 % period) / period for period in (365.2425, 7)]
    return [wave(angle) for angle in angles for wave in (math.sin, math.cos)]


@pytest.mark.parametrize("name", ENTITY_TASKS)
def test_past_labels_are_those_of_the_reference(
    task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = ask(task_shop, name, task_cache, means=False)
    labels, told = labels_of(asker), 0
    table = asker.attached.database.tables[asker.attached.table]
    rows = pq.read_table(table.path, columns=list(table.foreign_keys)).to_pylist()
    for split in SPLITS:
        for regime in ("frozen", "rolling"):
            asked = asker.asked(split, regime)
            for batch in asker.batches(asked):
                for i, past in zip(batch.question.tolist(), batch.told.numpy(), strict=True):
                    local = int(asked.row[i]) - asker.sampler.first_row
                    keys = {c: -1 if k is None else int(k) for c, k in rows[local].items()}
                    delta = asker.task.timedelta
                    now, cutoff = int(asked.now[i]), int(asked.cutoff[i])
                    wanted = expected(labels, keys, asker.task.outputs, now, cutoff, delta)
                    if len({x.known for x in labels if x}) == sum(1 for x in labels if x):
                        np.testing.assert_allclose(past, wanted, rtol=2e-5, atol=1e-6)
                    else:  # which of several that are known at once is the last is open
                        at = settled(len(keys), asker.task.outputs)
                        np.testing.assert_allclose(
                            past[at], np.array(wanted)[at], rtol=2e-5, atol=1e-6
                        )
                    told += int(past[NUM_CALENDAR:].any())
    assert told > 20


def settled(keys: int, outputs: int) -> list[int]:
    """Features that do not depend on the order of labels that are known at once."""
    width = 3 * outputs + 2
    own = [k * width + i for k in range(keys) for i in range(2 * outputs, width)]
    return [*range(NUM_CALENDAR), *(NUM_CALENDAR + i for i in own)]


def test_the_width_is_that_of_the_features(task_shop: Path, task_cache: Path) -> None:
    for name in ENTITY_TASKS:
        asker = ask(task_shop, name, task_cache, means=False)
        past = PastLabels(asker.attached, 0.0, 1.0)
        row, now = np.arange(3), np.full(3, 1_600_000_000)
        assert past.features(row, now, now).shape == (3, past.width)
        assert past.features(row[:0], now[:0], now[:0]).shape == (0, past.width)
        assert asker.sampler.tell(0.0, 1.0) == NUM_CALENDAR + past.width


def test_without_history_the_calendar_alone_is_told(task_shop: Path, task_cache: Path) -> None:
    asker = ask(task_shop, "buys", task_cache, history=0, means=False)
    assert asker.sampler.tell(0.0, 1.0) == NUM_CALENDAR
    asked = asker.asked("test", "rolling")
    assert asker.batches(asked)[0].told.shape == (16, NUM_CALENDAR)
    for i in (0, 30):
        assert asker.own_rows(asker.component(asked, i)[1].row).size == 1


# Recommendations.


def meetings(asker: Asker) -> Iterator[tuple[int, int, int]]:
    """(known, entity, destination) of every label."""
    for split in SPLITS:
        rows = asker.task.rows(split)
        for i in range(len(rows)):
            for d in rows.destination[rows.start[i] : rows.start[i + 1]]:
                yield int(rows.time[i]) + asker.task.timedelta, int(rows.entity[i]), int(d)


@pytest.mark.parametrize("name", ["next", "likes"])
@pytest.mark.parametrize("regime", ["frozen", "rolling"])
def test_what_has_been_seen_is_that_of_the_reference(
    task_shop: Path, task_cache: Path, name: str, regime: Regime
) -> None:
    asker = ask(task_shop, name, task_cache, means=False)
    pairs, delta, size = list(meetings(asker)), asker.task.timedelta, 15
    orders = pd.read_parquet(task_shop / "db" / "orders.parquet")
    reviews = pd.read_parquet(task_shop / "db" / "reviews.parquet")
    items = pd.read_parquet(task_shop / "db" / "items.parquet")
    compared = near = 0
    for split in ("val", "test"):
        asked = asker.asked(split, regime)
        for batch in asker.batches(asked):
            cutoff = int(batch.moment[1])
            known = [p for p in pairs if p[0] <= cutoff]
            latest = max(p[0] for p in known)
            seen = batch.seen.numpy()
            assert seen.shape[2] == NUM_SEEN_FEATURES
            windows = [[p for p in known if p[0] > latest - w * delta] for w in (1, 3)]
            for f, window in enumerate([*windows, known]):
                for q, i in enumerate(batch.question.tolist()):
                    for c, d in enumerate(batch.destination.tolist()):
                        times = sum(p[1] == asked.entity[i] and p[2] == d for p in window)
                        assert seen[q, c, f] == pytest.approx(math.log1p(times), abs=1e-6)
                        compared += times
                for c, d in enumerate(batch.destination.tolist()):
                    share = (sum(p[2] == d for p in window) + 0.5) / (len(window) / size + 0.5)
                    np.testing.assert_allclose(seen[:, c, 5 + f], math.log(share), atol=1e-5)
            for c, d in enumerate(batch.destination.tolist()):
                moment = pd.Timestamp(cutoff, unit="s")
                written = reviews[(reviews["product"] == d)]["written"]
                always = int((items["product"] == d).sum())  # items have no time
                total = always + int((written <= moment).sum())
                lately = int(
                    ((written <= moment) & (written > moment - pd.Timedelta(delta, "s"))).sum()
                )
                np.testing.assert_allclose(seen[:, c, 8], math.log1p(lately), atol=1e-6)
                np.testing.assert_allclose(seen[:, c, 9], math.log1p(total), atol=1e-6)
            near += count_near(asker, batch, asked, orders, reviews)
    assert compared > 10
    assert near >= 10


def count_near(
    asker: Asker,
    batch: RecommendBatch,
    asked: Questions,
    orders: pd.DataFrame,
    reviews: pd.DataFrame,
) -> int:
    """Compare what is near a customer: the products of the best reviews of its orders (an order
    itself has no product). Returns how many there are."""
    found = 0
    moment = pd.Timestamp(int(batch.moment[1]), unit="s")
    now = int(batch.moment[0])
    for q, i in enumerate(batch.question.tolist()):
        customer = int(asked.entity[i])
        wanted: dict[int, list[int]] = {}
        mine = (orders["customer"] == customer) | (orders["gift_to"] == customer)
        best = orders[mine & (orders["at"] <= moment)]["best_review"].dropna().astype(int)
        for review in sorted(set(best)):
            row = reviews.iloc[review]
            if row["written"] <= moment and not pd.isna(row["product"]):
                wanted.setdefault(int(row["product"]), []).append(int(row["written"].timestamp()))
        for c, d in enumerate(batch.destination.tolist()):
            times = wanted.get(d, [])
            days = (now - max(times)) / asker.task.timedelta if times else math.inf
            assert batch.seen[q, c, 3] == pytest.approx(math.log1p(len(times)), abs=1e-6)
            assert batch.seen[q, c, 4] == pytest.approx(1 / (1 + days), abs=1e-5)
            found += len(times)
    return found
