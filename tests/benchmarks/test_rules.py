"""Rules over past labels see what is known by the cutoff, and say what was worked out by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from benchmarks import rules
from benchmarks.answer import Answer
from benchmarks.popularity import own_destinations, past_destinations, popularity
from rfm.data.database import open_database
from rfm.data.label_history import LabelHistory, found_until, label_history
from rfm.data.tasks import Task, open_task
from rfm.eval.predictions import score
from tests.benchmarks.task_folders import labels, write_tasks
from tests.folders import write_folder

DAY = 86_400


def opened(folder: Path, name: str) -> Task:
    return open_task(open_database(folder), name)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("rules") / "market")


@pytest.fixture(scope="module")
def few() -> LabelHistory:
    """Group 0 asked on days 0, 10, 40 with 1, 0, 1; group 3 on day 60 with 0; known 30 days on."""
    asked = np.array([0, 10, 40, 60]) * DAY
    outcome = np.array([[1.0], [0.0], [1.0], [0.0]])
    return LabelHistory(np.array([0, 0, 0, 3]), asked + 30 * DAY, asked, outcome)


def ranges(of: LabelHistory, group: list[int], day: list[float]) -> list[tuple[int, int]]:
    cutoff = (np.array(day) * DAY).astype(np.int64)
    return [(int(s), int(e)) for s, e in zip(*of.visible(np.array(group), cutoff), strict=True)]


def test_a_label_is_seen_from_its_seed_time_plus_timedelta_on(few: LabelHistory) -> None:
    assert ranges(few, [0, 0, 0, 0], [29.9, 30, 69.9, 70]) == [(0, 0), (0, 1), (0, 2), (0, 3)]
    assert ranges(few, [3, 3, 2, 9], [89, 90, 1000, 1000])[:2] == [(3, 3), (3, 4)]
    for group in (-1, 1, 2, 9):  # nobody's, others', and beyond the last
        ((start, end),) = ranges(few, [group], [1e6])
        assert start == end


def test_ranges_of_nothing() -> None:
    none = np.zeros(0, np.int64)
    start, end = found_until(none, none, np.array([0, 1]), np.array([5, 6]))
    assert start.tolist() == end.tolist() == [0, 0]


def test_means_and_medians_of_ranges(few: LabelHistory) -> None:
    start, end = np.array([0, 1, 2, 4]), np.array([3, 3, 2, 4])
    assert few.mean(start, end)[:2, 0] == pytest.approx([2 / 3, 0.5])
    assert np.isnan(few.mean(start, end)[2:]).all()
    assert few.median(start, end)[:2, 0].tolist() == [1.0, 0.5]
    assert np.isnan(few.median(start, end)[2:]).all()


def test_a_mean_does_not_depend_on_labels_of_others() -> None:
    rng = np.random.default_rng(0)
    group, known = np.repeat([0, 1], 50), np.tile(np.arange(50), 2)
    outcome = rng.normal(0, 1e6, (100, 1))
    one = LabelHistory(group, known, known, outcome)
    outcome = outcome.copy()
    outcome[:50] *= 1e9
    other = LabelHistory(group, known, known, outcome)
    asked = np.array([60]), np.array([97])
    assert one.mean(*asked).tobytes() == other.mean(*asked).tobytes()


def test_the_rate_of_the_unseen_is_of_those_as_stale(few: LabelHistory) -> None:
    """Group 0's first label was known on day 30, group 3's on day 90: with no staleness the
    questions of days 0, 10 and 60 saw nothing, 20 days late the one of day 40 neither."""
    cutoff = np.array([200, 200, 70, 29]) * DAY
    stale = np.array([0, 20, 0, 0]) * DAY
    rate = rules.unseen_rate(few, cutoff, stale)[:, 0]
    assert rate[:3] == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert np.isnan(rate[3])


def test_multiclass_shares_and_multilabel_means_are_probabilities(market: Path) -> None:
    for name, outputs in (("level", 3), ("tags", 3), ("churn", 1)):
        task = opened(market, name)
        for method in (rules.global_constant, partial(rules.last_labels, count=10)):
            value = method(task, "frozen", 0).test.value
            assert value.shape == (120, outputs)
            assert ((value >= 0) & (value <= 1)).all()
            if name == "level":
                assert value.sum(axis=1) == pytest.approx(np.ones(120))


def test_the_constant_is_the_median_in_a_regression_else_the_mean(market: Path) -> None:
    for name, middle in (("spend", np.median), ("churn", np.mean)):
        task = opened(market, name)
        wanted = middle(task.rows("train").label)
        assert rules.training_constant(task)[0] == pytest.approx(wanted)
        assert (rules.global_constant(task, "frozen", 0).test.value == wanted).all()


def test_past_labels_beat_the_constant(market: Path) -> None:
    for name in ("churn", "level", "tags"):
        task = opened(market, name)
        constant = score(task, "test", rules.global_constant(task, "rolling", 0).test)
        for method in (
            rules.entity_mean,
            partial(rules.last_labels, count=10),
            partial(rules.last_labels_or_unseen_rate, count=20),
        ):
            assert score(task, "test", method(task, "rolling", 0).test) > constant + 0.1


def test_entity_mean_chooses_on_validation(market: Path) -> None:
    task = opened(market, "spend")
    chosen = rules.entity_mean(task, "frozen", 0).config
    assert set(chosen["validation"]) == {"mean", "median"}
    assert chosen["of"] == min(chosen["validation"], key=chosen["validation"].get)
    assert set(rules.entity_mean(opened(market, "churn"), "frozen", 0).config["validation"]) == {
        "mean"
    }


METHODS = {
    "churn": [
        rules.global_constant,
        rules.entity_mean,
        partial(rules.last_labels, count=10),
        partial(rules.last_labels_or_unseen_rate, count=20),
    ],
    "level": [partial(rules.last_labels_or_unseen_rate, count=20)],
    "buys": [popularity, own_destinations],
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("regime", ["frozen", "rolling"])
def test_labels_after_the_cutoff_change_no_answer(
    tmp_path: Path, market: Path, name: str, regime: str
) -> None:
    """Frozen: all labels of test rows are replaced. Rolling: those not known by the second of the
    three test times; later questions are free to change."""
    answers = {name: labels(name) for name in METHODS} | {n: labels(n) for n in ("tags", "spend")}
    frame = answers[name]
    times = sorted(frame["at"][frame["at"] >= pd.Timestamp("2020-07-01")].unique())
    until = times[min(1, len(times) - 1)]
    late = frame["at"] >= (times[0] if regime == "frozen" else until - pd.Timedelta("29 days"))
    shuffled = frame.loc[late, "label"].sample(frac=1.0, random_state=1).tolist()
    assert shuffled != frame.loc[late, "label"].tolist()
    frame.loc[late, "label"] = pd.Series(shuffled, index=frame.index[late])
    changed = opened(write_tasks(tmp_path / "market", answers=answers), name)
    task = opened(market, name)
    for method in METHODS[name]:
        before, after = (_asked(method(t, regime, 0), until, regime) for t in (task, changed))
        assert before.size
        assert before.tobytes() == after.tobytes()


def _asked(answer: Answer, until: pd.Timestamp, regime: str) -> npt.NDArray[np.float64]:
    test = answer.test
    return test.value if regime == "frozen" else test.value[test.time <= until.timestamp()]


def test_earlier_labels_do_change_answers(tmp_path: Path, market: Path) -> None:
    answers = {name: labels(name, seed=3) for name in ("churn", "level", "tags", "spend", "buys")}
    other = write_tasks(tmp_path / "market", answers=answers)
    for name, methods in METHODS.items():
        for method in methods:
            one, two = (method(opened(f, name), "frozen", 0).test.value for f in (market, other))
            assert (one != two).any()


def shelf(folder: Path, goods: int = 3, top_k: int = 2) -> Task:
    """Person 0 had good 2 twice, then 0; everybody else has 1."""
    frames = {
        "people": pd.DataFrame({"id": range(4)}),
        "goods": pd.DataFrame({"id": range(goods)}),
        "visits": pd.DataFrame({"at": [pd.Timestamp("2019-01-01")], "person": [0]}),
    }
    keys = {
        "people": {"pkey": "id"},
        "goods": {"pkey": "id"},
        "visits": {"time_col": "at", "fkeys": {"person": "people"}},
    }
    write_folder(folder, frames, keys)
    tasks = folder / "tasks" / "takes"
    tasks.mkdir(parents=True)
    (tasks / "manifest.yaml").write_text(
        "{name: takes, kind: forecast, task_type: recommendation, manifest_version: 1, sql: '-',"
        " time_col: at, timedelta: 30 days, target_col: good, src_entity_table: people,"
        f" src_entity_col: person, dst_entity_table: goods, dst_entity_col: good, eval_k: {top_k}}}"
    )
    train = [("2019-01-01", 0, [2]), ("2019-02-01", 0, [2]), ("2019-03-05", 0, [0])]
    train += [(day, p, [1]) for day in ("2019-01-01", "2019-02-01") for p in (1, 2, 3)]
    splits = {
        "train": train,
        "val": [("2020-01-01", 0, [2]), ("2020-01-01", 1, [1])],
        "test": [("2020-07-01", 0, [2]), ("2020-07-01", 3, [1])],
    }
    for split, rows in splits.items():
        frame = pd.DataFrame(rows, columns=["at", "person", "good"])
        frame.astype({"at": "datetime64[ns]"}).to_parquet(tasks / f"{split}.parquet", index=False)
    return opened(folder, "takes")


def test_popular_and_own_destinations_by_hand(tmp_path: Path) -> None:
    task = shelf(tmp_path / "shelf")
    past = past_destinations(task)
    end = int(pd.Timestamp("2019-12-31").timestamp())
    assert past.popular(0, 0, end).tolist() == [1, 2, 0]
    assert past.own("frequent", 0, end).tolist() == [2, 0]
    assert past.own("recent", 0, end).tolist() == [0, 2]
    soon = int(pd.Timestamp("2019-03-20").timestamp())  # good 0 was asked for, but is not known
    assert past.own("recent", 0, soon).tolist() == [2]
    assert past.popular(1, 0, soon).tolist() == [1, 2]
    assert past.popular(1, 0, end).tolist() == [0]  # all of the last month that has labels
    assert past.popular(1, 0, 0).tolist() == []
    answer = own_destinations(task, "frozen", 0)
    assert answer.test.value.tolist() == [[2, 0], [1, 2]]
    assert answer.config["chosen"].startswith("frequent")
    assert score(task, "test", answer.test) == 1.0
    assert popularity(task, "frozen", 0).test.value[:, 0].tolist() == [1, 1]


def test_too_few_destinations_are_refused(tmp_path: Path) -> None:
    task = shelf(tmp_path / "shelf", top_k=5)
    with pytest.raises(ValueError, match=r"wants 5 destinations, goods has only 3 rows: lower"):
        popularity(task, "frozen", 0)


@pytest.mark.realdata
def test_published_rules_are_reproduced(real_data: Path) -> None:
    """Entity mean 0.699 (published); the last ten labels 0.811 and 0.886. The second depends on
    what is said of 21 rows without any label: 0.811 with 0.7, 0.814 with the training mean."""
    dnf, top3 = (opened(real_data / "rel-f1", name) for name in ("driver-dnf", "driver-top3"))
    mean = rules.entity_mean(dnf, "frozen", 0)
    assert score(dnf, "test", mean.test) == pytest.approx(0.699, abs=0.001)
    last = [rules.last_labels(task, "rolling", 0, count=10) for task in (dnf, top3)]
    assert score(dnf, "test", last[0].test) == pytest.approx(0.8139, abs=0.0005)
    assert score(top3, "test", last[1].test) == pytest.approx(0.886, abs=0.0005)
    labelled = label_history(dnf)
    seen = labelled.visible(dnf.rows("test").entity, dnf.cutoffs("test", "rolling"))
    assert int((seen[0] == seen[1]).sum()) == 21
    last[0].test.value[seen[0] == seen[1]] = 0.7
    assert score(dnf, "test", last[0].test) == pytest.approx(0.811, abs=0.0005)
    bar = rules.last_labels_or_unseen_rate(dnf, "frozen", 0, count=20)
    assert score(dnf, "test", bar.test) == pytest.approx(0.764, abs=0.001)
