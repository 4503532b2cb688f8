"""Explanations in the database's own keys."""

from __future__ import annotations

import pandas as pd

from rfm.data.database import Database
from rfm.eval.ask import AskConfig
from rfm.model import RelationalModel
from tests.answering import BUYS

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
