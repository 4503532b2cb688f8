"""What examples of a recommendation say of what is known of pairs."""

from __future__ import annotations

import numpy as np
import pytest

from rfm.eval.zero_shot_links import Choices, fit_choices


def choices(weight: list[float], count: int, seed: int = 0) -> list[Choices]:
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        features = rng.normal(size=(20, len(weight)))
        score = features @ np.array(weight) + rng.gumbel(size=20)
        out.append(Choices(features, np.arange(20) == score.argmax()))
    return out


def test_weights_are_found() -> None:
    found = fit_choices(choices([2.0, -1.0, 0.0], 6_000), np.zeros(3))
    np.testing.assert_allclose(found, [2.0, -1.0, 0.0], atol=0.25)


def test_the_more_examples_the_farther_they_go() -> None:
    truth = np.array([2.0, -1.0, 0.0])
    left = [
        float(np.linalg.norm(fit_choices(choices([2.0, -1.0, 0.0], n), np.zeros(3)) - truth))
        for n in (16, 256, 1_024, 6_000)
    ]
    assert left == sorted(left, reverse=True)
    assert left[1] < 0.6 * np.linalg.norm(truth)  # half of the way with 256


def test_few_examples_leave_them_about_where_they_were() -> None:
    first = np.array([0.0, 3.0, 1.0])
    assert fit_choices([], first) is first
    few, many = (fit_choices(choices([2.0, -1.0, 0.0], n), first) for n in (8, 6_000))
    assert np.abs(few - first).max() < 0.5
    assert np.abs(many - first).max() > 2


def test_several_may_be_chosen() -> None:
    features = np.eye(4)
    chosen = Choices(features, np.array([True, True, False, False]))
    both = fit_choices([chosen] * 1_000, np.zeros(4))
    assert both[0] == pytest.approx(both[1], abs=1e-4)
    assert both[0] > both[2] + 1
