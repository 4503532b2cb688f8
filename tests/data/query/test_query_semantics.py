"""What labels, entities and counts are, against loops over the rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rfm.data.database import Database
from rfm.data.query import compile_text, entities, labels
from tests.data.query.made import seconds, shop_frames, write_shop

Frames = dict[str, pd.DataFrame]
TIMES = ["2019-03-01", "2019-09-15 12:00:00", "2020-02-01"]
Rows = pd.DataFrame


@pytest.fixture(scope="module")
def frames() -> Frames:
    return shop_frames()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return write_shop(tmp_path_factory.mktemp("semantics"))


def _found(text: str, shop: Database, times: list[str] = TIMES) -> dict[tuple[int, int], Any]:
    rows = labels(compile_text(text, shop), shop, [seconds(time) for time in times])
    keys = zip(rows.time.tolist(), rows.entity.tolist(), strict=True)
    return dict(zip(keys, rows.label.to_pylist(), strict=True))


def _expected(
    frames: Frames, children: Rows, key: str, window: tuple[str, str], label: Callable[[Rows], Any],
    where: Callable[[int, pd.Timestamp], bool] = lambda who, at: True,
) -> dict[tuple[int, int], Any]:  # fmt: skip
    """By loops: ``label`` of an entity's children in (start, end] after each time; None drops."""
    found = {}
    for text in TIMES:
        at = pd.Timestamp(text)
        start, end = (at + _offset(bound) for bound in window)
        for who, since in zip(frames["customers"].id, frames["customers"].since, strict=True):
            inside = children[(children[key] == who) & (children["at"] > start)]
            value = label(inside[inside["at"] <= end])
            if since <= at and where(int(who), at) and value is not None:
                found[seconds(text), int(who)] = value
    return found


def _offset(bound: str) -> pd.DateOffset:
    number, unit = bound.split()
    return pd.DateOffset(**{unit: int(number)})  # type: ignore[arg-type]


def _some(value: float) -> float | None:
    return None if pd.isna(value) else float(value)


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ("COUNT(orders.* VIA orders.customer_id, 0, 30, days)", lambda r: float(len(r))),
        (
            "COUNT(orders.total VIA orders.customer_id, 0, 30, days)",
            lambda r: float(r.total.count()),
        ),
        ("SUM(orders.total VIA orders.customer_id, 0, 30, days)", lambda r: r.total.sum()),
        ("AVG(orders.total VIA orders.customer_id, 0, 30, days)", lambda r: _some(r.total.mean())),
        ("MIN(orders.total VIA orders.customer_id, 0, 30, days)", lambda r: _some(r.total.min())),
        ("MAX(orders.total VIA orders.customer_id, 0, 30, days)", lambda r: _some(r.total.max())),
        (
            "COUNT_DISTINCT(orders.state VIA orders.customer_id, 0, 30, days)",
            lambda r: float(r.state.nunique()),
        ),
        (
            "LAST(orders.state VIA orders.customer_id, 0, 30, days)",
            lambda r: r.state.iloc[-1] if len(r) else None,
        ),
        (
            "FIRST(orders.total VIA orders.customer_id, 0, 30, days)",
            lambda r: r.total.dropna().iloc[0] if r.total.count() else None,
        ),
        (
            "MAX(orders.paid VIA orders.customer_id, 0, 30, days)",
            lambda r: int(r.paid.max()) if len(r) else None,
        ),
        (
            "AVG(orders.total > 50 VIA orders.customer_id, 0, 30, days)",
            lambda r: _some((r.total > 50).mean()),
        ),
        (
            "COUNT(orders.* WHERE orders.total > 50 AND NOT orders.state = 'open' "
            "VIA orders.customer_id, 0, 30, days) >= 1",
            lambda r: int(((r.total > 50) & (r.state != "open")).any()),
        ),
        (
            "SUM(orders.total * 2 - 1 VIA orders.customer_id, 0, 30, days)",
            lambda r: (r.total * 2 - 1).sum(),
        ),
        (
            "SUM(orders.total VIA orders.customer_id, 0, 30, days) "
            "/ COUNT(orders.* VIA orders.customer_id, 0, 30, days)",
            lambda r: r.total.sum() / len(r) if len(r) else None,
        ),
        (
            "MAX(orders.total VIA orders.customer_id, 0, 30, days) IS NULL",
            lambda r: int(r.total.count() == 0),
        ),
        (
            "MAX(orders.total VIA orders.customer_id, 0, 30, days) > 70",
            lambda r: int(r.total.max() > 70) if r.total.count() else None,
        ),
        (
            "MAX(orders.at VIA orders.customer_id, 0, 30, days) > 2020-02-15",
            lambda r: int(r["at"].max() > pd.Timestamp("2020-02-15")) if len(r) else None,
        ),
    ],
)  # fmt: skip
def test_aggregates(target: str, label: Any, shop: Database, frames: Frames) -> None:
    found = _found(f"PREDICT {target} FOR EACH customers.id", shop)
    expected = _expected(frames, frames["orders"], "customer_id", ("0 days", "30 days"), label)
    assert found.keys() == expected.keys()
    assert len({str(value) for value in found.values()}) > 1
    for key, value in expected.items():
        assert found[key] == pytest.approx(value), key


@pytest.mark.parametrize(
    ("window", "bounds"),
    [
        ("0, 30", ("0 days", "30 days")),
        ("10, 45, days", ("10 days", "45 days")),
        ("0, 6, weeks", ("0 days", "42 days")),
        ("0, 36, hours", ("0 hours", "36 hours")),
        ("0, 2, months", ("0 months", "2 months")),
        ("1, 3, MONTHS", ("1 months", "3 months")),
        ("0, 1, years", ("0 years", "1 years")),
        ("0, 90000, seconds", ("0 seconds", "90000 seconds")),
    ],
)
def test_windows(window: str, bounds: tuple[str, str], shop: Database, frames: Frames) -> None:
    found = _found(f"PREDICT COUNT(visits.*, {window}) FOR EACH customers.id", shop)
    counted = _expected(frames, frames["visits"], "customer_id", bounds, lambda r: float(len(r)))
    assert found == counted
    assert len(set(found.values())) > 1


def test_a_window_leaves_its_start_out_and_takes_its_end(tmp_path: Path) -> None:
    frames = shop_frames()
    texts = ["2019-06-01", "2019-06-01 00:00:01", "2019-06-11", "2019-06-11 00:00:01"]
    at = pd.to_datetime(texts, format="ISO8601")
    frames["visits"] = pd.DataFrame({"at": at, "customer_id": 0})
    frames["customers"]["since"] = pd.Timestamp("2018-01-01")
    shop = write_shop(tmp_path, frames)
    text = "PREDICT COUNT(visits.*, 0, 10, days) FOR EACH customers.id"
    assert _found(text, shop, ["2019-06-01"])[seconds("2019-06-01"), 0] == 2
    past = "PREDICT COUNT(visits.*, 0, 1) FOR EACH customers.id WHERE COUNT(visits.*, {}, 0) = {}"
    for start, counted in [("-10", 2), ("-11", 3), ("-INF", 3)]:
        asked = entities(
            compile_text(past.format(start, counted), shop), shop, seconds("2019-06-11")
        )
        assert asked.row.tolist() == [0], start


def test_parts_of_a_second_do_not_tell(tmp_path: Path) -> None:
    """A row half a second after the anchor is seen at the anchor: it is in no label."""
    frames = shop_frames()
    at = pd.to_datetime(["2019-06-01 00:00:00.5", "2019-06-11 00:00:00.5"])
    frames["visits"] = pd.DataFrame({"at": at, "customer_id": 0})
    shop = write_shop(tmp_path, frames)
    assert shop.times("visits")[0] == seconds("2019-06-01")
    text = "PREDICT COUNT(visits.*, 0, 10, days) FOR EACH customers.id"
    assert _found(text, shop, ["2019-06-01"])[seconds("2019-06-01"), 0] == 1


def test_where_is_decided_at_the_anchor(shop: Database, frames: Frames) -> None:
    text = (
        "PREDICT COUNT(visits.*, 0, 30, days) FOR EACH customers.id WHERE (customers.city = 'Oslo' "
        "OR customers.since > NOW - 200 days) AND COUNT(visits.*, -90, 0, days) > 1 "
        "AND regions.label IN ('north', 'south')"
    )
    people, visits = frames["customers"], frames["visits"]

    def where(who: int, at: pd.Timestamp) -> bool:
        person = people.iloc[who]
        seen = visits[(visits.customer_id == who) & (visits["at"] <= at)]
        recent = seen["at"] > at - pd.DateOffset(days=90)
        return bool(
            (person.city == "Oslo" or person.since > at - pd.DateOffset(days=200))
            and recent.sum() > 1
            and frames["regions"].label[person.region] in ("north", "south")
        )

    window = ("0 days", "30 days")
    expected = _expected(frames, visits, "customer_id", window, lambda r: float(len(r)), where)
    assert _found(text, shop) == expected
    assert 0 < len(expected) < len(TIMES) * len(people)
    asked = entities(compile_text(text, shop), shop, seconds(TIMES[1]))
    assert asked.row.tolist() == [who for time, who in expected if time == seconds(TIMES[1])]
    assert set(asked.time.tolist()) == {seconds(TIMES[1])}


def test_assuming_is_taken_for_granted(shop: Database, frames: Frames) -> None:
    """Examples fulfil it; who will is not known of those that are asked."""
    text = "PREDICT SUM(orders.total VIA orders.gift_to, 0, 30, days) FOR EACH customers.id"
    assumed = f"{text} ASSUMING COUNT(visits.*, 0, 30, days) > 0"
    found, all_ = _found(assumed, shop), _found(text, shop)
    came = _found("PREDICT COUNT(visits.*, 0, 30, days) FOR EACH customers.id", shop)
    assert found == {key: value for key, value in all_.items() if came[key] > 0}
    assert len(found) < len(all_)
    at = seconds(TIMES[2])
    rows = [entities(compile_text(t, shop), shop, at).row.tolist() for t in (text, assumed)]
    assert rows[0] == rows[1]


def test_paths_of_two_keys_and_lists(shop: Database, frames: Frames) -> None:
    items = frames["items"].merge(frames["orders"][["id", "customer_id"]], left_on="order_id",
                                  right_on="id")  # fmt: skip
    text = (
        "PREDICT LIST_DISTINCT(items.product_id VIA items.order_id -> orders.customer_id, "
        "0, 30, days) RANK TOP 3 FOR EACH customers.id"
    )
    compiled = compile_text(text, shop)
    assert (compiled.task_type, compiled.destination_table, compiled.top_k) == (
        "recommendation", "products", 3,
    )  # fmt: skip
    listed = _expected(
        frames, items, "customer_id", ("0 days", "30 days"),
        lambda r: sorted(set(r.product_id.tolist())) or None,
    )  # fmt: skip
    assert _found(text, shop) == listed
    parents = (
        "PREDICT SUM(items.pieces * products.price WHERE orders.paid = true "
        "VIA items.order_id -> orders.customer_id, 0, 30, days) FOR EACH customers.id"
    )
    full = items.merge(frames["products"], left_on="product_id", right_on="id").merge(
        frames["orders"][["id", "paid"]], left_on="order_id", right_on="id"
    )
    sums = _expected(
        frames, full, "customer_id", ("0 days", "30 days"),
        lambda r: float((r.pieces * r.price)[r.paid].sum()),
    )  # fmt: skip
    found = _found(parents, shop)
    assert found.keys() == sums.keys()
    assert all(found[key] == pytest.approx(sums[key]) for key in sums)


def test_classify_lists_the_classes(shop: Database, frames: Frames) -> None:
    text = (
        "PREDICT LIST_DISTINCT(orders.state VIA orders.customer_id, 0, 30, days) CLASSIFY "
        "FOR EACH customers.id"
    )
    compiled = compile_text(text, shop)
    assert compiled.task_type == "multilabel_classification"
    assert compiled.classes == ("late", "open", "sent")
    expected = _expected(
        frames, frames["orders"], "customer_id", ("0 days", "30 days"),
        lambda r: [int(c in set(r.state)) for c in compiled.classes] if len(r) else None,
    )  # fmt: skip
    assert _found(text, shop) == expected


def test_types_of_tasks(shop: Database) -> None:
    for target, task_type in [
        ("COUNT(visits.*, 0, 30, days)", "regression"),
        ("COUNT(visits.*, 0, 30, days) > 0", "binary_classification"),
        ("LAST(orders.state VIA orders.gift_to, 0, 30, days)", "multiclass_classification"),
        ("LAST(orders.paid VIA orders.gift_to, 0, 30, days)", "binary_classification"),
        ("customers.age", "regression"),
        ("customers.vip", "binary_classification"),
        ("customers.city", "multiclass_classification"),
        ("customers.name LIKE '%1%'", "binary_classification"),
    ]:
        compiled = compile_text(f"PREDICT {target} FOR EACH customers.id", shop)
        assert compiled.task_type == task_type, target


def test_entities_by_key(shop: Database, frames: Frames) -> None:
    text = "PREDICT COUNT(visits.*, 0, 30, days) FOR customers.id IN (5, 3, 19, 3)"
    compiled = compile_text(text, shop)
    at = seconds("2019-03-01")
    begun = frames["customers"].since <= pd.Timestamp("2019-03-01")
    assert begun[5]
    assert not begun[19]
    asked = entities(compiled, shop, at)
    assert asked.row.tolist() == [5, 3]
    assert list(asked.left_out) == [19]
    assert "not there" in asked.left_out[19]
    assert entities(compiled, shop, at, keys=[np.int64(2)]).row.tolist() == [2]
    everyone = labels(compiled, shop, [at])
    assert everyone.entity.tolist() == np.flatnonzero(begun).tolist()
    with pytest.raises(ValueError, match="customers has no row with the key 99"):
        entities(compiled, shop, at, keys=[99])


def test_no_times_no_labels(shop: Database) -> None:
    found = labels(
        compile_text("PREDICT COUNT(visits.*, 0, 30) FOR EACH customers.id", shop), shop, []
    )
    assert len(found) == 0
    assert found.counts.labelled.size == 0
