"""Taking rows of a matrix so that a repeated run repeats the gradients to the last bit; and means.

``matrix[index]`` adds up the gradients of repeated rows in whatever order the threads come; the
embedding look-up of the same rows adds them in order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def take(matrix_ND: Tensor, index_E: Tensor) -> Tensor:
    """Rows [E, D] of a matrix [N, D]."""
    return F.embedding(index_E, matrix_ND)


def mean_by_group(x_ND: Tensor, chosen_N1: Tensor, group_N: Tensor) -> Tensor:
    """[N, D]: at each group's number, the mean of its rows where ``chosen`` is 1 (else 0); 0 where
    there are none."""
    sum_ND = torch.zeros_like(x_ND).index_add(0, group_N, x_ND * chosen_N1)
    count_N1 = torch.zeros_like(chosen_N1).index_add(0, group_N, chosen_N1)
    return sum_ND / count_N1.clamp(min=1)
