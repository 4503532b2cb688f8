from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rfm.data.corpus import Corpus

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real databases: ``RFM_DATA``, by default ``../shared/data``."""
    folder = Path(os.environ.get("RFM_DATA", ROOT / ".." / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real databases in {folder} (set RFM_DATA)")
    return folder


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache that tiny pretraining runs share (``tests/tiny_run.py``), so as to prepare once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_corpus(tiny_cache: Path) -> Corpus:
    """Two synthetic databases and their tokenizer."""
    from tests.tiny_model import open_tiny_corpus

    return open_tiny_corpus(tiny_cache)
