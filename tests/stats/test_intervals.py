from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bnstudy.claims.frames import StudyData
from bnstudy.stats.intervals import effect_size, mean_interval, paired_difference, summarize
from bnstudy.stats.means import confidence_interval


def sample(n: int, mean: float = 0.4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, n)


def test_mean_interval_is_scipys() -> None:
    values = pd.Series([0.91, 0.94, 0.92, 0.97])
    found = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.mean, found.n) == (pytest.approx(0.935), 4)


def test_an_interval_ends_where_values_are_not_possible() -> None:
    found = mean_interval(pd.Series([0.91, 1.0, 1.0, 1.0]), (0.0, 1.0))
    assert found.high == 1.0
    assert found.low == mean_interval(pd.Series([0.91, 1.0, 1.0, 1.0])).low


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
    assert found.n == 4
    assert (found.low, found.high) == pytest.approx(confidence_interval(with_[1:5] - without[1:5]))
    assert found.mean == pytest.approx(np.mean([with_[s] - without[s] for s in range(1, 5)]))


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


def test_effect_size_is_in_standard_deviations() -> None:
    assert effect_size([1, 2, 3]) == 2.0
    assert effect_size([3, 3, 3]) == math.inf
    assert effect_size([-0.1] * 3) == -math.inf
    assert effect_size([0, 0]) == 0
