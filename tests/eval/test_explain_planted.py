"""Explanations of labels whose rule is known: what the rule reads comes first, and deleting it
moves answers more than deleting other rows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from rfm.data.database import open_database
from rfm.data.tasks import open_task
from rfm.data.tokenizer import mixture_tokenizer
from rfm.eval.explain import ExplainConfig, Explainer
from rfm.eval.predictions import score
from rfm.eval.zero_shot import ContextConfig, ZeroShot, in_context
from rfm.nn.backbone import BackboneConfig
from rfm.nn.model import RelationalModel
from rfm.train.build import build_model
from tests.planted_shop import RULES, write_planted_shop

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted_shop(tmp_path_factory.mktemp("planted"), 3)


@pytest.fixture(scope="module")
def model(shop: Path, task_cache: Path) -> RelationalModel:
    """Of random weights: its experts are closed forms."""
    tokenizer = mixture_tokenizer([open_database(shop)], 400, task_cache)
    torch.manual_seed(0)
    made = build_model(BackboneConfig(), tokenizer, 40)
    made.about = {"databases": {}, "serialisation": "compact", "episodes": 1}
    return made.eval()


@pytest.fixture(scope="module")
def explainers(
    shop: Path, model: RelationalModel, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Explainer]:
    cache, found = tmp_path_factory.mktemp("planted cache"), {}
    for name in RULES:
        asker = ZeroShot(model, open_task(open_database(shop), name), cache, ContextConfig())
        answer = asker.ask("test", "rolling", 256, 0, {"own": in_context(model)})["own"]
        assert score(asker.task, "test", answer.predictions) > 0.8, (
            name
        )  # there is a way to say why
        found[name] = Explainer(asker, "test", "rolling", 256, 0, ExplainConfig())
    return found


def test_the_planted_path_comes_first(explainers: dict[str, Explainer]) -> None:
    right = {}
    for name, rule in RULES.items():
        tops = [one.signals[0] for one in explainers[name].explain(range(25))]
        right[name] = np.mean(
            [(s.path, s.table, s.column) == (rule.path, rule.table, rule.column) for s in tops]
        )
    assert np.mean(list(right.values())) >= 0.8, right


def test_no_first_signal_is_contradicted_by_its_check(explainers: dict[str, Explainer]) -> None:
    checked = 0
    for explainer in explainers.values():
        for one in explainer.explain(range(25)):
            top = one.signals[0]
            if re.match("the latest row of .* old", top.words):
                continue  # deleting rows is no check of how old they are
            few = "fewer than usual" in top.words  # so that there are fewer still
            assert top.occluded * np.sign(top.weight) * (-1 if few else 1) <= 1e-3, top
            checked += top.checked
    assert checked > 75


def test_named_rows_move_answers_more_than_random_ones(explainers: dict[str, Explainer]) -> None:
    rng, named, random = np.random.default_rng(0), list[float](), list[float]()
    for name in ("child", "count", "far"):
        explainer = explainers[name]
        at = range(15)
        for one, asked in zip(explainer.explain(at), explainer.ask(at), strict=True):
            signal = one.signals[0]
            if not signal.path or not signal.rows:
                continue
            rows = explainer.first_row(signal.table) + np.array(signal.rows)
            every = explainer.situation.all_rows(asked)
            others = [
                rng.choice(every, min(rows.size, every.size), replace=False) for _ in range(4)
            ]
            answer = explainer.situation.without_rows(asked, [rows[:0], rows, *others])
            moved = np.abs(answer - answer[0])
            if not signal.column:
                assert moved[1] == pytest.approx(abs(signal.occluded), abs=1e-5)
            named.append(moved[1])
            random.append(moved[2:].mean())
    assert len(named) > 20
    assert np.mean(named) > 1.5 * np.mean(random)


def test_first_signals_read_as_sentences(explainers: dict[str, Explainer]) -> None:
    wanted = {
        "own": r"customers\.income = [\d,]+, (much )?(higher|lower) than usual: (raises|lowers) .*",
        "child": r"orders\.amount of the last \d+ rows \(by orders\.customer\) averages [\d.]+, .*",
        "count": r"\d+ rows of visits \(by visits\.customer\), (much )?(more|fewer) than usual: .*",
        "far": r"products\.price of the \d+ rows \(by orders\.customer, then orders\.product -> "
        r"products\) averages [\d.]+, (much )?(higher|lower) than usual: (raises|lowers) .*",
    }
    for name, pattern in wanted.items():
        found = [one.top_signal for one in explainers[name].explain(range(4))]
        assert any(re.fullmatch(pattern, words) for words in found), found
