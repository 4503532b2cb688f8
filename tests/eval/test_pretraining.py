"""Validation of pretraining: sums by brute force, marginals, and edges that are really gone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rfm.data.batch import LEVELS, PretrainBatch
from rfm.data.corpus import Corpus
from rfm.data.marginals import TokenMarginals
from rfm.data.times import TimeIndex
from rfm.data.tokenizer import EOS
from rfm.eval.pretraining import OBJECTIVES, ColumnOwners, beats, table, tally
from rfm.nn.model import RelationalModel
from rfm.train.report import summarise
from tests.tiny_model import tiny_batches, tiny_model, without_links, without_texts

MAX_TEXT_TOKENS = 16


@pytest.fixture(scope="module")
def model(tiny_corpus: Corpus) -> RelationalModel:
    return tiny_model(tiny_corpus)


@pytest.fixture(scope="module")
def owners(tiny_corpus: Corpus) -> ColumnOwners:
    mixture = tiny_corpus.mixture
    names = [store.name for store in mixture.stores]
    return ColumnOwners.of(names, mixture.columns, mixture.relations)


@pytest.fixture(scope="module")
def batches(tiny_corpus: Corpus) -> list[PretrainBatch]:
    """Validation batches: two of each database."""
    val = tiny_batches(tiny_corpus, "val")
    found = [val[i] for i in range(len(val))]
    assert sum(b.texts.row.numel() for b in found) > 3
    return found


def sums_by_hand(
    model: RelationalModel, batch: PretrainBatch, corpus: Corpus
) -> dict[tuple[str, str], list[float]]:
    """(database, objective) -> count, model, marginal, without edges; item by item."""
    sums: dict[tuple[str, str], list[float]] = {}
    outputs = [model(batch), model(batch.without_edges())]
    levels = LEVELS.tolist()
    for m, column in enumerate(batch.values.column.tolist()):
        at = sums.setdefault((corpus.mixture.columns[column][0], "value"), [0.0] * 4)
        target = float(batch.values.rank[m])
        marginal = [
            max(level * (target - q), (level - 1) * (target - q))
            for level, q in zip(levels, batch.values.marginal[m].tolist(), strict=True)
        ]
        losses = [float(o.value_loss[m]) for o in outputs]
        for i, x in enumerate([1.0, losses[0], sum(marginal) / len(marginal), losses[1]]):
            at[i] += x
    for x_, column in enumerate(batch.texts.column.tolist()):
        at = sums.setdefault((corpus.mixture.columns[column][0], "text"), [0.0] * 4)
        tokens = float((batch.texts.label[x_] >= 0).sum())
        nats = [float(o.text_nats[x_]) for o in outputs]
        for i, x in enumerate([tokens, nats[0], float(batch.texts.marginal[x_]), nats[1]]):
            at[i] += x
    for q, kind in enumerate(batch.links.kind.tolist()):
        at = sums.setdefault((corpus.mixture.relations[kind][0], "link"), [0.0] * 4)
        scores = [o.link_scores[q].tolist() for o in outputs]
        scores.insert(1, batch.links.popularity.tolist())
        ranks = []
        for score in scores:
            among = [s for s, ok in zip(score, batch.links.allowed[q].tolist(), strict=True) if ok]
            true = score[int(batch.links.positive[q])]
            equal = sum(s == true for s in among) - 1
            ranks.append(1 / (1 + sum(s > true for s in among) + equal / 2))
        for i, x in enumerate([1.0, *ranks]):
            at[i] += x
    return sums


@torch.no_grad()
def test_tally_by_hand(
    model: RelationalModel,
    owners: ColumnOwners,
    batches: list[PretrainBatch],
    tiny_corpus: Corpus,
) -> None:
    unpopular = replace(
        batches[0].links,
        allowed=batches[0].links.allowed.clone(),
        popularity=0 * batches[0].links.popularity,
    )
    unpopular.allowed[:, ::2] = False
    unpopular.allowed[torch.arange(unpopular.positive.numel()), unpopular.positive] = True
    for batch in [*batches, replace(batches[0], links=unpopular)]:
        found = tally(model, batch, owners)
        assert found.dtype == torch.float64
        expected = torch.zeros_like(found)
        for (name, objective), row in sums_by_hand(model, batch, tiny_corpus).items():
            expected[owners.names.index(name), OBJECTIVES.index(objective)] = torch.tensor(row)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert ((found[..., 0] > 0).any(1).sum() == 1).all()  # of one database each


@torch.no_grad()
def test_table_gives_means(
    model: RelationalModel, owners: ColumnOwners, batches: list[PretrainBatch], tiny_corpus: Corpus
) -> None:
    total = torch.stack([tally(model, batch, owners) for batch in batches]).sum(0)
    by_hand: dict[tuple[str, str], list[float]] = {}
    for batch in batches:
        for key, row in sums_by_hand(model, batch, tiny_corpus).items():
            old = by_hand.get(key, [0.0] * 4)
            by_hand[key] = [a + b for a, b in zip(old, row, strict=True)]
    rows = table(total, owners.names)
    assert {(r["database"], r["objective"]) for r in rows} == set(by_hand)
    for row in rows:
        count, *sums = by_hand[row["database"], row["objective"]]
        assert row["items"] == count
        means = [row["model"], row["marginal"], row["without_edges"]]
        assert means == pytest.approx([s / count for s in sums], rel=1e-4)


@torch.no_grad()
def test_what_is_not_asked_is_not_in_the_table(
    model: RelationalModel, owners: ColumnOwners, batches: list[PretrainBatch]
) -> None:
    asked = replace(without_texts(without_links(batches[0])))
    rows = table(tally(model, asked, owners), owners.names)
    assert [(r["database"], r["objective"]) for r in rows] == [(owners.names[0], "value")]


@torch.no_grad()
def test_without_edges_no_neighbour_is_felt(
    model: RelationalModel, batches: list[PretrainBatch]
) -> None:
    """Rows that are not asked may change as they like; with edges it shows."""
    batch = batches[0]
    seeds = torch.cat([batch.values.node, batch.links.query, batch.links.candidate])
    others = torch.ones(batch.row.numel(), dtype=torch.bool)
    others[torch.cat([seeds, batch.texts.node])] = False
    assert others.sum() > 5
    changed = replace(batch, hop=torch.where(others, (batch.hop + 1) % 3, batch.hop))
    a, b = model(batch.without_edges()), model(changed.without_edges())
    for name in ("value_loss", "text_nats", "link_loss"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    with_edges, alone = model.compare(batch)
    assert torch.equal(alone.value_loss, a.value_loss)
    assert torch.equal(with_edges.link_loss, model(batch).link_loss)
    assert (model(batch).link_loss - model(changed).link_loss).abs().max() > 1e-4
    assert (with_edges.link_loss - alone.link_loss).abs().max() > 1e-4


def test_beats_knows_which_way_is_better() -> None:
    def row(objective: str, model: float) -> dict[str, object]:
        return {"objective": objective, "model": model, "marginal": 0.5, "without_edges": 0.5}

    assert beats(row("value", 0.4), "marginal")
    assert not beats(row("text", 0.6), "marginal")
    assert beats(row("link", 0.6), "without_edges")
    assert not beats(row("link", 0.5), "without_edges")
    assert not beats(row("value", math.nan), "marginal")
    summary = summarise([row("link", 0.6), row("link", 0.4), row("value", 0.4)])["validation"]
    assert summary["link"] == {
        "databases": 2, "beats_marginal": 1, "beats_without_edges": 1,
        "over_marginal": pytest.approx((1.2 * 0.8) ** 0.5),
        "over_without_edges": pytest.approx((1.2 * 0.8) ** 0.5),
    }  # fmt: skip
    assert summary["value"]["beats_marginal"] == 1
    assert summary["value"]["over_marginal"] == pytest.approx(0.8)
    assert math.isnan(summarise([row("link", 0.0)])["validation"]["link"]["over_marginal"])


def test_token_marginals_by_hand(tiny_corpus: Corpus) -> None:
    """Counts over the training cells of a column, ends included, smoothed as Witten-Bell does."""
    stores, tokenizer = tiny_corpus.mixture.stores, tiny_corpus.tokenizer
    end, vocab = tokenizer.id(EOS), len(tokenizer)
    marginals = TokenMarginals(stores, vocab, end, MAX_TEXT_TOKENS)
    checked = 0
    for s, store in enumerate(stores):
        index = TimeIndex(store)
        for t, cells in enumerate(store.tables):
            first = int(store.graph.table_start[t])
            time = store.graph.row_time
            rows = range(first, int(store.graph.table_start[t + 1]))
            for c in np.flatnonzero(~cells.is_value):
                counts: dict[int, int] = {}
                for row in rows:
                    trained = store.is_static[t] or time[row] <= store.val_timestamp
                    if not trained or cells.cells[row - first, c] < 0:
                        continue
                    text = [*cells.text(row - first, int(c)).tolist(), end][:MAX_TEXT_TOKENS]
                    for token in text:
                        counts[token] = counts.get(token, 0) + 1
                asked = [*list(counts)[:3], end, vocab - 1]
                total, kinds = sum(counts.values()), len(counts)
                expected = sum(
                    -math.log((counts.get(a, 0) + kinds / vocab) / (total + kinds))
                    if total
                    else math.log(vocab)
                    for a in asked
                )
                found = marginals.nats(s, t, int(c), asked)
                assert found == pytest.approx(expected, rel=1e-6)
                checked += total > 0
        assert index.size(0) > 0
    assert checked > 5
