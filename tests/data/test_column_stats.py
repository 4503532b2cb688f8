"""Statistics of one value column: the maps to z and to ranks, and their inverses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from rfm.data.column_stats import LEVELS, MAX_Z, NUM_KNOTS, NUM_LEVELS, fit_column_stats

Floats = npt.NDArray[np.float64]
rng = np.random.default_rng(0)
SAMPLES: dict[str, Floats] = {
    "normal": rng.normal(5, 3, 5000),
    "lognormal": rng.lognormal(0, 3, 5000),
    "few": np.array([3.0, 1.0, 2.0]),
    "one": np.array([42.0]),
    "constant": np.full(100, -7.0),
    "mostly zero": np.where(rng.random(2000) < 0.95, 0.0, rng.normal(size=2000)),
    "binary": (rng.random(1000) < 0.3).astype(float),
    "counts": rng.poisson(2, 3000).astype(float),
    "huge": rng.normal(0, 1e300, 500),
    "tiny": rng.normal(0, 1e-300, 500),
    "at the limit": np.where(rng.random(200) < 0.5, 1.0, -1.7e308),
    "dates": rng.uniform(17_000, 18_000, 4000),
    "with nulls": np.where(rng.random(500) < 0.5, np.nan, rng.normal(size=500)),
    "with infinities": np.concatenate([[np.inf, -np.inf], rng.normal(size=500)]),
    "nothing": np.zeros(0),
    "only nulls": np.full(10, np.nan),
}
every_sample = pytest.mark.parametrize("name", list(SAMPLES))


@every_sample
def test_shapes_and_order(name: str) -> None:
    stats = fit_column_stats(SAMPLES[name])
    assert stats.knot_z.shape == stats.knot_u.shape == (NUM_KNOTS,)
    assert stats.marginal.shape == LEVELS.shape == (NUM_LEVELS,)
    assert {stats.knot_z.dtype, stats.knot_u.dtype, stats.marginal.dtype} == {np.dtype(np.float32)}
    assert np.isfinite([stats.center, stats.scale]).all()
    assert stats.scale > 0
    for values in (stats.knot_z, stats.knot_u, stats.marginal):
        assert np.isfinite(values).all()
        assert (np.diff(values) >= 0).all()
    assert stats.knot_u.min() >= 0
    assert stats.knot_u.max() <= 1


@every_sample
def test_standardise_and_back(name: str) -> None:
    values = SAMPLES[name]
    stats = fit_column_stats(values)
    z = stats.standardise(values)
    assert z.dtype == np.float32
    assert np.array_equal(np.isnan(z), np.isnan(values))
    inside = np.isfinite(values) & (np.abs(z) < MAX_Z)
    error = np.abs(stats.raw(z) / stats.scale - values / stats.scale)[inside]
    assert (error <= 1e-6 * (1 + np.abs(values[inside] / stats.scale))).all()


def test_center_and_scale_of_a_normal_column() -> None:
    stats = fit_column_stats(SAMPLES["normal"])
    assert stats.center == np.median(SAMPLES["normal"])
    assert stats.scale == pytest.approx(3, rel=0.05)


def test_outliers_move_nothing_much() -> None:
    plain = rng.normal(0, 1, 1000)
    stats = fit_column_stats(np.concatenate([plain, [1e9] * 20]))
    assert abs(stats.center) < 0.2
    assert stats.scale < 1.5


def test_infinities_are_clipped_and_not_fitted() -> None:
    stats, plain = (fit_column_stats(SAMPLES["with infinities"][i:]) for i in (0, 2))
    assert (stats.center, stats.scale) == (plain.center, plain.scale)
    assert stats.standardise(np.array([np.inf, -np.inf])).tolist() == [MAX_Z, -MAX_Z]


@pytest.mark.parametrize("name", ["few", "binary", "counts", "mostly zero", "constant", "one"])
def test_ranks_are_the_mid_distribution_function(name: str) -> None:
    """F(x) = P(X < x) + P(X = x) / 2, exact where every distinct value has a knot."""
    values = SAMPLES[name]
    stats = fit_column_stats(values)
    distinct = np.unique(values)
    if distinct.size > NUM_KNOTS:
        distinct = np.array([0.0])
    expected = [np.mean(values < x) + np.mean(values == x) / 2 for x in distinct]
    assert np.allclose(stats.rank(stats.standardise(distinct)), expected, atol=0.02)


@pytest.mark.parametrize("name", ["normal", "lognormal", "dates", "huge", "tiny"])
def test_ranks_of_continuous_columns_are_uniform(name: str) -> None:
    values = SAMPLES[name]
    stats = fit_column_stats(values)
    ranks = np.sort(stats.rank(stats.standardise(values)))
    uniform = (np.arange(values.size) + 0.5) / values.size
    assert np.abs(ranks - uniform).max() < 0.04


def test_ranks_stay_within_the_training_range() -> None:
    stats = fit_column_stats(SAMPLES["normal"])
    low, high = stats.rank(np.array([-1e4, 1e4]))
    assert (low, high) == (stats.knot_u[0], stats.knot_u[-1])


@pytest.mark.parametrize("name", ["normal", "lognormal", "counts", "binary"])
def test_the_marginal_is_the_training_quantiles_as_ranks(name: str) -> None:
    values = SAMPLES[name]
    stats = fit_column_stats(values)
    quantiles = np.quantile(values, LEVELS, method="inverted_cdf")
    assert np.allclose(stats.marginal, stats.rank(stats.standardise(quantiles)), atol=0.03)


def test_nothing_to_fit_is_the_identity() -> None:
    for name in ("nothing", "only nulls"):
        stats = fit_column_stats(SAMPLES[name])
        assert (stats.center, stats.scale) == (0.0, 1.0)
        assert stats.rank(np.array([-5.0, 0.0, 9.0])).tolist() == [0.5, 0.5, 0.5]
        assert (stats.marginal == 0.5).all()


@pytest.mark.parametrize("change", [lambda x: x[::-1], lambda x: x[np.argsort(x)]])
def test_the_order_of_rows_changes_nothing(change: Callable[[Floats], Floats]) -> None:
    a, b = (fit_column_stats(v) for v in (SAMPLES["lognormal"], change(SAMPLES["lognormal"])))
    assert np.array_equal(a.knot_z, b.knot_z)
    assert a.scale == b.scale
