"""What names and values say about keys and times, on schemas that are made up here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.data.import_sql import Import, ImportConfig, import_database
from rfm.data.importing.names import abbreviates, ends_with, head, singular, split_id, table_stems


def infer(folder: Path, tables: dict[str, dict[str, Any]]) -> Import:
    source = folder / "files"
    source.mkdir()
    for name, columns in tables.items():
        pd.DataFrame(columns).to_parquet(source / f"{name}.parquet")
    return import_database(str(source), folder / "out", ImportConfig(dry_run=True))


def links(done: Import) -> dict[str, str]:
    return {
        f"{name}.{link.columns[0]}": link.parent
        for name, table in done.plan.tables.items()
        for link in table.links
    }


def keys(done: Import) -> dict[str, str]:
    return {name: ", ".join(table.key) for name, table in done.plan.tables.items()}


def among(parents: Any, n: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).choice(np.asarray(parents), n)


@pytest.mark.parametrize(
    ("plural", "one"),
    [
        ("customers", "customer"),
        ("categories", "category"),
        ("addresses", "address"),
        ("matches", "match"),
        ("boxes", "box"),
        ("status", "status"),
        ("people", "person"),
        ("series", "series"),
        ("class", "class"),
        ("houses", "house"),
    ],
)
def test_singular(plural: str, one: str) -> None:
    assert singular(plural) == one


def test_words_of_keys() -> None:
    assert split_id("home_team_id") == (("home", "team"), "id")
    assert split_id("OwnerUserId") == (("owner", "user"), "id")
    assert split_id("id_customer") == (("customer",), "id")
    assert split_id("orderid", [("order",)]) == (("order",), "id")
    assert split_id("Id") == ((), "id")
    assert head(("player", "of", "match")) == ("player",)
    assert head(("team", "1")) == ("team",)
    assert head(("player", "out")) == ("player",)
    assert ends_with(("post", "type"), ("type",))
    assert not ends_with(("post", "type"), ("post",))
    assert abbreviates("cust", "customer")
    assert abbreviates("dept", "department")
    assert not abbreviates("cat", "customer")
    assert not abbreviates("at", "author")


def test_words_that_all_tables_share_say_nothing() -> None:
    stems = table_stems(["shop_orders_dataset", "shop_items_dataset", "shop_users_dataset"])
    assert stems["shop_orders_dataset"] == ("order",)


def test_keys_that_are_no_count(tmp_path: Path) -> None:
    ids = [f"u-{i * 37 % 1000:04d}" for i in range(100)]
    done = infer(
        tmp_path,
        {
            "accounts": {"account_id": ids, "email": [f"{i}@x" for i in range(100)]},
            "logins": {"user": among(ids, 500), "login_account_id": among(ids, 500)},
            "transfers": {
                "transfer_no": np.arange(500) + 7000,
                "sender_id": among(ids, 500, 1),
                "receiver_id": among(ids, 500, 2),
            },
        },
    )
    assert keys(done) == {"accounts": "account_id", "logins": "", "transfers": "transfer_no"}
    assert links(done) == {
        "logins.login_account_id": "accounts",
        "transfers.sender_id": "accounts",
        "transfers.receiver_id": "accounts",
    }


def test_what_may_point_at_two_tables_is_reported(tmp_path: Path) -> None:
    done = infer(
        tmp_path,
        {
            "cats": {"id": np.arange(50), "name": ["x"] * 50},
            "dogs": {"id": np.arange(50), "name": ["y"] * 50},
            "visits": {"id": np.arange(300), "owner_id": among(np.arange(50), 300)},
        },
    )
    assert links(done) == {}
    (guess,) = done.plan.ambiguous
    assert (guess.column, set(guess.candidates)) == ("owner_id", {"cats", "dogs"})
    assert "visits.owner_id -> cats | dogs?" in done.plan_text


def test_numbers_that_are_no_keys(tmp_path: Path) -> None:
    n = 400
    done = infer(
        tmp_path,
        {
            "teams": {"team_id": np.arange(40), "titles": among(np.arange(9), 40)},
            "matches": {
                "match_id": np.arange(n),
                "home_team": among([0, 1], n),
                "team_score": among(np.arange(5), n),
                "position": among(np.arange(40), n),
                "team_type_id": among([1, 2, 3], n),
                "default_team_id": [0] * n,
                "minutes": among(np.arange(90), n),
            },
        },
    )
    assert links(done) == {}


def test_self_reference_and_roles(tmp_path: Path) -> None:
    n = 200
    done = infer(
        tmp_path,
        {
            "employees": {
                "employee_id": np.arange(n) + 1,
                "manager_id": among(np.arange(20) + 1, n),
                "dept_id": among(np.arange(12) * 10 + 10, n),
            },
            "departments": {"department_id": np.arange(12) * 10 + 10, "head": ["x"] * 12},
            "reviews": {
                "review_id": np.arange(900) + 1,
                "employee_id": among(np.arange(n) + 1, 900, 1),
                "reviewing_employee_id": among(np.arange(n) + 1, 900, 2),
            },
        },
    )
    assert links(done) == {
        "employees.manager_id": "employees",
        "employees.dept_id": "departments",
        "reviews.employee_id": "employees",
        "reviews.reviewing_employee_id": "employees",
    }


def test_columns_that_are_marked_as_their_tables(tmp_path: Path) -> None:
    """The names of TPC-H."""
    customers, orders = np.arange(300) + 1, np.arange(1500) * 4 + 1
    done = infer(
        tmp_path,
        {
            "region": {"r_regionkey": np.arange(5), "r_name": ["x"] * 5, "r_comment": ["x"] * 5},
            "nation": {
                "n_nationkey": np.arange(25),
                "n_name": ["x"] * 25,
                "n_regionkey": among(np.arange(5), 25),
            },
            "customer": {
                "c_custkey": customers,
                "c_nationkey": among(np.arange(25), 300),
                "c_acctbal": among(np.arange(300), 300) / 7,
            },
            "orders": {
                "o_orderkey": orders,
                "o_custkey": among(customers, 1500),
                "o_orderdate": pd.date_range("1992-01-01", periods=1500),
                "o_shippriority": [0] * 1500,
            },
            "lineitem": {
                "l_orderkey": among(orders, 4000),
                "l_linenumber": among(np.arange(7), 4000),
                "l_commitdate": pd.date_range("1992-01-01", periods=4000, freq="h"),
            },
        },
    )
    assert keys(done) == {
        "region": "r_regionkey",
        "nation": "n_nationkey",
        "customer": "c_custkey",
        "orders": "o_orderkey",
        "lineitem": "",
    }
    assert links(done) == {
        "nation.n_regionkey": "region",
        "customer.c_nationkey": "nation",
        "orders.o_custkey": "customer",
        "lineitem.l_orderkey": "orders",
    }


def test_one_table_for_the_details_of_another(tmp_path: Path) -> None:
    n = 60
    done = infer(
        tmp_path,
        {
            "patients": {"patient_id": np.arange(n) + 1, "sex": ["f"] * n},
            "patient_contacts": {"patient_id": np.arange(n) + 1, "phone": ["1"] * n},
        },
    )
    assert keys(done) == {"patients": "patient_id", "patient_contacts": ""}
    assert links(done) == {"patient_contacts.patient_id": "patients"}


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        (["last_updated", "created"], "created"),
        (["updated_at"], ""),
        (["LastActivityDate", "CreationDate"], "CreationDate"),
        (["birth_date"], ""),
        (["date_of_birth", "joined_on"], "joined_on"),
        (["valid_until", "valid_from"], ""),
        (["due_date", "order_date"], "order_date"),
        (["end_date", "start_date"], "start_date"),
        (["expires_at", "timestamp"], "timestamp"),
        (["etl_loaded_at"], ""),
        (["payment_date"], "payment_date"),
    ],
)
def test_time_columns_by_name(tmp_path: Path, columns: list[str], wanted: str) -> None:
    times = pd.date_range("2020-01-01", periods=50, freq="D")
    frame: dict[str, Any] = {"id": np.arange(50), **dict.fromkeys(columns, times)}
    done = infer(tmp_path, {"orders": frame})
    assert done.plan.tables["orders"].time.column == wanted


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([f"2020-01-{d:02d}T10:00:00Z" for d in range(1, 29)], True),
        ([f"2020-01-{d:02d}" for d in range(1, 28)] + ["soon"], True),
        ([f"2020-01-{d:02d}" for d in range(1, 27)] + ["soon", "later"], False),
        (list(range(1_600_000_000, 1_600_028_000, 1000)), True),
        ([t * 1000 for t in range(1_600_000_000, 1_600_028_000, 1000)], True),
        (list(range(28)), False),
        ([pd.Timestamp("2020-01-01")] * 28, False),
        ([pd.Timestamp("2020-01-01")] * 27 + [pd.Timestamp("2261-12-31")], False),
    ],
)
def test_time_columns_by_values(tmp_path: Path, values: list[Any], wanted: bool) -> None:
    done = infer(tmp_path, {"events": {"event_time": values}})
    assert bool(done.plan.tables["events"].time.column) == wanted


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_texts_with_a_time_zone_are_utc(tmp_path: Path, suffix: str) -> None:
    texts = ["2020-01-01T10:00:00+02:00", "2020-01-02T10:00:00-05:30", "2020-01-03 10:00:00Z"]
    (tmp_path / "files").mkdir()
    frame = pd.DataFrame({"event_time": [*texts, "2020-01-04"]})
    if suffix == "csv":
        frame.to_csv(tmp_path / "files" / "events.csv", index=False)
    else:
        frame.to_parquet(tmp_path / "files" / "events.parquet")
    done = import_database(str(tmp_path / "files"), tmp_path / "out", ImportConfig())
    assert done.database is not None
    wanted = ["2020-01-01 08:00", "2020-01-02 15:30", "2020-01-03 10:00", "2020-01-04"]
    assert done.database.times("events").tolist() == [
        int(pd.Timestamp(text).timestamp()) for text in wanted
    ]


def test_every_decision_has_a_reason(tmp_path: Path) -> None:
    done = infer(
        tmp_path,
        {
            "users": {"id": np.arange(9), "at": pd.date_range("2020", periods=9)},
            "posts": {"id": np.arange(50), "user_id": among(np.arange(9), 50)},
        },
    )
    for table in done.plan.tables.values():
        assert table.key_reason
        assert table.time.reason
        assert all(link.reason.startswith("inferred: ") for link in table.links)


def test_estimated_counts_are_said_to_be(tmp_path: Path) -> None:
    """Of fractions the first rows tell; a boolean has two values, however many rows."""
    some = [None, *([True, False] * 299), None]
    users = {"id": np.arange(600), "vip": some, "weight": among(np.arange(80) / 7, 600)}
    done = infer(tmp_path, {"users": users})
    said = done.plan_text
    assert re.search(r"vip: boolean \(.*\), about 2 values, 2 nulls", said), said
    assert re.search(r"weight: real \(.*\), about 80 values", said), said
