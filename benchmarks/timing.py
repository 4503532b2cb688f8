"""Contenders measured side by side: interleaved, the order rotated every round, warmed up first.

Every run gets an input that it alone sees in its round: whoever comes second on a shared input
finds it in the caches. Where inputs differ much in work, ``crossed`` lets every contender meet
every input once, in different rounds, so that ratios can be taken input by input.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch

Input = TypeVar("Input")


@dataclass(frozen=True)
class Contender(Generic[Input]):
    """``draw(number)`` makes an input, unmeasured; ``run(input)`` is measured and returns how much
    work it was (rows, FLOPs, ...), above 0."""

    draw: Callable[[int], Input]
    run: Callable[[Input], float]


@dataclass
class Runs:
    """What one contender did, run by run, warm-up left out."""

    number: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median work per second."""
        return float(np.median(np.divide(self.work, self.seconds)))

    @property
    def median_seconds(self) -> float:
        return float(np.median(self.seconds))

    def cost(self) -> dict[int, float]:
        """Seconds per unit of work, by input."""
        return {n: s / w for n, s, w in zip(self.number, self.seconds, self.work, strict=True)}


def interleave(
    contenders: Mapping[str, Contender[Any]],
    repeats: int,
    crossed: bool = False,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Runs]:
    """Run every contender once per round.

    Args:
        repeats: measured rounds; with ``crossed`` rounded up to a multiple of the contenders.
        crossed: every contender meets every input, each in another round (a Latin square);
            without, no input is ever used twice.
        warm_up: unmeasured rounds before, on inputs of their own.
    """
    names, n = list(contenders), len(contenders)
    if crossed:
        repeats = -(-repeats // n) * n
    runs = {name: Runs() for name in names}
    for turn in range(-warm_up, repeats):
        block = turn // n if crossed and turn >= 0 else turn
        first = n * (warm_up + block)
        for j in range(n):
            i = (turn + j) % n  # whose turn it is
            number = first + (i + turn) % n
            contender = contenders[names[i]]
            given = contender.draw(number)
            start = clock()
            work = contender.run(given)
            seconds = clock() - start
            del given
            if turn >= 0:
                runs[names[i]].number.append(number)
                runs[names[i]].seconds.append(seconds)
                runs[names[i]].work.append(float(work))
    return runs


def ratio(slow: Runs, fast: Runs) -> float:
    """How many times as long ``slow`` takes for the same work: the median over inputs if the two
    met the same inputs, else over rounds."""
    a, b = slow.cost(), fast.cost()
    if a.keys() == b.keys():
        return float(np.median([a[number] / b[number] for number in a]))
    return float(np.median(np.divide(list(a.values()), list(b.values()))))


def total_ratio(slow: Runs, fast: Runs) -> float:
    """How many times as long ``slow`` takes for all inputs together."""
    assert sorted(slow.number) == sorted(fast.number), "totals of different inputs"
    return sum(slow.seconds) / sum(fast.seconds)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread; numba and numpy's indexing never take more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
