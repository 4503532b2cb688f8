"""Heads: losses against references, answers within bounds, gradients where they belong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rfm.data.batch import NUM_SEEN_FEATURES, SEEN_FEATURES
from rfm.nn.backbone import States
from rfm.nn.heads import EntityHead, HeadConfig, LinkHead, make_head

WIDTH, SIZE, TOLD = 16, 5, 7


class Told:
    """What a head asks of a batch."""

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)


def states(n: int, seed: int = 0) -> States:
    rng = torch.Generator().manual_seed(seed)
    nodes, masks, read = (torch.randn(n, WIDTH, generator=rng) for _ in range(3))
    return States(nodes, read, masks, torch.zeros(0), torch.zeros(0), torch.randn(2, WIDTH))


def noisy(head: torch.nn.Module) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return head.eval()


def config(kind: Any, outputs: int = 1, **more: Any) -> HeadConfig:
    return HeadConfig("shop/x", kind, outputs, told=TOLD, **more)


def batch(label: torch.Tensor) -> Any:
    told = torch.randn(SIZE, TOLD, generator=torch.Generator().manual_seed(9))
    return Told(num_seeds=SIZE, told=told, label=label)


CASES = {
    "binary_classification": (config("binary_classification"), [[0.0], [1], [1], [0], [1]]),
    "multiclass_classification": (
        config("multiclass_classification", 3),
        [[0.0], [2], [1], [-1], [2]],
    ),
    "multilabel_classification": (
        config("multilabel_classification", 3),
        [[0.0, 1, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0]],
    ),
    "regression": (
        config("regression", center=10.0, scale=4.0, low=2.0, high=30.0),
        [[2.0], [30], [11], [10], [25]],
    ),
}
every_type = pytest.mark.parametrize("kind", sorted(CASES))


def reference(settings: HeadConfig, out: list[float], label: list[float]) -> float:
    if settings.task_type == "regression":
        off = abs(out[0] - (label[0] - settings.center) / settings.scale)
        return off * off / (2 * 0.5) if off < 0.5 else off - 0.25
    if settings.task_type == "multiclass_classification":
        if label[0] < 0:
            return 0.0
        exp = np.exp(np.array(out) - max(out))
        return float(-np.log(exp[int(label[0])] / exp.sum()))
    each = [
        -np.log(1 / (1 + np.exp(-o))) if y else -np.log(1 - 1 / (1 + np.exp(-o)))
        for o, y in zip(out, label, strict=True)
    ]
    return float(np.mean(each))


@every_type
def test_losses_are_those_of_the_reference(kind: str) -> None:
    settings, label = CASES[kind]
    head, asked = noisy(make_head(WIDTH, settings)), batch(torch.tensor(label))
    out = head(states(SIZE), asked)
    assert out.shape == (SIZE, settings.outputs)
    loss = head.losses(states(SIZE), asked)
    wanted = [reference(settings, o, y) for o, y in zip(out.tolist(), label, strict=True)]
    torch.testing.assert_close(loss, torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@every_type
def test_answers(kind: str) -> None:
    settings, label = CASES[kind]
    head, asked = noisy(make_head(WIDTH, settings)), batch(torch.tensor(label))
    out, answer = head(states(SIZE), asked), head.answers(states(SIZE), asked)
    if kind == "regression":
        wide = replace(settings, low=-1e9, high=1e9)
        head.config = wide
        torch.testing.assert_close(head.answers(states(SIZE), asked), out * 4 + 10)
        head.config = replace(settings, low=9.9, high=10.1)
        bounded = head.answers(states(SIZE), asked)
        assert bounded.min() >= 9.9 - 1e-5
        assert bounded.max() <= 10.1 + 1e-5
    else:
        assert answer.min() >= 0
        assert answer.max() <= 1
        assert torch.equal(answer.argmax(1), out.argmax(1))
        if kind == "multiclass_classification":
            torch.testing.assert_close(answer.sum(1), torch.ones(SIZE))


@every_type
def test_a_new_head_knows_nothing(kind: str) -> None:
    """Even odds, or the median: what it says at first does not depend on the question."""
    settings, label = CASES[kind]
    answer = make_head(WIDTH, settings).answers(states(SIZE), batch(torch.tensor(label)))
    assert (answer == answer[0]).all()
    if kind == "regression":
        assert (answer == settings.center).all()


@every_type
@pytest.mark.parametrize("reads", [True, False])
def test_every_part_is_trained(kind: str, reads: bool) -> None:
    settings, label = CASES[kind]
    head = noisy(make_head(WIDTH, replace(settings, reads=reads))).train()
    head.losses(states(SIZE), batch(torch.tensor(label))).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0, name
    assert len(head.norms) == (3 if reads else 1)


def test_without_reads_only_the_node_counts() -> None:
    settings, label = CASES["binary_classification"]
    head = noisy(EntityHead(WIDTH, replace(settings, reads=False)))
    asked = batch(torch.tensor(label))
    told = states(SIZE)
    other = replace(told, read=told.read + 1, mask=told.mask - 1)
    assert torch.equal(head(told, asked), head(other, asked))
    assert not torch.equal(head(told, asked), head(replace(told, node=told.node.flip(1)), asked))


def test_nothing_told_at_all() -> None:
    head = noisy(EntityHead(WIDTH, HeadConfig("shop/x", "binary_classification", 1)))
    asked = Told(num_seeds=SIZE, told=torch.zeros(SIZE, 0), label=torch.ones(SIZE, 1))
    assert head.losses(states(SIZE), asked).isfinite().all()
    none = Told(num_seeds=0, told=torch.zeros(0, 0), label=torch.zeros(0, 1))
    assert head.answers(states(0), none).shape == (0, 1)


# Recommendation.


def link_batch(positive: list[list[bool]], log_chance: list[float]) -> Any:
    queries, destinations = len(positive), len(positive[0])
    rng = torch.Generator().manual_seed(4)
    return Told(
        query=torch.arange(queries),
        candidate=queries + torch.arange(destinations),
        key=torch.zeros(queries, dtype=torch.int64),
        seen=torch.randn(queries, destinations, NUM_SEEN_FEATURES, generator=rng),
        positive=torch.tensor(positive),
        log_chance=torch.tensor(log_chance),
    )


def test_the_loss_of_a_recommendation() -> None:
    head = noisy(LinkHead(WIDTH, HeadConfig("shop/x", "recommendation", 3)))
    chance = [0.0, -1.0, -0.5, 0.0]
    positive = [[True, False, True, False], [False] * 4, [False, True, False, False]]
    asked = link_batch(positive, chance)
    told = states(7)
    score = head.scores(head.queries(told, asked), head.candidates(told, asked), asked.seen)
    logit = (score - torch.tensor(chance)).log_softmax(1)
    wanted = [-(logit[0, 0] + logit[0, 2]) / 2, torch.tensor(0.0), -logit[2, 1]]
    torch.testing.assert_close(head.losses(told, asked), torch.stack(wanted))


def test_scores_of_chunks_are_those_of_all() -> None:
    head, told = noisy(LinkHead(WIDTH, HeadConfig("shop/x", "recommendation", 3))), states(9)
    asked = link_batch([[False] * 6] * 3, [0.0] * 6)
    query, candidate = head.queries(told, asked), head.candidates(told, asked)
    whole = head.scores(query, candidate, asked.seen)
    parts = [head.scores(query, candidate[i : i + 2], asked.seen[:, i : i + 2]) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    none = head.scores(query, candidate[:0], asked.seen[:, :0])
    assert none.shape == (3, 0)


def test_a_recommendation_starts_from_what_is_going_on() -> None:
    """Before any training, late rows count, and whatever else is known of a pair does not."""
    fresh = LinkHead(WIDTH, HeadConfig("shop/x", "recommendation", 3))
    seen = torch.zeros(1, 3, NUM_SEEN_FEATURES)
    seen[0, 1, SEEN_FEATURES.index("near_lately")] = 1.0
    seen[0, 2, SEEN_FEATURES.index("children_lately")] = 1.0
    zero = torch.zeros(1, WIDTH)
    never, near, there = fresh.scores(zero, zero.expand(3, -1), seen)[0].tolist()
    assert min(near, there) > never
    seen[0, 0, SEEN_FEATURES.index("share")] = 1.0
    torch.testing.assert_close(
        fresh.scores(zero, zero.expand(3, -1), seen)[0, 0], torch.tensor(never)
    )


@pytest.mark.parametrize("quadratic", [0.5, 0.1])
def test_robust_loss_is_quadratic_only_as_far_as_it_may_be(quadratic: float) -> None:
    settings = config("regression", center=10.0, scale=4.0, low=2.0, high=30.0, quadratic=quadratic)
    off = torch.tensor([[0.0], [0.05], [0.3], [2.0], [1e6]])
    head = EntityHead(WIDTH, settings)  # says 0, the center, of everything
    losses = head.losses(states(SIZE), batch(settings.center + settings.scale * off))
    straight = off - quadratic / 2
    expected = torch.where(off < quadratic, off**2 / (2 * quadratic), straight)[:, 0]
    torch.testing.assert_close(losses, expected)
