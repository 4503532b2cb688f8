"""Published scores: what the file holds, and what it may not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.published import read_published

GOOD: dict[str, Any] = {
    "method": "GNN",
    "source": "a board",
    "regime": "frozen",
    "scores": {"rel-f1/driver-dnf": {"roc_auc": 0.7}},
}


def write(folder: Path, *entries: Any) -> Path:
    path = folder / "published.yaml"
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def test_the_file_holds_what_is_known() -> None:
    methods = read_published()
    paper = next(one for one in methods if one.method.startswith("BART + GraphSAGE"))
    assert (paper.regime, paper.stated) == ("frozen", "not stated, probably frozen")
    assert paper.inferred
    assert paper.scores == {"rel-f1/driver-dnf": ("roc_auc", 0.674)}
    assert [one.inferred for one in methods].count(True) == 1
    doubted = {(m.method, task, m.scores[task][1]) for m in methods for task in m.not_reproduced}
    assert doubted == {
        ("KumoRFM FT", "rel-f1/driver-top3", 0.996),
        ("PluRel ft", "rel-trial/study-outcome", 0.946),
        ("PluRel ft", "rel-stack/user-engagement", 0.956),
        ("PluRel ft", "rel-event/user-attendance", 0.0708),
        ("RT ft", "rel-event/user-attendance", 0.0303),
    }
    goals = {
        (regime, task): (max if metric == "roc_auc" else min)(
            one.scores[task][1]
            for one in methods
            if one.regime == regime and task in one.scores and task not in one.not_reproduced
            if one.method != "Kapso agent"
        )
        for regime in ("frozen", "rolling")
        for task, metric in (("rel-f1/driver-dnf", "roc_auc"), ("rel-f1/driver-position", "nmae"))
    }
    assert goals == {
        ("frozen", "rel-f1/driver-dnf"): 0.771,
        ("rolling", "rel-f1/driver-dnf"): 0.846,
        ("frozen", "rel-f1/driver-position"): 0.5331,
        ("rolling", "rel-f1/driver-position"): 0.3745,
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": ""}, "source is ''"),
        ({"regime": "static"}, "regime is 'static', wanted frozen or rolling"),
        ({"regime": "frozen or rolling"}, "wanted frozen or rolling"),
        ({"year": 2026}, "wanted a mapping with method, source, regime, scores"),
        ({"scores": {}}, "scores is {}"),
        (
            {"scores": {"driver-dnf": {"roc_auc": 0.7}}},
            "task is 'driver-dnf', wanted database/task",
        ),
        ({"scores": {"a/b": {"auc": 0.7}}}, "a/b has metric 'auc', wanted one of roc_auc"),
        ({"scores": {"a/b": {"roc_auc": "0.7?"}}}, "roc_auc '0.7\\?', wanted a number"),
        ({"scores": {"a/b": {"roc_auc": float("nan")}}}, "roc_auc nan, wanted a number"),
        ({"scores": {"a/b": 0.7}}, "wanted one {metric: score}"),
        ({"not_reproduced": ["a/b"]}, "wanted a list of tasks of scores"),
    ],
)
def test_malformed_entries_are_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = write(tmp_path, GOOD, GOOD | {"method": "other"} | change)
    with pytest.raises(ValueError, match=said) as caught:
        read_published(path)
    assert "entry 2" in str(caught.value)


def test_a_method_comes_once_a_source(tmp_path: Path) -> None:
    other = GOOD | {"source": "another board"}
    assert [m.source for m in read_published(write(tmp_path, GOOD, other))] == [
        "a board", "another board",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'GNN' of 'a board' comes twice"):
        read_published(write(tmp_path, GOOD, GOOD))


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    with pytest.raises(ValueError, match="cannot be read"):
        read_published(path)
    path.write_text("method: x")
    with pytest.raises(ValueError, match="got dict, wanted a list"):
        read_published(path)
    path.write_text("- a\n")
    with pytest.raises(ValueError, match="entry 1: got 'a'"):
        read_published(path)
