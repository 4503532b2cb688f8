"""What a command does to its process: what it says, its threads and its memory."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rfm.config import is_first_process

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h
_LIGHTNING = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
_ADVICE = (
    ".*does not have many workers.*",
    ".*You're using the WeightAveraging callback with a model that overrides.*",
    ".*`LeafSpec` is deprecated.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*The number of training batches.*",
    ".*srun.*command is available.*",
    ".*module.s. in eval mode at the start of training.*",  # a frozen row encoder
    ".*It is recommended to use .self.log.*sync_dist=True.*",  # rank 0 holds the sums of all
    ".*You have overridden `transfer_batch_to_device` in `LightningModule`.*",
)


def quieten() -> None:
    """Our lines and real warnings only: no tips, no advice that does not apply."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    logging.getLogger("rfm").setLevel(logging.INFO if is_first_process() else logging.WARNING)
    _ignore_advice()


@contextmanager
def without_advice() -> Iterator[None]:
    """As ``quieten``, for a while, in a process that is not ours: what it says itself stays."""
    levels = {name: logging.getLogger(name).level for name in _LIGHTNING}
    with warnings.catch_warnings():
        _ignore_advice()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def _ignore_advice() -> None:
    for name in _LIGHTNING:
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
    for advice in _ADVICE:
        warnings.filterwarnings("ignore", advice)


def _cores() -> int:
    """Cores that this process may use: fewer than there are where it is pinned."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_up_cpu() -> None:
    """Threads and memory as training wants them."""
    set_threads()
    keep_freed_memory()


def set_threads() -> None:
    """Share the cores between the ranks of a node, as torchrun's one thread each would not."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if "OMP_NUM_THREADS" not in os.environ or ranks > 1:
        import torch  # slow import

        torch.set_num_threads(max(1, _cores() // ranks))


def keep_freed_memory() -> None:
    """Keep what was freed for the next tensor: glibc would give large pieces back to the system and
    take them anew, page by page, at every step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            libc.mallopt(option, value)
