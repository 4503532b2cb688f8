"""Recommend without training: destinations scored by the projections of the link objective, and by
what is known of each pair; examples say what each of these is worth.

A conditional logit model (McFadden 1974) of a dozen weights is fitted to the examples' choices; no
weight of the checkpoint changes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from rfm.data.generated import Labelled
from rfm.data.label_history import Floats
from rfm.data.questions import QuestionConfig, Questions
from rfm.data.recommend import RecommendSampler
from rfm.data.support import SupportMix, draw_support, parents_of
from rfm.data.task_rows import Ints, TaskSplit
from rfm.data.tasks import Regime, Task
from rfm.eval.asking import anchor_of, open_questions
from rfm.eval.predict import ask_all, predict
from rfm.eval.predictions import Predictions
from rfm.nn.heads import HeadConfig, LinkHead
from rfm.nn.model import RelationalModel
from rfm.nn.modes import evaluating

_CANDIDATES = 256  # per moment, besides what was chosen
_PRIOR = 128.0  # how many examples the weights to begin with weigh, in squared distance


@dataclass(frozen=True)
class Choices:
    """Of one example: features [P, F] of its candidates, and which [P] were chosen."""

    features: Floats
    chosen: npt.NDArray[np.bool_]


class ZeroShotLinks:
    """A recommendation, asked of a model as it is."""

    def __init__(
        self,
        model: RelationalModel,
        task: Task,
        cache: Path,
        config: QuestionConfig,
        cached: bool = True,
    ) -> None:
        self.task = task
        sampler = open_questions(model, task, config, cache, cached)
        assert isinstance(sampler, RecommendSampler)
        self.sampler = sampler
        self.model = copy.deepcopy(model)
        head = self.model.add_head(HeadConfig(task.full_name, task.task_type, task.top_k))
        assert isinstance(head, LinkHead)
        head.link.load_state_dict(model.link.state_dict())
        self.head = head
        self.first = head.seen.weight.detach().clone()

    def ask(
        self,
        split: TaskSplit,
        regime: Regime,
        context: int,
        mix: SupportMix,
        rngs: Sequence[np.random.Generator],
    ) -> tuple[Predictions, int]:
        """The best destinations of all rows of a split, and how many examples they come of.

        Args:
            rngs: of draws of the examples, whose weights are averaged.
        """
        questions = self.sampler.ask([split], regime)
        weight, count = self.weigh(split, regime, context, mix, rngs)
        device = self.head.seen.weight.device
        tower = copy.deepcopy(self.head.link.query[-1])
        with torch.no_grad():
            self.head.seen.weight.copy_(torch.from_numpy(weight[None, :-1]))
            for parameter in self.head.link.query[-1].parameters():
                parameter.mul_(float(weight[-1]))
        value = predict(self.model, ask_all(self.sampler, questions))
        with torch.no_grad():
            self.head.seen.weight.copy_(self.first.to(device))
            self.head.link.query[-1].load_state_dict(tower.state_dict())
        return Predictions.of(self.task, split, value), count

    def weigh(
        self,
        split: TaskSplit,
        regime: Regime,
        context: int,
        mix: SupportMix,
        rngs: Sequence[np.random.Generator],
    ) -> tuple[Floats, int]:
        """What each number that is known of a pair, and last the towers' score, is worth; and how
        many examples say so. See ``ask``."""
        questions = self.sampler.ask([split], regime)
        stale = questions.now - questions.cutoff
        first = np.concatenate([self.first.cpu().numpy()[0], [1.0]]).astype(np.float64)
        weights = []
        for rng in rngs:
            examples = self._examples(split, context, mix, np.unique(questions.entity), rng)
            moments = np.unique(examples.now).tolist()
            found = [c for now in moments for c in self._choices(examples, now, stale, rng)]
            weights.append(fit_choices(found, first))
        return np.asarray(np.mean(weights, axis=0)), len(examples)

    def _examples(
        self,
        split: TaskSplit,
        context: int,
        mix: SupportMix,
        asked: Ints,
        rng: np.random.Generator,
    ) -> Questions:
        """Earlier rows with labels that are known by the anchor; entities [n] are asked about."""
        anchor = anchor_of(self.task, split)
        earlier: list[TaskSplit] = ["train"] if split == "val" else ["train", "val"]
        rows = self.sampler.ask(earlier, "rolling")
        known = np.flatnonzero(
            (rows.stop > rows.start) & (rows.now + self.task.timedelta <= anchor)
        )
        known = known[np.argsort(rows.now[known], kind="stable")]
        labelled = Labelled(rows.entity, rows.now, np.ones(len(rows)))
        table = list(self.task.database.tables).index(self.task.entity_table)
        parents = parents_of(self.sampler.store, table, anchor)
        return rows.take(draw_support(labelled, known, context, mix, asked, parents, rng))

    @torch.no_grad()
    def _choices(
        self, examples: Questions, now: int, stale: Ints, rng: np.random.Generator
    ) -> list[Choices]:
        """What the examples of a moment chose, as of a cutoff as stale as a question's; nothing of
        those whose choices were not there."""
        cutoff = now - int(rng.choice(stale))
        visible = self.sampler.visible(cutoff)
        number = np.flatnonzero(examples.now == now)
        own = [examples.destination[examples.start[n] : examples.stop[n]] for n in number]
        chosen = np.concatenate(own)
        others = rng.choice(visible, min(_CANDIDATES, visible.size), replace=False)
        pool = np.union1d(chosen[np.isin(chosen, visible)], others)
        features, positives = self.features(examples, number, pool, (now, cutoff))
        drawn, found = np.isin(pool, others), []
        for feature, positive in zip(features, positives, strict=True):
            stands = drawn | positive  # what others chose is no fair draw
            if positive.any():
                found.append(Choices(feature[stands], positive[stands]))
        return found

    @torch.no_grad()
    def features(
        self, asked: Questions, number: Ints, destination: Ints, moment: tuple[int, int]
    ) -> tuple[Floats, npt.NDArray[np.bool_]]:
        """[Q, P, F] of questions, by number, and destinations [P], as of a moment (now, cutoff):
        what is known of each pair, and last the towers' score; and which [Q, P] are labels."""
        batch = self.sampler.pose(asked, number, destination, moment, 0)
        batch = batch.to(self.head.seen.weight.device)
        with evaluating(self.model):
            states = self.model.backbone(batch)
            query, candidate = self.head.queries(states, batch), self.head.candidates(states, batch)
        tower = (query @ candidate.T).float() / query.shape[1] ** 0.5
        features = torch.cat([batch.seen, tower[..., None]], dim=2).cpu().double().numpy()
        return features, batch.positive.cpu().numpy()


def fit_choices(choices: list[Choices], first: Floats) -> Floats:
    """Weights [F] of the features that make the choices likely, not far from the first ones."""

    def loss(weight: Floats) -> tuple[float, Floats]:
        total, gradient = 0.0, np.zeros_like(weight)
        for one in choices:
            score = one.features @ weight
            chance = np.exp(score - score.max())
            chance /= chance.sum()
            wanted = one.chosen / one.chosen.sum()
            total -= float(wanted @ np.log(chance + 1e-300))
            gradient += one.features.T @ (chance - wanted)
        off = weight - first
        return total + _PRIOR * float(off @ off) / 2, gradient + _PRIOR * off

    if not choices:
        return first
    from scipy.optimize import minimize  # slow import

    return np.asarray(minimize(loss, first, jac=True, method="L-BFGS-B").x)
