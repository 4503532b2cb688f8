"""Objectives by brute force, and batches that ask nothing of one or of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from rfm.data.batch import LEVELS, PretrainBatch
from rfm.data.corpus import Corpus
from rfm.nn.objectives import Loss, quantile_loss, reciprocal_rank, weigh
from tests.tiny_model import (
    OBJECTIVE_WEIGHTS,
    gradients,
    loss_of,
    tiny_batches,
    tiny_model,
    without_links,
    without_texts,
    without_values,
)


def pinball(predicted: float, target: float, level: float) -> float:
    error = target - predicted
    return level * error if error > 0 else (level - 1) * error


def test_quantile_loss_of_equal_weights_is_the_mean_pinball_loss() -> None:
    chance = torch.Generator().manual_seed(0)
    atoms = torch.rand((5, len(LEVELS)), generator=chance).sort(1).values
    target = torch.rand(5, generator=chance)
    found = quantile_loss(atoms, torch.full_like(atoms, 1 / len(LEVELS)), target)
    for i in range(5):
        costs = [
            pinball(q, float(target[i]), level)
            for q, level in zip(atoms[i].tolist(), LEVELS.tolist(), strict=True)
        ]
        assert math.isclose(float(found[i]), sum(costs) / len(costs), rel_tol=1e-5)


def test_quantile_loss_is_the_mean_pinball_loss_over_all_levels() -> None:
    """Of unsorted atoms with any weights: the quantile at a level is the first atom, in order,
    up to which the weights reach it."""
    chance = torch.Generator().manual_seed(1)
    atoms = torch.rand((1, 6), generator=chance)
    weights = torch.rand((1, 6), generator=chance).softmax(1)
    found = quantile_loss(atoms, weights, torch.tensor([0.4]))
    order = atoms[0].argsort()
    reach = weights[0][order].cumsum(0)
    levels = (torch.arange(20_000) + 0.5) / 20_000
    quantiles = atoms[0][order][torch.searchsorted(reach, levels).clamp(max=5)]
    costs = [pinball(q, 0.4, v) for q, v in zip(quantiles.tolist(), levels.tolist(), strict=True)]
    assert math.isclose(float(found), sum(costs) / len(costs), rel_tol=1e-3)


def test_the_truth_minimises_the_quantile_loss() -> None:
    """Neither other weights nor other atoms than those of the data cost less."""
    atoms, chance = torch.tensor([0.25, 0.75]), torch.tensor([0.3, 0.7])

    def cost(atom: torch.Tensor, weight: torch.Tensor) -> float:
        by_outcome = quantile_loss(atom.expand(2, -1), weight.expand(2, -1), atoms)
        return float((chance * by_outcome).sum())

    best = cost(atoms, chance)
    for step in (-0.05, 0.05):
        assert best < cost(atoms, chance + torch.tensor([step, -step]))
        assert best < cost(atoms + step, chance)


def test_values_start_at_the_marginal(tiny_corpus: Corpus) -> None:
    """Before the first step the value head answers the training quantiles, exactly."""
    model, batch = tiny_model(tiny_corpus, noise=0.0), tiny_batches(tiny_corpus)[0]
    values = batch.values
    assert values.rank.numel() > 5
    states = model.backbone(batch)
    atoms, weights = model.masked_row.value_quantiles(states, values)
    assert torch.equal(atoms, values.marginal)
    equal = torch.full_like(atoms, 1 / atoms.shape[1])
    torch.testing.assert_close(weights, equal)
    expected = quantile_loss(values.marginal, equal, values.rank)
    torch.testing.assert_close(model(batch).value_loss, expected)


def test_value_targets_stand_at_their_masks(tiny_corpus: Corpus) -> None:
    """Each masked value is answered from its own mask: moving what one mask says or has read moves
    its answer alone."""
    model, batch = tiny_model(tiny_corpus), tiny_batches(tiny_corpus)[0]
    masks = sum(b.mask_at.numel() for b in batch.buckets)
    assert masks == batch.mask_node.numel() >= batch.values.rank.numel()
    states = model.backbone(batch)
    before = torch.cat(model.masked_row.value_quantiles(states, batch.values), dim=1)
    for name in ("mask", "read"):
        moved = getattr(states, name).clone()
        moved[batch.values.mask[2]] += 1
        changed = replace(states, **{name: moved})
        after = torch.cat(model.masked_row.value_quantiles(changed, batch.values), dim=1)
        assert ((after - before).abs().amax(1) > 0).nonzero()[:, 0].tolist() == [2]


@pytest.mark.parametrize(
    ("scores", "positive", "rank"),
    [
        ([3.0, 1.0, 2.0], 0, 1.0),
        ([3.0, 1.0, 2.0], 1, 3.0),
        ([1.0, 1.0, 1.0, 1.0], 2, 2.5),  # the mean of 1 to 4
        ([5.0, 2.0, 2.0, 1.0], 1, 2.5),
        ([2.0, -math.inf, -math.inf, 1.0], 3, 2.0),
        ([math.nan, 1.0, 0.0], 0, 4.0),  # after them all
        ([math.nan, 1.0, 0.0], 1, 2.0),
    ],
)
def test_reciprocal_rank(scores: list[float], positive: int, rank: float) -> None:
    found = reciprocal_rank(torch.tensor([scores]), torch.tensor([positive]))
    assert found.item() == pytest.approx(1 / rank)


def test_links_start_from_popularity(tiny_corpus: Corpus) -> None:
    """Where rows tell nothing apart, candidates rank by their children; without edges, not."""
    model = tiny_model(tiny_corpus, noise=0.0)
    batch = next(b for b in tiny_batches(tiny_corpus) if b.links.popularity.unique().numel() > 2)
    for parameter in model.link.candidate[-1].parameters():
        torch.nn.init.zeros_(parameter)
    with_edges, without = model.compare(batch)
    allowed = batch.links.allowed
    counts = batch.links.popularity.log1p().expand_as(allowed)
    torch.testing.assert_close(with_edges.link_scores[allowed], counts[allowed])
    assert not without.link_scores[allowed].any()


def test_links_choose_among_the_allowed(tiny_corpus: Corpus) -> None:
    model, batch = tiny_model(tiny_corpus), tiny_batches(tiny_corpus)[3]
    links, states = batch.links, model.backbone(batch)
    allowed = links.allowed.clone()
    allowed[0, :] = False
    allowed[0, links.positive[0]] = True
    other = int((links.positive[0] + 1) % allowed.shape[1])
    allowed[0, other] = True
    links = replace(links, allowed=allowed)
    scores = model.link.scores(states, links)
    assert torch.equal(scores.isinf(), ~allowed)
    losses = model.link.losses(scores, links)
    assert links.log_chance.unique().numel() > 2
    values = (scores - links.log_chance).tolist()  # a likely candidate stands for few others
    for q in range(links.query.numel()):
        among = [values[q][p] for p in range(allowed.shape[1]) if allowed[q, p]]
        total = math.log(sum(math.exp(s) for s in among))
        assert losses[q].item() == pytest.approx(total - values[q][int(links.positive[q])], 1e-4)
    slope = torch.autograd.grad(losses[0], scores)[0]
    assert (slope[0] != 0).sum() == 2
    assert (slope[1:] == 0).all()


def test_link_scores_know_the_foreign_key(tiny_corpus: Corpus) -> None:
    """The same child and candidates, asked through another foreign key, score differently."""
    model, batch = tiny_model(tiny_corpus), tiny_batches(tiny_corpus)[3]
    states = model.backbone(batch)
    asked = batch.relation[batch.links.relation[0]]
    other = int((batch.relation != asked).any(1).nonzero()[0])
    a = model.link.scores(states, batch.links)
    b = model.link.scores(
        states, replace(batch.links, relation=torch.full_like(batch.links.relation, other))
    )
    assert (a - b).nan_to_num().abs().max() > 1e-4


def nothing(batch: PretrainBatch) -> PretrainBatch:
    return without_values(without_texts(without_links(batch)))


def no_edges(batch: PretrainBatch) -> PretrainBatch:
    """As in a database of one table: no foreign keys either."""
    return replace(without_links(batch.without_edges()), relation=batch.relation[:0])


def no_masked_rows(corpus: Corpus) -> PretrainBatch:
    batch = tiny_batches(corpus, masked_groups=0, context_masking=0.0)[0]
    assert batch.buckets[0].token.shape[0] == 0
    assert batch.values.rank.numel() == batch.texts.row.numel() == 0
    return batch


def no_links_drawn(corpus: Corpus) -> PretrainBatch:
    batch = tiny_batches(corpus, link_groups=0)[0]
    assert batch.links.query.numel() == 0
    return batch


CASES: dict[str, tuple[Callable[[Corpus], PretrainBatch], tuple[str, ...]]] = {
    "all asked": (lambda corpus: tiny_batches(corpus)[3], ()),
    "no texts": (lambda corpus: without_texts(tiny_batches(corpus)[3]), ("text",)),
    "no values": (lambda corpus: without_values(tiny_batches(corpus)[3]), ("value",)),
    "no links": (lambda corpus: without_links(tiny_batches(corpus)[3]), ("link",)),
    "no links drawn": (no_links_drawn, ("link",)),
    "no masked rows": (no_masked_rows, ("value", "text")),
    "no edges": (lambda corpus: no_edges(tiny_batches(corpus)[3]), ("link",)),
    "nothing": (lambda corpus: nothing(tiny_batches(corpus)[3]), ("value", "text", "link")),
}


@pytest.mark.parametrize("frozen", [False, True], ids=["trained", "frozen"])
@pytest.mark.parametrize("case", CASES)
def test_every_batch_serves_every_objective(case: str, frozen: bool, tiny_corpus: Corpus) -> None:
    """Nothing asked is no loss, and a gradient of zeros, not none, for what would answer it."""
    make, absent = CASES[case]
    model, batch = tiny_model(tiny_corpus, frozen=frozen), make(tiny_corpus)
    losses = model(batch).losses()
    for name, loss in losses.items():
        assert (float(loss.count) == 0) == (name in absent)
        assert (float(loss.total) == 0) == (name in absent)
    found = gradients(model, loss_of(model, batch))  # fails where a parameter has none
    assert all(g.isfinite().all() for g in found.values())
    owners = {"value": "masked_row.quantiles.", "text": "bart.decoder.layers.", "link": "link."}
    for objective, prefix in owners.items():
        own = [g for name, g in found.items() if prefix in name]
        assert own
        assert any(g.abs().max() > 0 for g in own) == (objective not in absent)


def test_weigh_takes_means_over_counts() -> None:
    losses = {
        "value": Loss(torch.tensor(6.0, requires_grad=True), torch.tensor(3.0)),
        "text": Loss(torch.tensor(0.0, requires_grad=True), torch.tensor(0.0)),
        "link": Loss.over(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])),
    }
    total, means = weigh(losses, OBJECTIVE_WEIGHTS)
    assert math.isnan(means.pop("text"))
    assert {name: float(mean) for name, mean in means.items()} == {"value": 2.0, "link": 1.5}
    assert float(total) == pytest.approx(10 * 2.0 + 0.5 * 1.5)
    total.backward()
    assert losses["value"].total.grad == pytest.approx(10 / 3)
