"""Training-period statistics of one value column, and the maps they define.

A value ``x`` is stored as ``z = (x - center) / scale`` (median and a robust spread) and ranked by
the training distribution: ``u = F(z)`` in [0, 1], the mid-distribution function (ties get the
middle of their step), interpolated between at most ``NUM_KNOTS`` knots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_KNOTS = 64
NUM_LEVELS = 15
LEVELS: npt.NDArray[np.float32] = ((np.arange(NUM_LEVELS) + 0.5) / NUM_LEVELS).astype(np.float32)
"""Quantile levels of the value head, evenly spaced."""
MAX_Z = 1e4

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class ColumnStats:
    """``knot_z``, ``knot_u``: [NUM_KNOTS] float32, non-decreasing, the last repeated to fill.

    ``marginal``: [NUM_LEVELS] float32, the training quantiles in rank space: what a prediction
    that knows nothing but the column answers.
    """

    center: float
    scale: float
    knot_z: npt.NDArray[np.float32]
    knot_u: npt.NDArray[np.float32]
    marginal: npt.NDArray[np.float32]

    def standardise(self, x: Floats) -> npt.NDArray[np.float32]:
        """z of raw values [n]; NaN stays NaN (null), infinities become +-MAX_Z."""
        with np.errstate(invalid="ignore", over="ignore"):
            z = (np.asarray(x, dtype=np.float64) - self.center) / self.scale
        return np.clip(z, -MAX_Z, MAX_Z).astype(np.float32)

    def raw(self, z: Floats) -> npt.NDArray[np.float64]:
        """Inverse of ``standardise``, up to float32."""
        return np.asarray(z, dtype=np.float64) * self.scale + self.center

    def rank(self, z: Floats) -> npt.NDArray[np.float32]:
        """u = F(z) in [0, 1]."""
        return np.interp(z, self.knot_z, self.knot_u).astype(np.float32)


def fit_column_stats(x: Floats) -> ColumnStats:
    """Statistics of training values [n], NaN for null; without any value, the identity."""
    values = np.asarray(x, dtype=np.float64)
    finite: npt.NDArray[np.float64] = values[np.isfinite(values)]
    if finite.size == 0:
        half = np.full(NUM_KNOTS, 0.5, dtype=np.float32)
        zeros = np.zeros(NUM_KNOTS, dtype=np.float32)
        return ColumnStats(0.0, 1.0, zeros, half, np.full(NUM_LEVELS, 0.5, dtype=np.float32))
    center = float(2 * np.median(finite / 2))  # halved: the mean of two huge values overflows
    scale = _spread(finite)
    with np.errstate(over="ignore"):
        z = np.sort(np.clip((finite - center) / scale, -MAX_Z, MAX_Z).astype(np.float32))
    distinct, counts = np.unique(z, return_counts=True)
    below = np.cumsum(counts) - counts
    u = ((below + 0.5 * counts) / z.size).astype(np.float32)
    if distinct.size > NUM_KNOTS:
        keep = np.unique(np.searchsorted(u, np.linspace(u[0], u[-1], NUM_KNOTS)))
        keep = np.minimum(keep, distinct.size - 1)
        distinct, u_kept = distinct[keep], u[keep]
    else:
        u_kept = u
    fill = NUM_KNOTS - distinct.size
    knot_z = np.concatenate([distinct, np.repeat(distinct[-1:], fill)])
    knot_u = np.concatenate([u_kept, np.repeat(u_kept[-1:], fill)])
    at_level = np.minimum((LEVELS * z.size).astype(np.int64), z.size - 1)
    marginal = np.interp(z[at_level], knot_z, knot_u).astype(np.float32)
    return ColumnStats(center, scale, knot_z, knot_u, marginal)


def _spread(finite: npt.NDArray[np.float64]) -> float:
    """Normal-consistent spread between the deciles; the standard deviation where they agree."""
    low, high = np.quantile(finite, [0.1, 0.9])
    spread = (high - low) / 2.563
    if not np.isfinite(spread) or spread <= 0:
        with np.errstate(over="ignore", invalid="ignore"):
            spread = float(np.std(finite))
    return float(spread) if np.isfinite(spread) and spread > 0 else 1.0
