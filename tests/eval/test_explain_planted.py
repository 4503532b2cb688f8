"""Explanations of labels whose rule is known: what the rule reads comes first, and deleting it
moves answers more than deleting other rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.explain import ExplainConfig, Explainer, Explanation
from rfm.eval.explain_occlusion import Asked
from rfm.eval.predictions import score
from rfm.eval.zero_shot import ContextConfig, ZeroShot, in_context
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from tests.planted_shop import RULES, write_planted_shop

pytestmark = pytest.mark.slow
SEEDS = (3, 11, 12)  # of shops, and of weights
AT = range(40)


@dataclass(frozen=True, eq=False)
class Explained:
    """Some answers to the questions of one rule, which there is a way to answer."""

    explainer: Explainer
    found: Sequence[Explanation]
    asked: Sequence[Asked]


@pytest.fixture(scope="module")
def explained(
    tmp_path_factory: pytest.TempPathFactory, task_cache: Path
) -> dict[tuple[int, str], Explained]:
    """By seed and rule."""
    every = {}
    for seed in SEEDS:
        shop = write_planted_shop(tmp_path_factory.mktemp("planted"), seed)
        model, cache = untrained(shop, task_cache, seed), tmp_path_factory.mktemp("cache")
        for name in RULES:
            asker = ZeroShot(model, open_task(open_database(shop), name), cache, ContextConfig())
            answer = asker.ask("test", "rolling", 256, 0, {"own": in_context(model)})["own"]
            assert score(asker.task, "test", answer.predictions) > 0.9, name
            explainer = Explainer(asker, "test", "rolling", 256, 0, ExplainConfig())
            every[seed, name] = Explained(explainer, explainer.explain(AT), explainer.ask(AT))
    return every


def untrained(shop: Path, cache: Path, seed: int) -> RelationalModel:
    """Of random weights: its experts are closed forms."""
    tokenizer = mixture_tokenizer([open_database(shop)], 400, cache)
    torch.manual_seed(seed)
    made = build_model(BackboneConfig(), tokenizer, 40)
    made.about = {"databases": {}, "serialisation": "compact", "episodes": 1}
    return made.eval()


def test_the_planted_path_comes_first(explained: dict[tuple[int, str], Explained]) -> None:
    """Of all answers, also about those who are near the rule's border, which it says little of;
    beside decoys that go with what the rule reads, and from labels of which a tenth are wrong."""
    right = {}
    for (seed, name), one in explained.items():
        rule, tops = RULES[name], [each.signals[0] for each in one.found]
        place = (rule.path, rule.table, rule.column)
        right[seed, name] = np.mean([(s.path, s.table, s.column) == place for s in tops])
    assert np.mean(list(right.values())) >= 0.8, right
    assert min(right.values()) >= 0.5, right


def test_no_first_signal_is_contradicted_by_its_check(
    explained: dict[tuple[int, str], Explained],
) -> None:
    checked = 0
    for one in explained.values():
        for top in (each.signals[0] for each in one.found):
            if re.match("the latest row of .* old", top.words):
                continue  # deleting rows is no check of how old they are
            few = "fewer than usual" in top.words  # so that there are fewer still
            assert top.occluded * np.sign(top.weight) * (-1 if few else 1) <= 1e-3, top
            checked += top.checked
    assert checked > 600


def test_named_rows_move_answers_more_than_as_many_others(
    explained: dict[tuple[int, str], Explained],
) -> None:
    """Than as many of the rows that the question knows of, but which are not named."""
    rng, named, random = np.random.default_rng(0), list[float](), list[float]()
    for one in explained.values():
        situation = one.explainer.situation
        for signal, asked in zip((each.signals[0] for each in one.found), one.asked, strict=True):
            if not signal.path or not signal.rows:
                continue
            rows = one.explainer.first_row(signal.table) + np.array(signal.rows)
            others = np.setdiff1d(situation.all_rows(asked), rows)
            size = min(rows.size, others.size)
            drawn = [rng.choice(others, size, replace=False) for _ in range(4)]
            some = rng.choice(rows, size, replace=False)
            answer = situation.without_rows(asked, [rows[:0], some, *drawn, rows])
            moved = np.abs(answer - answer[0])
            if not signal.column:
                assert moved[-1] == pytest.approx(abs(signal.occluded), abs=1e-5)
            named.append(moved[1])
            random.append(moved[2:6].mean())
    assert len(named) > 500
    assert np.mean(named) > 2 * np.mean(random)
    assert np.mean(np.array(named) > np.array(random)) > 0.75


def test_first_signals_read_as_sentences(explained: dict[tuple[int, str], Explained]) -> None:
    wanted = {
        "own": r"customers\.income = [\d,]+, (much )?(higher|lower) than usual: (raises|lowers) .*",
        "child": r"orders\.amount of the last \d+ rows \(by orders\.customer\) averages [\d.]+, .*",
        "count": r"\d+ rows of visits \(by visits\.customer\), (much )?(more|fewer) than usual: .*",
        "far": r"products\.price of the \d+ rows \(by orders\.customer, then orders\.product -> "
        r"products\) averages [\d.]+, (much )?(higher|lower) than usual: (raises|lowers) .*",
    }
    for name, pattern in wanted.items():
        found = [one.top_signal for one in explained[SEEDS[0], name].found]
        assert any(re.fullmatch(pattern, words) for words in found), found
