"""What a zero-shot answer must not know: labels that nobody knows by then."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import open_database
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Regime, open_task
from rfm.eval.zero_shot import open_zero_shot
from rfm.nn.model import RelationalModel
from tests.eval.test_zero_shot import CONFIG, logits, model, task_of

assert model  # a fixture
CHANGES: dict[str, str] = {"buys": "buys", "spend": "spent", "tier": "tier"}


def answers(
    model: RelationalModel, shop: Path, cache: Path, name: str, split: TaskSplit, regime: Regime
) -> np.ndarray:
    task = open_task(open_database(shop), name)
    asker = open_zero_shot(model, task, cache, CONFIG, False)
    return asker.ask(split, regime, 24, 0, {"own": logits(model)})["own"].predictions.value


def with_other_labels(shop: Path, out: Path, name: str, later_than: int) -> Path:
    """A copy in which all labels that are known later are other ones."""
    shutil.copytree(shop, out)
    task, rng = task_of(shop, name), np.random.default_rng(0)
    changed = 0
    for split in ("train", "val", "test"):
        path = out / "tasks" / name / f"{split}.parquet"
        frame = pd.read_parquet(path)
        late = task.rows(split).time + task.timedelta > later_than
        column = frame[CHANGES[name]].to_numpy().copy()
        kept = column.copy()
        if name == "buys":
            column[late] = 1 - column[late]
        else:
            column[late] = rng.permutation(column)[late]
        changed += int((kept != column).sum())
        frame[CHANGES[name]] = column
        frame.to_parquet(path, index=False)
    assert changed >= 5
    return out


@pytest.mark.parametrize("name", ["buys", "spend", "tier"])
@pytest.mark.parametrize("split", ["val", "test"])
def test_labels_known_after_the_anchor_change_no_frozen_answer(
    model: RelationalModel,
    tmp_path: Path,
    task_shop: Path,
    task_cache: Path,
    name: str,
    split: TaskSplit,
) -> None:
    database = task_of(task_shop, name).database
    anchor = database.val_timestamp if split == "val" else database.test_timestamp
    other = with_other_labels(task_shop, tmp_path / "shop", name, anchor)
    a, b = (answers(model, s, task_cache, name, split, "frozen") for s in (task_shop, other))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["buys", "spend"])
def test_labels_not_known_by_the_last_question_change_no_rolling_answer(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    last = int(task_of(task_shop, name).rows("test").time.max())
    other = with_other_labels(task_shop, tmp_path / "shop", name, last)
    a, b = (answers(model, s, task_cache, name, "test", "rolling") for s in (task_shop, other))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_labels_known_before_do_change_answers(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    """So that the tests above can fail."""
    early = task_of(task_shop, "buys").database.first_time
    other = with_other_labels(task_shop, tmp_path / "shop", "buys", early)
    a, b = (answers(model, s, task_cache, "buys", "test", "frozen") for s in (task_shop, other))
    assert np.abs(a - b).max() > 1e-3
