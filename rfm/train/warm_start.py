"""Where a head starts: at the linear model of what its questions are told.

Rules over past labels are hard to beat, and gradient steps are slow to find them. A regularised
linear model of the same numbers takes a second, and what the network adds to it starts at zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from rfm.data.questions import Questions, QuestionSampler
from rfm.nn.heads import EntityHead, HeadConfig

Floats = npt.NDArray[np.float64]
_MOST = 20_000  # questions
_STRENGTH = 0.05  # C of the logistic regression; of the ridge, its inverse
_RARE = 1e-4  # probability of what the questions never showed


@torch.no_grad()
def warm_start(head: EntityHead, sampler: QuestionSampler, questions: Questions, seed: int) -> None:
    """Set the direct path of a head to a linear model of labelled questions' told numbers."""
    labelled = np.flatnonzero(~np.isnan(questions.label).any(axis=1))
    rng = np.random.default_rng(seed)
    if labelled.size > _MOST:
        labelled = np.sort(rng.choice(labelled, _MOST, replace=False))
    chosen = questions.take(labelled)
    scaler = StandardScaler()
    told = scaler.fit_transform(sampler.told(chosen).astype(np.float64))
    weight, bias = _fit(head.config, told, chosen.label)
    weight = weight / scaler.scale_
    bias = bias - weight @ scaler.mean_
    head.straight.weight.copy_(torch.from_numpy(weight))
    head.out.bias.copy_(torch.from_numpy(bias))


def _fit(config: HeadConfig, told: Floats, label: Floats) -> tuple[Floats, Floats]:
    """Weights [C, H] and biases [C] of standardised numbers [n, H]."""
    if config.task_type == "regression":
        ridge = Ridge(1 / _STRENGTH).fit(told, (label[:, 0] - config.center) / config.scale)
        return ridge.coef_[None], np.array([ridge.intercept_])
    if config.task_type == "multiclass_classification":
        known = label[:, 0] >= 0
        return _classes(told[known], label[known, 0], config.outputs)
    columns = [_classes(told, label[:, c], 2) for c in range(config.outputs)]
    return (
        np.stack([weight[1] - weight[0] for weight, _ in columns]),
        np.array([bias[1] - bias[0] for _, bias in columns]),
    )


def _classes(told: Floats, label: Floats, classes: int) -> tuple[Floats, Floats]:
    """Of logits of each class."""
    weight, bias = np.zeros((classes, told.shape[1])), np.full(classes, np.log(_RARE))
    there = np.unique(label).astype(np.int64)
    if there.size < 2:
        bias[there] = 0
        return weight, bias
    model = LogisticRegression(C=_STRENGTH, max_iter=300).fit(told, label)
    both = there.size == 2  # then there is one logit, of the second
    weight[there] = np.concatenate([0 * model.coef_, model.coef_]) if both else model.coef_
    bias[there] = np.append(0, model.intercept_) if both else model.intercept_
    return weight, bias
