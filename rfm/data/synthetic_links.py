"""Links of synthetic rows: popular parents, communities, and no parent from the future."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


class Popularity:
    """Draws parents in proportion to power-law weights, mostly inside the child's community.

    Args:
        rng: draws the weights; parents with a small row number tend to be popular.
        community: ``[P]`` community of each parent row.
        communities: number of communities.
    """

    def __init__(self, rng: np.random.Generator, community: Ints, communities: int) -> None:
        count = len(community)
        rank = rng.permutation(count) if rng.random() < 0.5 else np.arange(count)
        self.weight = (1.0 + rank) ** -float(rng.uniform(0.3, 0.9))
        self.loyalty = float(rng.uniform(0.5, 0.9))
        self.order = np.argsort(community, kind="stable").astype(np.int32)
        self.cumulated = np.cumsum(self.weight[self.order])
        ends = np.cumsum(np.bincount(community, minlength=communities))
        bounds = np.concatenate([[0.0], self.cumulated])
        self.low = bounds[np.concatenate([[0], ends[:-1]])]
        self.high = bounds[ends]

    def draw(self, rng: np.random.Generator, community: Ints, visible: NDArray[Any] | int) -> Ints:
        """One parent for each child, ``[C]``; -1 where no parent is visible.

        ``visible`` is how many parent rows, in row order, exist for the children.
        """
        count = len(community)
        low, high = self.low[community], self.high[community]
        foreign = (rng.random(count) >= self.loyalty) | (low >= high)
        low = np.where(foreign, 0.0, low)
        high = np.where(foreign, self.cumulated[-1], high)
        place = np.searchsorted(self.cumulated, low + rng.random(count) * (high - low), "right")
        parent: Ints = self.order[np.minimum(place, len(self.order) - 1)]
        unborn = parent >= visible
        if unborn.any():
            limit = np.broadcast_to(np.asarray(visible), (count,))[unborn]
            fallback = (limit * rng.random(len(limit)) ** 1.5).astype(np.int32)
            parent[unborn] = np.where(limit > 0, fallback, -1)
        return parent
