"""Batches of a mixture: a function of seed and index, weights, and what validation asks."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.config import load_config
from rfm.data.mixture import BatchConfig, Mixture, PretrainBatches
from rfm.data.serialise import serialise
from tests.batches import differing, draw, shown_rows
from tests.corpora import Corpus, three_databases
from tests.shop import prepare_shop, small_batches


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return three_databases(tmp_path_factory.mktemp("corpus"))


def batches(corpus: Corpus, seed: int = 0, split: Any = "train", **changes: Any) -> PretrainBatches:
    return PretrainBatches(corpus.mixture, small_batches(**changes), seed, split, 3)


def test_a_batch_is_a_function_of_seed_and_index(corpus: Corpus) -> None:
    first = [batches(corpus)[i] for i in range(5)]
    again = batches(corpus)
    backwards = {i: again[i] for i in reversed(range(5))}
    copied = pickle.loads(pickle.dumps(again))
    for i in range(5):
        assert differing(first[i], backwards[i]) == []
        assert differing(first[i], copied[i]) == []
        assert differing(first[i], batches(corpus, seed=1)[i]) != []
    assert len({b.row.numpy().tobytes() for b in first}) == 5


def test_validation_batches_are_not_training_batches(corpus: Corpus) -> None:
    assert differing(batches(corpus)[0], batches(corpus, split="val")[0]) != []


def test_chance_of_the_surroundings_changes_nothing(corpus: Corpus) -> None:
    first = batches(corpus)[7]
    np.random.seed(123)  # noqa: NPY002
    assert differing(first, batches(corpus)[7]) == []


def test_validation_asks_one_database_after_the_other(corpus: Corpus) -> None:
    val = batches(corpus, split="val")
    assert len(val) == 9
    for index in range(9):
        sources = {c.source for c in draw(val, index).components()}
        assert sources == {index // 3}


def test_validation_has_marginals_and_whole_context_rows(corpus: Corpus) -> None:
    train, val = batches(corpus)[0], batches(corpus, split="val")[0]
    assert train.texts.marginal.isnan().all()
    assert val.texts.marginal.numel() > 0
    assert (val.texts.marginal > 0).all()
    assert sum(b.mask_at.numel() for b in val.buckets[1:]) == 0
    assert sum(b.mask_at.numel() for b in train.buckets[1:]) > 0


@pytest.mark.parametrize(("split", "kept"), [("train", False), ("val", True)])
def test_columns_are_shuffled_in_training_only(corpus: Corpus, split: Any, kept: bool) -> None:
    one = draw(batches(corpus, split=split, context_masking=0.0), 1)
    shown, same = shown_rows(one.batch), []
    for component in one.components():
        store = corpus.mixture.stores[component.source]
        plain = serialise(
            store, component.rows[1:], np.zeros((component.rows.size - 1, 0), np.uint8),
            corpus.mixture.ids, 48, shuffle_key=0,
        )  # fmt: skip
        for i, node in enumerate(component.nodes[1:]):
            row = plain.token[i, : plain.length[i]].tolist()
            same.append(shown[int(one.batch.row[node])].tokens == row)
    assert len(same) > 50
    assert all(same) == kept


def test_training_batches_mix_databases_by_weight(corpus: Corpus) -> None:
    mixture = corpus.mixture
    assert mixture.weights.sum() == pytest.approx(1)
    train = PretrainBatches(mixture, small_batches(masked_seeds=1, link_queries=1), 0, "train")
    counts: Counter[int] = Counter()
    for index in range(150):
        one = draw(train, index)
        counts.update(s for s, _ in [*one.masked, *one.links])
    share = np.array([counts[s] for s in range(3)]) / counts.total()
    assert np.abs(share - mixture.weights).max() < 0.07


def test_temperature_and_weights(corpus: Corpus) -> None:
    stores, tokenizer = corpus.mixture.stores, corpus.tokenizer
    rows = np.array(
        [
            sum(len(i.split(t, "train")) for t in range(len(i.store.tables)))
            for i in corpus.mixture.indexes
        ]
    )
    assert np.allclose(Mixture(stores, tokenizer, 1.0, {}).weights, rows / rows.sum())
    assert np.allclose(Mixture(stores, tokenizer, 0.0, {}).weights, 1 / 3)
    doubled = Mixture(stores, tokenizer, 0.0, {"shop": 2.0}).weights
    assert np.allclose(doubled, [0.5, 0.25, 0.25])
    with pytest.raises(ValueError, match=r"unknown databases \['shp'\]; the mixture has \['shop'"):
        Mixture(stores, tokenizer, 0.5, {"shp": 1.0})
    with pytest.raises(ValueError, match="no database of the mixture has a training row"):
        Mixture(stores, tokenizer, 0.5, {s.name: 0.0 for s in stores})


def test_tables_are_drawn_by_size_and_need_cells(corpus: Corpus) -> None:
    mixture = corpus.mixture
    names = mixture.stores[0].graph.tables
    share = dict(zip(names, mixture.masked_tables(0, "train"), strict=True))
    assert share["items"] == 0  # keys alone
    assert all(share[t] > 0 for t in names if t != "items")
    val = dict(zip(names, mixture.masked_tables(0, "val"), strict=True))
    assert val["customers"] == 0  # static
    assert val["orders"] > val["products"] > 0


def test_foreign_keys_to_a_single_row_are_not_cut(tmp_path: Path) -> None:
    tables = {
        "one": pd.DataFrame({"id": [0]}),
        "two": pd.DataFrame({"id": [0, 1]}),
        "c": pd.DataFrame({"x": [0, 0, 0], "y": [0, 1, 0]}),
    }
    keys = {"one": {"pkey": "id"}, "two": {"pkey": "id"}, "c": {"fkeys": {"x": "one", "y": "two"}}}
    mixture = prepare_shop(tmp_path, tables, keys).mixture
    share = dict(zip([r[2] for r in mixture.relations], mixture.link_keys(0, "train"), strict=True))
    assert share == {"x": 0.0, "y": 1.0}


def test_ids_of_columns_and_foreign_keys(corpus: Corpus) -> None:
    mixture = corpus.mixture
    assert len(set(mixture.columns)) == len(mixture.columns)
    assert mixture.columns[0][:2] == ("shop", "customers")
    assert len(mixture.relations) == sum(len(s.graph.foreign_keys) for s in mixture.stores)
    for s, source in enumerate(mixture.sources):
        store = mixture.stores[s]
        for t, table in enumerate(store.tables):
            for c, column in enumerate(table.columns):
                named = mixture.columns[source.column_start[t] + c]
                assert named == (store.name, table.name, column.name)
        for f, key in enumerate(store.graph.foreign_keys):
            named = mixture.relations[source.relation_start + f]
            assert named == (store.name, store.graph.tables[key.child], key.column)


def test_components_stay_within_max_rows(corpus: Corpus) -> None:
    limited = batches(corpus, max_rows=9)
    sizes = [c.rows.size for i in range(4) for c in draw(limited, i).components()]
    assert max(sizes) == 9


def test_fan_out_of_one_foreign_key(corpus: Corpus) -> None:
    closed = {"shop/orders.customer": [0, 0]}
    graph = corpus.mixture.stores[0].graph
    f = [k.column for k in graph.foreign_keys].index("customer")
    seen = 0
    for changes, expected in [({}, True), ({"fan_out_of": closed}, False)]:
        train = batches(corpus, link_groups=0, max_rows=0, **changes)
        for index in range(6):
            for source, masked in draw(train, index).masked:
                if source == 0:
                    found = (masked.subgraph.edge_type == 2 * f).sum()
                    seen += int(found) if expected else 0
                    assert expected or found == 0
    assert seen > 10
    with pytest.raises(ValueError, match=r"unknown foreign key 'orders\.custmer'"):
        batches(corpus, fan_out_of={"shop/orders.custmer": [1, 1]})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fan_out=[4]", "one number per hop"),
        ("masked_groups=0 link_groups=0", "a batch must ask something"),
        ("context_masking=1", "context_masking"),
        ("max_tokens=7", "max_tokens"),
        ("masked_seeds=0", "masked_seeds"),
    ],
)
def test_settings_that_make_no_batch(word: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(BatchConfig, word.split(), prog="x", doc=None)
