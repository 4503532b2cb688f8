"""Cells to rows: means, spreads, ranks, and what must not be averaged."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest

from benchmarks.published import Published
from benchmarks.ranking import rankings
from benchmarks.summary import COLUMNS, csv_table, summarise
from tests.results import DNF, POSITION, TOP3, cell, put


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_numbers_of_the_csv(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(
            cell(
                seed=seed, test=test, validation=test + 0.1, seconds=seconds, low=test - 0.1,
                high=test + 0.2, checkpoint="runs/real/model", pretraining=("chinook", "sakila"),
            )
            for seed, test, seconds in ((0, 0.8, 10.0), (10, 0.7, 11.0), (2, 0.9, 12.26))
        ),
        cell(method="constant", test=0.5, validation=float("nan")),
        cell(POSITION, "constant", regime="rolling", test=1 / 3),
    )  # fmt: skip
    summaries = summarise(tmp_path)
    text = csv_table(summaries, [])
    assert text.splitlines() == [
        "task,regime,method,metric,mean,std,seeds,validation,seconds,checkpoint,"
        "pretraining databases",
        "rel-f1/driver-dnf,frozen,constant,roc_auc,0.5,,1,,10.0,,",
        "rel-f1/driver-dnf,frozen,rfm,roc_auc,0.8,0.1,3,0.9,11.1,runs/real/model,chinook sakila",
        "rel-f1/driver-position,rolling,constant,nmae,0.333333,,1,0.333333,10.0,,",
    ]
    constant, ours, _ = summaries
    assert [one.seed for one in ours.cells] == [0, 2, 10]
    assert ours.interval == pytest.approx((0.7, 1.0))
    assert constant.interval is None


def test_published_scores_stay_in_their_regime_and_on_our_tasks(tmp_path: Path) -> None:
    put(tmp_path, cell(), cell(POSITION, regime="rolling"))
    scores = {DNF: ("roc_auc", 0.7), TOP3: ("roc_auc", 0.9), POSITION: ("nmae", 0.5)}
    published = [
        Published("A", "here", "frozen", "not stated, probably frozen", scores),
        Published("A", "there", "rolling", "rolling", scores, frozenset({POSITION})),
    ]
    found = rows(csv_table(summarise(tmp_path), published))
    assert [tuple(row[name] for name in COLUMNS[:7]) for row in found] == [
        (DNF, "frozen", "rfm", "roc_auc", "0.8", "", "1"),
        (DNF, "frozen", "A (published: here; regime not stated, probably frozen)", "roc_auc",
         "0.7", "", ""),
        (POSITION, "rolling", "rfm", "nmae", "0.8", "", "1"),
        (POSITION, "rolling", "A (published: there; not reproduced later)", "nmae", "0.5", "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpoint": "b"}, 'differ in checkpoint: "" and "b"'),
        ({"pretraining": ("chinook",)}, "differ in pretraining"),
        ({"config": {"lr": 1e-3, "optim": {"steps": 100}}}, 'config: {"data": .*"lr": 0.0001'),
        ({"config": {"lr": 1e-4, "optim": {"steps": 200}, "data": {}}}, 'config: {"optim"'),
        ({"metric": "accuracy"}, 'differ in metric: "roc_auc" and "accuracy"'),
    ],
)
def test_what_differs_is_not_averaged(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    put(tmp_path, cell(seed=0), cell(seed=1, **change))
    with pytest.raises(ValueError, match=said) as caught:
        summarise(tmp_path)
    folder = tmp_path / "frozen" / DNF / "rfm"
    assert str(folder / "seed-0.json") in str(caught.value)
    assert str(folder / "seed-1.json") in str(caught.value)


def test_methods_are_not_compared_in_different_metrics(tmp_path: Path) -> None:
    put(tmp_path, cell(), cell(method="other", metric="accuracy", regime="rolling"))
    with pytest.raises(ValueError, match=r"frozen.*rfm.*rolling.*other.*differ in metric"):
        summarise(tmp_path)


def test_seeds_and_folders_may_differ_and_commits_are_told(tmp_path: Path) -> None:
    config = {"lr": 1e-4, "optim": {"steps": 100}, "data": {"root": "/x", "cache": "/y"}}
    put(
        tmp_path,
        cell(warnings=("loud",)),
        cell(seed=1, warnings=("loud",), versions={"commit": "def456"},
             config={**config, "seeds": 5, "run_dir": "/z"}),
    )  # fmt: skip
    (one,) = summarise(tmp_path)
    assert one.warnings == ("loud", "seeds were run at different commits: abc123, def456")
    assert one.config == {"lr": 1e-4, "optim": {"steps": 100}, "data": {}}


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no results, wanted files"):
        summarise(tmp_path / "nothing")
    put(tmp_path, cell(test=float("nan")))
    with pytest.raises(ValueError, match=r"seed-0.json: the test score is nan"):
        summarise(tmp_path)
    put(tmp_path, cell())
    folder = tmp_path / "frozen" / DNF / "rfm"
    (folder / "seed-1.json").write_bytes((folder / "seed-0.json").read_bytes())
    with pytest.raises(ValueError, match="seed 0 comes twice"):
        summarise(tmp_path)


def test_ranks_over_shared_tasks_only() -> None:
    scores = {
        "good": {"a": 0.9, "b": 0.1, "c": 0.5},
        "tied": {"a": 0.9, "b": 0.2, "c": 0.6},
        "bad": {"a": 0.5, "b": 0.3, "c": 0.7},
        "partial": {"a": 0.95, "b": 0.25},
        "single": {"a": 1.0},
    }
    everything, shared = rankings(scores, {"a": True, "b": False, "c": False})
    assert everything.tasks == ("a", "b", "c")
    assert everything.ranks == pytest.approx(
        {"good": 3.5 / 3, "tied": 5.5 / 3, "bad": 3.0}
    )  # "partial" cannot push others down on what it has, nor gain from lacking c
    assert shared.tasks == ("a", "b")
    assert shared.ranks == {"good": 1.75, "tied": 2.25, "bad": 4.0, "partial": 2.0}


def test_nobody_to_be_ranked_with() -> None:
    assert rankings({"a": {"x": 1.0, "y": 1.0}}, {"x": True, "y": True}) == []
    assert rankings({"a": {"x": 1.0}, "b": {"y": 1.0}}, {"x": True, "y": True}) == []
