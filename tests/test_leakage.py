"""What a batch must not know: the future and its masked cells (links: test_leakage_links)."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from rfm.data import assemble as assemble_module
from rfm.data.column_stats import fit_column_stats
from rfm.data.database import open_database
from rfm.data.draws import draw_context_masks, present_cells
from rfm.data.graph import STATIC
from rfm.data.mixture import Mixture, PretrainBatches
from rfm.data.sampler import Seeds, fan_outs, sample
from rfm.data.serialise import MASKED, ROLE_MASK
from rfm.data.store import RowStore, Serialisation, column_entry
from rfm.nn.cell_attention import Reading
from tests.batches import Component, Drawn, Shown, differing, draw, shown_rows
from tests.corpora import Corpus, components, draw_batches, make_database, open_all, three_databases
from tests.noise import replace_rows_after
from tests.shop import VAL, prepare_shop, small_batches

Ints = npt.NDArray[np.int64]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return three_databases(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def drawn(corpus: Corpus) -> list[Drawn]:
    return draw_batches(corpus)


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


# Masked cells.


def test_no_row_is_twice_in_a_component(drawn: list[Drawn]) -> None:
    for _, component in components(drawn):
        assert np.unique(component.rows).size == component.rows.size
        assert component.rows[0] == component.seeds.row[component.seed]


def test_masks_read_the_cells_of_their_own_component_alone(drawn: list[Drawn]) -> None:
    """Nothing later than the seed time, and nothing that another seed may see: what attention
    brings to a mask are the cells of the rows of its component, or of its row without edges."""
    checked = 0
    for one in drawn:
        batch = one.batch
        owner = np.full(batch.row.numel(), -1)
        for i, component in enumerate(one.components()):
            assert (batch.component[component.nodes] == i).all()
            owner[component.nodes] = i
        assert (owner >= 0).all()
        nothing_masked = torch.unique(batch.row)  # a cell in every row
        for view, owns in ((batch, owner), (batch.without_edges(), np.arange(owner.size))):
            readings = Reading.of(view.component, view.row, nothing_masked, view.mask_node)
            for masks, nodes in (g for r in readings for g in zip(r.mask, r.node, strict=True)):
                asked = view.mask_node[masks[masks > 0] - 1]
                read = nodes[nodes > 0] - 1
                assert set(owns[read.numpy()]) == set(owns[asked.numpy()])
                checked += read.numel()
    assert checked > 5_000


def masked_columns(component: Component) -> Ints:
    return np.flatnonzero(component.draw.fate[component.seed] == MASKED)


def test_a_masked_cell_is_nowhere_in_its_component(corpus: Corpus, drawn: list[Drawn]) -> None:
    """Texts and amounts of the shop are unique to their row, so that they can be searched for."""
    store = corpus.mixture.stores[0]
    hidden, found = Counter[str](), Counter[str]()
    for batch in drawn:
        shown = shown_rows(batch.batch)
        for component in batch.components():
            if component.source != 0 or component.part != "masked":
                continue
            read = [shown[i] for i in batch.batch.row[component.nodes]]
            t = int(store.graph.table_of(component.rows[0]))
            masked = masked_columns(component)
            for c, column in enumerate(store.tables[t].columns):
                if column.name not in ("name", "title", "note", "body", "price", "amount", "stars"):
                    continue
                if is_median(store, int(component.rows[0]), c):
                    continue  # z = 0, which other columns have too
                seen = [holds(row, store, int(component.rows[0]), c) for row in read]
                if c in masked:
                    assert not any(seen), column.name
                    hidden[column.name] += 1
                else:
                    assert not any(seen[1:]), column.name
                    found[column.name] += seen[0]
    assert len(hidden) == len(found) == 7
    assert min(found.values()) > 1


def is_median(store: RowStore, row: int, c: int) -> bool:
    t = int(store.graph.table_of(row))
    table, local = store.tables[t], np.array([row - int(store.graph.table_start[t])])
    return bool(table.columns[c].is_value and table.values(local, c)[0] == 0)


def holds(shown: Shown, store: RowStore, row: int, c: int) -> bool:
    """Whether what is shown has the content of a cell: its text's first tokens, or its value."""
    t = int(store.graph.table_of(row))
    table, local = store.tables[t], row - int(store.graph.table_start[t])
    if not table.columns[c].is_value:
        text = table.text(local, c).tolist()
        return bool(text) and shown.spells(text[:4])
    z = table.values(np.array([local]), c)[0]
    return bool(np.isin(np.arcsinh(z), shown.features[:, 1]))


@pytest.mark.parametrize("source", [0, 1, 2])
def test_the_content_of_masked_cells_changes_only_the_targets(corpus: Corpus, source: int) -> None:
    """One masked row per batch; its masked cells are given other values and texts."""
    store = corpus.mixture.stores[source]
    config = small_batches(masked_groups=1, masked_seeds=1, link_groups=0, max_texts=10_000)
    ranks = texts = 0
    for index in range(40):
        mixture = Mixture([store], corpus.tokenizer, 0.5, {})
        first = draw(PretrainBatches(mixture, config, 2, "train"), index)
        (component,) = first.components()
        changed = with_other_content(
            store, {(int(component.rows[0]), int(c)) for c in masked_columns(component)}
        )
        mixture = Mixture([changed], corpus.tokenizer, 0.5, {})
        second = draw(PretrainBatches(mixture, config, 2, "train"), index)
        paths = differing(first.batch, second.batch)
        assert set(paths) <= {".values.rank", ".texts.given", ".texts.label"}
        ranks += ".values.rank" in paths
        texts += ".texts.label" in paths
    assert ranks > 10
    assert texts > (2 if source == 0 else 0)


def with_other_content(store: RowStore, cells: set[tuple[int, int]]) -> RowStore:
    """The store with other content in some (global row, column) cells: another value or text."""
    tables = [dataclasses.replace(t, cells=np.array(t.cells)) for t in store.tables]
    for row, c in cells:
        t = int(store.graph.table_of(row))
        table, local = tables[t], row - int(store.graph.table_start[t])
        if table.columns[c].is_value:
            z = table.cells[local, c : c + 1].view(np.float32)
            z += np.float32(0.7)
        else:
            table.cells[local, c] = (table.cells[local, c] + 1) % (table.text_ptr.size - 1)
    return dataclasses.replace(store, tables=tuple(tables))


@dataclasses.dataclass
class ContextMasks:
    """Records what ``draw_context_masks`` decided."""

    cells: dict[tuple[str, int], set[int]] = dataclasses.field(default_factory=dict)

    def __call__(
        self, store: RowStore, rows: Ints, share: float, rng: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        fate = draw_context_masks(store, rows, share, rng)
        for row, own in zip(rows, fate, strict=True):
            self.cells[store.name, int(row)] = set(np.flatnonzero(own == MASKED).tolist())
        return fate


def test_value_features_are_those_of_visible_cells_alone(corpus: Corpus) -> None:
    """In masked rows and in context rows with masked cells, every row of every component."""
    config = small_batches(context_masking=0.4, max_tokens=200)
    batches = PretrainBatches(corpus.mixture, config, 4, "train")
    masked_values = 0
    for index in range(4):
        recorded = ContextMasks()
        with mock.patch.object(assemble_module, "draw_context_masks", recorded):
            drawn = draw(batches, index)
        shown = shown_rows(drawn.batch)
        for component in drawn.components():
            store = corpus.mixture.stores[component.source]
            for i, (row, node) in enumerate(zip(component.rows, component.nodes, strict=True)):
                if i == 0 and component.part == "masked":
                    masked = set(masked_columns(component).tolist())
                else:
                    masked = recorded.cells[store.name, int(row)]
                read = shown[int(drawn.batch.row[node])]
                expected = visible_values(store, int(row), masked)
                assert Counter(read.features[:, 1].tolist()) == Counter(expected)
                assert read.roles.count(ROLE_MASK) == len(masked)
                masked_values += len(masked)
    assert masked_values > 300


def visible_values(store: RowStore, row: int, masked: set[int]) -> list[float]:
    t = int(store.graph.table_of(row))
    table, local = store.tables[t], np.array([row - int(store.graph.table_start[t])])
    z = [table.values(local, c)[0] for c in np.flatnonzero(table.is_value) if c not in masked]
    return [float(np.arcsinh(v)) for v in z if not np.isnan(v)]


def test_the_content_of_masked_context_cells_changes_only_the_targets(corpus: Corpus) -> None:
    store = corpus.mixture.stores[0]
    config = small_batches(context_masking=0.5)
    changed_ranks = 0
    for index in range(6):
        recorded = ContextMasks()
        mixture = Mixture([store], corpus.tokenizer, 0.5, {})
        with mock.patch.object(assemble_module, "draw_context_masks", recorded):
            first = draw(PretrainBatches(mixture, config, 2, "train"), index)
        seeds = {int(c.rows[0]) for c in first.components() if c.part == "masked"}
        cells = {
            (row, c) for (_, row), own in recorded.cells.items() for c in own if row not in seeds
        }
        assert len(cells) > 10
        mixture = Mixture([with_other_content(store, cells)], corpus.tokenizer, 0.5, {})
        paths = differing(first.batch, PretrainBatches(mixture, config, 2, "train")[index])
        assert set(paths) <= {".values.rank"}
        changed_ranks += bool(paths)
    assert changed_ranks == 6


def test_null_cells_and_times_are_never_masked(corpus: Corpus, drawn: list[Drawn]) -> None:
    for _, component in components(drawn, "masked"):
        store = corpus.mixture.stores[component.source]
        t = int(store.graph.table_of(component.rows[0]))
        present = present_cells(store, t, component.rows[:1])[0]
        assert present[masked_columns(component)].all()
        assert len(masked_columns(component)) > 0 or not present.any()


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
