"""Taking rows of a matrix so that a repeated run repeats the gradients to the last bit.

``matrix[index]`` adds up the gradients of repeated rows in whatever order the threads come; the
embedding look-up of the same rows adds them in order.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def take(matrix_ND: Tensor, index_E: Tensor) -> Tensor:
    """Rows [E, D] of a matrix [N, D]."""
    return F.embedding(index_E, matrix_ND)
