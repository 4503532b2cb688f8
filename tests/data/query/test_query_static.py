"""Targets without a window: a cell of the entity, or of its one row in another table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.data.attach import visible_database
from rfm.data.database import Database, open_database
from rfm.data.query import (
    CompiledQuery,
    QueryError,
    compile_text,
    entities,
    labels,
    write_task,
)
from rfm.data.task_rows import SPLITS
from rfm.data.tasks import Task, open_task
from tests.data.query.made import TEST, VAL, seconds, shop_frames, write_shop
from tests.folders import write_folder

_POSITIVE = "PREDICT outcomes.result = 'Positive' FOR EACH studies.study_id"
_KEYS = {
    "studies": {"pkey": "study_id", "time_col": "begun"},
    "outcomes": {"pkey": "id", "time_col": "published", "fkeys": {"study": "studies"}},
}


def _studies(count: int = 300) -> dict[str, pd.DataFrame]:
    """Studies and, of three in four, an outcome within 20 days."""
    rng = np.random.default_rng(0)
    begun = pd.Timestamp("2019-01-01") + pd.to_timedelta(np.sort(rng.integers(0, 600, count)), "D")
    there = np.flatnonzero(rng.random(count) < 0.75)
    published = begun[there] + pd.to_timedelta(rng.integers(1, 21, there.size), "D")
    outcomes = pd.DataFrame(
        {
            "published": published,
            "study": there,
            "result": rng.choice(["Positive", "Negative", None], there.size, p=[0.5, 0.4, 0.1]),
            "effect": rng.normal(size=there.size),
        }
    ).sort_values("published", ignore_index=True)
    outcomes.insert(0, "id", np.arange(len(outcomes)))
    return {
        "studies": pd.DataFrame(
            {"study_id": np.arange(count), "begun": begun, "arms": rng.integers(1, 5, count)}
        ),
        "outcomes": outcomes,
    }


def _open(
    folder: Path, frames: Mapping[str, pd.DataFrame], keys: Mapping[str, Mapping[str, Any]] = _KEYS
) -> Database:
    return open_database(write_folder(folder / "trials", frames, keys, VAL, TEST))


def _written(compiled: CompiledQuery, database: Database) -> Task:
    return open_task(database, write_task(compiled, database, database.folder).path.name)


def test_the_one_row_of_a_child(tmp_path: Path) -> None:
    frames = _studies()
    database = _open(tmp_path, frames)
    compiled = compile_text(_POSITIVE, database)
    assert (compiled.kind, compiled.task_type) == ("external", "binary_classification")
    end = seconds("2021-01-01")
    found = labels(compiled, database, [end])
    known = frames["outcomes"].dropna(subset="result").sort_values("study")
    assert found.entity.tolist() == sorted(known.study)
    expected = {s: int(r == "Positive") for s, r in zip(known.study, known.result, strict=True)}
    got = dict(zip(found.entity.tolist(), found.label.to_pylist(), strict=True))
    assert got == expected
    begun = database.times("studies")
    assert all(time == begun[row] for row, time in zip(found.entity, found.time, strict=True))
    lag = known.published - frames["studies"].begun[known.study].values
    assert pd.to_timedelta(compiled.timedelta, "s") == lag.max()


def test_nothing_of_the_child_is_seen(tmp_path: Path) -> None:
    """Not its other columns either: they tell how the study went."""
    database = _open(tmp_path, _studies())
    task = _written(compile_text(_POSITIVE, database), database)
    assert set(task.hidden) == {("outcomes", "result"), ("outcomes", "effect")}
    assert visible_database(task).tables["outcomes"].columns == ("id", "published", "study")


def test_nothing_that_points_at_the_child_is_seen(tmp_path: Path) -> None:
    """An analysis of an outcome tells its result as well; a visit of the study does not."""
    frames = _studies()
    count = len(frames["outcomes"])
    frames["analyses"] = pd.DataFrame({"outcome": np.arange(count), "p_value": 0.5})
    frames["visits"] = pd.DataFrame({"study": np.arange(count), "fever": 37.0})
    keys = {
        **_KEYS,
        "analyses": {"fkeys": {"outcome": "outcomes"}},
        "visits": {"fkeys": {"study": "studies"}},
    }
    compiled = compile_text(_POSITIVE, _open(tmp_path, frames, keys))
    assert set(compiled.hidden) == {
        ("outcomes", "result"), ("outcomes", "effect"), ("analyses", "p_value"),
    }  # fmt: skip


def test_splits_by_what_is_known(tmp_path: Path) -> None:
    frames = _studies()
    database = _open(tmp_path, frames)
    task = _written(compile_text(_POSITIVE, database), database)
    val, test = seconds(VAL), seconds(TEST)
    published = np.zeros(300, np.int64)
    published[frames["outcomes"].study] = database.times("outcomes")
    for split, begin, end in [("train", 0, val), ("val", val, test), ("test", test, 2**40)]:
        rows = task.rows(split)  # type: ignore[arg-type]
        assert len(rows) > 10
        assert (rows.time <= end).all()
        assert (rows.time > begin).all()
        assert (published[rows.entity] <= end).all()
    seen = np.concatenate([task.rows(split).entity for split in SPLITS])
    assert len(set(seen)) == seen.size


def test_a_label_is_not_known_before_its_row(tmp_path: Path) -> None:
    frames = _studies()
    database = _open(tmp_path, frames)
    compiled = compile_text(_POSITIVE, database)
    at = seconds("2019-06-01")
    early = labels(compiled, database, [at])
    published = dict(zip(frames["outcomes"].study, database.times("outcomes"), strict=True))
    assert len(early) > 10
    assert all(published[row] <= at for row in early.entity)
    asked = entities(compiled, database, at)
    assert asked.row.tolist() == np.flatnonzero(database.times("studies") <= at).tolist()


def test_very_late_rows_are_no_labels(tmp_path: Path) -> None:
    """A label is taken for known ``timedelta`` after its seed time; that cannot be for ever."""
    frames = _studies()
    frames["outcomes"].loc[0, "published"] = pd.Timestamp("2030-01-01")
    database = _open(tmp_path, frames)
    compiled = compile_text(_POSITIVE, database)
    assert compiled.timedelta <= seconds(TEST) - seconds(VAL)
    found = labels(compiled, database, [seconds("2031-01-01")])
    assert frames["outcomes"].study[0] not in found.entity


def test_as_of_an_anchor_labels_count_however_late_they_came(tmp_path: Path) -> None:
    """Every outcome takes longer than there is from the validation to the test timestamp."""
    frames = _studies()
    frames["outcomes"]["published"] += pd.Timedelta(days=200)
    database, known = _open(tmp_path, frames), frames["outcomes"].dropna(subset="result")
    at = frames["outcomes"].published.iloc[len(frames["outcomes"]) // 2]
    compiled = compile_text(_POSITIVE, database)
    assert not len(labels(compiled, database, [seconds(at)]))
    found = labels(compiled, database, [seconds(at)], where_at="anchor")
    assert found.entity.tolist() == sorted(known.study[known.published <= at])


def test_what_comes_after_the_test_timestamp_moves_nothing(tmp_path: Path) -> None:
    """Not how long labels take to be known, either."""
    frames = _studies()
    database = _open(tmp_path, frames)
    compiled = compile_text(_POSITIVE, database)
    rng = np.random.default_rng(0)
    later = np.flatnonzero(frames["outcomes"].published > pd.Timestamp(TEST))
    assert later.size > 20
    noise = pd.Timestamp(TEST) + pd.to_timedelta(rng.integers(1, 70, later.size), "D")
    frames["outcomes"].loc[later, "published"] = noise
    frames["outcomes"].loc[later, "result"] = "Positive"
    noisy = _open(tmp_path / "noisy", frames)
    again = compile_text(_POSITIVE, noisy)
    assert again.timedelta == compiled.timedelta
    ours, theirs = (_written(c, d) for c, d in ((compiled, database), (again, noisy)))
    for split in ("train", "val"):
        for part in ("entity", "time", "label"):
            one, other = (getattr(task.rows(split), part) for task in (ours, theirs))
            assert one.tolist() == other.tolist()


def test_several_rows_of_a_child_need_an_aggregation(tmp_path: Path) -> None:
    frames = _studies()
    twice = frames["outcomes"].iloc[:1].assign(id=len(frames["outcomes"]))
    frames["outcomes"] = pd.concat([frames["outcomes"], twice], ignore_index=True)
    database = _open(tmp_path, frames)
    with pytest.raises(QueryError) as caught:
        compile_text(_POSITIVE, database)
    error = caught.value
    assert _POSITIVE[error.start : error.end] == "outcomes.result"
    assert f"studies {twice.study[0]} has 2 rows in outcomes" in error.problem
    before = database.times("outcomes")[50] - 86_400
    advised = [part.strip() for part in error.problem.split("such as")[1].split(" or ")]
    for target in advised:
        text = f"PREDICT {target} FOR EACH studies.study_id"
        found = labels(compile_text(text, database), database, [before])
        assert len(found) > 0, target


@pytest.mark.parametrize("target", ["arms", "arms > 2"])
def test_own_columns_are_hidden(target: str, tmp_path: Path) -> None:
    frames = _studies()
    database = _open(tmp_path, frames)
    compiled = compile_text(f"PREDICT studies.{target} FOR EACH studies.study_id", database)
    task = _written(compiled, database)
    assert task.kind == ("autocomplete" if target == "arms" else "external")
    assert task.hidden == (("studies", "arms"),)
    arms = frames["studies"].arms
    expected = arms if target == "arms" else (arms > 2).astype(int)
    begun = database.times("studies")
    for split in SPLITS:
        rows = task.rows(split)
        assert (rows.label[:, 0] == expected[rows.entity]).all()
        assert (rows.time == begun[rows.entity]).all()
    assert sum(len(task.rows(split)) for split in SPLITS) == len(arms)


def test_a_database_without_times(tmp_path: Path) -> None:
    """Entities are split at random; the labels of training rows are known as validation begins."""
    rng = np.random.default_rng(1)
    frames = {
        "planes": pd.DataFrame(
            {"id": np.arange(200), "maker": rng.choice(["A", "B", "C"], 200), "seats": 1.0}
        ),
        "seats": pd.DataFrame({"plane": np.arange(200), "wide": rng.random(200) < 0.5}),
    }
    keys = {"planes": {"pkey": "id"}, "seats": {"fkeys": {"plane": "planes"}}}
    database = _open(tmp_path, frames, keys)
    for target, hidden in [
        ("planes.maker", ("planes", "maker")),
        ("seats.wide", ("seats", "wide")),
    ]:
        compiled = compile_text(f"PREDICT {target} FOR EACH planes.id", database)
        assert compiled.hidden == (hidden,)
        task = _written(compiled, database)
        sizes = [len(task.rows(split)) for split in SPLITS]
        assert sizes == [140, 30, 30]
        entity = np.concatenate([task.rows(split).entity for split in SPLITS])
        assert sorted(entity) == list(range(200))
        train, val, test = (set(task.rows(split).time) for split in SPLITS)
        assert (train, val, test) == ({seconds(VAL) - 1}, {seconds(VAL)}, {seconds(TEST)})
        asked = entities(compiled, database, seconds(TEST))
        assert asked.row.tolist() == list(range(200))
        assert set(asked.time) == {seconds(TEST)}


def test_where_of_a_static_target_is_decided_at_its_own_time(tmp_path: Path) -> None:
    frames = shop_frames()
    shop = write_shop(tmp_path, frames)
    text = "PREDICT orders.total > 50 FOR EACH orders.id WHERE customers.city = 'Oslo'"
    with pytest.raises(QueryError, match="in 2 ways"):
        compile_text(text, shop)
    text = text.replace("customers.city", "orders.customer_id -> customers.city")
    found = labels(compile_text(text, shop), shop, [seconds("2021-01-01")])
    orders, people = frames["orders"], frames["customers"]
    owner = people.loc[orders.customer_id].reset_index(drop=True)
    fits = (owner.city == "Oslo") & (owner.since <= orders["at"]) & orders.total.notna()
    assert found.entity.tolist() == sorted(np.flatnonzero(fits), key=lambda i: orders["at"][i])
    assert 0 < fits.sum() < len(orders)


def test_where_of_a_static_target_is_decided_at_the_anchor_if_asked(tmp_path: Path) -> None:
    frames = shop_frames()
    people, orders = frames["customers"], frames["orders"]
    shop = write_shop(tmp_path, frames)
    end = pd.Timestamp("2019-02-01")
    there = people.index[people.since <= end]
    ordered = set(orders.customer_id[orders["at"] <= end])
    wanted = [i for i in there if i not in ordered]
    assert 0 < len(wanted) < len(there)
    text = "PREDICT customers.vip FOR EACH customers.id WHERE COUNT(orders.* VIA "
    compiled = compile_text(f"{text} orders.customer_id) = 0", shop)
    at = [seconds(str(end))]
    asked = entities(compiled, shop, at[0], where_at="anchor")
    assert asked.row.tolist() == wanted
    assert asked.time.tolist() == shop.times("customers")[wanted].tolist()  # still their own
    found = labels(compiled, shop, at, where_at="anchor")
    assert sorted(found.entity) == wanted
    assert found.time.tolist() == shop.times("customers")[found.entity].tolist()
    assert found.counts.asked.tolist() == [len(wanted)]
    assert len(entities(compiled, shop, at[0])) > len(wanted)  # at their own times
    some = entities(compiled, shop, at[0], keys=[int(there[0]), wanted[0]], where_at="anchor")
    assert set(some.row) <= set(wanted)


def test_now_of_a_static_target_is_its_own_time_wherever_where_is_decided(tmp_path: Path) -> None:
    """And a window of WHERE ends at the anchor."""
    frames = _studies()
    frames["studies"]["planned"] = frames["studies"].begun + pd.to_timedelta(
        np.arange(300) % 40, "D"
    )
    database = _open(tmp_path, frames)
    end = pd.Timestamp("2020-03-01")
    text = "PREDICT studies.planned > NOW + 20 days FOR EACH studies.study_id"
    recent = compile_text(f"{text} WHERE COUNT(outcomes.*, -30, 0, days) > 0", database)
    found = labels(recent, database, [seconds(str(end))], where_at="anchor")
    published = frames["outcomes"].published
    days = pd.to_timedelta(30, "D")
    inside = (published > end - days) & (published <= end)
    assert sorted(found.entity) == sorted(frames["outcomes"].study[inside])
    assert found.label.to_pylist() == (found.entity % 40 > 20).astype(int).tolist()
    assert len(set(found.label.to_pylist())) == 2
    with pytest.raises(ValueError, match="where_at is 'now', wanted 'seed' or 'anchor'"):
        labels(recent, database, [0], where_at="now")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["customers.age > 40", "customers.age", "cards.colour"])
@pytest.mark.parametrize(
    ("where", "at"), [("", "2000-01-01"), (" WHERE customers.age > 500", "2020-01-01")]
)
@pytest.mark.parametrize("where_at", ["seed", "anchor"])
def test_nobody_is_asked(target: str, where: str, at: str, where_at: Any, tmp_path: Path) -> None:
    """Before the data there is nobody, and nobody may fulfil WHERE."""
    shop = write_shop(tmp_path)
    compiled = compile_text(f"PREDICT {target} FOR EACH customers.id{where}", shop)
    found = labels(compiled, shop, [seconds(at)], where_at=where_at)
    assert len(found) == len(found.label) == 0
    counts = found.counts
    assert [int(c.sum()) for c in (counts.asked, counts.empty, counts.labelled)] == [0, 0, 0]
    assert counts.there.tolist() == [20 if where else 0]
    asked = entities(compiled, shop, seconds(at), where_at=where_at)
    assert (len(asked), asked.left_out) == (0, {})
    three = entities(compiled, shop, seconds(at), keys=[3], where_at=where_at)
    reason = "does not fulfil WHERE" if where else "is not there by 2000-01-01"
    assert (len(three), three.left_out) == (0, {3: reason})


def test_a_category_without_known_values_is_said(tmp_path: Path) -> None:
    """Before the data, and where the column is filled later alone; not that it is free text."""
    frames = _studies()
    late = frames["outcomes"].published > VAL
    frames["outcomes"]["result"] = frames["outcomes"].result.where(late)
    text = "PREDICT outcomes.result FOR EACH studies.study_id"
    said = (
        r"no value of outcomes\.result is known .*; "
        r"ask at a later time \(at=\), or set val_timestamp later"
    )
    with pytest.raises(QueryError, match=said):
        compile_text(text, _open(tmp_path, frames))
    before = write_folder(tmp_path / "before", _studies(), _KEYS, "2018-01-01", TEST)
    with pytest.raises(QueryError, match=r"up to the validation timestamp.*\(0 rows by then\)"):
        compile_text(text, open_database(before))
    frames["outcomes"]["result"] = [f"Nobody knew {i}" for i in range(len(late))]
    with pytest.raises(QueryError, match=f"free text.*{(~late).sum()} in {(~late).sum()} rows"):
        compile_text(text, _open(tmp_path / "texts", frames))
