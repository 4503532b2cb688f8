"""A frozen row encoder: its row states are cached, and it stays as it is."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import torch

from rfm.data.batch import Batch
from rfm.data.corpus import Corpus
from rfm.eval.row_cache import RowStateCache, cache_rows
from rfm.nn.model import RelationalModel
from tests.batches import bits
from tests.tiny_model import MAX_TOKENS, tiny_batches, tiny_model
from tests.tiny_run import last_state, run


def test_a_frozen_row_encoder_is_cached_once(tiny_cache: Path, tmp_path: Path) -> None:
    words = ("model.row_encoder.frozen=true", "model.row_encoder.max_positions=64")
    run(tiny_cache, tmp_path / "a", *words)
    files = {p: p.stat().st_mtime_ns for p in (tiny_cache / "row_states").glob("*.f2")}
    assert len(files) >= 2
    run(tiny_cache, tmp_path / "b", *words)
    again = {p: p.stat().st_mtime_ns for p in (tiny_cache / "row_states").glob("*.f2")}
    assert again == files
    first, last = last_state(tmp_path / "a", 4), last_state(tmp_path / "b", 4)
    assert first["current_model_state"].keys() == last["current_model_state"].keys()
    run(tiny_cache, tmp_path / "c", *words, "batch.max_tokens=24")  # other rows, other states
    assert len(list((tiny_cache / "row_states").glob("*.f2"))) > len(files)


def test_building_the_cache_leaves_no_trace(tiny_cache: Path, tmp_path: Path) -> None:
    """A run that finds the cache trains on the same, although the encoder has dropout."""
    words = ("model.row_encoder.frozen=true", "model.row_encoder.dropout=0.3")
    for name in ("cold", "warm"):
        run(tiny_cache, tmp_path / name, *words, f"data.cache={tmp_path / 'cache'}")
    cold, warm = (last_state(tmp_path / name, 4)["state_dict"] for name in ("cold", "warm"))
    assert not [name for name in cold if not torch.equal(cold[name], warm[name])]


def test_training_leaves_a_frozen_encoder_as_it_is(tiny_cache: Path, tmp_path: Path) -> None:
    words = ("model.row_encoder.frozen=true", "optim.ema=0", "log.checkpoint_every=1")
    run(tiny_cache, tmp_path / "a", *words)
    before, after = (last_state(tmp_path / "a", step)["state_dict"] for step in (3, 4))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("bart.decoder.layers" in name for name in moved)
    assert any("sage" in name for name in moved)
    fixed = ("bart.encoder.", "bart.shared.", "row_encoder.role.", "row_encoder.value.")
    assert not [name for name in moved if any(part in name for part in fixed)]


def test_cached_states_are_those_of_live_encoding(tiny_corpus: Corpus, tmp_path: Path) -> None:
    model = tiny_model(tiny_corpus, frozen=True)
    cache = cached(model, tiny_corpus, tmp_path)
    live = tiny_batches(tiny_corpus, "val")
    with_cache = type(live)(live.mixture, live.config, 0, "val", 2, cache)
    for i in range(4):
        a, b = live[i], with_cache[i]
        assert len(b.buckets) == 1
        assert b.cached.state.shape[0] + b.buckets[0].token.shape[0] == sum(
            bucket.token.shape[0] for bucket in a.buckets
        )
        assert bits(a.links) == bits(b.links)
        with torch.no_grad():
            rows = [model.backbone.encode(batch).row[batch.row] for batch in (a, b)]
            torch.testing.assert_close(rows[1], rows[0], rtol=2e-3, atol=2e-3)
            assert_same_cells(model, a, b)
            outputs = [model(batch) for batch in (a, b)]
        for name in ("value_loss", "text_nats", "link_loss"):
            x, y = (getattr(output, name) for output in outputs)
            torch.testing.assert_close(y, x, rtol=5e-3, atol=5e-3)


def test_the_cache_is_named_by_weights_and_data(tiny_corpus: Corpus, tmp_path: Path) -> None:
    model = tiny_model(tiny_corpus, frozen=True)
    first = cached(model, tiny_corpus, tmp_path)
    for files, store in zip(first.files, tiny_corpus.mixture.stores, strict=True):
        for t, table in enumerate(store.tables):
            size = table.num_rows * (1 + len(table.columns)) * first.width
            assert np.memmap(files[t], dtype="<f2").size == size
    with torch.no_grad():
        model.backbone.row_encoder.bart.decoder.layers[0].fc1.weight += 1
    assert cached(model, tiny_corpus, tmp_path) == first
    with torch.no_grad():
        model.backbone.row_encoder.value.layers[0].weight += 1
    other = cached(model, tiny_corpus, tmp_path)
    assert not {*other.files[0].values()} & {*first.files[0].values()}


def test_tables_may_be_left_out(tiny_corpus: Corpus, tmp_path: Path) -> None:
    store = tiny_corpus.mixture.stores[0]
    left = store.tables[1].name
    cache = cached(tiny_model(tiny_corpus, frozen=True), tiny_corpus, tmp_path, [left])
    rows = np.arange(store.num_rows)
    has, starts = cache.has(0, rows), store.graph.table_start
    assert not has[starts[1] : starts[2]].any()
    assert has.sum() == store.num_rows - store.tables[1].num_rows
    some = rows[has][::-7]  # in no order
    one_by_one = np.concatenate([cache(0, row[None]).state for row in some[:20]])
    np.testing.assert_array_equal(cache(0, some).state[:20], one_by_one)


def assert_same_cells(model: RelationalModel, live: Batch, cached: Batch) -> None:
    """What masks may read is the same, row by row and cell by cell."""
    found = []
    for batch in (live, cached):
        cells = model.backbone.encode(batch).cells
        node = torch.full((int(batch.row.max()) + 1,), -1)
        node[batch.row.flip(0)] = torch.arange(batch.row.shape[0]).flip(0)  # the first of each row
        order = np.lexsort((*cells.name.half().numpy().T, node[cells.row].numpy()))
        found.append((node[cells.row][order], cells.state[order], cells.feature[order]))
    (nodes, states, features), (nodes_b, states_b, features_b) = found
    assert nodes.tolist() == nodes_b.tolist()
    torch.testing.assert_close(states_b, states, rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(features_b, features)


def cached(
    model: RelationalModel, corpus: Corpus, folder: Path, but: Collection[str] = ()
) -> RowStateCache:
    mixture = corpus.mixture
    encoder = model.backbone.row_encoder
    return cache_rows(encoder, mixture.stores, mixture.ids, folder, MAX_TOKENS, but)
