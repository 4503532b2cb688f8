"""Kernel ridge regressions, against fitting each one by itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rfm.nn.kernels import KernelExperts, gaussian_kernel, linear_kernel, standardised

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
        middle, spread = without.mean(0), without.std(0, correction=0)
        wanted = (torch.cat([without, own[K:] @ weight]) - middle) / spread
        torch.testing.assert_close(found.value[e], wanted, atol=1e-4, rtol=1e-4)
        right = [
            torch.corrcoef(torch.stack([without[:, c], y[:, c]]))[0, 1] for c in range(columns)
        ]
        torch.testing.assert_close(
            found.trust[e], torch.stack(right).clamp(min=0), atol=1e-4, rtol=1e-4
        )


def test_what_is_right_is_trusted() -> None:
    torch.manual_seed(0)
    x = torch.randn(60, 3)
    kernel = linear_kernel(x, 50)[None]
    model = KernelExperts([[1.0]], [1.0])
    known, noise = x[:50, :1] - x[:50, :1].mean(), torch.randn(50, 1)
    assert model(kernel, known).trust.item() > 0.95
    assert model(kernel, noise - noise.mean()).trust.item() < 0.3


def test_labels_that_are_all_the_same_and_no_numbers_give_nothing() -> None:
    model = KernelExperts([[1.0]], [1.0])
    found = model(linear_kernel(torch.randn(K + Q, 4), K)[None], torch.zeros(K, 1))
    assert found.trust.abs().max() < 1e-3
    assert found.value.isfinite().all()
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
