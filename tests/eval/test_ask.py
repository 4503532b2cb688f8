"""Queries are answered: of every type, in the database's own keys, about whom was asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rfm.data.database import Database, open_database
from rfm.data.query import QueryError, compile_text
from rfm.eval.ask import AskConfig
from rfm.eval.posing import MOST_ANCHORS, anchor_time, past_labels
from rfm.model import RelationalModel
from tests.answering import BUYS, CITY, NEXT, QUERIES, SPEND, STATUS, small_config

AT = "2020-10-01"


@pytest.fixture(scope="module")
def model(answering: RelationalModel) -> RelationalModel:
    return answering


@pytest.fixture(scope="module")
def shop(task_shop: Path) -> Database:
    return open_database(task_shop)


@pytest.fixture(scope="module")
def config(asking: AskConfig) -> AskConfig:
    return asking


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
    model: RelationalModel, database: Database, query: str, config: AskConfig, *keys: object
) -> pd.DataFrame:
    return model.predict(database, query, at=AT, entities=keys or None, config=config)


def test_probabilities(model: RelationalModel, shop: Database, config: AskConfig) -> None:
    frame = ask(model, shop, BUYS, config)
    assert list(frame) == ["id", "anchor_time", "prediction"]
    assert frame.id.tolist() == list(range(12))
    assert (frame.anchor_time == pd.Timestamp(AT)).all()
    assert frame.prediction.between(0, 1).all()
    assert frame.prediction.nunique() > 1
    assert frame.attrs["examples"] == 24
    assert "positive" in frame.attrs["labels"]


@pytest.mark.parametrize("context", [0, 24])
def test_numbers_and_their_intervals(
    model: RelationalModel, shop: Database, task_cache: Path, context: int
) -> None:
    frame = ask(model, shop, SPEND, small_config(task_cache, context))
    assert list(frame) == ["id", "anchor_time", "prediction", "low", "high"]
    assert (frame.low <= frame.prediction).all()
    assert (frame.prediction <= frame.high).all()
    assert (frame.low < frame.high).any()


def test_classes(model: RelationalModel, shop: Database, config: AskConfig) -> None:
    frame = ask(model, shop, STATUS, config)
    chances = frame.filter(like="probability of ")
    names = {"open", "sent", "lost in the mail"}
    assert set(chances) == {f"probability of {name}" for name in names}
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-6)
    likeliest = chances.idxmax(axis=1).str.removeprefix("probability of ")
    assert (frame.prediction == likeliest).all()
    np.testing.assert_allclose(frame.probability, chances.max(axis=1))


def test_lists(model: RelationalModel, shop: Database, config: AskConfig) -> None:
    frame = ask(model, shop, NEXT, config)
    listed = pd.read_parquet(shop.tables["products"].path).set_index("id").listed
    for row in frame.itertuples():
        assert 1 <= len(set(row.prediction)) == len(row.prediction) <= 4
        assert (listed[row.prediction] <= row.anchor_time).all()


def test_keys_are_those_of_the_source(
    model: RelationalModel, shop: Database, keyed_shop: Database, config: AskConfig
) -> None:
    plain, keyed = ask(model, shop, BUYS, config), ask(model, keyed_shop, BUYS, config)
    assert keyed.id.tolist() == [f"C-{i}" for i in range(12)]
    np.testing.assert_allclose(keyed.prediction, plain.prediction)
    some = ask(model, keyed_shop, BUYS, config, "C-7", "C-2")
    assert some.id.tolist() == ["C-7", "C-2"]
    np.testing.assert_allclose(some.prediction, plain.prediction[[7, 2]], atol=1e-6)
    one = BUYS.replace("FOR EACH customers.id", "FOR customers.id = 'C-7'")
    named = ask(model, keyed_shop, one, config)
    np.testing.assert_allclose(named.prediction, plain.prediction[[7]], atol=1e-6)
    lists = ask(model, shop, NEXT, config).prediction
    pairs = [[(p // 4, p % 4) for p in own] for own in lists]
    assert ask(model, keyed_shop, NEXT, config).prediction.tolist() == pairs


def test_keys_of_several_columns(
    model: RelationalModel, keyed_shop: Database, config: AskConfig
) -> None:
    query = "PREDICT COUNT(reviews.*, 0, 90, days) > 0 FOR EACH products.id"
    frame = ask(model, keyed_shop, query, config)
    assert list(frame)[:3] == ["maker", "item", "anchor_time"]
    one = ask(model, keyed_shop, query, config, (1, 2))
    assert one[["maker", "item"]].to_numpy().tolist() == [[1, 2]]
    both = frame.set_index(["maker", "item"]).prediction
    np.testing.assert_allclose(one.prediction, [both[1, 2]], atol=1e-6)


def test_explanations_speak_in_keys(
    model: RelationalModel, keyed_shop: Database, config: AskConfig
) -> None:
    frame = model.predict(keyed_shop, BUYS, at=AT, explain=True, config=config)
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
    lists = model.predict(keyed_shop, NEXT, at=AT, entities=["C-7"], explain=True, config=config)
    assert lists.explanation[0]["chosen"] == list(lists.prediction[0][0])
    json.dumps(lists.explanation[0], allow_nan=False)


@pytest.mark.parametrize("name", ["buys", "spend", "status"])
def test_who_else_is_asked_about_does_not_matter(
    model: RelationalModel, shop: Database, config: AskConfig, name: str
) -> None:
    every = ask(model, shop, QUERIES[name], config).set_index("id")
    alone = ask(model, shop, QUERIES[name], config, 5).set_index("id")
    pd.testing.assert_frame_equal(alone, every.loc[[5]], atol=1e-5)


def test_without_a_time_it_is_the_latest_of_what_is_asked(
    model: RelationalModel, shop: Database, config: AskConfig
) -> None:
    latest = pd.read_parquet(shop.tables["orders"].path)["at"].max()
    frame = model.predict(shop, BUYS, config=config)
    assert (frame.anchor_time == latest.floor("s")).all()


def test_missing_values_are_asked_for_and_others_if_they_are_named(
    model: RelationalModel, task_shop: Path, tmp_path: Path, config: AskConfig
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    customers = pd.read_parquet(folder / "db" / "customers.parquet")
    customers.loc[[2, 9], "city"] = None
    customers.to_parquet(folder / "db" / "customers.parquet", index=False)
    database = open_database(folder)
    frame = ask(model, database, CITY, config)
    assert frame.id.tolist() == [2, 9]
    assert set(frame.prediction) <= {"Oslo", "Lima", "Kyiv"}
    assert ask(model, database, CITY, config, 4).id.tolist() == [4]


def test_a_value_that_is_asked_for_is_not_seen(
    model: RelationalModel, task_shop: Path, tmp_path: Path, config: AskConfig
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    customers = pd.read_parquet(folder / "db" / "customers.parquet")
    before = ask(model, open_database(folder), CITY, config, 4)
    customers.loc[4, "city"] = "Lima" if customers.city[4] != "Lima" else "Oslo"
    customers.to_parquet(folder / "db" / "customers.parquet", index=False)
    pd.testing.assert_frame_equal(ask(model, open_database(folder), CITY, config, 4), before)


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
    model: RelationalModel,
    shop: Database,
    config: AskConfig,
    query: str,
    at: str,
    keys: Any,
    said: str,
) -> None:
    with pytest.raises(ValueError, match=said):
        model.predict(shop, query, at=at, entities=keys, config=config)


def test_a_query_that_cannot_be_read(
    model: RelationalModel, shop: Database, config: AskConfig
) -> None:
    with pytest.raises(QueryError, match="did you mean 'orders'"):
        ask(model, shop, BUYS.replace("COUNT(orders", "COUNT(order"), config)


def test_a_model_that_never_learnt_to_answer(
    model: RelationalModel, shop: Database, config: AskConfig, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    other = RelationalModel.from_pretrained(tmp_path)
    del other.about["episodes"]
    with pytest.raises(ValueError, match="never trained to answer from examples"):
        ask(other, shop, BUYS, config)


def test_keys_keep_their_names(
    model: RelationalModel, task_shop: Path, tmp_path: Path, config: AskConfig
) -> None:
    """A key that is called as an answer is."""
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    (folder / "keys").mkdir()
    keys = {"prediction": [f"P{i}" for i in range(12)], "label": range(12)}
    pq.write_table(
        pa.table({k: list(v) for k, v in keys.items()}), folder / "keys/customers.parquet"
    )
    frame = ask(model, open_database(folder), BUYS, config)
    assert list(frame)[:2] == ["prediction (key)", "label (key)"]
    assert frame["prediction (key)"].tolist() == keys["prediction"]
    assert frame.prediction.between(0, 1).all()
    found = model.evaluate(open_database(folder), BUYS, at=AT, anchors=1, config=config)
    assert set(found.frame.label) <= {0, 1}


def test_rare_labels_are_looked_for_further_back(shop: Database) -> None:
    """Windows of an hour hold few last orders: more than the usual number of them are taken."""
    query = "PREDICT LAST(orders.amount VIA orders.customer, 0, 1, hours) FOR EACH customers.id"
    at = anchor_time(compile_text(query, shop), shop, AT)
    past = past_labels(compile_text(query, shop), shop, at)
    assert past.counts.time.size > 10 * MOST_ANCHORS
    assert (past.time + 3_600 <= at).all()
    assert len(past) > 30
    daily = query.replace("1, hours", "90, days")
    few = past_labels(compile_text(daily, shop), shop, at)
    assert few.counts.time.size == (at - shop.first_time) // (90 * 86_400)


def test_the_class_that_is_predicted_is_explained(
    model: RelationalModel, task_shop: Path, tmp_path: Path, config: AskConfig
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(task_shop, folder)
    customers = pd.read_parquet(folder / "db" / "customers.parquet")
    customers["city"] = np.where(customers.city == "Oslo", "Oslo", "Lima")
    customers.to_parquet(folder / "db" / "customers.parquet", index=False)
    frame = model.predict(
        open_database(folder), CITY, at=AT, entities=range(6), explain=True, config=config
    )
    for row in frame.itertuples():
        assert row.explanation["chosen"] == row.prediction
        assert row.explanation["answer"] == pytest.approx(row.probability, abs=1e-4)
