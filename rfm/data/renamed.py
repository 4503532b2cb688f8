"""Columns and foreign keys under names that mean nothing: so that a model reads the examples rather
than remembers what a name stood for elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from rfm.data.batch import ROLE_NAME, Bucket, EpisodeBatch
from rfm.data.tokenizer import SPECIAL, Tokenizer


def renamed(batch: EpisodeBatch, tokenizer: Tokenizer, rng: np.random.Generator) -> EpisodeBatch:
    """The same episode with every token of a name replaced, the same one always by the same other.

    Names within the states of cached rows stay, as these were encoded with them.
    """
    special = np.array([tokenizer.id(token) for token in SPECIAL])
    words = np.setdiff1d(np.arange(len(tokenizer)), special)
    other = np.arange(len(tokenizer))
    other[words] = rng.permutation(words)
    change = torch.from_numpy(other)
    return replace(
        batch,
        buckets=tuple(_renamed(bucket, change) for bucket in batch.buckets),
        cached=replace(batch.cached, name=change[batch.cached.name]),
        relation=change[batch.relation],
        named=False,
    )


def _renamed(bucket: Bucket, change: Tensor) -> Bucket:
    is_name = bucket.role == ROLE_NAME
    return replace(bucket, token=torch.where(is_name, change[bucket.token], bucket.token))
