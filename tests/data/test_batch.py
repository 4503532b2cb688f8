"""From draws to a batch: buckets, distinct rows, targets in their places, empty parts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from rfm.data.batch import PretrainBatch, make_buckets, pad_tokens
from rfm.data.cached import EncodedRows
from rfm.data.mixture import PretrainBatches
from rfm.data.serialise import NUM_FEATURES, ROLE_MASK, ROLE_NAME, TokenRows
from rfm.data.tokenizer import EOS
from tests.batches import Drawn, bits, differing, draw, shown_rows, tensors
from tests.corpora import Corpus, three_databases
from tests.shop import Shop, prepare_shop, small_batches


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return three_databases(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def drawn(corpus: Corpus) -> list[Drawn]:
    batches = PretrainBatches(corpus.mixture, small_batches(max_tokens=100), 0, "train")
    return [draw(batches, i) for i in range(6)]


# Buckets.


def token_rows(lengths: list[int]) -> TokenRows:
    """Rows of given lengths; each has a value at its second place and a masked one at its third."""
    n, width = len(lengths), max(lengths)
    length = np.array(lengths, dtype=np.int32)
    token = np.arange(n * width, dtype=np.int32).reshape(n, width) + 100
    feature = np.full((n, width), -1, dtype=np.int32)
    feature[:, 1] = np.arange(n)
    role = (token % 4).astype(np.uint8)
    role[:, 2] = ROLE_MASK
    features = np.repeat(np.arange(n, dtype=np.float32)[:, None], NUM_FEATURES, axis=1)
    return TokenRows(
        token, role, np.zeros((n, width), np.int16), feature, features, length
    )  # fmt: skip


@pytest.mark.parametrize("min_rows", [1, 5, 40, 1000])
@pytest.mark.parametrize("num_masked", [0, 7, 200])
def test_buckets_hold_every_row_once(min_rows: int, num_masked: int) -> None:
    rng = np.random.default_rng(0)
    rows = token_rows(rng.integers(3, 61, 200).tolist())
    buckets, place = make_buckets(rows, num_masked, min_rows)
    assert sorted(place) == list(range(200))
    assert buckets[0].token.shape[0] == num_masked
    assert place[:num_masked].tolist() == list(range(num_masked))
    assert all(b.token.shape[0] >= min_rows for b in buckets[1:-1])
    at = np.concatenate([[0], np.cumsum([b.token.shape[0] for b in buckets])])
    for row in range(200):
        k = int(np.searchsorted(at, place[row], side="right")) - 1
        bucket, i = buckets[k], int(place[row] - at[k])
        width, n = bucket.token.shape[1], int(rows.length[row])
        assert bucket.real[i].tolist() == [True] * n + [False] * (width - n)
        assert bucket.token[i, :n].tolist() == rows.token[row, :n].tolist()
        assert bucket.role[i, :n].tolist() == rows.role[row, :n].tolist()
        value = (bucket.value_at == i * width + 1).nonzero()[0, 0]
        assert (bucket.value[value] == row).all()
        assert i * width + 2 in bucket.mask_at.tolist()


def test_buckets_are_no_wider_than_they_must() -> None:
    rng = np.random.default_rng(1)
    rows = token_rows(rng.integers(3, 61, 400).tolist())
    buckets, _ = make_buckets(rows, 0, 1)
    assert len(buckets) == 30  # the empty one of masked rows, and one per even number
    for bucket in buckets[1:]:
        lengths = bucket.real.sum(1)
        assert bucket.token.shape[1] == lengths.max()
        assert lengths.max() - lengths.min() < 2


def test_no_rows_make_one_empty_bucket() -> None:
    rows = token_rows([5, 6, 7])
    none = dataclasses.replace(
        rows,
        **{f.name: getattr(rows, f.name)[:0] for f in dataclasses.fields(rows)},
    )
    buckets, place = make_buckets(none, 0, 4)
    assert (len(buckets), place.size) == (1, 0)
    assert buckets[0].token.shape == (0, 1)


def test_pad_tokens() -> None:
    assert pad_tokens([[1, 2], [], [3]], 9).tolist() == [[1, 2], [9, 9], [3, 9]]
    assert pad_tokens([], 9).shape == (0, 1)


# Batches.


def test_each_distinct_row_is_there_once(corpus: Corpus, drawn: list[Drawn]) -> None:
    for one in drawn:
        rows = sum(b.token.shape[0] for b in one.batch.buckets)
        masked = sum(d.seeds.row.size for _, d in one.masked)
        others: dict[tuple[int, int], set[int]] = {}
        for component in one.components():
            for i, (row, node) in enumerate(zip(component.rows, component.nodes, strict=True)):
                if i > 0 or component.part != "masked":
                    others.setdefault((component.source, int(row)), set()).add(
                        int(one.batch.row[node])
                    )
        assert all(len(places) == 1 for places in others.values())
        assert rows == masked + len(others)
        assert one.batch.row.max() == rows - 1
        assert one.batch.buckets[0].token.shape[0] == masked
        seeds = [c.seeds.row.size for c in one.components()]
        assert one.batch.num_seeds == len(seeds)


def test_nodes_show_their_own_rows(corpus: Corpus, drawn: list[Drawn]) -> None:
    """The tokens of each node begin with its table and name its columns."""
    for one in drawn:
        shown = shown_rows(one.batch)
        for component in one.components():
            store = corpus.mixture.stores[component.source]
            for row, node in zip(component.rows, component.nodes, strict=True):
                table = store.tables[int(store.graph.table_of(row))]
                read = shown[int(one.batch.row[node])]
                name = list(table.name_tokens[:8])
                assert read.tokens[1 : 1 + len(name)] == name
                names = [t for c in table.columns for t in c.name_tokens]
                in_names = [
                    t for t, r in zip(read.tokens, read.roles, strict=True) if r == ROLE_NAME
                ]
                assert set(in_names) <= set(names)


def test_value_targets_stand_at_masks_of_the_buckets(corpus: Corpus, drawn: list[Drawn]) -> None:
    """A target's mask stands in the row that its node shows, after the name of its column."""
    checked = 0
    for one in drawn:
        batch, mask, first = one.batch, 0, 0
        target = {m: k for k, m in enumerate(batch.values.mask.tolist())}
        texts = set(batch.texts.mask.tolist())
        assert not texts & target.keys()
        where = {
            int(n): (c.source, int(r))
            for c in one.components()
            for n, r in zip(c.nodes, c.rows, strict=True)
        }
        for bucket in batch.buckets:
            width = bucket.token.shape[1]
            for flat in bucket.mask_at.tolist():
                i, position = divmod(flat, width)
                assert bucket.role[i, position] == ROLE_MASK
                assert batch.row[batch.mask_node[mask]] == first + i
                k, mask = target.get(mask, -1), mask + 1
                if k < 0:
                    continue  # a text
                node, column_id = int(batch.values.node[k]), int(batch.values.column[k])
                assert batch.row[node] == first + i
                _, table, name = corpus.mixture.columns[column_id]
                source, row = where[node]
                store = corpus.mixture.stores[source]
                t = store.graph.tables.index(table)
                assert t == store.graph.table_of(row)
                c = [c.name for c in store.tables[t].columns].index(name)
                column = store.tables[t].columns[c]
                spelled = bucket.token[i, position - len(column.name_tokens) : position]
                assert spelled.tolist() == list(column.name_tokens)
                z = store.tables[t].values(np.array([row - store.graph.table_start[t]]), c)
                assert batch.values.rank[k] == column.stats.rank(z)[0]
                assert np.array_equal(batch.values.marginal[k], column.stats.marginal)
                checked += 1
            first += bucket.token.shape[0]
        assert mask == batch.mask_node.numel() >= len(target) + len(texts)
    assert checked > 100


def test_text_targets_are_the_masked_texts(corpus: Corpus, drawn: list[Drawn]) -> None:
    end, checked = corpus.tokenizer.id(EOS), 0
    for one in drawn:
        texts = one.batch.texts
        where = {
            int(c.nodes[0]): (c.source, int(c.rows[0]))
            for c in one.components()
            if c.part == "masked"
        }
        for k in range(texts.row.numel()):
            source, row = where[int(texts.node[k])]
            assert one.batch.row[texts.node[k]] == texts.row[k]
            assert one.batch.mask_node[texts.mask[k]] == texts.node[k]
            name, table, column = corpus.mixture.columns[int(texts.column[k])]
            store = corpus.mixture.stores[source]
            assert store.name == name
            t = store.graph.tables.index(table)
            c = [c.name for c in store.tables[t].columns].index(column)
            text = store.tables[t].text(row - int(store.graph.table_start[t]), c).tolist()
            label = texts.label[k][texts.label[k] >= 0].tolist()
            assert label == [*text, end][:16]
            prompt = [end, *store.tables[t].columns[c].name_tokens]
            given = texts.given[k][: len(prompt) + len(label) - 1].tolist()
            assert given == [*prompt, *label[:-1]]
            first = int((texts.label[k] >= 0).nonzero()[0, 0])
            assert first == len(prompt) - 1  # the last word of the prompt predicts the first token
            checked += 1
    assert checked > 30


def test_at_most_max_texts_are_decoded(corpus: Corpus) -> None:
    few, many = (
        PretrainBatches(corpus.mixture, small_batches(max_texts=n, link_groups=0), 0, "train")[3]
        for n in (3, 10_000)
    )
    assert many.texts.row.numel() > 3
    assert few.texts.row.numel() == 3
    assert set(few.texts.row.tolist()) <= set(many.texts.row.tolist())


def test_link_targets_point_at_their_seeds(corpus: Corpus, drawn: list[Drawn]) -> None:
    for one in drawn:
        links = one.batch.links
        queries = [c for c in one.components() if c.part == "queries"]
        candidates = [c for c in one.components() if c.part == "candidates"]
        assert links.query.tolist() == [int(c.nodes[0]) for c in queries]
        assert links.candidate.tolist() == [int(c.nodes[0]) for c in candidates]
        assert links.allowed.shape == (len(queries), len(candidates))
        assert links.allowed[torch.arange(len(queries)), links.positive].all()
        for q, component in enumerate(queries):
            store = corpus.mixture.stores[component.source]
            key = store.graph.foreign_keys[component.cut]
            name = list(store.relation_tokens[component.cut])
            spelled = one.batch.relation[links.relation[q]].tolist()
            assert spelled[: len(name)] == name
            kind = corpus.mixture.relations[int(links.kind[q])]
            assert kind == (store.name, store.graph.tables[key.child], key.column)
            own = [c.draw is component.draw for c in candidates]
            assert links.allowed[q].logical_and(~torch.tensor(own)).sum() == 0  # its own group only


def test_edge_types_name_their_foreign_keys(corpus: Corpus, drawn: list[Drawn]) -> None:
    several = 0
    for one in drawn:
        used = sorted({c.source for c in one.components()})
        names = [t for s in used for t in corpus.mixture.stores[s].relation_tokens]
        assert one.batch.relation.shape[0] == len(names)
        for tokens, name in zip(one.batch.relation.tolist(), names, strict=True):
            assert tokens[: len(name)] == list(name)
        assert one.batch.edge_type.max() < 2 * len(names)
        several += len(used) > 1
    assert several > 1


class FakeCache:
    """States of rows that say which row they are; a cell's, if the row has any, is its negative."""

    width = 3

    def __init__(self, corpus: Corpus) -> None:
        self.stores = corpus.mixture.stores

    def __call__(self, source: int, rows: np.ndarray) -> EncodedRows:
        state = np.stack([np.full(rows.size, source), rows, rows], axis=1).astype(np.float32)
        store = self.stores[source]
        with_cells = np.array([bool(table.columns) for table in store.tables])
        last_first = np.flatnonzero(with_cells[store.graph.table_of(rows)])[::-1].copy()
        return EncodedRows(state, last_first, np.zeros_like(last_first), -state[last_first])

    def has(self, source: int, rows: np.ndarray) -> np.ndarray:
        return np.ones(rows.size, dtype=bool)


def test_cached_rows_come_as_states(corpus: Corpus) -> None:
    config = small_batches(context_masking=0.0)
    plain = draw(PretrainBatches(corpus.mixture, config, 0, "train"), 2)
    cached = draw(PretrainBatches(corpus.mixture, config, 0, "train", cache=FakeCache(corpus)), 2)
    encoded = sum(b.token.shape[0] for b in cached.batch.buckets)
    assert encoded == plain.batch.buckets[0].token.shape[0]
    assert differing(plain.batch.buckets[0], cached.batch.buckets[0]) == []
    for component in cached.components():
        for i, (row, node) in enumerate(zip(component.rows, component.nodes, strict=True)):
            place = int(cached.batch.row[node])
            if i == 0 and component.part == "masked":
                assert place < encoded
            else:
                state = cached.batch.cached.state[place - encoded].tolist()
                assert state == [component.source, row, row]
    rows = cached.batch.cached
    assert rows.cell_row.tolist() == sorted(set(rows.cell_row.tolist()))
    torch.testing.assert_close(rows.cell_state, -rows.state[rows.cell_row])


def empty(batch: PretrainBatch) -> set[str]:
    return {at for at, tensor in tensors(batch) if tensor.numel() == 0}


@pytest.mark.parametrize(
    ("changes", "nothing"),
    [
        ({"link_groups": 0}, {".links.query", ".links.candidate", ".links.allowed"}),
        ({"masked_groups": 0, "context_masking": 0.0}, {".values.rank", ".texts.row"}),
    ],
)
def test_parts_that_ask_nothing_are_empty_tensors(
    corpus: Corpus, changes: dict[str, Any], nothing: set[str]
) -> None:
    whole = PretrainBatches(corpus.mixture, small_batches(), 0, "train")[0]
    part = PretrainBatches(corpus.mixture, small_batches(**changes), 0, "train")[0]
    assert nothing <= empty(part)
    assert not nothing & empty(whole)
    kinds = [{at: t.dtype for at, t in tensors(b) if "buckets" not in at} for b in (whole, part)]
    assert kinds[0] == kinds[1]
    ranks = [{at: t.dim() for at, t in tensors(b) if "buckets" not in at} for b in (whole, part)]
    assert ranks[0] == ranks[1]


def test_a_database_of_texts_alone_and_without_links(tmp_path: Path) -> None:
    """No values, no edges, no foreign keys: every tensor is there all the same."""
    frame = pd.DataFrame({"name": [f"name {i}" for i in range(40)]})
    shop = prepare_shop(tmp_path, {"t": frame}, {})
    batch = PretrainBatches(shop.mixture, small_batches(), 0, "train")[0]
    assert {".values.rank", ".edge_type", ".links.query", ".relation"} <= empty(batch)
    assert batch.texts.row.numel() > 0
    assert all(b.value.shape[1] == NUM_FEATURES for b in batch.buckets)


def test_a_database_of_keys_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = {
        "a": pd.DataFrame({"id": range(10)}),
        "b": pd.DataFrame({"x": rng.integers(0, 10, 30), "y": rng.integers(0, 10, 30)}),
    }
    shop: Shop = prepare_shop(
        tmp_path, tables, {"a": {"pkey": "id"}, "b": {"fkeys": {"x": "a", "y": "a"}}}
    )
    batch = PretrainBatches(shop.mixture, small_batches(), 0, "train")[0]
    assert {".values.rank", ".texts.row"} <= empty(batch)
    assert batch.links.query.numel() > 0
    assert batch.buckets[0].token.shape[0] == 0


# Moving and changing batches.


def test_moving_keeps_everything(drawn: list[Drawn]) -> None:
    batch = drawn[0].batch
    doubled = batch.map(lambda tensor: tensor.clone())
    assert type(doubled) is PretrainBatch
    assert differing(batch, doubled) == []
    assert doubled.num_seeds == batch.num_seeds
    there = batch.to("meta")
    assert {str(t.device) for _, t in tensors(there)} == {"meta"}
    assert [at for at, _ in tensors(there)] == [at for at, _ in tensors(batch)]


def test_without_edges(drawn: list[Drawn]) -> None:
    batch = drawn[0].batch
    alone = batch.without_edges()
    assert alone.edge_index.shape == (2, 0)
    assert alone.edge_type.numel() == alone.edge_count.numel() == 0
    assert not alone.links.popularity.any()  # a count of edges
    assert batch.links.popularity.any()
    assert alone.component.unique().numel() == alone.row.numel()  # every node is on its own
    changed = {".component", ".edge_index", ".edge_type", ".edge_count", ".links.popularity"}
    assert set(differing(batch, alone)) == changed


def test_no_tensor_is_left_out_and_none_is_missing(drawn: list[Drawn]) -> None:
    for one in drawn:
        for f in dataclasses.fields(one.batch):
            assert getattr(one.batch, f.name) is not None
        assert len(bits(one.batch)) == len(list(tensors(one.batch)))
