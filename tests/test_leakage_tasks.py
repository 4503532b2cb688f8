"""What a question must not know: what is later than its cutoff, hidden columns, its own label."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import relbench

from rfm.data.database import open_database
from rfm.data.graph import STATIC
from rfm.data.store import Serialisation, column_entry
from rfm.data.task_rows import SPLITS, TaskSplit
from rfm.data.tasks import Regime
from tests.asked import AnyBatch, Asker, ask, known_rows
from tests.batches import bits, differing, shown_rows
from tests.shop import TEST_SECONDS, VAL_SECONDS
from tests.task_folders import TASKS, write_task_shop
from tests.task_noise import noisy_task

every_task = pytest.mark.parametrize("name", sorted(TASKS))
ANSWERS = (".label", ".positive")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task_shop(tmp_path_factory.mktemp("task shop"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def changed(a: list[AnyBatch], b: list[AnyBatch]) -> list[str]:
    """Where two lists of batches differ, apart from the answers."""
    assert len(a) == len(b) > 0
    return sorted(
        {at for x, y in zip(a, b, strict=True) for at in differing(x, y) if at not in ANSWERS}
    )


def in_split(split: TaskSplit) -> Callable[[TaskSplit, Any], Any]:
    return lambda s, time: np.full(time.size, s == split)


@every_task
@pytest.mark.parametrize("serialisation", ["compact", "text"])
def test_frozen_what_is_after_the_cutoff_changes_nothing(
    tmp_path: Path, shop: Path, cache: Path, name: str, serialisation: Serialisation
) -> None:
    before = ask(shop, name, cache, serialisation=serialisation)
    for split, moment in (("val", VAL_SECONDS), ("test", TEST_SECONDS)):
        noisy = tmp_path / split / "shop"
        assert noisy_task(shop, noisy, name, moment, in_split(split)) >= 4
        after = ask(noisy, name, cache, before.tokenizer, serialisation)
        assert before.attached.database.kinds == after.attached.database.kinds
        asked = [a.asked(split, "frozen") for a in (before, after)]
        assert np.array_equal(asked[0].cutoff, np.minimum(asked[0].now, moment))
        a, b = (x.batches(q) for x, q in zip((before, after), asked, strict=True))
        assert changed(a, b) == []
        assert not all(bits(x) == bits(y) for x, y in zip(a, b, strict=True))  # answers did change
        if split == "val":
            stale = before.task.staleness()
            for late in (stale[:0], stale):
                a, b = (x.training(late, 4) for x in (before, after))
                assert [differing(x, y) for x, y in zip(a, b, strict=True)] == [[]] * 4


@every_task
def test_rolling_what_is_after_a_rows_seed_time_changes_nothing(
    tmp_path: Path, shop: Path, cache: Path, name: str
) -> None:
    before = ask(shop, name, cache)
    for split in ("val", "test"):
        times = np.unique(before.task.rows(split).time)
        moment = int(times[times.size // 2])
        noisy = tmp_path / split / "shop"
        noisy_task(shop, noisy, name, moment, lambda s, time, now=moment: time <= now)
        after = ask(noisy, name, cache, before.tokenizer)
        seen = 0
        for s in ("val", "test"):
            asked = [a.asked(s, "rolling") for a in (before, after)]
            here = np.flatnonzero(asked[0].now <= moment)
            assert np.array_equal(here, np.flatnonzero(asked[1].now <= moment))
            asked = [q.take(here) for q in asked]
            pairs = zip(*(x.one_by_one(q) for x, q in zip((before, after), asked, strict=True)))
            for (_, a), (_, b) in pairs:
                assert changed([a], [b]) == []
                seen += 1
        assert seen >= 1


@every_task
def test_what_is_before_the_cutoff_does_change_batches(
    tmp_path: Path, shop: Path, cache: Path, name: str
) -> None:
    """The comparisons above can fail: earlier labels and rows are no longer the future."""
    before = ask(shop, name, cache)
    moment = VAL_SECONDS - 120 * 86_400
    noisy_task(shop, tmp_path / "shop", name, moment, in_split("val"))
    after = ask(tmp_path / "shop", name, cache, before.tokenizer)
    a, b = (x.batches(x.asked("val", "frozen")) for x in (before, after))
    parts = changed(a, b)
    assert any(".age" in at for at in parts)
    assert (".seen" if before.task.top_k else ".past") in parts
