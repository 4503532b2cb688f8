"""Gradients of taken rows repeat to the last bit, at any number of threads."""

from __future__ import annotations

import torch

from rfm.nn.gather import take


def test_take_repeats_bit_for_bit() -> None:
    chance = torch.Generator().manual_seed(0)
    matrix = torch.randn(50, 64, generator=chance)
    index = torch.randint(50, (20_000,), generator=chance)
    pull = torch.randn(20_000, 64, generator=chance)
    assert torch.equal(take(matrix, index), matrix[index])

    def gradient() -> torch.Tensor:
        leaf = matrix.clone().requires_grad_()
        (take(leaf, index) * pull).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = gradient()
        assert all(torch.equal(gradient(), first) for _ in range(5))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(first, torch.zeros_like(matrix).index_add(0, index, pull))
