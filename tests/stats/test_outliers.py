from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnstudy.stats.outliers import failure_interval, find_outlier

NORMAL = stats.zscore(np.random.default_rng(0).normal(size=14))


def test_normal_differences_have_no_outlier() -> None:
    assert find_outlier(NORMAL) is None


def test_a_seed_with_more_than_half_of_the_variance_is_found() -> None:
    d = NORMAL.copy()
    d[3] = -20
    found = find_outlier(d)
    assert found is not None
    apart = [(value - d.mean()) ** 2 for value in d]
    assert (found.index, found.share) == (3, pytest.approx(apart[3] / sum(apart)))


def test_two_seeds_that_collapsed_are_found_by_their_skew() -> None:
    d = NORMAL.copy()
    d[[3, 5]] = -20
    found = find_outlier(d)
    assert found is not None
    assert found.share < 0.5
    n, z = len(d), (d - d.mean()) / d.std()
    assert found.skew == pytest.approx((z**3).mean() * math.sqrt(n * (n - 1)) / (n - 2))
    assert found.skew < -1.5


@pytest.mark.parametrize("d", [[], [1.0, 5.0], [0.3] * 10, [0.0, 0.0, math.nan, 9.0]])
def test_too_few_or_equal_differences_have_no_outlier(d: list[float]) -> None:
    assert find_outlier(d) is None


@pytest.mark.parametrize(("failed", "n"), [(0, 14), (1, 14), (7, 18), (14, 14)])
def test_a_failure_rate_has_the_interval_whose_ends_give_such_counts_with_2_5_percent(failed: int, n: int) -> None:
    low, high = failure_interval(failed, n)
    assert low == pytest.approx(0) if failed == 0 else stats.binom.sf(failed - 1, n, low) == pytest.approx(0.025)
    assert high == pytest.approx(1) if failed == n else stats.binom.cdf(failed, n, high) == pytest.approx(0.025)


def test_no_runs_have_no_failure_rate() -> None:
    assert all(map(math.isnan, failure_interval(0, 0)))
