from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from benchmarks.postgres import Cluster
    from rfm.data.corpus import Corpus
    from rfm.data.database import Database
    from rfm.eval.ask import AskConfig
    from rfm.model import RelationalModel
    from tests.batches import Drawn
    from tests.busy_shop import Busy
    from tests.corpora import Corpus as ThreeDatabases

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


@pytest.fixture
def no_trace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a run does to threads, randomness and logging is undone."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    root, ours = logging.getLogger(), logging.getLogger("rfm")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    torch.set_num_threads(threads)
    torch.set_rng_state(state)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> ThreeDatabases:
    """The shop and two synthetic databases."""
    from tests.corpora import three_databases

    return three_databases(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="session")
def drawn(corpus: ThreeDatabases) -> list[Drawn]:
    """Training and validation batches of them."""
    from tests.corpora import draw_batches

    return draw_batches(corpus)


@pytest.fixture(scope="session")
def task_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shop and its tasks; nobody may change it."""
    from tests.task_folders import write_task_shop

    return write_task_shop(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def asked_shop(task_shop: Path) -> Database:
    """The same, opened."""
    from rfm.data.database import open_database

    return open_database(task_shop)


@pytest.fixture(scope="session")
def task_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data of ``task_shop``."""
    return tmp_path_factory.mktemp("task cache")


@pytest.fixture(scope="session")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Busy:
    """A database with enough rows to make tasks of."""
    from tests.busy_shop import open_busy

    return open_busy(tmp_path_factory.mktemp("busy"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server of its own; skips where PostgreSQL is not installed."""
    from benchmarks.postgres import cluster, why_not

    if why := why_not():
        pytest.skip(why)
    with cluster() as running:
        yield running


@pytest.fixture(params=[True, False])
def adbc(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether PostgreSQL is read by ADBC, or by a cursor as where that is not installed: both."""
    if not request.param:
        monkeypatch.setattr("rfm.data.importing.sql._has_adbc", lambda: False)
    return bool(request.param)


@pytest.fixture(scope="session")
def answering(
    tmp_path_factory: pytest.TempPathFactory, task_shop: Path, task_cache: Path
) -> RelationalModel:
    """A model that answers queries about ``task_shop``, without having learnt anything."""
    from tests.answering import open_answering

    return open_answering(task_shop, task_cache, tmp_path_factory.mktemp("answering"))


@pytest.fixture(scope="session")
def asking(task_cache: Path) -> AskConfig:
    """How it is asked."""
    from tests.answering import small_config

    return small_config(task_cache)
