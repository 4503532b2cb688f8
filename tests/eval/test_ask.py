"""Queries are answered: of every type, in the database's own keys, about whom was asked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.database import Database, open_database
from rfm.data.query import QueryError, compile_text
from rfm.eval.ask import AskConfig, rounded
from rfm.eval.posing import MOST_ANCHORS, anchor_time, past_labels
from rfm.model import RelationalModel
from tests.answering import (
    BUYS,
    CITY,
    NEXT,
    QUERIES,
    SPEND,
    STATUS,
    small_config,
    write_many_steps,
)

AT = "2020-10-01"


@pytest.fixture(scope="module")
def keyed_shop(task_shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Database:
    """The shop as if it had been imported: its keys are words, or several columns."""
    folder = tmp_path_factory.mktemp("keyed") / "shop"
    shutil.copytree(task_shop, folder)
    (folder / "keys").mkdir()
    pq.write_table(
        pa.table({"id": [f"C-{i}" for i in range(12)]}), folder / "keys/customers.parquet"
    )
    pairs = {"maker": [i // 4 for i in range(15)], "item": [i % 4 for i in range(15)]}
    pq.write_table(pa.table(pairs), folder / "keys" / "products.parquet")
    return open_database(folder)


def ask(
    answering: RelationalModel, database: Database, query: str, asking: AskConfig, *keys: object
) -> pd.DataFrame:
    return answering.predict(database, query, at=AT, entities=keys or None, config=asking)


def change_customers(task_shop: Path, folder: Path, **changed: object) -> Database:
    """A copy of the shop in which some columns of the customers are others."""
    shutil.copytree(task_shop, folder)
    path = folder / "db" / "customers.parquet"
    pd.read_parquet(path).assign(**changed).to_parquet(path, index=False)
    return open_database(folder)


def test_probabilities(answering: RelationalModel, asked_shop: Database, asking: AskConfig) -> None:
    frame = ask(answering, asked_shop, BUYS, asking)
    assert list(frame) == ["id", "anchor_time", "prediction"]
    assert frame.id.tolist() == list(range(12))
    assert (frame.anchor_time == pd.Timestamp(AT)).all()
    assert frame.prediction.between(0, 1).all()
    assert frame.prediction.nunique() > 1
    assert frame.attrs["examples"] == 24
    assert "positive" in frame.attrs["labels"]
    assert list(frame.attrs["balance"]) == ["positive"]


@pytest.mark.parametrize("context", [0, 24])
def test_numbers_and_their_intervals(
    answering: RelationalModel, asked_shop: Database, task_cache: Path, context: int
) -> None:
    frame = ask(answering, asked_shop, SPEND, small_config(task_cache, context))
    assert list(frame) == ["id", "anchor_time", "prediction", "low", "high"]
    assert (frame.low <= frame.prediction).all()
    assert (frame.prediction <= frame.high).all()
    assert (frame.low < frame.high).any()
    assert "median" in frame.attrs["labels"]
    assert list(frame.attrs["balance"]) == ["lower quartile", "median", "upper quartile"]


def test_numbers_show_no_rounding(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    """Nothing spent is 0, not what single precision makes of it."""
    frame = ask(answering, asked_shop, SPEND.replace("30", "200"), asking)
    assert frame.attrs["balance"]["median"] > 0
    assert (frame.low == 0).any()
    np.testing.assert_array_equal(rounded(np.array([3.6e-7, 19.9999994]), (20.0, 30.0)), [0, 20])
    np.testing.assert_array_equal(rounded(np.array([3e-9, 1.0]), (0.0, 0.02)), [0, 1])
    np.testing.assert_allclose(rounded(np.array([3.21e30]), (1e30, 1e29)), [3.21e30])
    assert not np.signbit(rounded(np.array([-1e-7]), (20.0, 30.0))).any()
    assert np.isfinite(rounded(np.array([1.0]), (0.0, 1e-318))).all()


def test_classes(answering: RelationalModel, asked_shop: Database, asking: AskConfig) -> None:
    frame = ask(answering, asked_shop, STATUS, asking)
    chances = frame.filter(like="probability of ")
    names = {"open", "sent", "lost in the mail"}
    assert set(chances) == {f"probability of {name}" for name in names}
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    likeliest = chances.idxmax(axis=1).str.removeprefix("probability of ")
    assert (frame.prediction == likeliest).all()
    np.testing.assert_allclose(frame.probability, chances.max(axis=1))
    assert set(frame.attrs["balance"]) == names
    assert sum(frame.attrs["balance"].values()) > 20


def test_lists(answering: RelationalModel, asked_shop: Database, asking: AskConfig) -> None:
    frame = ask(answering, asked_shop, NEXT, asking)
    listed = pd.read_parquet(asked_shop.tables["products"].path).set_index("id").listed
    for row in frame.itertuples():
        assert 1 <= len(set(row.prediction)) == len(row.prediction) <= 4
        assert (listed[row.prediction] <= row.anchor_time).all()


def test_keys_are_those_of_the_source(
    answering: RelationalModel, asked_shop: Database, keyed_shop: Database, asking: AskConfig
) -> None:
    plain, keyed = (
        ask(answering, asked_shop, BUYS, asking),
        ask(answering, keyed_shop, BUYS, asking),
    )
    assert keyed.id.tolist() == [f"C-{i}" for i in range(12)]
    np.testing.assert_allclose(keyed.prediction, plain.prediction)
    some = ask(answering, keyed_shop, BUYS, asking, "C-7", "C-2")
    assert some.id.tolist() == ["C-7", "C-2"]
    np.testing.assert_allclose(some.prediction, plain.prediction[[7, 2]], atol=1e-6)
    one = BUYS.replace("FOR EACH customers.id", "FOR customers.id = 'C-7'")
    named = ask(answering, keyed_shop, one, asking)
    np.testing.assert_allclose(named.prediction, plain.prediction[[7]], atol=1e-6)
    lists = ask(answering, asked_shop, NEXT, asking).prediction
    pairs = [[(p // 4, p % 4) for p in own] for own in lists]
    assert ask(answering, keyed_shop, NEXT, asking).prediction.tolist() == pairs


def test_keys_of_several_columns(
    answering: RelationalModel, keyed_shop: Database, asking: AskConfig
) -> None:
    query = "PREDICT COUNT(reviews.*, 0, 90, days) > 0 FOR EACH products.id"
    frame = ask(answering, keyed_shop, query, asking)
    assert list(frame)[:3] == ["maker", "item", "anchor_time"]
    one = ask(answering, keyed_shop, query, asking, (1, 2))
    assert one[["maker", "item"]].to_numpy().tolist() == [[1, 2]]
    both = frame.set_index(["maker", "item"]).prediction
    np.testing.assert_allclose(one.prediction, [both[1, 2]], atol=1e-6)


def test_explanations_speak_in_keys(
    answering: RelationalModel, keyed_shop: Database, asking: AskConfig
) -> None:
    frame = answering.predict(keyed_shop, BUYS, at=AT, explain=True, config=asking)
    orders = pd.read_parquet(keyed_shop.tables["orders"].path)
    checked = 0
    for i, said in enumerate(frame.explanation):
        assert said["entity"] == f"C-{i}"
        assert frame.top_signal[i] == said["top_signal"] == said["signals"][0]["words"]
        own = set(orders.id[(orders.customer == i) & (orders["at"] <= AT)])
        for signal in said["signals"]:
            if signal["path"] == "orders.customer":
                assert set(signal["rows"]) <= own
            if signal["table"] == "customers":
                assert all(str(key).startswith("C-") for key in signal["rows"])
                checked += len(signal["rows"])
        json.dumps(said, allow_nan=False)
    assert checked > 12
    lists = answering.predict(
        keyed_shop, NEXT, at=AT, entities=["C-7"], explain=True, config=asking
    )
    assert lists.explanation[0]["chosen"] == list(lists.prediction[0][0])
    json.dumps(lists.explanation[0], allow_nan=False)


@pytest.mark.parametrize("name", ["buys", "spend", "status"])
def test_who_else_is_asked_about_does_not_matter(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig, name: str
) -> None:
    every = ask(answering, asked_shop, QUERIES[name], asking).set_index("id")
    alone = ask(answering, asked_shop, QUERIES[name], asking, 5).set_index("id")
    pd.testing.assert_frame_equal(alone, every.loc[[5]], atol=1e-5)


def test_without_a_time_it_is_the_latest_of_what_is_asked(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    latest = pd.read_parquet(asked_shop.tables["orders"].path)["at"].max()
    frame = answering.predict(asked_shop, BUYS, config=asking)
    assert (frame.anchor_time == latest.floor("s")).all()


def test_missing_values_are_asked_for_and_others_if_they_are_named(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    city = pd.read_parquet(task_shop / "db" / "customers.parquet").city
    city[[2, 9]] = None
    database = change_customers(task_shop, tmp_path / "shop", city=city)
    frame = ask(answering, database, CITY, asking)
    assert frame.id.tolist() == [2, 9]
    assert set(frame.prediction) <= {"Oslo", "Lima", "Kyiv"}
    assert ask(answering, database, CITY, asking, 4).id.tolist() == [4]


def test_a_value_that_is_asked_for_is_not_seen(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    city = pd.read_parquet(task_shop / "db" / "customers.parquet").city
    city[4] = "Lima" if city[4] != "Lima" else "Oslo"
    other = change_customers(task_shop, tmp_path / "shop", city=city)
    before = ask(answering, open_database(task_shop), CITY, asking, 4)
    pd.testing.assert_frame_equal(ask(answering, other, CITY, asking, 4), before)


@pytest.mark.parametrize(
    ("query", "at", "keys", "said"),
    [
        (BUYS, "soon", None, "at='soon': wanted a time such as 2024-01-31"),
        (BUYS, 20200101, None, "at=20200101: wanted a time"),
        (BUYS, "01.02.2020", None, "at='01.02.2020': wanted a time"),
        (BUYS, "1990-01-01", None, "no label is known by 1990-01-01"),
        (BUYS, AT, (99,), "customers has no row with the key 99"),
        (BUYS, AT, "17", "entities='17': wanted a list of keys"),
        (BUYS, AT, 17, "entities=17: wanted a list of keys"),
        (BUYS, AT, [], "entities is empty; leave it out"),
        (
            "PREDICT LIST_DISTINCT(orders.status VIA orders.customer, 0, 90, days) CLASSIFY "
            "FOR EACH customers.id", AT, None, "CLASSIFY asks for lists of labels",
        ),
        (BUYS.replace("30", "20000"), AT, None, "no label is known by 2020-10-01: the first row"),
        (CITY, AT, None, "no value of city is missing at 2020-10-01; name those"),
        (
            "PREDICT COUNT(reviews.*, 0, 90, days) FOR EACH products.id WHERE products.price < 0",
            AT, None, "nobody to ask about at 2020-10-01: no row of products",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(
    answering: RelationalModel,
    asked_shop: Database,
    asking: AskConfig,
    query: str,
    at: str,
    keys: Any,
    said: str,
) -> None:
    with pytest.raises(ValueError, match=said):
        answering.predict(asked_shop, query, at=at, entities=keys, config=asking)


def test_a_query_that_cannot_be_read(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    with pytest.raises(QueryError, match="did you mean 'orders'"):
        ask(answering, asked_shop, BUYS.replace("COUNT(orders", "COUNT(order"), asking)


def test_a_model_that_never_learnt_to_answer(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig, tmp_path: Path
) -> None:
    answering.save_pretrained(tmp_path)
    other = RelationalModel.from_pretrained(tmp_path)
    del other.about["episodes"]
    with pytest.raises(ValueError, match="never trained to answer from examples"):
        ask(other, asked_shop, BUYS, asking)


def test_keys_keep_their_names(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    """A key that is called as an answer is."""
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    (folder / "keys").mkdir()
    keys = {"prediction": [f"P{i}" for i in range(12)], "label": range(12)}
    pq.write_table(
        pa.table({k: list(v) for k, v in keys.items()}), folder / "keys/customers.parquet"
    )
    frame = ask(answering, open_database(folder), BUYS, asking)
    assert list(frame)[:2] == ["prediction (key)", "label (key)"]
    assert frame["prediction (key)"].tolist() == keys["prediction"]
    assert frame.prediction.between(0, 1).all()
    found = answering.evaluate(open_database(folder), BUYS, at=AT, anchors=1, config=asking)
    assert set(found.frame.label) <= {0, 1}


def test_rare_labels_are_looked_for_further_back(asked_shop: Database) -> None:
    """Windows of an hour hold few last orders: more than the usual number of them are taken."""
    query = "PREDICT LAST(orders.amount VIA orders.customer, 0, 1, hours) FOR EACH customers.id"
    at = anchor_time(compile_text(query, asked_shop), asked_shop, AT)
    past = past_labels(compile_text(query, asked_shop), asked_shop, at)
    assert past.counts.time.size > 10 * MOST_ANCHORS
    assert (past.time + 3_600 <= at).all()
    assert len(past) > 30
    daily = query.replace("1, hours", "90, days")
    few = past_labels(compile_text(daily, asked_shop), asked_shop, at)
    assert few.counts.time.size == (at - asked_shop.first_time) // (90 * 86_400)


def test_nothing_is_an_example_from_before_the_table_begins(
    task_shop: Path, asked_shop: Database, tmp_path: Path
) -> None:
    """That nobody ordered before there were orders says nothing; products are there earlier."""
    long_ago = pd.Timestamp(asked_shop.first_time, unit="s") - pd.Timedelta(days=900)
    shutil.copytree(task_shop, tmp_path / "shop")
    path = tmp_path / "shop" / "db" / "products.parquet"
    pd.read_parquet(path).assign(listed=long_ago).to_parquet(path, index=False)
    database = open_database(tmp_path / "shop")
    compiled = compile_text(BUYS, database)
    past = past_labels(compiled, database, anchor_time(compiled, database, AT))
    assert database.first_time == int(long_ago.timestamp())
    assert past.time.min() >= database.spans["orders"][0]


def test_nothing_is_an_example_from_after_what_is_known(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    """That nobody orders in years of which there are no rows says nothing."""
    compiled = compile_text(BUYS, asked_shop)
    last = asked_shop.spans["orders"][1]
    at = last + 1_000 * 86_400
    past = past_labels(compiled, asked_shop, at)
    assert past.time.max() < last <= past.time.max() + compiled.timedelta
    later = pd.Timestamp(at, unit="s")
    frame = answering.predict(asked_shop, BUYS, at=later, entities=[3], config=asking)
    assert "nobody knows what has happened since" in frame.attrs["warnings"][0]
    near = later - pd.Timedelta(days=999)
    frame = answering.predict(asked_shop, BUYS, at=near, entities=[3], config=asking)
    assert not frame.attrs["warnings"]


def test_the_class_that_is_predicted_is_explained(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    city = pd.read_parquet(task_shop / "db" / "customers.parquet").city
    two = np.where(city == "Oslo", "Oslo", "Lima")
    database = change_customers(task_shop, tmp_path / "shop", city=two)
    frame = answering.predict(database, CITY, at=AT, entities=range(6), explain=True, config=asking)
    for row in frame.itertuples():
        assert row.explanation["chosen"] == row.prediction
        assert row.explanation["answer"] == pytest.approx(row.probability, abs=1e-4)


def test_more_than_ten_classes(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    """The most frequent nine are told apart, the others share a chance by how frequent they are."""
    database = open_database(write_many_steps(task_shop, tmp_path / "shop", 14))
    frame = ask(answering, database, STATUS, asking)
    counted = frame.attrs["balance"]
    assert len(counted) > 10
    chances = frame.filter(like="probability of ")
    assert set(chances) == {f"probability of {name}" for name in counted}
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    likeliest = chances.idxmax(axis=1).str.removeprefix("probability of ")
    assert (frame.prediction == likeliest).all()
    rest = list(counted)[9:]
    shares = chances[[f"probability of {name}" for name in rest]]
    wanted = np.array([counted[name] for name in rest]) / sum(counted[name] for name in rest)
    np.testing.assert_allclose(shares.div(shares.sum(axis=1), axis=0), [wanted] * len(frame))
    others = f"{len(counted)} classes: the 9 most frequent are told apart, the {len(rest)} others"
    assert any(others in warning for warning in frame.attrs["warnings"])
    past = answering.evaluate(database, STATUS, at=AT, anchors=1, config=asking)
    assert past.metrics["rows"] > 0
    with pytest.raises(ValueError, match="context=0: without examples at most 10 classes"):
        ask(answering, database, STATUS, replace(asking, context=0))


def test_the_class_that_is_predicted_of_many_is_explained(
    answering: RelationalModel, task_shop: Path, tmp_path: Path, asking: AskConfig
) -> None:
    """Though the rare ones together, none of which is the answer, may be likelier."""
    folder = write_many_steps(task_shop, tmp_path / "shop", 40)
    database = open_database(folder, kinds={"orders": {"status": "category"}})
    frame = answering.predict(database, STATUS, at=AT, explain=True, config=asking)
    alone = list(frame.attrs["balance"])[:9]
    chances = frame.filter(like="probability of ").rename(columns=lambda c: c[15:])
    rare = chances.drop(columns=alone).sum(axis=1) > chances[alone].max(axis=1)
    assert (rare & frame.prediction.isin(alone)).any()
    for answer in frame.itertuples():
        chosen = answer.prediction if answer.prediction in alone else "any other"
        assert answer.explanation["chosen"] == chosen
        assert not any("any other" in one["words"] for one in answer.explanation["signals"])
