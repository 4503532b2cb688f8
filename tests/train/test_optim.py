"""Parameter groups, schedule and averages."""

from __future__ import annotations

import itertools

import pytest
import torch

from rfm.data.corpus import Corpus
from rfm.train.optim import OptimConfig, make_optimizer, make_schedule, warm_average
from tests.tiny_model import tiny_model


def test_two_parameter_groups(tiny_corpus: Corpus) -> None:
    model = tiny_model(tiny_corpus)
    decayed, others = make_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    assert all(p.ndim >= 2 for p in decayed["params"])
    shared = model.backbone.row_encoder.bart.shared.weight
    assert any(p is shared for p in others["params"])
    both = [id(p) for p in (*decayed["params"], *others["params"])]
    assert len(both) == len(set(both)) == sum(p.requires_grad for p in model.parameters())


def test_some_parameters_learn_faster(tiny_corpus: Corpus) -> None:
    model, config = tiny_model(tiny_corpus), OptimConfig(lr=0.1, warmup=0)
    few = model.in_context.requires_grad_(True).closed_form()
    assert 100 < sum(p.numel() for p in few) < 1_000
    optimizer = make_optimizer(model, config, few, 20.0)
    make_schedule(optimizer, config)
    rates = {id(p): g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(rates) == sum(p.requires_grad for p in model.parameters())
    assert {rates.pop(id(p)) for p in few} == {2.0}
    assert set(rates.values()) == {0.1}


def test_the_schedule_warms_up_and_cools_down() -> None:
    config = OptimConfig(steps=100, warmup=10, lr=2.0, final_lr=0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    schedule = make_schedule(optimizer, config)
    rates = []
    for _ in range(101):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([2 * (i + 1) / 11 for i in range(10)])
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(2 * (0.1 + 0.9 / 2))
    assert rates[100] == pytest.approx(0.2)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_averages_have_a_short_memory_at_first() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    assert warm_average(a, b, 0, 0.999).item() == pytest.approx(0.9)
    assert warm_average(a, b, 10**9, 0.999).item() == pytest.approx(0.001)
