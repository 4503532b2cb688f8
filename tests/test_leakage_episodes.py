"""What an episode must not know: the future, and the labels of its queries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rfm.data.database import open_database
from rfm.data.episode_config import EpisodeConfig
from rfm.data.episodes import Episodes, EpisodeSource, choose
from rfm.data.prepare import prepare
from tests.batches import differing, tensors
from tests.busy_shop import Busy, open_busy
from tests.folders import write_folder

CONFIG = EpisodeConfig(
    per_batch=2, support=16, fewest=8, queries=8, children=3, history=4, max_rows=20
)
MOMENTS = {"train": "2020-01-01", "val": "2020-07-01"}


def noise_after(moment: str, frames: dict[str, pd.DataFrame]) -> None:
    """Other cells and other people in all later orders and notes."""
    rng, orders, notes = np.random.default_rng(9), frames["orders"], frames["notes"]
    late = (orders["at"] > moment).to_numpy()
    assert late.sum() > 100
    for column in ("person", "good", "amount", "paid", "way"):
        orders.loc[late, column] = rng.permutation(orders[column].to_numpy())[late]
    late = (notes["written"] > moment).to_numpy()
    notes.loc[late, "stars"] = rng.permutation(notes["stars"].to_numpy())[late]


def all_episodes(busy: Busy, split: str) -> Episodes:
    source = EpisodeSource(busy.store, 0, busy.tokenizer, 2, CONFIG, split=split)
    return Episodes([source], CONFIG, 0, {})


@pytest.mark.parametrize("split", ["train", "val"])
def test_other_rows_after_the_split_change_no_episode(
    tmp_path: Path, busy: Busy, split: str
) -> None:
    other = open_busy(tmp_path, busy.tokenizer, lambda f: noise_after(MOMENTS[split], f))
    a, b = all_episodes(busy, split), all_episodes(other, split)
    for i in range(10):
        assert differing(a[i], b[i]) == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_rows_after_the_split_change_no_episode(tmp_path: Path, busy: Busy, split: str) -> None:
    def cut(frames: dict[str, pd.DataFrame]) -> None:
        early = frames["orders"]["at"] <= MOMENTS[split]
        frames["orders"] = frames["orders"][early]  # in the order of time
        notes = frames["notes"]
        kept = (notes["written"] <= MOMENTS[split]) & notes["order"].isin(frames["orders"]["id"])
        frames["notes"] = notes[kept].reset_index(drop=True)

    def later(frames: dict[str, pd.DataFrame]) -> None:
        """The same without cutting, but with no note of an order that is later than itself."""
        cut_frames = dict(frames)
        cut(cut_frames)
        rest = frames["notes"].drop(index=frames["notes"].index)
        gone = frames["notes"][frames["notes"]["written"] > MOMENTS[split]]
        frames["notes"] = pd.concat([cut_frames["notes"], gone, rest], ignore_index=True)

    whole = open_busy(tmp_path / "whole", busy.tokenizer, later)
    short = open_busy(tmp_path / "short", busy.tokenizer, cut)
    assert short.store.num_rows < whole.store.num_rows - 100
    for i in range(10):
        a, b = all_episodes(whole, split)[i], all_episodes(short, split)[i]
        assert [p for p in differing(a, b) if not p.endswith(".question")] == []


@pytest.mark.parametrize("split", ["train", "val"])
def test_no_component_has_a_row_later_than_its_cutoff(busy: Busy, split: str) -> None:
    """Ages are counted back from the seed time, which is no earlier than the cutoff."""
    data = all_episodes(busy, split)
    for i in range(10):
        for batch in data[i]:
            stale = np.expm1(batch.told[:, 4].numpy())
            assert (batch.age >= 0).all()
            context = batch.hop > 0
            behind = torch.from_numpy(stale)[batch.component[context]]
            known = ~batch.static[context]
            assert (batch.age[context][known] >= 0).all()
            # a stale question sees nothing younger than its cutoff
            very = behind[known] > 1
            assert (batch.age[context][known][very] > 0).all()


@pytest.mark.parametrize("classes", [0, 2])
def test_the_labels_of_queries_change_nothing_but_the_targets(busy: Busy, classes: int) -> None:
    """Those of forecasts, other ones after the anchor."""
    source = EpisodeSource(busy.store, 0, busy.tokenizer, 2, CONFIG)
    rng, checked = np.random.default_rng(3), 0
    while checked < 12:
        task = source.forecasts.draw(rng)
        if task is None or task.classes != classes:
            continue
        found = choose(task, busy.store, CONFIG, None, rng)
        if found is None:
            continue
        number, cutoff, support = found
        label = task.rows.label.copy()
        unknown = task.known > cutoff[support:].max()
        label[unknown] = 1 - label[unknown] if classes else rng.normal(size=unknown.sum())
        other = replace(task, rows=replace(task.rows, label=label))
        until = int(cutoff[support:].min())
        a, b = (source.lay(t, until).batch(number, cutoff, support, 1) for t in (task, other))
        assert [p for p in differing(a, b) if p not in (".label", ".rank")] == []
        checked += 1
    assert dict(tensors(a))[".label"].shape[0] == number.size


def stock(size: int = 6_000) -> dict[str, pd.DataFrame]:
    """Two tables without times; few goods stand on a shelf, and many beside themselves."""
    rng, shelves = np.random.default_rng(0), size // 4
    shelf = rng.integers(0, shelves, size)
    goods = pd.DataFrame(
        {
            "id": np.arange(size),
            "shelf": shelf,
            "kind": np.where(rng.random(size) < 0.7, shelf % 3, rng.integers(0, 3, size)),
            "price": shelf % 9 + rng.normal(0, 4, size),
            "beside": np.where(np.arange(size) % 3, rng.permutation(size), np.arange(size)),
        }
    )
    goods["kind"] = goods["kind"].map({0: "bread", 1: "milk", 2: "salt"})
    return {"goods": goods, "shelves": pd.DataFrame({"id": np.arange(shelves)})}


def open_stock(folder: Path, busy: Busy, tables: dict[str, pd.DataFrame]) -> Busy:
    links = {"shelf": "shelves", "beside": "goods"}
    keys = {"goods": {"pkey": "id", "fkeys": links}, "shelves": {"pkey": "id"}}
    database = open_database(write_folder(folder / "stock", tables, keys))
    return Busy(tables, busy.tokenizer, prepare(database, busy.tokenizer, folder / "cache"))


def test_rows_without_times_are_never_told_their_own_labels(tmp_path: Path, busy: Busy) -> None:
    """Other cells in the rows that are asked about change nothing but the targets."""
    before = open_stock(tmp_path / "a", busy, stock())
    source = EpisodeSource(before.store, 0, busy.tokenizer, 2, CONFIG)
    rng, checked = np.random.default_rng(3), {0: 0, 2: 0, 3: 0}
    while min(checked.values()) < 2:
        task = source.autocompletes.draw(rng)
        if task is None or (found := choose(task, before.store, CONFIG, None, rng)) is None:
            continue
        assert task.timeless
        if task.table != "goods":
            continue
        number, cutoff, support = found
        assert np.intersect1d(number[:support], number[support:]).size == 0
        shown = source.lay(task, source.store.val_timestamp).batch(number, cutoff, support, 1)
        assert not {5, 14} & set(shown.kind.tolist())  # past labels, own or of a parent
        tables = stock()
        asked = task.rows.entity[number[support:]]
        column = task.target
        cells = tables["goods"][column].to_numpy().copy()
        cells[asked] = cells[np.roll(asked, 1)]
        tables["goods"][column] = cells
        folder = tmp_path / f"b{sum(checked.values())}"
        after = EpisodeSource(open_stock(folder, busy, tables).store, 0, busy.tokenizer, 2, CONFIG)
        other = after.lay(task, source.store.val_timestamp).batch(number, cutoff, support, 1)
        assert set(differing(shown, other)) <= {".label", ".rank"}
        checked[min(task.classes, 3)] += 1


def test_rows_without_times_are_asked_about_in_their_own_split(tmp_path: Path, busy: Busy) -> None:
    """Where nothing has a time, one row in twenty is validated on; else all are trained on."""
    store, seen = open_stock(tmp_path, busy, stock()).store, dict[str, set[int]]()
    for split in ("train", "val"):
        source = EpisodeSource(store, 0, busy.tokenizer, 2, CONFIG, split=split)
        assert source.can_ask
        rng = np.random.default_rng(0)
        tasks = [task for _ in range(30) if (task := source.task(rng)) is not None]
        seen[split] = {int(row) for task in tasks for row in task.rows.entity}
        assert len(tasks) > 3
        assert Episodes([source], CONFIG, 0, {})[0][0].num_support >= 8
    assert len(seen["train"]) > 15 * len(seen["val"]) > 0
    assert not seen["train"] & seen["val"]
    for split, asks in (("train", True), ("val", False)):
        columns = EpisodeSource(busy.store, 0, busy.tokenizer, 2, CONFIG, split=split).autocompletes
        static = np.flatnonzero(busy.store.is_static)
        assert any(t in static for t, _ in columns.columns) == asks
