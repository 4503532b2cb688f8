"""Matrix products in bfloat16 on CPUs that have the instructions, where shapes change all the time.

Such products are three to five times as fast as float32, but each new shape costs oneDNN some 15 ms
to compile. Rows are therefore padded to a multiple of ``_ROWS``, so that a run meets few shapes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ROWS = 512


class Bf16Linear(nn.Linear):
    """A linear layer whose products take bfloat16 and add up in float32; all else is float32."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or input.dtype != torch.float32:
            return super().forward(input)
        flat = input.reshape(-1, input.shape[-1])
        rows = flat.shape[0]
        padded = F.pad(flat.bfloat16(), (0, 0, 0, -rows % _ROWS))
        bias = None if self.bias is None else self.bias.bfloat16()
        out = F.linear(padded, self.weight.bfloat16(), bias)[:rows].float()
        return out.view(*input.shape[:-1], self.out_features)


def has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def use_bf16(module: nn.Module) -> None:
    """Let every linear layer of a module compute in bfloat16 on the CPU, in place."""
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.__class__ = Bf16Linear
