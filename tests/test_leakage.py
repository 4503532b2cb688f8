"""What a batch must not know: the future (masked cells and links: test_leakage_masks, _links)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.column_stats import fit_column_stats
from rfm.data.database import open_database
from rfm.data.graph import STATIC
from rfm.data.mixture import PretrainBatches
from rfm.data.sampler import Seeds, fan_outs, sample
from rfm.data.store import Serialisation, column_entry
from tests.batches import Drawn, differing
from tests.corpora import Corpus, components, make_database, open_all
from tests.noise import replace_rows_after
from tests.shop import VAL, prepare_shop, small_batches

# The future.


@pytest.mark.parametrize("name", ["shop", "0", "1", "2"])
@pytest.mark.parametrize("serialisation", ["compact", "text"])
def test_replacing_the_future_by_noise_changes_no_training_batch(
    tmp_path: Path, name: str, serialisation: Serialisation
) -> None:
    folder = make_database(tmp_path, name)
    val = open_database(folder).val_timestamp
    moment = np.datetime64(val, "s").astype(str)
    replaced = replace_rows_after(folder, tmp_path / "noise" / folder.name, moment)
    assert replaced > 50
    before = open_all([folder], tmp_path / "cache", serialisation=serialisation)
    noisy_folder = tmp_path / "noise" / folder.name
    after = open_all([noisy_folder], tmp_path / "cache", before.tokenizer, serialisation)
    assert before.databases[0].kinds == after.databases[0].kinds
    assert before.mixture.stores[0].fingerprint != after.mixture.stores[0].fingerprint
    for strategy in ("last", "uniform"):
        config = small_batches(strategy=strategy)
        a, b = (PretrainBatches(c.mixture, config, 3, "train") for c in (before, after))
        for index in range(8):
            assert differing(a[index], b[index]) == []


@pytest.mark.parametrize("name", ["shop", "0", "1", "2"])
def test_replacing_rows_after_the_test_timestamp_changes_no_batch(
    tmp_path: Path, name: str
) -> None:
    folder = make_database(tmp_path, name)
    moment = np.datetime64(open_database(folder).test_timestamp, "s").astype(str)
    assert replace_rows_after(folder, tmp_path / "noise" / folder.name, moment) > 10
    before = open_all([folder], tmp_path / "cache")
    after = open_all([tmp_path / "noise" / folder.name], tmp_path / "cache", before.tokenizer)
    for split in ("train", "val"):
        a, b = (PretrainBatches(c.mixture, small_batches(), 3, split, 6) for c in (before, after))
        for index in range(6):
            assert differing(a[index], b[index]) == []


def test_replacing_rows_of_the_past_does_change_batches(tmp_path: Path) -> None:
    """The comparison above can fail: half a year earlier is no longer the future."""
    folder = make_database(tmp_path, "shop")
    replace_rows_after(folder, tmp_path / "noise" / "shop", "2019-07-01")
    before = open_all([folder], tmp_path / "cache")
    after = open_all([tmp_path / "noise" / "shop"], tmp_path / "cache", before.tokenizer)
    a, b = (PretrainBatches(c.mixture, small_batches(), 3, "train") for c in (before, after))
    assert all(differing(a[index], b[index]) for index in range(8))


def test_what_only_the_future_has_is_not_asked_about(tmp_path: Path) -> None:
    """A column that is null in all training rows, and a table that has one row as yet."""
    rng = np.random.default_rng(0)
    days = pd.date_range("2019-01-01", periods=500, freq="D").to_series(index=range(500))
    future = days > pd.Timestamp(VAL)
    hubs = pd.DataFrame({"id": [0, 1], "opened": [days[0], days[480]], "size": [1.0, 2.0]})
    events = pd.DataFrame(
        {
            "at": days,
            "hub": 0,
            "amount": rng.random(500),
            "note": pd.Series([None] * 500, dtype=str),
        }
    )
    told = events.assign(
        note=events["note"].mask(future, "late words"), hub=events["hub"].mask(future, 1)
    )
    keys = {
        "hubs": {"pkey": "id", "time_col": "opened"},
        "events": {"time_col": "at", "fkeys": {"hub": "hubs"}},
    }
    shops, tokenizer = [], None
    for name, table in (("before", events), ("after", told)):
        tables = {"hubs": hubs, "events": table}
        shops.append(prepare_shop(tmp_path / name, tables, keys, tokenizer))
        tokenizer = shops[0].tokenizer
    for split in ("train", "val"):
        a, b = (s.mixture.masked_tables(0, split) for s in shops)
        assert np.array_equal(a, b)
    for shop in shops:
        assert not shop.column("events", "note").seen
        assert shop.column("events", "amount").seen
        assert shop.mixture.link_keys(0, "train").sum() == 0  # one parent: nothing to choose from
        assert shop.mixture.link_keys(0, "val").sum() == 1
    a, b = (PretrainBatches(s.mixture, small_batches(), 3, "train") for s in shops)
    for index in range(4):
        assert differing(a[index], b[index]) == []
    asked = set()
    for shop in shops:
        for index in range(4):
            batch = PretrainBatches(shop.mixture, small_batches(), 3, "val", 4)[index]
            assert (batch.links.allowed.sum(1) > 1).all()
            assert batch.texts.column.numel() == 0
            asked |= {shop.mixture.columns[c][2] for c in batch.values.column.tolist()}
    assert "amount" in asked
    assert "note" not in asked


@pytest.mark.parametrize("name", ["shop", "0"])
def test_kinds_vocabulary_and_statistics_come_from_training_rows(tmp_path: Path, name: str) -> None:
    folder = make_database(tmp_path, name)
    moment = np.datetime64(open_database(folder).val_timestamp, "s").astype(str)
    replace_rows_after(folder, tmp_path / "noise" / folder.name, moment)
    before = open_all([folder], tmp_path / "cache")
    after = open_all([tmp_path / "noise" / folder.name], tmp_path / "other cache")
    assert before.databases[0].kinds == after.databases[0].kinds
    assert before.tokenizer.backend.to_str() == after.tokenizer.backend.to_str()
    for a, b in zip(before.mixture.stores[0].tables, after.mixture.stores[0].tables, strict=True):
        assert [column_entry(c) for c in a.columns] == [column_entry(c) for c in b.columns]


def test_statistics_are_those_of_training_rows(tmp_path: Path) -> None:
    shop = prepare_shop(tmp_path)
    for table, time, column in [("orders", "at", "amount"), ("reviews", "written", "stars")]:
        frame = shop.tables[table]
        values = frame[column].astype(float)
        training, everything = (
            fit_column_stats(v.to_numpy()) for v in (values[frame[time] <= VAL], values)
        )
        stored = shop.column(table, column).stats
        assert (stored.center, stored.scale) == (training.center, training.scale)
        assert np.array_equal(stored.knot_z, training.knot_z)
        assert np.array_equal(stored.marginal, training.marginal)
        assert stored.center != everything.center


def test_no_row_is_later_than_its_seed_time(corpus: Corpus, drawn: list[Drawn]) -> None:
    static = timed = 0
    for batch, component in components(drawn):
        times = np.array(corpus.mixture.stores[component.source].graph.row_time[component.rows])
        fixed = times == STATIC
        assert (times <= component.time).all()
        age = np.where(fixed, 0, component.time - np.where(fixed, 0, times)) / 86_400
        assert np.array_equal(batch.batch.age[component.nodes], age.astype(np.float32))
        assert np.array_equal(batch.batch.static[component.nodes], fixed)
        static, timed = static + int(fixed.sum()), timed + int((~fixed).sum())
    assert min(static, timed) > 1000


def test_seed_times_lie_in_their_split(corpus: Corpus, drawn: list[Drawn]) -> None:
    for batch, component in components(drawn):
        store = corpus.mixture.stores[component.source]
        if batch.split == "train":
            assert component.time <= store.val_timestamp
        else:
            assert store.val_timestamp < component.time <= store.test_timestamp


def test_static_rows_are_visible_at_any_time(tmp_path: Path) -> None:
    shop = prepare_shop(tmp_path)
    frame = shop.tables["customers"]
    child = int(np.flatnonzero(frame["referred_by"].notna())[0])
    parent = int(frame["referred_by"][child])
    graph = shop.store.graph
    seeds = Seeds.at([shop.row("customers", child)], 0)
    rows = sample(graph, seeds, fan_outs(graph, [100]), "last").row
    assert shop.row("customers", parent) in rows
    assert {graph.tables[t] for t in graph.table_of(rows)} == {"customers"}


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.parametrize("name", ["rel-f1", "sakila", "se-history-meta"])
def test_replacing_the_future_of_a_real_database_changes_no_training_batch(
    tmp_path: Path, real_data: Path, name: str
) -> None:
    folder = real_data / name
    if not folder.is_dir():
        pytest.skip(f"no {name} in {real_data}")
    moment = np.datetime64(open_database(folder).val_timestamp, "s").astype(str)
    assert replace_rows_after(folder, tmp_path / name, moment) > 100
    before = open_all([folder], tmp_path / "cache")
    after = open_all([tmp_path / name], tmp_path / "other cache")
    assert before.tokenizer.backend.to_str() == after.tokenizer.backend.to_str()
    a, b = (PretrainBatches(c.mixture, small_batches(), 0, "train") for c in (before, after))
    for index in range(20):
        assert differing(a[index], b[index]) == []
