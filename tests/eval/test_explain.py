"""Explanations: of every type of task, what they add up to, and what they name."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rfm.data.hidden import NOTHING
from rfm.data.serialise import value_features
from rfm.data.tasks import Regime
from rfm.eval.explain import ExplainConfig, Explainer, explain
from rfm.eval.explain_occlusion import Without
from rfm.eval.explain_parts import split_moves
from rfm.eval.explain_rows import LABEL, QUESTION, Layout, walk
from rfm.eval.explain_words import path_words, table_at
from rfm.eval.zero_shot import (
    ZeroShot,
    ZeroShotRecommendation,
    in_context,
    open_zero_shot,
)
from rfm.nn.attribution import split_by_head
from rfm.nn.model import RelationalModel
from tests.eval.test_zero_shot import CONFIG, LABELLED, model, task_of

assert model  # a fixture
SOME = ExplainConfig(points=4, signals=6, checked=3)
FIRST = np.arange(3)


def opened(
    model: RelationalModel, shop: Path, cache: Path, name: str, cached: bool = True, draws: int = 1
) -> ZeroShot:
    config = replace(CONFIG, draws=draws)
    asker = open_zero_shot(model, task_of(shop, name), cache, config, cached)
    assert isinstance(asker, ZeroShot)
    return asker


@pytest.mark.parametrize("regime", ["frozen", "rolling"])
@pytest.mark.parametrize("name", LABELLED)
def test_every_type_is_explained(
    model: RelationalModel, task_shop: Path, task_cache: Path, name: str, regime: Regime
) -> None:
    asker = opened(model, task_shop, task_cache, name)
    task, rows = asker.task, asker.task.rows("test")
    value = asker.ask("test", regime, 24, 0, {"own": in_context(model)})["own"].predictions.value
    found = explain(asker, "test", regime, 24, 0, FIRST, SOME)
    sizes = {table.name: len(table.cells) for table in asker.lay("test").store.tables}
    sizes["past outcomes"] = len(asker.rows)
    for i, one in zip(FIRST, found, strict=True):
        assert (one.entity, one.time) == (rows.entity[i], rows.time[i])
        if task.task_type == "binary_classification":
            assert one.answer == pytest.approx(value[i, 0], abs=1e-5)
        if task.task_type == "multiclass_classification":
            assert one.chosen == task.classes[value[i].argmax()]
            assert one.answer == pytest.approx(value[i].max(), abs=1e-5)
        weights = np.abs([signal.weight for signal in one.signals])
        assert weights.size == SOME.signals or (asker.asked.given and regime == "frozen")
        doubted = np.array(["(though without" in signal.words for signal in one.signals])
        assert (np.diff(doubted.astype(int)) >= 0).all()  # these come last
        assert (np.diff(weights[~doubted]) <= 0).all()
        assert (np.diff(weights[doubted]) <= 0).all()
        assert 0 < weights[0] <= weights.sum() <= 1 + 1e-6
        assert sum(signal.checked for signal in one.signals) <= SOME.checked
        for signal in one.signals:
            said = signal.words.split(" (though without ")[0]
            what = "prediction" if task.task_type == "regression" else "probability"
            what += f" of {one.chosen!r}" if task.classes else ""
            assert said.endswith(f": {'raises' if signal.weight > 0 else 'lowers'} the {what}")
            assert all(0 <= row < sizes[signal.table] for row in signal.rows)
            assert len(set(signal.rows)) == len(signal.rows) <= 64
            assert signal.checked or signal.occluded == 0
        assert one.top_signal == one.signals[0].words
        assert json.loads(json.dumps(one.as_dict(), allow_nan=False))["signals"]


def test_signals_are_doubted_where_their_check_contradicts_them(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    doubted = 0
    for name in ("buys", "tier", "spend"):
        asker = opened(model, task_shop, task_cache, name)
        rounding = 1e-3 * (1 if asker.asked.classes else asker.unit("test")[1])
        for one in explain(asker, "test", "rolling", 24, 0, np.arange(8), SOME):
            for signal in one.signals:
                expected = -np.sign(signal.weight)
                if re.search(r"\bfewer than usual", signal.words):
                    expected *= -1  # without these rows there are fewer still
                elif re.search(
                    r"^the latest row of .* old|latest outcome.* became known",
                    signal.words,
                ):
                    expected = 0
                way = "higher" if signal.occluded > 0 else "lower"
                said = f"the answer would be {way})" in signal.words
                assert said == (signal.occluded * expected < -rounding), signal
                doubted += said
            assert "though" not in one.top_signal
    assert doubted > 3


def test_columns_of_one_path_are_checked_one_by_one(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    config = ExplainConfig(points=4, signals=30, checked=30)
    explainer = Explainer(asker, "test", "rolling", 24, 0, config)
    compared = 0
    for one in explainer.explain(range(4)):
        by_path: dict[str, list[float]] = {}
        for signal in one.signals:
            if signal.path and signal.checked and abs(signal.occluded) > 1e-3:
                by_path.setdefault(signal.path, []).append(signal.occluded)
        for changed in by_path.values():
            assert len(set(changed)) == len(changed)
            compared += len(changed) > 1
    assert compared > 3


def test_a_column_is_out_of_sight_and_the_others_are_not(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    situation = Explainer(asker, "test", "rolling", 24, 0, SOME).situation
    (asked,) = Explainer(asker, "test", "rolling", 24, 0, SOME).ask([0])
    told = torch.from_numpy(asked.told)[None]
    subjects = situation.laid.told.subjects
    seen = 0
    for path, column in {subject for subject in subjects if subject[1] >= 0}:
        own = torch.tensor([subject == (path, column) for subject in subjects])
        other = situation.see([situation.without_column(asked, path, column)])
        assert (other.told[:, own] == 0).all()
        torch.testing.assert_close(other.told[:, ~own], told[:, ~own])
        seen += int((told[:, own] != 0).any())
    assert seen > 3


@pytest.mark.parametrize("name", ["buys", "tier", "spend"])
def test_past_labels_are_called_outcomes_once(
    model: RelationalModel, task_shop: Path, task_cache: Path, name: str
) -> None:
    asker = opened(model, task_shop, task_cache, name)
    config = ExplainConfig(points=4, signals=60, checked=0)
    counts, values = 0, 0
    for one in explain(asker, "test", "rolling", 24, 0, np.arange(8), config):
        said = [signal for signal in one.signals if signal.table == "past outcomes"]
        assert len({(signal.path, signal.column) for signal in said}) == len(said)
        assert not any("label" in signal.words for signal in one.signals)
        assert {signal.column for signal in said} <= {"", "outcome"}
        assert not any(asker.task.name in signal.path for signal in one.signals)
        for signal in said:
            about = (
                r"outcomes?.* (was|were|averaged)" if signal.column else r"(is|are|became) known"
            )
            assert re.search(about, signal.words) or "no past outcome" in signal.words
            counts += not signal.column
            values += bool(signal.column)
    assert counts > 3
    assert values > 3


def test_what_moved_an_answer_adds_up(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    for name in ("buys", "tier", "spend"):
        asker = opened(model, task_shop, task_cache, name)
        explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
        with torch.no_grad():
            looked, seen = explainer._look([0])
        chosen, shown = torch.tensor([looked.asked[0].chosen]), explainer.situation.shown[0]
        moves = split_by_head(model, shown, seen, chosen, 64)
        total = moves.told.sum() + moves.state.sum() + moves.expected.sum()
        torch.testing.assert_close(
            total, (moves.score - moves.baseline).sum(), atol=0.02, rtol=0.02
        )
        assert (moves.score - moves.baseline).abs() > 1e-3
        assert (moves.told[:, :5] == 0).all()  # all questions of a moment have these in common
        assert (moves.told != 0).sum() > 5


def test_states_are_shared_out_among_rows_and_cells(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "spend")
    explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
    with torch.no_grad():
        looked, seen = explainer._look([0, 1])
    situation, chosen = explainer.situation, torch.zeros(2, dtype=torch.int64)
    moves = split_by_head(model, situation.shown[0], seen, chosen, 4)
    parts = split_moves(model, situation.laid, explainer.means, looked, moves)[1]
    shared = sum(abs(part.states) for part in parts.values())
    assert shared == pytest.approx(abs(float(moves.state[1] + moves.expected[1])), rel=1e-4)
    columns = {key for key, part in parts.items() if part.states and key[1] >= 0}
    assert len(columns) > 5
    assert any(part.states and key == ((), -1) for key, part in parts.items())


@pytest.mark.parametrize("cached", [True, False])
def test_cells_and_paths_are_where_they_are_said_to_be(
    model: RelationalModel, task_shop: Path, task_cache: Path, cached: bool
) -> None:
    asker = opened(model, task_shop, task_cache, "buys", cached)
    explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
    laid, (asked,) = explainer.situation.laid, explainer.ask([2])
    times = np.array([asked.number]), np.array([asked.cutoff])
    seen, batch = laid.sample(*times, 0, 0, NOTHING)[1], laid.batch(*times, 0, 0)
    with torch.no_grad():
        rows = model.backbone.encode(batch)
    layout, graph = Layout.of(laid, batch, rows, seen), laid.store.graph
    owner, checked = rows.cells.row.numpy(), 0
    for cell, column in enumerate(layout.column.tolist()):
        row, t = int(layout.row[owner[cell]]), int(layout.table[owner[cell]])
        table, local = laid.store.tables[t], np.array([row - int(graph.table_start[t])])
        wanted = np.zeros(rows.cells.feature.shape[1])
        if table.is_value[column]:
            wanted = value_features(table, table.values(local, column), np.array([column]))[0]
        np.testing.assert_allclose(rows.cells.feature[cell], wanted, atol=1e-5)
        checked += int(t == len(laid.store.tables) - 1 and column == LABEL)
    assert checked > 1
    for row, path in zip(seen.row.tolist(), walk(seen), strict=True):
        assert graph.table_of(row) == table_at(laid, path)
    assert walk(seen)[:2] == [QUESTION, ()]
    assert path_words(laid, walk(seen)[-1])
    assert {len(path) for path in walk(seen)[2:]} == {1}


def test_what_is_deleted_changes_answers_as_a_database_without_it(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
    (asked,), situation = explainer.ask([0]), explainer.situation
    every = situation.all_rows(asked)
    assert every.size > 5
    whole, none = situation.without_rows(asked, [every[:0], every])
    assert whole == pytest.approx(explainer.explain([0])[0].answer, abs=1e-5)
    assert abs(whole - none) > 1e-3
    assert asked.row.size > 2


def test_a_cell_out_of_sight_is_as_a_null(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
    rows, store = explainer.situation.rows, asker.store
    first = explainer.first_row("customers")
    filled = np.flatnonzero(store.tables[0].cells[0] != -1)
    whole = rows(0, np.array([first, first + 1]))
    less = rows.encode(np.array([first, first + 1]), np.array([filled[0], -1]))
    assert set(zip(whole.row, whole.column, strict=True)) - set(
        zip(less.row, less.column, strict=True)
    ) == {(0, filled[0])}
    np.testing.assert_array_equal(whole.state[1], less.state[1])
    assert np.abs(whole.state[0] - less.state[0]).max() > 1e-3
    (asked,), chosen = explainer.ask([0]), torch.ones(1, dtype=torch.int64)
    answer = explainer.situation.without_rows(asked, [np.zeros(0, np.int64)])[0]
    without = explainer.situation.without_column(asked, (), int(filled[0]))
    other = explainer.situation.see([without])
    with torch.no_grad():
        assert abs(explainer.situation.read(other, chosen)[0] - answer) > 1e-6


def test_questions_are_the_same_alone_and_among_others(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
    together = explainer.explain(range(6))
    for i, one in enumerate(together):
        (alone,) = explainer.explain([i])
        assert one.answer == pytest.approx(alone.answer, abs=1e-5)
        for a, b in zip(one.signals, alone.signals, strict=True):
            assert (a.path, a.column, a.rows, a.words) == (b.path, b.column, b.rows, b.words)
            assert a.weight == pytest.approx(b.weight, abs=1e-4)
            assert a.occluded == pytest.approx(b.occluded, abs=1e-4)


def test_what_is_null_to_one_question_is_not_to_others(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    explainer = Explainer(asker, "test", "rolling", 24, 0, SOME)
    situation, asked = explainer.situation, explainer.ask(range(4))
    subjects = dict.fromkeys(s for s in situation.laid.told.subjects if s[1] >= 0)
    without = [Without(one) for one in asked]
    without += [situation.without_column(one, *s) for one in asked for s in subjects]
    without += [Without(one, hidden=one.row[2:4]) for one in asked]
    together, differ = situation.see(without), 0
    for v, one in enumerate(without):
        alone = situation.see([one])
        torch.testing.assert_close(together.told[v : v + 1], alone.told)
        torch.testing.assert_close(together.state[v : v + 1], alone.state, atol=2e-3, rtol=1e-3)
        whole = together.state[next(i for i, own in enumerate(asked) if own is one.asked)]
        differ += int(not torch.allclose(together.state[v], whole, atol=1e-2))
    assert differ > len(without) // 3


def test_the_cache_hardly_matters_and_draws_are_averaged(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    found = {}
    for cached, draws in ((True, 1), (False, 1), (True, 2)):
        asker = opened(model, task_shop, task_cache, "buys", cached, draws)
        found[cached, draws] = explain(asker, "test", "rolling", 24, 0, FIRST, SOME)
        if draws == 2:
            own = {"own": in_context(model)}
            value = asker.ask("test", "rolling", 24, 0, own)["own"].predictions.value[FIRST, 0]
            answers = [one.answer for one in found[cached, draws]]
            np.testing.assert_allclose(answers, value, atol=0.02)  # of chances, not of odds
    for a, b in zip(found[True, 1], found[False, 1], strict=True):
        assert a.answer == pytest.approx(b.answer, abs=0.02)
        assert (a.signals[0].path, a.signals[0].column) == (b.signals[0].path, b.signals[0].column)
    assert found[True, 2][0].answer != pytest.approx(found[True, 1][0].answer, abs=1e-6)


def test_what_is_not_explained_is_said(
    model: RelationalModel, task_shop: Path, task_cache: Path
) -> None:
    asker = opened(model, task_shop, task_cache, "buys")
    (one,) = explain(asker, "test", "rolling", 0, 0, FIRST[:1])
    assert (one.signals, one.top_signal) == ((), "answers without examples are not explained")
    assert json.loads(json.dumps(one.as_dict(), allow_nan=False))["answer"] is None
    with pytest.raises(ValueError, match=r"no example to explain answers with: give context=1"):
        Explainer(asker, "test", "rolling", 0, 0, SOME)


@pytest.mark.parametrize(("context", "among"), [(0, 512), (24, 512), (24, 5)])
def test_the_best_destination_is_explained(
    model: RelationalModel,
    task_shop: Path,
    task_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    context: int,
    among: int,
) -> None:
    monkeypatch.setattr("rfm.eval.explain_links._ALL", among)
    asker = open_zero_shot(model, task_of(task_shop, "next"), task_cache, CONFIG, False)
    assert isinstance(asker, ZeroShotRecommendation)
    own = {"own": in_context(model)}
    best = asker.ask("test", "rolling", context, 0, own)["own"].predictions.value[FIRST, 0]
    found = explain(asker, "test", "rolling", context, 0, FIRST)
    questions = asker.links.sampler.ask(["test"], "rolling")
    for i, one in zip(FIRST, found, strict=True):
        assert one.chosen == str(int(best[i]))
        assert (one.entity, one.time) == (questions.entity[i], questions.now[i])
        moment = int(questions.now[i]), int(questions.cutoff[i])
        visible = asker.links.sampler.visible(moment[1])
        weight = asker.weigh("test", "rolling", context, 0)
        score = asker.links.features(questions, np.array([i]), visible, moment)[0][0] @ weight
        assert visible[score.argmax()] == int(best[i])
        assert one.answer == pytest.approx(score.max(), rel=1e-4)
        assert (one.baseline == pytest.approx(score.mean(), rel=1e-4)) == (among > visible.size)
        assert sum(abs(signal.weight) for signal in one.signals) == pytest.approx(1)
        shares = sum(signal.weight for signal in one.signals)
        assert np.sign(shares) == np.sign(one.answer - one.baseline)
        assert json.dumps(one.as_dict(), allow_nan=False)
