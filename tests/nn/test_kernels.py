"""Kernel ridge regressions, against fitting each one by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rfm.nn.kernels import (
    KernelExperts,
    Opinions,
    fewness,
    gaussian_kernel,
    linear_kernel,
    standardised,
)

K, Q = 12, 5


def kernels(seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    x = torch.randn(K + Q, 6, dtype=torch.float64)
    return torch.stack([linear_kernel(x, K), gaussian_kernel(x, K)])


def experts() -> KernelExperts:
    return KernelExperts([[0.7, 0.3], [0.0, 1.0]], [2.0, 0.5]).double()


def target(columns: int) -> Tensor:
    y = torch.randn(K, columns, dtype=torch.float64)
    return y - y.mean(0)


@pytest.mark.parametrize("columns", [1, 3])
def test_each_expert_is_a_ridge_regression(columns: int) -> None:
    kernel, model, y = kernels(), experts(), target(columns)
    found = model(kernel, y)
    for e, ridge in enumerate((2.0, 0.5)):
        share = torch.tensor([[0.71, 0.31], [0.01, 1.01]][e], dtype=torch.float64)
        own = (share[:, None, None] / share.sum() * kernel).sum(0)
        said = [
            own[i, rest]
            @ torch.linalg.solve(own[rest][:, rest] + ridge * torch.eye(K - 1), y[rest])
            for i in range(K)
            for rest in [[j for j in range(K) if j != i]]
        ]
        without = torch.stack(said)  # each example by a fit to the others
        weight = torch.linalg.solve(own[:K] + ridge * torch.eye(K), y)
        torch.testing.assert_close(found[e], torch.cat([without, own[K:] @ weight]))


def test_trust_is_a_correlation_and_of_few_examples_a_belief() -> None:
    y, value = target(3), 5 + 7 * torch.randn(2, K + Q, 3, dtype=torch.float64)
    belief = torch.tensor([0.2, 0.6], dtype=torch.float64)
    found = Opinions.of(value, y, belief, torch.tensor(0.7))
    own = found.value[:, :K]
    torch.testing.assert_close(own.mean(1), 0 * own.mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(own.std(1, correction=0), torch.ones(2, 3, dtype=torch.float64))
    for e in range(2):
        for c in range(3):
            at = torch.corrcoef(torch.stack([value[e, :K, c], y[:, c]]))[0, 1]
            wanted = max(0.0, 0.7 * float(belief[e]) + 0.3 * float(at))
            assert found.trust[e, c].item() == pytest.approx(wanted, abs=1e-5)


def test_examples_say_more_the_more_there_are_and_the_more_even_they_are() -> None:
    def of(*counts: int, classes: int = 2) -> float:
        label = torch.cat([torch.full((n,), float(c)) for c, n in enumerate(counts)])
        return float(fewness(label, classes))

    assert of(16, 0) == 1.0
    assert of(15, 1) == pytest.approx(32 / (32 + 4 * 15 * 1 / 16))
    assert of(8, 8) == pytest.approx(32 / (32 + 16)) == float(fewness(torch.randn(16), 0))
    assert of(10, 10, 10, classes=3) == pytest.approx(32 / (32 + 30))
    assert of(8, 8) > of(128, 128) > 0


def test_what_is_right_is_trusted() -> None:
    torch.manual_seed(0)
    x, none = torch.randn(1_010, 3), torch.zeros(1)
    kernel, known = linear_kernel(x, 1_000)[None], x[:1_000, :1] - x[:1_000, :1].mean()
    model, noise = KernelExperts([[1.0]], [1.0]), torch.randn(1_000, 1)
    assert Opinions.of(model(kernel, known), known, none, none[0]).trust.item() > 0.95
    noise = noise - noise.mean()
    assert Opinions.of(model(kernel, noise), noise, none, none[0]).trust.item() < 0.1


def test_what_says_nothing_is_not_trusted() -> None:
    model, y = KernelExperts([[1.0]], [1.0]), target(1).float()
    same = model(linear_kernel(torch.randn(K + Q, 4), K)[None], torch.zeros(K, 1))
    for value in (same, model(torch.zeros(1, K + Q, K), y), torch.full((1, K + Q, 1), 3.0)):
        found = Opinions.of(value, y, torch.ones(1), torch.tensor(0.5))
        assert (found.trust == 0).all()
        assert (found.value == 0).all()
    nothing = linear_kernel(torch.zeros(K + Q, 0), K)
    assert nothing.shape == (K + Q, K)
    assert (nothing == 0).all()


def test_kernels_are_one_on_average_for_examples() -> None:
    x = 7 * torch.randn(30, 4)
    assert linear_kernel(x, 20).diagonal()[:20].mean().item() == pytest.approx(1, abs=1e-4)
    assert gaussian_kernel(x, 20).diagonal().allclose(torch.ones(1), atol=1e-4)


def test_numbers_are_standardised_by_the_examples() -> None:
    x = torch.randn(30, 4) * torch.tensor([1.0, 10.0, 0.0, 1e-9]) + 3
    out = standardised(x, 20, 0.0, 2.5)
    torch.testing.assert_close(out[:20, :2].clamp(-2.5, 2.5), out[:20, :2])
    assert (out[:, 2:] == 0).all()  # nothing tells these apart
    assert out.abs().max() <= 2.5
    assert out[:20, :2].mean(0).abs().max() < 0.2
    assert standardised(x[:, :0], 20, 0.1, 2.5).shape == (30, 0)
