"""The sampler's backends agree on real databases, and without numba."""

import os
import subprocess
import sys

import numpy as np
import pytest

from rfm.data.compiled import HAS_NUMBA
from rfm.data.database import open_database
from rfm.data.graph import STATIC, build_graph
from rfm.data.locate import list_databases
from rfm.data.sampler import fan_outs, sample
from tests.graphs import assert_same, make_seeds

_DIGEST = """
import hashlib, io, sys, warnings
if sys.argv[2] == "without":
    sys.modules["numba"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from rfm.data import sampler
said = any("numba is not there" in str(warning.message) for warning in caught)
assert said == (sys.argv[2] == "without")
from pathlib import Path
import torch
from rfm.data.mixture import PretrainBatches
from tests.shop import prepare_shop, small_batches
batches = PretrainBatches(prepare_shop(Path(sys.argv[1])).mixture, small_batches(), 0, "train")
warnings.simplefilter("error")
file = io.BytesIO()
torch.save([batches[i] for i in range(3)], file)
print(hashlib.sha256(file.getvalue()).hexdigest())
"""


@pytest.mark.slow
def test_without_numba_batches_are_the_same(tmp_path):
    """Or without a folder for its cache."""
    readable = {**os.environ, "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    found = [
        subprocess.run(
            [sys.executable, "-c", _DIGEST, str(tmp_path / str(i)), how],
            check=True, capture_output=True, text=True, env=env,
        ).stdout
        for i, (how, env) in enumerate(
            [("with", os.environ), ("without", os.environ), ("with", readable)]
        )
    ]  # fmt: skip
    assert found[0] == found[1] == found[2] != ""


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.skipif(not HAS_NUMBA, reason="numba cannot be used")
def test_backends_agree_on_every_real_database(tmp_path, real_data):
    for name in list_databases(real_data):
        agree_on(open_database(real_data / name), tmp_path / name)


@pytest.mark.realdata
@pytest.mark.skipif(not HAS_NUMBA, reason="numba cannot be used")
def test_backends_agree_on_real_data(tmp_path, real_data):
    agree_on(open_database("rel-f1", real_data), tmp_path)


def agree_on(database, folder):
    tables = database.tables.values()
    keys = [(t.name, c, p) for t in tables for c, p in t.foreign_keys.items()]
    graph = build_graph(
        folder,
        {t.name: t.num_rows for t in tables},
        keys,
        (database.parents(child, column) for child, column, _ in keys),
        (database.times(t.name) if t.time_column else None for t in tables),
    )
    rng = np.random.default_rng(0)
    child = max({t for t, _, _ in keys}, key=lambda t: database.tables[t].num_rows)
    start = graph.table_start[graph.tables.index(child)]
    size = database.tables[child].num_rows
    rows = np.sort(start + rng.choice(size, 64, replace=False))
    own = [f for f, key in enumerate(keys) if key[0] == child]
    cut = [[*own, -1][i % (len(own) + 1)] for i in range(64)]
    hidden = [sorted({int(r) - 1, int(r) - 5} & set(range(graph.num_rows))) for r in rows]
    time = np.where(graph.row_time[rows] == STATIC, database.test_timestamp, graph.row_time[rows])
    seeds = make_seeds(rows, time, cut=cut, hidden=hidden)
    for strategy, max_rows in (("last", 0), ("last", 60), ("uniform", 0)):
        args = (graph, seeds, fan_outs(graph, [32, 16]), strategy, max_rows, 7)
        out = sample(*args, backend="numba")
        assert_same(out, sample(*args, backend="numpy"))
        assert (graph.row_time[out.row] <= seeds.time[out.seed]).all()
