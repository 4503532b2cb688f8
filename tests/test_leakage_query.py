"""No row after a label's window moves the label, and none after the anchor moves who is asked.

Everything that comes later is replaced by noise: other values, other parents, other times (all of
them later still), more rows and fewer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from rfm.data.attach import attach_task, visible_database
from rfm.data.database import Database
from rfm.data.query import compile_text, entities, labels, split_times, write_task
from rfm.data.task_rows import SPLITS
from rfm.data.tasks import open_task
from tests.data.query.made import KEYS, TEST, VAL, seconds, shop_frames, write_shop

_DAY = 86_400
_QUERIES = [
    "PREDICT COUNT(visits.*, 0, 30, days) > 0 FOR EACH customers.id",
    "PREDICT COUNT(visits.*, 0, 30, days) FOR EACH customers.id "
    "WHERE COUNT(visits.*, -60, 0, days) > 0",
    "PREDICT SUM(orders.total VIA orders.customer_id, 0, 30, days) FOR EACH customers.id "
    "WHERE customers.city != 'Oslo' AND customers.since > NOW - 400 days",
    "PREDICT LAST(orders.state VIA orders.customer_id, 0, 1, months) FOR EACH customers.id "
    "ASSUMING COUNT(visits.*, 0, 14, days) > 0",
    "PREDICT AVG(items.pieces * products.price VIA items.order_id -> orders.customer_id, 0, 30) "
    "FOR EACH customers.id WHERE COUNT(orders.total VIA orders.gift_to) > 2",
    "PREDICT LIST_DISTINCT(items.product_id VIA items.order_id -> orders.customer_id, 0, 30, days) "
    "RANK TOP 5 FOR EACH customers.id WHERE MAX(items -> products.price "
    "VIA items.order_id -> orders.customer_id, -90, 0) > 5",
    "PREDICT FIRST(orders.total VIA orders.gift_to, 10, 30, days) IS NULL FOR EACH customers.id "
    "WHERE NOT LAST(orders.state VIA orders.gift_to, -INF, -10, days) = 'late'",
    "PREDICT COUNT(items.*, 0, 30, days) >= 4 FOR EACH products.id WHERE COUNT(items.*, -9, 0) > 0",
    "PREDICT COUNT(items.* WHERE orders.paid = true, 0, 30, days) FOR EACH products.id "
    "WHERE products.price > 3",
]  # fmt: skip
_STATIC = [
    "PREDICT orders.state FOR EACH orders.id",
    "PREDICT orders.total > 50 FOR EACH orders.id WHERE orders.customer_id -> customers.age > 20",
    "PREDICT orders.paid = false FOR EACH orders.id WHERE COUNT(items.*, -90, 0) > 1",
]


def _noise(end: int, seed: int) -> dict[str, pd.DataFrame]:
    """The shop as it is up to ``end``; what comes later is noise, but comes no earlier."""
    rng = np.random.default_rng(seed)
    after = pd.Timestamp(end, unit="s")
    frames = shop_frames()
    for name, frame in frames.items():
        time = KEYS[name].get("time_col")
        if time is None:
            continue
        frame = frame.copy()
        future = np.flatnonzero(frame[time] > after)
        for column in frame.columns:
            if column in ("id", time):
                continue
            frame.loc[future, column] = frame[column].to_numpy()[rng.permutation(len(frame))][
                future
            ]
        moved = after + pd.to_timedelta(rng.integers(1, 900 * _DAY, future.size), "s")
        frame.loc[future, time] = moved
        if name == "visits":  # the only table that nothing points at and that may grow and shrink
            kept = np.concatenate([np.flatnonzero(frame[time] <= after), future[::2], future[::3]])
            frame = frame.iloc[kept].reset_index(drop=True)
        frames[name] = frame
    return frames


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return write_shop(tmp_path_factory.mktemp("leakage"))


def _noisy(end: int, seed: int, folder: Path) -> Database:
    return write_shop(folder / f"{end}-{seed}", _noise(end, seed))


@pytest.mark.parametrize("text", _QUERIES)
def test_what_comes_after_a_window_moves_no_label(
    text: str, shop: Database, tmp_path: Path
) -> None:
    compiled = compile_text(text, shop)
    anchors = [seconds("2019-10-01"), seconds("2019-12-01")]
    end = anchors[-1] + compiled.timedelta
    found = labels(compiled, shop, anchors)
    assert len(found) > 0
    for seed in range(2):
        noisy = _noisy(end, seed, tmp_path)
        again = labels(compile_text(text, noisy), noisy, anchors)
        assert again.entity.tolist() == found.entity.tolist()
        assert again.time.tolist() == found.time.tolist()
        assert again.label.to_pylist() == found.label.to_pylist()
    early = _noisy(anchors[-1], 0, tmp_path)
    moved = labels(compile_text(text, early), early, anchors)
    assert moved.label.to_pylist() != found.label.to_pylist()  # the noise is some


@pytest.mark.parametrize("text", _QUERIES)
def test_what_comes_after_the_anchor_moves_nobody(
    text: str, shop: Database, tmp_path: Path
) -> None:
    anchor = seconds("2019-10-01")
    asked = entities(compile_text(text, shop), shop, anchor)
    assert len(asked) > 0
    for seed in range(2):
        noisy = _noisy(anchor, seed, tmp_path)
        again = entities(compile_text(text, noisy), noisy, anchor)
        assert again.row.tolist() == asked.row.tolist()
        assert again.time.tolist() == asked.time.tolist()


@pytest.mark.parametrize("where_at", ["seed", "anchor"])
@pytest.mark.parametrize("text", _STATIC)
def test_static_targets_know_nothing_later(
    text: str, where_at: Literal["seed", "anchor"], shop: Database, tmp_path: Path
) -> None:
    end = seconds("2019-10-01")
    compiled = compile_text(text, shop)
    found = labels(compiled, shop, [end], where_at=where_at)
    asked = entities(compiled, shop, end, where_at=where_at)
    assert len(found) > 0
    noisy = _noisy(end, 0, tmp_path)
    compiled = compile_text(text, noisy)
    again = labels(compiled, noisy, [end], where_at=where_at)
    assert again.entity.tolist() == found.entity.tolist()
    assert again.label.to_pylist() == found.label.to_pylist()
    assert entities(compiled, noisy, end, where_at=where_at).row.tolist() == asked.row.tolist()


def test_what_comes_after_the_seed_time_moves_no_example_by_default(
    shop: Database, tmp_path: Path
) -> None:
    """Who is an example tells nothing of what came after its own time; asked at the anchor, it
    does, up to the anchor."""
    text = "PREDICT orders.paid FOR EACH orders.id WHERE COUNT(items.*) > 1"
    end, cut = seconds("2020-03-01"), seconds("2019-10-01")
    noisy = _noisy(cut, 0, tmp_path)
    found, again = (labels(compile_text(text, d), d, [end]) for d in (shop, noisy))
    early, still = found.time <= cut, again.time <= cut
    assert early.sum() > 10
    assert again.entity[still].tolist() == found.entity[early].tolist()
    late = [labels(compile_text(text, d), d, [end], where_at="anchor") for d in (shop, noisy)]
    ours, theirs = (rows.entity[rows.time <= cut].tolist() for rows in late)
    assert ours != theirs  # later items of early orders count there


@pytest.mark.parametrize("text", _QUERIES)
def test_windows_of_a_split_end_before_the_next(text: str, shop: Database) -> None:
    compiled = compile_text(text, shop)
    times = split_times(compiled, shop, 1)
    ends = {s: int(times[s].max()) + compiled.timedelta for s in SPLITS}
    assert ends["train"] <= seconds(VAL) <= times["val"].min()
    assert ends["val"] <= seconds(TEST) <= times["test"].min()
    assert times["train"].size >= 3


@pytest.mark.parametrize("text", [_QUERIES[1], _QUERIES[5], *_STATIC[:2]])
def test_noise_after_validation_changes_no_training_row(
    text: str, shop: Database, tmp_path: Path
) -> None:
    """And noise after the test timestamp no validation row."""
    written = write_task(compile_text(text, shop), shop, tmp_path / "task")
    for split, end in [("train", VAL), ("val", TEST)]:
        noisy = _noisy(seconds(end), 1, tmp_path)
        again = write_task(compile_text(text, noisy), noisy, tmp_path / split)
        ours, theirs = (pd.read_parquet(w.path / f"{split}.parquet") for w in (written, again))
        assert len(ours) > 0
        pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("text", _STATIC)
def test_what_tells_the_answer_is_hidden(text: str, tmp_path: Path) -> None:
    """The column that is asked about is in no table that a model sees, but as past labels."""
    shop = write_shop(tmp_path)
    compiled = compile_text(text, shop)
    task = open_task(shop, write_task(compiled, shop, shop.folder).path.name)
    assert task.hidden
    seen = visible_database(task)
    for table, column in task.hidden:
        assert column not in seen.tables[table].columns
    attached = attach_task(task, tmp_path / "cache")
    for table, column in task.hidden:
        assert column not in attached.database.tables[table].columns
