"""Explanations in the database's own keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike

from rfm.data.database import Database
from rfm.eval.ask import AskConfig
from rfm.model import RelationalModel
from tests.answering import BUYS, NEXT

AT = "2020-10-01"


def test_past_outcomes_are_told_by_whose_they_are_and_when_they_were_asked_for(
    answering: RelationalModel, asked_shop: Database, asking: AskConfig
) -> None:
    frame = answering.predict(asked_shop, BUYS, at=AT, explain=True, config=asking)
    own, outcomes = 0, 0
    for said in frame.explanation:
        for signal in said["signals"]:
            if signal["table"] != "past outcomes":
                continue
            assert signal["column"] in ("", "outcome")
            times = [pd.Timestamp(time) for _, time in signal["rows"]]
            assert times == sorted(times, reverse=True)
            assert all(time <= pd.Timestamp(AT) - pd.Timedelta(days=30) for time in times)
            outcomes += len(times)
            if signal["path"] == "past outcomes.id":
                assert {key for key, _ in signal["rows"]} == {said["entity"]}
                own += 1
    assert own > 3
    assert outcomes > 20


@pytest.mark.parametrize("query", [BUYS, NEXT], ids=["buys", "next"])
def test_keys_of_named_rows_alone_are_read_and_of_each_table_once(
    answering: RelationalModel,
    asked_shop: Database,
    asking: AskConfig,
    query: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = list[tuple[str, list[int]]]()

    def spied(database: Database, table: str, rows: ArrayLike) -> list[Any]:
        read.append((table, np.asarray(rows).tolist()))
        return [f"{table} {row}" for row in np.asarray(rows).tolist()]

    monkeypatch.setattr("rfm.eval.explained.keys_of_rows", spied)
    frame = answering.predict(
        asked_shop, query, at=AT, entities=[7, 3], explain=True, config=asking
    )
    tables = [table for table, _ in read]
    assert sorted(set(tables)) == sorted(tables)
    said = dict[str, set[str]]()
    for one in frame.explanation:
        said.setdefault("customers", set()).add(one["entity"])
        if query == NEXT:
            said.setdefault("products", set()).add(one["chosen"])
        for signal in one["signals"]:
            if signal["table"] == "past outcomes":
                said["customers"] |= {row[0] for row in signal["rows"] if query == BUYS}
            else:
                said.setdefault(signal["table"], set()).update(signal["rows"])
    assert {t: {f"{t} {row}" for row in rows} for t, rows in read} == said
