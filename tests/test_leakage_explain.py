"""What an explanation must not know, nor name: rows and labels that are later than the question."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import open_database
from rfm.data.tasks import Regime
from rfm.eval.explain import Explainer, Explanation, explain
from rfm.nn.model import RelationalModel
from tests.eval.test_explain import SOME, opened
from tests.eval.test_zero_shot import model, task_of
from tests.shop import KEYS
from tests.test_leakage_zero_shot import with_other_labels

assert model  # a fixture
SOME_ROWS = np.arange(0, 30, 5)


def explained(
    model: RelationalModel, shop: Path, cache: Path, name: str, regime: Regime
) -> tuple[Explanation, ...]:
    asker = opened(model, shop, cache, name, cached=False)
    return explain(asker, "test", regime, 24, 0, SOME_ROWS, SOME)


def assert_alike(some: tuple[Explanation, ...], others: tuple[Explanation, ...]) -> None:
    for a, b in zip(some, others, strict=True):
        assert a.answer == pytest.approx(b.answer, rel=1e-4, abs=1e-5)
        for one, other in zip(a.signals, b.signals, strict=True):
            assert (one.path, one.table, one.column) == (other.path, other.table, other.column)
            assert (one.rows, one.words) == (other.rows, other.words)
            assert one.weight == pytest.approx(other.weight, rel=1e-3, abs=1e-4)
            assert one.occluded == pytest.approx(other.occluded, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("regime", ["frozen", "rolling"])
@pytest.mark.parametrize("name", ["buys", "spend", "tier", "status"])
def test_no_row_is_named_that_a_question_may_not_see(
    model: RelationalModel, task_shop: Path, task_cache: Path, name: str, regime: Regime
) -> None:
    asker = opened(model, task_shop, task_cache, name)
    explainer = Explainer(asker, "test", regime, 24, 0, SOME)
    graph, named = explainer.situation.laid.store.graph, 0
    cutoffs = asker.task.cutoffs("test", regime)
    at = range(0, min(30, len(cutoffs)), 5)
    for i, one, asked in zip(at, explainer.explain(at), explainer.ask(at), strict=True):
        for signal in one.signals:
            rows = explainer.first_row(signal.table) + np.array(signal.rows, dtype=np.int64)
            late = np.asarray(graph.row_time[rows]) > cutoffs[i]
            assert not late.any() or not signal.path  # a question's entity may come later itself
            named += rows.size if signal.path else 0
        every = explainer.situation.all_rows(asked)
        assert (np.asarray(graph.row_time[every]) <= cutoffs[i]).all()
    assert named > 10


@pytest.mark.parametrize("name", ["buys", "spend", "tier"])
def test_labels_known_after_the_anchor_change_no_frozen_explanation(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    anchor = task_of(task_shop, name).database.test_timestamp
    other = with_other_labels(task_shop, tmp_path / "shop", name, anchor)
    a, b = (explained(model, shop, task_cache, name, "frozen") for shop in (task_shop, other))
    assert_alike(a, b)


def with_other_rows(shop: Path, out: Path, later_than: int) -> Path:
    """A copy in which the cells of all rows that come later are those of others."""
    shutil.copytree(shop, out)
    rng, changed = np.random.default_rng(0), 0
    for name, table in open_database(shop).tables.items():
        if table.time_column is None:
            continue
        path = out / "db" / f"{name}.parquet"
        frame = pd.read_parquet(path)
        seconds = frame[table.time_column].astype("datetime64[s]").astype("int64").to_numpy()
        late = np.flatnonzero(seconds > later_than)
        for column in frame.columns.difference([table.time_column, KEYS[name].get("pkey", "")]):
            frame[column] = frame[column].astype(object)
            cells = frame[column].to_numpy(copy=True)
            cells[late] = rng.permutation(cells[late])
            frame[column] = pd.Series(cells).astype(pd.read_parquet(path)[column].dtype)
        changed += late.size
        frame.to_parquet(path, index=False)
    assert changed > 20
    return out


@pytest.mark.parametrize("name", ["buys", "tier"])
def test_rows_after_the_last_question_change_no_explanation(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path, name: str
) -> None:
    later = task_of(task_shop, name).database.test_timestamp
    other = with_other_rows(task_shop, tmp_path / "shop", later)
    a, b = (explained(model, shop, task_cache, name, "frozen") for shop in (task_shop, other))
    assert_alike(a, b)


def test_rows_before_do_change_explanations(
    model: RelationalModel, tmp_path: Path, task_shop: Path, task_cache: Path
) -> None:
    """So that the tests above can fail."""
    early = task_of(task_shop, "buys").database.first_time
    for other in (
        with_other_labels(task_shop, tmp_path / "labels" / "shop", "buys", early),
        with_other_rows(task_shop, tmp_path / "rows" / "shop", early),
    ):
        a, b = (explained(model, s, task_cache, "buys", "frozen") for s in (task_shop, other))
        with pytest.raises(AssertionError):
            assert_alike(a, b)
