"""What signals say is so: worked out again from the tables."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rfm.eval.explain import ExplainConfig, Explainer
from rfm.eval.explain_words import _number
from rfm.nn.model import RelationalModel
from tests.eval.test_explain import model, opened

assert model  # a fixture
EVERY = ExplainConfig(points=2, signals=80, checked=0)
_MEAN = re.compile(
    r"(\w+)\.(\w+) of the last (\d+) rows \(by \w+\.(\w+)\)(?:, known of (\d+),)? "
    r"averages ([-\d.,]+\d)\b"
)
_COUNT = re.compile(r"(\d+|no) rows? of (\w+) \(by \w+\.(\w+)\)( in the last (\d+) days)?[,:]")


def explained(
    model: RelationalModel, shop: Path, cache: Path, name: str
) -> list[tuple[int, int, list[str]]]:
    """Entity, cutoff and words of some questions."""
    asker = opened(model, shop, cache, name)
    explainer = Explainer(asker, "test", "rolling", 24, 0, EVERY)
    found, asked = explainer.explain(range(12)), explainer.ask(range(12))
    both = zip(found, asked, strict=True)
    return [(q.entity, q.cutoff, [s.words for s in one.signals]) for one, q in both]


def children(shop: Path, table: str, column: str, entity: int, cutoff: int) -> pd.DataFrame:
    """Rows of a table that point at an entity, the latest first."""
    frame = pd.read_parquet(shop / "db" / f"{table}.parquet")
    moment = frame["at"] if "at" in frame else pd.Series(pd.Timestamp(0), frame.index)
    seconds = moment.astype("datetime64[s]").astype("int64")
    own = frame.assign(seconds=seconds)[(frame[column] == entity) & (seconds <= cutoff)]
    return own.iloc[::-1].sort_values("seconds", ascending=False, kind="stable")


@pytest.mark.parametrize("name", ["buys", "spend"])
def test_numbers_in_words_are_those_of_the_tables(
    model: RelationalModel, task_shop: Path, task_cache: Path, name: str
) -> None:
    means, counts = 0, 0
    for entity, cutoff, words in explained(model, task_shop, task_cache, name):
        for said in words:
            if found := _MEAN.match(said):
                table, column, many, link, known, value = found.groups()
                own = children(task_shop, table, link, entity, cutoff)
                last = own.iloc[: int(many)]
                if len(own) > len(last) and own.seconds.iloc[len(last)] == last.seconds.iloc[-1]:
                    continue  # which of these is last nobody knows
                assert len(last) == int(many), said
                assert last[column].notna().sum() == int(known or many), said
                wanted = float(last[column].mean())
                assert float(value.replace(",", "")) == pytest.approx(wanted, rel=6e-3, abs=1e-4)
                means += 1
            if found := _COUNT.match(said):
                many, table, link, _, days = found.groups()
                own = children(task_shop, table, link, entity, cutoff)
                since = cutoff - 86_400 * int(days) if days else -np.inf
                assert (own.seconds > since).sum() == (0 if many == "no" else int(many)), said
                counts += 1
    assert means > 10
    assert counts > 5


def test_numbers_are_spelled_without_what_float32_makes_of_them() -> None:
    spelled = {
        (-4.5e-7, 30.0): "0", (1997.0, 3.0): "1997", (12_345.678, 1e4): "12,346",
        (0.128, 0.1): "0.128", (37.64, 20.0): "37.6", (1e-6, 1e-6): "1e-06", (-3.0, 1.0): "-3",
    }  # fmt: skip
    for (x, scale), wanted in spelled.items():
        assert _number(x, scale) == wanted
