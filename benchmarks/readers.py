"""Baselines that read the frozen states of seed rows: what examples say without a head of ours.

States are standardised by the examples', as the head does it. Settings are fixed, as there is no
validation set among a few examples.
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from torch import Tensor

from rfm.nn.in_context import FAR_STATE, Examined
from rfm.nn.kernels import standardised

_C = 0.001  # of 3 * width standardised numbers
_RIDGE = 1_000.0
_NEIGHBOURS = 16


def logistic_regression(both: Examined) -> Tensor:
    """[Q, C]: logistic regression on the states; numbers by ridge regression [Q, 1]."""
    return _fitted(both, LogisticRegression(C=_C, max_iter=1_000), Ridge(_RIDGE))


def nearest_neighbours(both: Examined) -> Tensor:
    """[Q, C]: the shares of the classes among the nearest examples; numbers by their mean."""
    count = min(_NEIGHBOURS, both.label.shape[0])
    return _fitted(both, KNeighborsClassifier(count), KNeighborsRegressor(count))


def _fitted(both: Examined, classifier: LogisticRegression, regressor: Ridge) -> Tensor:
    k, label = both.label.shape[0], both.label.cpu().numpy()
    state = standardised(both.state, k, 0.1, FAR_STATE).cpu().numpy()
    if not both.classes:
        value = regressor.fit(state[:k], label).predict(state[k:])
        return torch.from_numpy(np.asarray(value, dtype=np.float64))[:, None]
    out = np.zeros((state.shape[0] - k, both.classes))
    seen = np.unique(label).astype(np.int64)
    if seen.size == 1:
        out[:, seen] = 1
    else:
        out[:, seen] = classifier.fit(state[:k], label).predict_proba(state[k:])
    return torch.from_numpy(out)
