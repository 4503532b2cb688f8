"""A tiny model and a batch that asks it everything."""

from __future__ import annotations

import pytest

from rfm.data.batch import PretrainBatch
from rfm.data.corpus import Corpus
from rfm.nn.model import RelationalModel
from tests.tiny_model import tiny_batches, tiny_model


@pytest.fixture(scope="module")
def model(tiny_corpus: Corpus) -> RelationalModel:
    return tiny_model(tiny_corpus)


@pytest.fixture(scope="module")
def batch(tiny_corpus: Corpus) -> PretrainBatch:
    found = tiny_batches(tiny_corpus)[3]
    assert len(found.buckets) > 2
    assert min(found.values.rank.numel(), found.texts.row.numel(), found.links.query.numel()) > 2
    assert found.mask_node.numel() > 20
    return found
