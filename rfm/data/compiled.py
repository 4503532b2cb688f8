"""Loops compiled by numba, or, without it, run by Python: the same results, much more slowly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

try:
    from numba import njit
except ImportError:
    HAS_NUMBA = False
else:
    HAS_NUMBA = True

Function: TypeAlias = Callable[..., Any]


def compiled(function: Function) -> Any:
    """Compile a function, without the GIL, and keep what was compiled on disk."""
    return _compile(function)


def inlined(function: Function) -> Any:
    """The same for a function that is a part of others."""
    return _compile(function, forceinline=True)


def _compile(function: Function, **options: bool) -> Any:
    if not HAS_NUMBA:
        return np.errstate(over="ignore")(function)  # as integers wrap around
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba finds no folder that it may write its cache to
        return njit(nogil=True, **options)(function)
