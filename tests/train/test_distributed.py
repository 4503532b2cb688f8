"""Several ranks: other batches on each, together the gradients of one process that sees all."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rfm.data.batch import PretrainBatch
from rfm.data.corpus import Corpus
from rfm.data.datamodule import BatchData, CountingSampler, StridedSampler
from rfm.nn.objectives import weigh
from rfm.train.metrics import read_metrics
from tests.batches import bits
from tests.ranks import alone, ddp_gradients, sharded_gradients, spawn
from tests.tiny_model import (
    OBJECTIVE_WEIGHTS,
    gradients,
    tiny_batches,
    tiny_model,
    without_links,
    without_texts,
)
from tests.tiny_run import differences, finish, run, start

IN_CONTEXT = (
    "episodes.per_batch=1",
    "episodes.support=12",
    "episodes.queries=4",
    "episodes.children=2",
    "episodes.max_rows=8",
    "data.synthetic_rows=2500",
)


def indices(start_at: int, rank: int, ranks: int, count: int) -> list[int]:
    return list(itertools.islice(CountingSampler(start_at, rank, ranks), count))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_no_two_ranks_ever_draw_the_same_batch(ranks: int) -> None:
    drawn = [indices(0, rank, ranks, 5) for rank in range(ranks)]
    assert sorted(itertools.chain(*drawn)) == list(range(5 * ranks))
    resumed = [indices(0, r, ranks, 2) + indices(2 * ranks, r, ranks, 3) for r in range(ranks)]
    assert resumed == drawn


@pytest.mark.parametrize(("size", "ranks"), [(6, 1), (6, 2), (7, 3), (2, 4)])
def test_validation_is_covered_exactly_once(size: int, ranks: int) -> None:
    """In shares of one length; what is beyond the end asks nothing."""
    shares = [list(StridedSampler(size, rank, ranks)) for rank in range(ranks)]
    drawn = sorted(itertools.chain(*shares))
    assert drawn == list(range(len(drawn)))
    assert size <= len(drawn) < size + ranks
    assert {len(StridedSampler(size, r, ranks)) for r in range(ranks)} == {len(shares[0])}
    assert {len(share) for share in shares} == {len(shares[0])}


def test_batches_beyond_the_end_ask_nothing(tiny_corpus: Corpus) -> None:
    val, model = tiny_batches(tiny_corpus, "val"), tiny_model(tiny_corpus)
    batch = val[len(val)]
    assert batch.row.numel() == batch.mask_node.numel() == batch.links.query.numel() == 0
    losses = model(batch).losses()
    assert all(loss.count == 0 for loss in losses.values())
    total = weigh(losses, OBJECTIVE_WEIGHTS)[0]
    assert total == 0
    gradients(model, total)  # every parameter takes part, as DDP wants
    with_edges, without = model.compare(batch)
    assert with_edges.value_loss.numel() == without.value_loss.numel() == 0


def loader_data(corpus: Corpus, rank: int, done: int = 0, world_size: int = 2) -> BatchData:
    data = BatchData(tiny_batches(corpus), tiny_batches(corpus, "val"), workers=0)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    steps = {"global_step": done, "accumulate_grad_batches": 3}
    ranks = {"global_rank": rank, "world_size": world_size}
    data.trainer = SimpleNamespace(strategy=strategy, **steps, **ranks)  # type: ignore[assignment]
    data.load_state_dict(data.state_dict())
    return data


def loaders(corpus: Corpus, rank: int, done: int = 0) -> tuple[Any, Any]:
    data = loader_data(corpus, rank, done)
    return data.train_dataloader(), data.val_dataloader()


def test_ranks_draw_other_content(tiny_corpus: Corpus) -> None:
    contents = []
    for rank in range(2):
        batches = itertools.islice(loaders(tiny_corpus, rank)[0], 3)
        contents += [bits(batch) for batch in batches]
    for a, b in itertools.combinations(contents, 2):
        assert a != b
    again = next(iter(loaders(tiny_corpus, 1)[0]))
    assert bits(again) == contents[3]
    assert bits(tiny_batches(tiny_corpus)[1]) == contents[3]


def test_a_checkpoint_counts_batches_not_steps(tiny_corpus: Corpus) -> None:
    """Two steps of three accumulated batches on each of two ranks: go on at the 13th, the 14th."""
    for rank in range(2):
        going_on = next(iter(loaders(tiny_corpus, rank, done=2)[0]))
        assert bits(going_on) == bits(tiny_batches(tiny_corpus)[12 + rank])


def test_the_number_of_ranks_may_change(tiny_corpus: Corpus) -> None:
    """After two steps of three batches on each of two ranks, a single one goes on at the 13th."""
    saved = loader_data(tiny_corpus, 0, done=2).state_dict()
    alone = loader_data(tiny_corpus, 0, world_size=1)
    alone.load_state_dict(saved)
    assert bits(next(iter(alone.train_dataloader()))) == bits(tiny_batches(tiny_corpus)[12])


def test_ranks_share_out_validation(tiny_corpus: Corpus) -> None:
    val = tiny_batches(tiny_corpus, "val")
    shares = [[bits(b) for b in loaders(tiny_corpus, rank)[1]] for rank in range(2)]
    assert [len(share) for share in shares] == [2, 2]
    assert [shares[i % 2][i // 2] for i in range(4)] == [bits(val[i]) for i in range(4)]


def cases(corpus: Corpus) -> dict[str, list[PretrainBatch]]:
    """Two batches each, whose counts differ; or where one rank has nothing to ask."""
    full = tiny_batches(corpus)
    a, b = full[3], full[7]
    no_edges = replace(without_links(b.without_edges()), relation=b.relation[:0])
    found = {
        "both": [a, b],
        "no texts on the second": [a, without_texts(b)],
        "no links on the first": [without_links(a), b],
        "no masked rows on the second": [a, tiny_batches(corpus, masked_groups=0)[5]],
        "no links drawn on the second": [a, tiny_batches(corpus, link_groups=0)[5]],
        "no edges on the second": [a, no_edges],
        "no texts at all": [without_texts(a), without_texts(b)],
    }
    counts = [
        {n: float(x.count) for n, x in tiny_model(corpus)(s).losses().items()} for s in (a, b)
    ]
    assert all(counts[0][name] != counts[1][name] for name in ("value", "text"))
    assert all(counts[0].values())
    assert len(a.buckets) != len(tiny_batches(corpus, masked_groups=0)[5].buckets)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("gather", [ddp_gradients, sharded_gradients], ids=["ddp", "sharded"])
def test_gradients_are_those_of_one_process(
    gather: Callable[..., None], tiny_corpus: Corpus, tmp_path: Path
) -> None:
    given = cases(tiny_corpus)
    model = tiny_model(tiny_corpus)
    model.save_pretrained(tmp_path / "model")
    torch.save(given, tmp_path / "cases.pt")
    spawn(gather, 2, tmp_path, tmp_path / "model", tmp_path / "cases.pt", tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    for case, batches in given.items():
        expected = alone(tmp_path / "model", batches)
        assert set(expected) == trained
        assert max(g.abs().max() for g in expected.values()) > 1e-2
        for found in ranks:
            assert set(found[case]) == trained
            for name, gradient in expected.items():
                torch.testing.assert_close(
                    found[case][name], gradient, rtol=1e-5, atol=1e-5, msg=f"{case}: {name}"
                )
    if gather is sharded_gradients:
        saved, kept = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "model"))
        assert not differences(dict(saved), dict(kept))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), IN_CONTEXT], ids=["plain", "in context"])
def test_sharded_training_is_ddp_training(
    tiny_cache: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """The same losses and model; and sharded, too, two steps and two are four.

    Three validation batches on two ranks: both must gather equally often.
    """
    words = ("optim.ema=0", "optim.lr=1e-4", "trainer.precision=fp32", "data.synthetic=3", *more)
    finish(start(tiny_cache, tmp_path / "ddp", *words, ranks=2))
    sharded = (*words, "trainer.strategy=sharded")
    finish(start(tiny_cache, tmp_path / "whole", *sharded, ranks=2))
    stopped = finish(start(tiny_cache, tmp_path / "halves", *sharded, "log.stop_after=2", ranks=2))
    assert stopped["stopped_by"] == "stop_after=2"
    finish(start(tiny_cache, tmp_path / "halves", *sharded, ranks=2))
    weights = {
        name: dict(load_file(tmp_path / name / "model" / "model.safetensors"))
        for name in ("ddp", "whole", "halves")
    }
    assert not differences(weights["whole"], weights["halves"])
    # where gradients are nearly nothing, as in a head that starts at zero, Adam's steps are made
    # of their last digits
    apart = 4e-4 if more else 2e-5
    for name, tensor in weights["ddp"].items():
        torch.testing.assert_close(weights["whole"][name], tensor, rtol=0, atol=apart, msg=name)
    losses = [
        [value for _, name, value in read_metrics(tmp_path / n / "metrics.csv") if "train" in name]
        for n in ("ddp", "whole")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, nan_ok=True)  # nothing of a kind
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (
        tmp_path / "halves" / "metrics.csv"
    ).read_bytes()


@pytest.mark.slow
def test_two_ranks_validate_as_one_does(tiny_cache: Path, tmp_path: Path) -> None:
    """A finished run, reported again by two processes that Lightning starts itself."""
    words = ("log.final_batches=3", "trainer.precision=fp32")
    run(tiny_cache, tmp_path / "a", *words)
    before = (tmp_path / "a" / "pretrain.csv").read_text()
    process = start(tiny_cache, tmp_path / "a", *words, "trainer.devices=2")
    assert finish(process)["steps"] == 4
    after = (tmp_path / "a" / "pretrain.csv").read_text()
    for old, new in zip(before.splitlines()[1:], after.splitlines()[1:], strict=True):
        assert old.split(",")[:4] == new.split(",")[:4]
        numbers = [[float(x) for x in line.split(",")[4:]] for line in (old, new)]
        assert numbers[0] == pytest.approx(numbers[1], abs=2e-5)
