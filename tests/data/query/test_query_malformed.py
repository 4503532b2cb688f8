"""Whatever is wrong with a query, its error says where, what was expected and what is closest."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from rfm.data.database import Database
from rfm.data.query import QueryError, compile_text, labels
from tests.data.query.made import seconds, write_shop

_VALID = [
    "PREDICT COUNT(visits.*, 0, 30, days) > 0 FOR EACH customers.id",
    "PREDICT SUM(orders.total WHERE orders.state = 'sent' VIA orders.customer_id, 0, 2, months) "
    "FOR EACH customers.id WHERE COUNT(visits.*, -90, 0, days) > 1",
    "PREDICT LIST_DISTINCT(items.product_id VIA items.order_id -> orders.customer_id, 0, 30, days) "
    "RANK TOP 5 FOR EACH customers.id",
    "PREDICT customers.age FOR customers.id IN (1, 2, 3) WHERE customers.since < NOW - 30 days",
    "PREDICT AVG(orders.total > 50 VIA orders.gift_to, 0, 30, days) > 0.5 FOR EACH customers.id "
    "ASSUMING COUNT(visits.*, 0, 7, days) >= 2",
    "PREDICT LAST(orders.state VIA orders.customer_id, 0, 60, days) CLASSIFY FOR EACH customers.id "
    "WHERE customers.city LIKE 'O%' AND (customers.age IS NOT NULL OR regions.label != 'north')",
    "PREDICT SUM(items.pieces * products.price, 0, 30, days) / COUNT(items.*, 0, 30, days) >= 3.5 "
    "FOR EACH products.id WHERE products.kind IN ('food', 'toys')",
    "PREDICT customers.city = 'Oslo' FOR EACH customers.id WHERE customers.since > 2018-07-01",
]
_TYPOS = ["customrs", "ordrs", "totl", "PREDCT", "WHRE", "dys", "CONT", "visit", "stat", "monts"]
_WRONG = ["'text'", "5", "true", "2020-01-01", "NULL", "orders.at", "customers.name", "(1, 'x')"]


_HINTS = (
    "expected", "did you mean", "there are", "write", "cannot", "is for", "is never", "is no",
    "has no", "needs", "are compared", "or later", "leave", "can only", "takes", "begins", "means",
)  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return write_shop(tmp_path_factory.mktemp("malformed"))


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+|'[^']*'|->|[<>!=]+|\s+|.", text)


def _break(text: str, chance: random.Random) -> str:
    """One of the ways in which people and programs get queries wrong."""
    tokens = _tokens(text)
    words = [i for i, token in enumerate(tokens) if not token.isspace()]
    i, j = chance.choice(words), chance.choice(words)
    way = chance.randrange(9)
    if way == 0:  # a character is missing
        at = chance.randrange(len(text))
        return text[:at] + text[at + 1 :]
    if way == 1:  # a word is missing
        tokens[i] = ""
    elif way == 2:  # two words are swapped
        tokens[i], tokens[j] = tokens[j], tokens[i]
    elif way == 3:  # two letters are swapped
        at = chance.randrange(len(text) - 1)
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    elif way == 4:  # another word
        tokens[i] = chance.choice(_TYPOS)
    elif way == 5:  # a value of another type
        tokens[i] = chance.choice(_WRONG)
    elif way == 6:  # a parenthesis or quote too many
        tokens.insert(i, chance.choice("()'\"`,;.*"))
    elif way == 7:  # truncated
        return text[: chance.randrange(1, len(text))]
    else:  # twice
        tokens.insert(i, tokens[i] + " ")
    return "".join(tokens)


def _malformed(count: int, seed: int) -> list[str]:
    chance = random.Random(seed)
    return [_break(_VALID[n % len(_VALID)], chance) for n in range(count)]


def _complaint(text: str, shop: Database) -> QueryError | None:
    try:
        compile_text(text, shop)
    except QueryError as error:
        return error
    return None


def _check(error: QueryError, text: str) -> None:
    """It points into the query, shows the line, and says what to do."""
    assert 0 <= error.start <= error.end <= len(text)
    line, carets = str(error).splitlines()[-2:]
    assert set(carets.strip()) == {"^"}
    shown = text[error.start : error.start + 1]
    if shown.strip():
        assert line[carets.index("^")] == shown
    assert any(hint in error.problem for hint in _HINTS), error.problem
    assert not any(token in str(error.problem) for token in ("_FOR", "RPAR", "Token(", "$END"))


def test_the_unbroken_ones_are_fine(shop: Database) -> None:
    for text in _VALID:
        compiled = compile_text(text, shop)
        labels(compiled, shop, [seconds("2019-06-01")])


def test_two_hundred_malformed_queries(shop: Database) -> None:
    """Some changes leave a query that can be asked; it is asked then, and must be answered."""
    wrong, kinds = 0, Counter[str]()
    for text in _malformed(260, 1):
        error = _complaint(text, shop)
        if error is None:
            labels(compile_text(text, shop), shop, [seconds("2019-06-01")])
            continue
        _check(error, text)
        wrong += 1
        kinds["unexpected" if error.problem.startswith("unexpected") else error.problem[:12]] += 1
    assert wrong >= 200
    assert len(kinds) >= 8, kinds


@pytest.mark.slow
def test_twenty_thousand_malformed_queries(shop: Database) -> None:
    wrong = 0
    for text in _malformed(20_000, 2):
        error = _complaint(text, shop)
        if error is not None:
            _check(error, text)
            wrong += 1
    assert wrong > 14_000


@pytest.mark.parametrize(
    ("text", "pointed", "said"),
    [
        ("PREDICT COUNT(visit.*, 0, 30) FOR EACH customers.id", "visit", "did you mean 'visits'"),
        ("PREDICT COUNT(Visits.*, 0, 30) FOR EACH customers.id", "Visits", "'visits'? (names are"),
        ("PREDICT SUM(orders.totl, 0, 3) FOR EACH customers.id", "totl", "did you mean 'total'"),
        ("PREDICT SUM(orders.city, 0, 3) FOR EACH customers.id", "city", "customers has one"),
        ("PREDICT COUNT(orders.*, 0, 30) FOR EACH customers.id", "orders.*", "VIA orders.gift_to"),
        (
            "PREDICT COUNT(products.*, 0, 3) FOR EACH customers.id",
            "products.*", "items -> products",
        ),
        (
            "PREDICT COUNT(customers.*, 0, 3) FOR EACH customers.id",
            "customers.*", "no foreign keys",
        ),
        ("PREDICT COUNT(cards.*, 0, 3) FOR EACH customers.id", "COUNT(cards.*, 0, 3)", "no time"),
        ("PREDICT COUNT(visits.*) FOR EACH customers.id", "COUNT(visits.*)", "needs a window"),
        ("PREDICT COUNT(visits.*, 30, 0) FOR EACH customers.id", ", 30, 0", "is empty"),
        ("PREDICT COUNT(visits.*, -5, 9) FOR EACH customers.id", ", -5, 9", "start at 0 or later"),
        (
            "PREDICT COUNT(visits.*, 0, 9) FOR EACH customers.id WHERE COUNT(visits.*, -5, 9) > 1",
            ", -5, 9", "ASSUMING",
        ),
        (
            "PREDICT COUNT(visits.*, 0, 9, years) FOR EACH customers.id WHERE visits.at > NOW",
            "visits.at", "COUNT(visits.* WHERE visits.at = ..., -30, 0, days) > 0",
        ),
        ("PREDICT COUNT(visits.*, 0, 900, years) FOR EACH customers.id", ", 0, 900, years", "200"),
        ("PREDICT COUNT(visits.*, 0, 9) FOR EACH customers.name", "name", "customers.id"),
        ("PREDICT COUNT(visits.*, 0, 9) FOR EACH visits.at", "visits", "no primary key"),
        ("PREDICT COUNT(visits.*, 0, 9) FOR customers.id = 77", "77", "no row with the key 77"),
        ("PREDICT COUNT(visits.*, 0, 9) FOR customers.id > 5", ">", "= or IN"),
        ("PREDICT COUNT(visits.*, 0, 9) FOR customers.id IN (1, NULL)", "NULL", "keys of entities"),
        ("PREDICT customers.city = 5 FOR EACH customers.id", "5", "in quotes: '5'"),
        ("PREDICT customers.age = 'x' FOR EACH customers.id", "'x'", "cannot compare"),
        ("PREDICT customers.since > 'x' FOR EACH customers.id", "'x'", "is no date"),
        ("PREDICT customers.name FOR EACH customers.id", "customers.name", "free text"),
        ("PREDICT customers.since FOR EACH customers.id", "customers.since", "time"),
        ("PREDICT customers.region FOR EACH customers.id", "customers.region", "LIST_DISTINCT"),
        ("PREDICT customers.id > 3 FOR EACH customers.id", "customers.id > 3", "keys are compared"),
        ("PREDICT regions.label FOR EACH customers.id", "regions.label", "FOR EACH regions.id"),
        ("PREDICT SUM(visits.*, 0, 3) FOR EACH customers.id", "visits.*", "only COUNT takes *"),
        ("PREDICT SUM(visits.at, 0, 3) FOR EACH customers.id", "visits.at", "is for numbers"),
        (
            "PREDICT SUM(COUNT(visits.*, 0, 3), 0, 3) FOR EACH customers.id",
            "COUNT(visits.*, 0, 3)", "expected a column",
        ),
        (
            "PREDICT COUNT(visits.*, 0, 3) FORECAST 3 TIMEFRAMES FOR EACH customers.id",
            "FORECAST 3 TIMEFRAMES", "each window on its own",
        ),
        ("PREDICT COUNT(visits.*, 0, 3) TOP 3 FOR EACH customers.id", "TOP 3", "RANK TOP 3"),
        ("PREDICT COUNT(visits.*, 0, 3) RANK TOP 3 FOR EACH customers.id", "RANK TOP 3", "LIST_"),
        ("PREDICT COUNT(visits.*, 0, 3) CLASSIFY FOR EACH customers.id", "CLASSIFY", "a number"),
        (
            "PREDICT LIST_DISTINCT(items.product_id VIA items.order_id -> orders.gift_to, 0, 3) "
            "RANK TOP 0 FOR EACH customers.id", "RANK TOP 0", "RANK TOP 1 to",
        ),
        (
            "PREDICT COUNT(visits.* VIA orders.gift_to, 0, 3) FOR EACH customers.id",
            "orders", "VIA begins at",
        ),
        (
            "PREDICT COUNT(orders.* VIA orders.state, 0, 3) FOR EACH customers.id",
            "state", "orders.customer_id, orders.gift_to",
        ),
        ("PREDICT 5 > 3 FOR EACH customers.id", "5 > 3", "needs a column"),
        ("PREDICT NOT customers.age FOR EACH customers.id", "customers.age", "a condition"),
        ("PREDICT customers.age + 'x' FOR EACH customers.id", "'x'", "is for numbers"),
        ("PREDICT customers.vip > true FOR EACH customers.id", "customers.vip > true", "= and !="),
        ("PREDICT customers.age IN (1, NULL) FOR EACH customers.id", "NULL", "IS NULL"),
        ("PREDICT customers.age LIKE '5' FOR EACH customers.id", "customers.age", "is for texts"),
        ("PREDICT customers.age = (1, 2) FOR EACH customers.id", "(1, 2)", "write IN"),
        ("PREDICT customers.age FOR EACH customers.id ASSUMING customers.age > 3",
         "customers.age > 3", "write WHERE"),
    ],
)  # fmt: skip
def test_errors_of_meaning(text: str, pointed: str, said: str, shop: Database) -> None:
    error = _complaint(text, shop)
    assert error is not None
    assert said in error.problem
    assert text[error.start : error.end] == pointed


_ENDS = "> 0 FOR EACH customers.id"


@pytest.mark.parametrize(
    ("text", "pointed", "said"),
    [
        (f"PREDICT COUNT(visits.*, 0, 30 days) {_ENDS}", "days", "; write 0, 30, days"),
        (f"PREDICT COUNT(visits.*, 30 days) {_ENDS}", "days", "; write 0, 30, days"),
        (f"PREDICT COUNT(visits.*, 30, days) {_ENDS}", "days", "; write 0, 30, days"),
        (f"PREDICT COUNT(visits.*, days 30) {_ENDS}", "days", "; write 0, 30, days"),
        (f"PREDICT COUNT(visits.*, 0, month 1) {_ENDS}", "month", "; write 0, 1, month"),
        (f"PREDICT COUNT(visits.*, -30 days) {_ENDS}", "days", "; write -30, 0, days"),
        (f"PREDICT COUNT(visits.*, last 30 days) {_ENDS}", "last", "as in 0, 30, days"),
        (f"PREDICT COUNT(visits, 0, 30, days) {_ENDS}", "visits", "; to count rows write visits.*"),
        (f"PREDICT COUNT(*, 0, 30, days) {_ENDS}", "*", "write <table>.*, as in COUNT(orders.*,"),
        (f"PREDICT SUM(total, 0, 30, days) {_ENDS}", "total", "; write total with its table"),
        ("PREDICT COUNT(visits.*, 0, 30, days) > 0", "", "as in FOR EACH customers.id"),
        (
            "PREDICT COUNT(visits.*, 0, 30) > 0 customers.id",
            "customers", "; write FOR EACH customers.id",
        ),
        (
            "PREDICT COUNT(visits.*, 0, 30) FOR EACH customers",
            "customers", "; write a table with its primary key, customers.<key>",
        ),
        (
            "PREDICT COUNT(visits.*, 0, 30) FOR EACH customers.customer_id",
            "customer_id", "; write customers.id",
        ),
        (
            "PREDICT COUNT(visits.*, 0, 30) FOR EACH visits.customer",
            "visits", "; write a table that it points at: customers.id",
        ),
    ],
)  # fmt: skip
def test_errors_say_what_to_write(text: str, pointed: str, said: str, shop: Database) -> None:
    error = _complaint(text, shop)
    assert error is not None
    assert said in error.problem
    assert text[error.start : error.end] == pointed


def test_a_wide_database_is_not_listed_whole(tmp_path: Path) -> None:
    from tests.data.query.made import shop_frames

    frames = shop_frames()
    names = [f"column_{i}" for i in range(300)]
    wide = pd.DataFrame(1.0, frames["visits"].index, names)
    frames["visits"] = pd.concat([frames["visits"], wide], axis=1)
    shop = write_shop(tmp_path, frames)
    error = _complaint("PREDICT SUM(visits.colum_7, 0, 3) FOR EACH customers.id", shop)
    assert error is not None
    assert "did you mean 'column_7'" in error.problem
    assert len(error.problem) < 400
