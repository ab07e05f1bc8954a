from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnstudy.claims.frames import StudyData
from bnstudy.stats.intervals import bca_interval, effect_size, mean_interval, paired_difference, summarize
from scripts.coverage import DRAWS, coverage


def sample(n: int, mean: float = 0.4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, n)


def test_mean_interval_is_scipys() -> None:
    values = pd.Series([0.91, 0.94, 0.92, 0.97])
    found = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.mean, found.n) == (pytest.approx(0.935), 4)


def test_one_value_has_no_interval() -> None:
    found = mean_interval(pd.Series([0.9]))
    assert found.mean == 0.9
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_differences_are_paired_on_shared_seeds() -> None:
    rng = np.random.default_rng(0)
    without = pd.Series(rng.normal(0.9, 0.05, 6), index=range(6))
    with_ = pd.Series(without + rng.normal(0.02, 0.002, 6), index=range(6))
    found = paired_difference(with_.drop(0).sample(frac=1, random_state=1), without.drop(5))
    expected = stats.ttest_rel(with_[1:5], without[1:5]).confidence_interval(0.95)
    assert found.n == 4
    assert (found.low, found.high) == pytest.approx(tuple(expected))


def test_a_seed_that_occurs_twice_cannot_be_paired() -> None:
    once, twice = pd.Series([1.0, 2.0], index=[0, 1]), pd.Series([1.0, 2.0], index=[0, 0])
    for pair in ((once, twice), (twice, once)):
        with pytest.raises(ValueError, match="occurs twice"):
            paired_difference(*pair)


def test_arms_without_a_shared_seed_have_no_difference() -> None:
    found = paired_difference(pd.Series([1.0], index=[0]), pd.Series([1.0], index=[1]))
    assert found.n == 0
    assert math.isnan(found.mean)


def test_summarize_agrees_with_one_group_at_a_time(sweep: StudyData) -> None:
    table = summarize(sweep.runs, ["arm"], "test_accuracy").set_index("arm")
    for arm, runs in sweep.runs.groupby("arm", observed=True):
        row, naive = table.loc[arm], mean_interval(runs["test_accuracy"])
        assert tuple(row) == pytest.approx((naive.mean, naive.low, naive.high, naive.n))


def by_the_textbook(d: np.ndarray, resamples: int = 40_000) -> tuple[float, float]:
    """Efron & Tibshirani 1993, equations 14.9 to 14.15."""
    rng = np.random.default_rng(1)
    means = np.sort([rng.choice(d, len(d)).mean() for _ in range(resamples)])
    z0 = stats.norm.ppf((np.sum(means < d.mean()) + np.sum(means <= d.mean())) / 2 / resamples)
    without_one = np.array([np.delete(d, i).mean() for i in range(len(d))])
    apart = without_one.mean() - without_one
    a = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    ends = [stats.norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in stats.norm.ppf([0.025, 0.975])]
    return tuple(np.quantile(means, ends))


def test_the_bootstrap_interval_is_that_of_the_textbook() -> None:
    d = np.random.default_rng(3).exponential(size=12)
    low, high = bca_interval(d)
    assert (low, high) == pytest.approx(by_the_textbook(d), abs=0.03 * (high - low))


def test_equal_samples_have_equal_intervals() -> None:
    assert bca_interval(sample(10)) == bca_interval(sample(10))
    assert bca_interval([0.3] * 10) == (0.3, 0.3)


def test_effect_size_is_in_standard_deviations() -> None:
    assert effect_size([1, 2, 3]) == 2.0
    assert effect_size([3, 3, 3]) == math.inf
    assert effect_size([-0.1] * 3) == -math.inf
    assert effect_size([0, 0]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(5, 0.75), (10, 0.85), (20, 0.88)])
def test_bootstrap_intervals_cover_as_often_as_documented(n: int, least: float) -> None:
    """docs/statistics.md has the table; below 10 differences coverage is far from 95%, and no verdict is given."""
    assert least < coverage(DRAWS["normal"], n, 400, seed=1) < 0.98
