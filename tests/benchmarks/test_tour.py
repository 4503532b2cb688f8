"""From a running PostgreSQL, or from files, to answers; and how soon they come."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyarrow import csv

from benchmarks.postgres import why_not
from benchmarks.tour import QUESTIONS, TourConfig, tour
from rfm.config import load_config
from rfm.data.database import open_database
from tests.answering import save_answering

pytestmark = [pytest.mark.slow, pytest.mark.realdata]
ROOT = Path(__file__).parents[2]
_ASK = """
import sys, time
from rfm import RelationalModel, open_database
checkpoint, source = sys.argv[1:]
model, database = RelationalModel.from_pretrained(checkpoint), open_database(source)
query = "PREDICT COUNT(orders.*, 0, {days}, days) > 0 FOR EACH customers.customer_id"
assert len(model.predict(database, query.format(days=30))) == 93
first = time.time()
assert len(model.predict(database, query.format(days=60))) == 93
print(first, time.time())
"""


@pytest.fixture(scope="module")
def checkpoint(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return save_answering(real_data / "northwind", folder / "cache", folder / "model")


def test_a_database_server_is_asked(
    real_data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    no_trace: None,
) -> None:
    if why := why_not():
        pytest.skip(why)
    monkeypatch.setenv("RFM_CACHE", str(tmp_path))
    argv = [f"checkpoint={checkpoint}", f"data.root={real_data}", "ask.context=64"]
    said = tour(load_config(TourConfig, argv, prog="tour", doc=None))
    assert list(said["answered"]) == list(QUESTIONS)
    assert all(rows > 50 for rows in said["answered"].values())
    shown = capsys.readouterr().out
    assert all(query in shown for query in QUESTIONS.values())
    assert ": lowers the " in shown or ": raises the " in shown
    imported = open_database(said["folder"])
    original = open_database(real_data / "northwind")
    for name, table in original.tables.items():
        assert imported.tables[name].num_rows == table.num_rows
        assert imported.tables[name].foreign_keys == table.foreign_keys


def test_the_first_answer_comes_soon_and_the_second_at_once(
    real_data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """30 s from nothing, import and all, and 3 s, on two cores."""
    files = tmp_path / "files"
    files.mkdir()
    for path in (real_data / "northwind" / "db").glob("*.parquet"):
        csv.write_csv(pq.read_table(path), files / f"{path.stem}.csv")
    environment = {**os.environ, "RFM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "2"}
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", _ASK, str(checkpoint), str(files)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = map(float, done.stdout.split())
    assert first - start < 30
    assert second - first < 3
