"""Features along foreign keys: what they count, and that nothing after a cutoff changes them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks.aggregates import DAY, Features, Questions, affordable
from benchmarks.columns import number_tables
from benchmarks.features import database_source, entity_source
from benchmarks.paths import many_rows, single_rows
from rfm.data.database import open_database
from rfm.data.task_rows import TaskSplit
from rfm.data.tasks import Regime, Task, open_task
from tests.benchmarks.task_folders import labels, tables, write_tasks

PLENTY = 10**9


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tasks(tmp_path_factory.mktemp("features") / "market")


def opened(folder: Path, name: str) -> Task:
    return open_task(open_database(folder), name)


def questions(task: Task, split: TaskSplit, regime: Regime) -> Questions:
    rows = task.rows(split)
    return Questions(rows.entity, rows.time, task.cutoffs(split, regime))


def features(task: Task, asked: Questions) -> Features:
    return database_source(task, questions(task, "train", "frozen"), PLENTY, 1).features(asked)


def column(of: Features, name: str) -> np.ndarray:
    return of.values[:, of.names.index(name)]


def test_aggregates_are_those_of_pandas(market: Path) -> None:
    """Of children, over all rows and a window, counted row by row."""
    task = opened(market, "churn")
    asked = questions(task, "test", "rolling")
    found = features(task, asked)
    orders = tables()["orders"]
    seconds = orders["at"].to_numpy().astype("datetime64[s]").astype("int64")
    notes = tables()["notes"].merge(orders, left_on="order", right_on="id")
    noted = notes["written"].to_numpy().astype("datetime64[s]").astype("int64")
    prices = tables()["goods"]["price"].to_numpy()
    way = "orders(person)"
    for i in range(0, asked.entity.size, 7):
        mine = orders[(orders["person"] == asked.entity[i]) & (seconds <= asked.cutoff[i])]
        at = seconds[mine.index]
        recent = mine[at > asked.cutoff[i] - 90 * DAY]
        wanted = {
            f"{way}, all: count": len(mine),
            f"{way}, 90 days: count": len(recent),
            f"{way}, all: avg orders.amount": mine["amount"].mean(),
            f"{way}, all: min orders.amount": mine["amount"].min(),
            f"{way}, 90 days: max orders.amount": recent["amount"].max(),
            f"{way}, 90 days: sum orders.amount": recent["amount"].sum(min_count=1),
            f"{way}, all: share of orders.paid": mine["paid"].mean(),
            f"{way}: last orders.amount": mine["amount"].dropna().iloc[-1],
            f"{way}: days since": (asked.cutoff[i] - at.max()) / DAY,
            f"{way} > good, all: avg goods.price": prices[mine["good"]].mean(),
            f"{way} < notes(order), all: avg notes.stars": notes.loc[
                (notes["person"] == asked.entity[i]) & (noted <= asked.cutoff[i]), "stars"
            ].mean(),
        }
        for name, value in wanted.items():
            assert column(found, name)[i] == pytest.approx(value, rel=1e-5, nan_ok=True), name


def test_shares_are_of_the_commonest_categories_of_the_training_period(market: Path) -> None:
    task = opened(market, "churn")
    asked = questions(task, "val", "rolling")
    orders = tables()["orders"]
    early = orders[orders["at"] <= "2020-01-01"]
    commonest = early["way"].value_counts().index[0]
    mine = orders[(orders["person"] == asked.entity[0])]
    seconds = mine["at"].to_numpy().astype("datetime64[s]").astype("int64")
    mine = mine[seconds <= asked.cutoff[0]]
    share = column(features(task, asked), "orders(person), all: share of 0 in orders.way")[0]
    assert share == pytest.approx((mine["way"] == commonest).mean())


def test_own_columns_ages_and_parents(market: Path) -> None:
    task = opened(market, "churn")
    asked = questions(task, "test", "frozen")
    found = features(task, asked)
    people = tables()["people"]
    born = people["born"].to_numpy().astype("datetime64[s]").astype("int64")[asked.entity]
    age = column(found, "people: people.born")
    assert age == pytest.approx((asked.time - born) / DAY, rel=1e-5)
    size = np.array(tables()["towns"]["size"], np.float32)[asked.entity % 4]
    assert column(found, "people > town: towns.size") == pytest.approx(size, nan_ok=True)
    assert "people: people.job" in found.categories
    stale = column(found, "days of staleness")
    assert stale.tolist() == ((asked.time - asked.cutoff) / DAY).tolist()
    assert stale.max() == 60


def test_entity_features_are_its_columns_alone(market: Path) -> None:
    task = opened(market, "churn")
    found = entity_source(task).features(questions(task, "val", "frozen"))
    assert set(found.names) == {"people: people.born", "people: people.job"}


def test_past_label_features(market: Path) -> None:
    task = opened(market, "spend")
    asked = questions(task, "test", "frozen")
    found = features(task, asked)
    frame = labels("spend")
    known = frame["at"] + pd.Timedelta("30 days")
    visible = frame[known <= "2020-07-01"].sort_values("at")
    for i in (0, 20, 39):
        mine = visible[visible["person"] == asked.entity[i]]["label"]
        assert column(found, "labels: count")[i] == len(mine)
        assert column(found, "labels: mean of last 3 [0]")[i] == pytest.approx(mine[-3:].mean())
        assert column(found, "labels: mean of all [0]")[i] == pytest.approx(mine.mean())
    rate = visible["label"].mean()
    assert column(found, "all labels, all: mean [0]")[:40] == pytest.approx(rate)


def test_ways_go_two_hops_and_not_back_at_once(market: Path) -> None:
    task = opened(market, "churn")
    known = number_tables(task)
    assert [way.name for way in single_rows(known, "people")] == ["people", "people > town"]
    assert {way.name for way in many_rows(known, "people")} == {
        "orders(person)",
        "orders(person) > good",
        "orders(person) < notes(order)",
        "town < people(town)",
    }


def test_a_budget_leaves_out_the_longest_windows_first(market: Path) -> None:
    task = opened(market, "churn")
    asked = questions(task, "train", "frozen")
    source = database_source(task, asked, PLENTY, 1)
    way = next(way for way, _ in source.many if way.name == "orders(person)")
    costs = []
    for count in range(len(source.windows), 0, -1):
        some = source.windows[:count]
        budget = next(b for b in range(0, 10**6, 50) if affordable(way, asked, some, b) == some)
        costs.append(budget)
        assert affordable(way, asked, source.windows, budget) == some
    assert costs == sorted(costs, reverse=True)
    assert affordable(way, asked, source.windows, 0) == ()
    less = database_source(task, asked, costs[-1], 1).features(asked)
    assert "orders(person), 30 days: count" in less.names
    assert "orders(person), all: count" not in less.names


def test_hidden_columns_are_in_no_feature(tmp_path: Path, market: Path) -> None:
    frames = tables()
    frames["orders"]["secret"] *= -3
    frames["orders"]["amount"] += 1
    hidden = (("orders", "secret"), ("orders", "amount"), ("orders", "good"))
    one = opened(write_tasks(tmp_path / "one" / "market", hidden=hidden), "churn")
    two = opened(write_tasks(tmp_path / "two" / "market", frames, hidden=hidden), "churn")
    found = [features(task, questions(task, "test", "rolling")) for task in (one, two)]
    assert found[0].names == found[1].names
    assert found[0].values.tobytes() == found[1].values.tobytes()
    for word in ("secret", "amount", "good"):
        assert not any(word in name for name in found[0].names)
    assert any("amount" in name for name in entire(market).names)


def entire(market: Path) -> Features:
    task = opened(market, "churn")
    return features(task, questions(task, "val", "frozen"))


def later_changed(until: str, delete: bool) -> dict[str, pd.DataFrame]:
    """The tables with every row after a time deleted, or other in every cell but its keys' type."""
    frames = tables()
    rng = np.random.default_rng(9)
    for name, at in (("orders", "at"), ("notes", "written")):
        frame = frames[name]
        late = (frame[at] > until).to_numpy()
        assert late.any()
        if delete and name == "notes":
            frames[name] = frame[~late]
            continue
        for column_name in frame.columns.difference([at, "id", "order"]):
            frame.loc[late, column_name] = rng.permutation(frame.loc[late, column_name].to_numpy())
    if delete:
        kept = frames["orders"][frames["orders"]["at"] <= until]
        assert frames["notes"]["order"].max() <= kept["id"].max()
        frames["orders"] = kept
    return frames


@pytest.mark.parametrize("delete", [False, True])
@pytest.mark.parametrize("name", ["churn", "spend"])
def test_rows_after_the_cutoff_change_nothing_frozen(
    tmp_path: Path, market: Path, name: str, delete: bool
) -> None:
    """Neither for test rows, with everything after the test timestamp changed, nor for training
    rows, whose own cutoffs are earlier still."""
    answers = {n: labels(n) for n in ("churn", "level", "tags", "spend", "buys")}
    late = answers[name]["at"] >= "2020-07-01"
    answers[name].loc[late, "label"] = answers[name].loc[late, "label"].to_numpy()[::-1]
    frames = later_changed("2020-07-01", delete)
    # `amount` asks for rows of orders, and there are none of its test rows left
    changed = opened(write_tasks(tmp_path / "market", frames, answers), name)
    task = opened(market, name)
    for split in ("train", "val", "test"):
        before, after = (features(t, questions(t, split, "frozen")) for t in (task, changed))
        assert before.names == after.names
        assert before.values.tobytes() == after.values.tobytes()


def test_rows_after_each_seed_time_change_nothing_rolling(tmp_path: Path, market: Path) -> None:
    """Of the questions asked until the second test time; the later ones do change."""
    task = opened(market, "churn")
    times = np.unique(task.rows("test").time)
    until = pd.Timestamp(times[1], unit="s")
    changed = opened(write_tasks(tmp_path / "market", later_changed(str(until), False)), "churn")
    asked = questions(task, "test", "rolling")
    early = asked.time <= times[1]
    before, after = (features(t, asked).values for t in (task, changed))
    assert before[early].tobytes() == after[early].tobytes()
    assert not np.allclose(before[~early], after[~early], rtol=1e-3, equal_nan=True)


def test_stale_cutoffs_hide_what_fresh_ones_show(market: Path) -> None:
    task = opened(market, "churn")
    rows = task.rows("train")
    fresh = features(task, Questions(rows.entity, rows.time, rows.time))
    stale = features(task, Questions(rows.entity, rows.time, rows.time - 60 * DAY))
    name = "orders(person), all: count"
    assert (column(stale, name) <= column(fresh, name)).all()
    assert column(stale, name).sum() < column(fresh, name).sum()


def test_a_row_asked_for_keeps_its_other_cells(market: Path) -> None:
    """Autocomplete: the order is later than the frozen cutoff and yet its columns are given; the
    asked column is not, and neither its own label nor later orders of the person count."""
    task = opened(market, "amount")
    asked = questions(task, "test", "frozen")
    assert (asked.cutoff < asked.time).all()
    found = features(task, asked)
    paid = tables()["orders"]["paid"].to_numpy()[asked.entity]
    assert column(found, "orders: orders.paid").tolist() == paid.astype(float).tolist()
    assert not any("amount" in name for name in found.names)
    assert (column(found, "orders: orders.at") == 0).all()
    assert column(found, "labels: count").sum() == 0
    person = tables()["orders"]["person"].to_numpy()[asked.entity]
    orders = tables()["orders"].dropna(subset="amount")
    before = orders[orders["at"] + pd.Timedelta("1s") <= "2020-07-01"]
    wanted = before["person"].value_counts().reindex(person, fill_value=0)
    assert column(found, "person labels: count").tolist() == wanted.tolist()


def test_keys_of_an_entity_of_the_future_are_not_followed() -> None:
    """A post that is written after the cutoff: whose it is cannot be known."""
    from benchmarks.columns import BEGINNING
    from benchmarks.paths import many_rows
    from rfm.data.database import Table

    def table(name: str, keys: dict[str, str]) -> Table:
        return Table(name, Path(name), 3, ("id", *keys), "id", None, keys)

    static, timed = np.full(3, BEGINNING), np.array([100, 200, 300])
    row = np.arange(3)
    tables = {
        "users": SimpleNamespace(table=table("users", {}), time=static, parents={}),
        "posts": SimpleNamespace(
            table=table("posts", {"owner": "users"}), time=timed, parents={"owner": row}
        ),
        "comments": SimpleNamespace(
            table=table("comments", {"by": "users"}), time=static, parents={"by": row}
        ),
    }
    for given, since in ((False, timed), (True, static)):
        ways = {way.name: way for way in many_rows(tables, "posts", given)}  # type: ignore[arg-type]
        assert ways["owner < comments(by)"].since.tolist() == since.tolist()
