import os
from pathlib import Path

import pytest

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
