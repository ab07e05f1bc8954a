from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnstudy.stats.means import ALPHA, MOST_RESAMPLED, confidence_interval, p_above, smallest_p

NORMAL = np.random.default_rng(0).normal(0.4, 1, 14)
SKEWED = np.random.default_rng(3).exponential(size=12)
TIED = np.array([0.0] * 5 + [1.0] * 5 + [2.0] * 4)
MOSTLY_EQUAL = np.array([0.0] * 9 + [1.0])


def students_t(d: np.ndarray) -> tuple[float, float]:
    low, high = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    return float(low), float(high)


def bootstrap_t(d: np.ndarray, resamples: int = 20_000) -> tuple[float, float]:
    """Efron & Tibshirani 1993, equations 12.20 to 12.22, one resample at a time."""
    rng, ts = np.random.default_rng(1), []
    for _ in range(resamples):
        again = rng.choice(d, len(d))
        ts.append((again.mean() - d.mean()) / (again.std(ddof=1) / len(d) ** 0.5))
    low, high = np.quantile(ts, [0.025, 0.975])
    return float(d.mean() - high * stats.sem(d)), float(d.mean() - low * stats.sem(d))


@pytest.mark.parametrize("d", [NORMAL, SKEWED, -SKEWED], ids=["normal", "skewed", "minus skewed"])
def test_the_interval_ends_at_the_farther_bounds_of_students_t_and_the_bootstrap_t(d: np.ndarray) -> None:
    lows, highs = zip(students_t(d), bootstrap_t(d), strict=True)
    low, high = confidence_interval(d)
    assert (low, high) == pytest.approx((min(lows), max(highs)), abs=0.03 * (high - low))


def test_the_interval_is_never_narrower_than_students_t() -> None:
    for n in (2, 3, 5, 10, 30):
        for d in np.random.default_rng(n).standard_t(3, (20, n)):
            (low, high), (t_low, t_high) = confidence_interval(d), students_t(d)
            assert low <= t_low + 1e-12
            assert high >= t_high - 1e-12


def test_differences_that_are_mostly_equal_have_students_t_alone() -> None:
    assert confidence_interval(MOSTLY_EQUAL) == pytest.approx(students_t(MOSTLY_EQUAL))
    assert p_above(MOSTLY_EQUAL, -0.1) == pytest.approx(stats.ttest_1samp(MOSTLY_EQUAL, -0.1).pvalue)


def test_many_differences_have_students_t_alone() -> None:
    d = np.random.default_rng(0).exponential(size=MOST_RESAMPLED + 1)
    assert confidence_interval(d) == pytest.approx(students_t(d))


@pytest.mark.parametrize("d", [NORMAL, SKEWED, TIED, MOSTLY_EQUAL, np.random.default_rng(1).exponential(size=6)])
def test_p_is_at_most_5_percent_exactly_where_the_interval_excludes_the_bound(d: np.ndarray) -> None:
    low, high = confidence_interval(d)
    little = 1e-9 * (high - low)
    assert p_above(d, low - little) <= ALPHA < p_above(d, low + little)
    assert p_above(-d, -high - little) <= ALPHA < p_above(-d, -high + little)


def test_p_is_never_below_that_of_students_t_and_falls_with_the_bound() -> None:
    bounds = np.linspace(-3, 3, 61)
    p = [p_above(SKEWED, bound) for bound in bounds]
    assert p == sorted(p)
    for found, bound in zip(p, bounds, strict=True):
        assert found >= min(1, 2 * stats.ttest_1samp(SKEWED, bound, alternative="greater").pvalue) - 1e-12


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_p_is_at_least_that_of_n_equal_signs(n: int) -> None:
    assert smallest_p(n) == 2 / 2**n
    assert p_above(1000 + np.arange(n), 0) >= 2 / 2**n
    assert p_above([0.3] * n, 0) == 2 / 2**n


def test_resamples_do_not_limit_the_p_of_14_seeds() -> None:
    assert p_above(1000 + np.arange(14), 0) == smallest_p(14)


def test_equal_differences_have_an_interval_of_one_point() -> None:
    assert confidence_interval([0.3] * 10) == (0.3, 0.3)
    assert p_above([0.3] * 10, 0.3) == p_above([0.3] * 10, 0.4) == 1


@pytest.mark.parametrize("d", [NORMAL, SKEWED, TIED], ids=["normal", "skewed", "tied"])
def test_the_interval_depends_on_neither_the_order_nor_the_sign_of_the_differences(d: np.ndarray) -> None:
    low, high = confidence_interval(d)
    assert confidence_interval(d[::-1]) == pytest.approx((low, high))
    assert confidence_interval(-d) == pytest.approx((-high, -low))


@pytest.mark.parametrize("d", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_fewer_than_two_finite_differences_have_no_interval(d: list[float]) -> None:
    assert all(map(math.isnan, confidence_interval(d)))
    assert p_above(d, 0) == 1
