"""Products in bfloat16: near those in float32, of any number of rows, repeatable."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rfm.nn.bf16_linear import _ROWS, Bf16Linear, use_bf16
from rfm.train import trainer as trainer_module
from rfm.train.trainer import TrainerConfig, bf16_on_cpu


def pair() -> tuple[nn.Linear, nn.Linear]:
    """The same layer twice: float32, bfloat16."""
    torch.manual_seed(0)
    plain, reduced = nn.Linear(64, 48), nn.Linear(64, 48)
    reduced.load_state_dict(plain.state_dict())
    use_bf16(reduced)
    assert type(reduced) is Bf16Linear
    return plain, reduced


@pytest.mark.parametrize("shape", [(0, 64), (1, 64), (_ROWS, 64), (_ROWS + 1, 64), (7, 100, 64)])
def test_products_and_gradients_are_near_those_of_float32(shape: tuple[int, ...]) -> None:
    layers, results = pair(), []
    for layer in layers:
        x = torch.linspace(-1, 1, int(torch.Size(shape).numel())).view(shape).requires_grad_()
        out = layer(x)
        assert out.dtype == torch.float32
        assert out.shape == (*shape[:-1], 48)
        out.square().sum().backward()
        assert x.grad is not None
        assert layer.weight.grad is not None
        results.append((out.detach(), x.grad, layer.weight.grad))
    for a, b in zip(*results, strict=True):
        scale = max(float(a.abs().max()) if a.numel() else 0.0, 1e-3)
        torch.testing.assert_close(b, a, rtol=0, atol=0.03 * scale)
    if results[0][0].numel():
        assert not torch.equal(results[0][0], results[1][0])


def test_padding_rows_reach_no_gradient() -> None:
    """The bias would see them first."""
    _, layer = pair()
    layer(torch.ones(3, 64)).sum().backward()
    assert layer.bias.grad is not None
    assert layer.bias.grad.tolist() == [3.0] * 48


def test_only_linear_layers_change_and_weights_stay() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 4)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    use_bf16(model)
    kinds = [type(m) for m in model.modules() if not isinstance(m, nn.Sequential)]
    assert kinds == [Bf16Linear, nn.LayerNorm, Bf16Linear]
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_other_number_types_and_devices_are_left_alone() -> None:
    _, layer = pair()
    double = layer.double()(torch.ones(2, 64, dtype=torch.float64))
    assert double.dtype == torch.float64
    assert layer.to("meta")(torch.ones(2, 64, device="meta", dtype=torch.float64)).is_meta


@pytest.mark.parametrize(
    ("precision", "fast", "expected"),
    [("auto", True, True), ("auto", False, False), ("bf16", False, True), ("fp32", True, False)],
)
def test_precision_decides(
    monkeypatch: pytest.MonkeyPatch, precision: str, fast: bool, expected: bool
) -> None:
    monkeypatch.setattr(trainer_module, "has_fast_bf16", lambda: fast)
    config = TrainerConfig(accelerator="cpu", precision=precision)  # type: ignore[arg-type]
    assert bf16_on_cpu(config) is expected
