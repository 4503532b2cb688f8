"""Ridge regressions in closed form, on what is known of a task's questions: what examples say of
queries before anything is learnt of how examples are to be read.

Legend: S questions, the K support rows first; F told numbers, B kernels, E experts, C targets.
Source: Rasmussen and Williams 2006, eq. 2.25 and 5.10; learnt through as by Bertinetto et al. 2019
(R2D2) and Patacchiola et al. 2020 (deep kernel transfer).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_EPS = 1e-6
_LEAST = 1e-5  # spread of what says anything
_FEW = 32.0  # examples that weigh as much as what is believed of an expert before there is any


@dataclass(frozen=True)
class Opinions:
    """What experts say: value [E, S, C], of spread 1 over the support, each support row's without
    its own label; and how far each is trusted: trust [E, C], 0 to 1, the correlation with the
    support's labels, and of few examples what is believed before there is any; few: see
    ``fewness``."""

    value: Tensor
    trust: Tensor
    few: Tensor

    @classmethod
    def of(cls, value_ESC: Tensor, target_KC: Tensor, prior_E: Tensor, few: Tensor) -> Opinions:
        """
        Args:
            value_ESC: of any scale; an expert that says the same of all is not trusted.
            target_KC: of mean 0.
            prior_E: what is believed of each. few: how much that counts, see ``fewness``.
        """
        k = target_KC.shape[0]
        mean_E1C = value_ESC[:, :k].mean(1, keepdim=True)
        spread_E1C = (value_ESC[:, :k] - mean_E1C).square().mean(1, keepdim=True)
        spread_E1C = spread_E1C.add(_EPS**2).sqrt()
        says_E1C = (spread_E1C > _LEAST).to(value_ESC.dtype)
        value_ESC = (value_ESC - mean_E1C) / spread_E1C * says_E1C
        spread_C = target_KC.square().mean(0).add(_EPS**2).sqrt()
        right_EC = (value_ESC[:, :k] * target_KC).mean(1) / spread_C
        trust_EC = few * prior_E[:, None] + (1 - few) * right_EC
        return cls(value_ESC, trust_EC.clamp(0, 1) * says_E1C[:, 0], few)


def fewness(label_K: Tensor, classes: int) -> Tensor:
    """How little examples say: 1 where all are of one class, towards 0 the more there are, and the
    more evenly they are of all classes."""
    count = label_K.new_tensor(float(label_K.shape[0]))
    if classes:
        share_C = torch.bincount(label_K.long(), minlength=classes) / count
        count = count * (1 - share_C.square().sum()) * classes / (classes - 1)
    return _FEW / (_FEW + count)


class KernelExperts(nn.Module):
    """Experts, each a kernel ridge regression with its own mixture of kernels and its own ridge.

    Args:
        mixtures: [E][B] shares of the kernels that each starts from.
        ridges: [E] that they start from, beside kernels of mean 1 on the diagonal.
    """

    def __init__(self, mixtures: list[list[float]], ridges: list[float]) -> None:
        super().__init__()
        self.mixture = nn.Parameter((torch.tensor(mixtures) + 0.01).log())
        self.ridge = nn.Parameter(torch.tensor(ridges).log())

    def forward(self, kernel_BSK: Tensor, target_KC: Tensor) -> Tensor:
        """What they say [E, S, C], of support rows without their own labels.

        Args:
            kernel_BSK: between all questions and the support.
            target_KC: of mean 0 over the support.
        """
        k = target_KC.shape[0]
        kernel_ESK = torch.einsum("eb,bsk->esk", self.mixture.softmax(1), kernel_BSK)
        ridge_E11 = self.ridge.clamp(-3, 8).exp()[:, None, None]
        eye_KK = torch.eye(k, dtype=kernel_BSK.dtype, device=kernel_BSK.device)
        factor_EKK = torch.linalg.cholesky(kernel_ESK[:, :k] + ridge_E11 * eye_KK)
        inverse_EKK = torch.cholesky_inverse(factor_EKK)
        weight_EKC = inverse_EKK @ target_KC
        without_EKC = target_KC - weight_EKC / inverse_EKK.diagonal(dim1=1, dim2=2)[..., None]
        return torch.cat([without_EKC, kernel_ESK[:, k:] @ weight_EKC], dim=1)


def linear_kernel(x_SF: Tensor, support: int) -> Tensor:
    """[S, K] inner products, of mean 1 on the diagonal of the support; 0 without any numbers."""
    kernel_SK = x_SF @ x_SF[:support].T
    norm = x_SF[:support].square().sum(1).mean()
    return kernel_SK / (norm + _EPS)


def gaussian_kernel(x_SF: Tensor, support: int) -> Tensor:
    """[S, K] exp(-squared distance / mean squared distance in the support)."""
    square_S = x_SF.square().sum(1)
    apart_SK = square_S[:, None] + square_S[:support] - 2 * x_SF @ x_SF[:support].T
    return torch.exp(-apart_SK.clamp(min=0) / (apart_SK[:support].mean() + _EPS))


def standardised(x_SF: Tensor, support: int, floor: float, far: float) -> Tensor:
    """Less the mean of the support rows, by their spread and ``floor`` of the mean spread, within
    ``far``; 0 where they are all the same."""
    mean_F, std_F = x_SF[:support].mean(0), x_SF[:support].std(0, correction=0)
    unit_F = std_F + floor * std_F.mean() + _EPS if x_SF.shape[1] else std_F
    return ((x_SF - mean_F) / unit_F * (std_F > _EPS)).clamp(-far, far)
