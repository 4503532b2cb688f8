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
from tests.task_folders import write_task

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
    out.parent.mkdir(exist_ok=True)
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


@pytest.mark.parametrize("name", ["buys", "spend"])
def test_a_rolling_answer_knows_no_label_of_its_own_time_or_later(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    """For each seed time all labels that are known later are changed: its own questions' answers
    stay, of which later ones are not asked for."""
    rows = task_of(task_shop, name).rows("test")
    times = np.unique(rows.time)
    assert times.size > 1
    moved = 0
    for i, time in enumerate(times.tolist()):
        other = with_other_labels(task_shop, tmp_path / f"{i}" / "shop", name, time)
        a, b = (answers(model, s, task_cache, name, "test", "rolling") for s in (task_shop, other))
        now, later = rows.time <= time, rows.time > time
        np.testing.assert_allclose(a[now], b[now], rtol=1e-5, atol=1e-6)
        moved += int(np.abs(a[later] - b[later]).max(initial=0) > 1e-4)
    assert moved > 0


def test_where_rows_will_belong_is_not_known_before_they_are_there(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    """Frozen questions about orders that come later: whose they will be changes no answer."""
    shops = []
    for name in ("as-it-is", "changed"):
        shop = Path(shutil.copytree(task_shop, tmp_path / name / "shop"))
        write_order_task(shop)
        shops.append(shop)
    database = open_database(shops[1])
    path = shops[1] / "db" / "orders.parquet"
    orders = pd.read_parquet(path)
    late = (
        orders["at"].astype("datetime64[s]").astype("int64") > database.test_timestamp
    ).to_numpy()
    assert late.sum() > 5
    rng = np.random.default_rng(0)
    orders.loc[late, "customer"] = rng.permutation(orders["customer"].to_numpy())[late]
    orders.to_parquet(path, index=False)
    asked = task_of(shops[0], "big").rows("test")
    a, b = (answers(model, s, task_cache, "big", "test", "frozen") for s in shops)
    born = asked.time > database.test_timestamp
    assert born.sum() > 5
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def write_order_task(shop: Path) -> None:
    """Whether an order is big, asked when it comes."""
    orders = pd.read_parquet(shop / "db" / "orders.parquet")
    frame = pd.DataFrame({"date": orders["at"], "order": orders["id"]})
    frame["big"] = (orders["amount"] > orders["amount"].median()).astype("int64")
    database = open_database(shop)
    seconds = frame["date"].astype("datetime64[s]").astype("int64")
    splits = {
        "train": seconds <= database.val_timestamp,
        "val": (seconds > database.val_timestamp) & (seconds <= database.test_timestamp),
        "test": seconds > database.test_timestamp,
    }
    spec = {
        "kind": "external", "task_type": "binary_classification", "entity_table": "orders",
        "entity_col": "order", "time_col": "date", "target_col": "big", "timedelta": "10 days",
    }  # fmt: skip
    write_task(shop, "big", spec, {name: frame[kept] for name, kept in splits.items()})


def test_labels_known_before_do_change_answers(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    """So that the tests above can fail."""
    early = task_of(task_shop, "buys").database.first_time
    other = with_other_labels(task_shop, tmp_path / "shop", "buys", early)
    a, b = (answers(model, s, task_cache, "buys", "test", "frozen") for s in (task_shop, other))
    assert np.abs(a - b).max() > 1e-3
