from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from bnstudy.stats.power import POWER, _power, seeds_needed, students_t
from bnstudy.stats.sequential import critical
from tests.stats.test_intervals import sample


def power_by_simulation(mean: float, sd: float, delta: float, n: int, studies: int = 20_000) -> float:
    d = np.random.default_rng(0).normal(mean, sd, (studies, n))
    half = stats.t.ppf(0.975, n - 1) * d.std(axis=1, ddof=1) / math.sqrt(n)
    low, high = d.mean(axis=1) - half, d.mean(axis=1) + half
    return float(((low > delta) if mean > delta else (-delta < low) & (high < delta)).mean())


@pytest.mark.parametrize(("mean", "delta"), [(0.8, 0.1), (1.0, 0.5), (0.0, 0.6), (0.1, 0.7)])
def test_seeds_needed_have_80_percent_power_in_simulated_t_tests(mean: float, delta: float) -> None:
    n = seeds_needed(mean + stats.zscore(sample(6), ddof=1), delta)
    assert n is not None
    assert power_by_simulation(mean, 1, delta, n) == pytest.approx(0.8, abs=0.04)
    assert power_by_simulation(mean, 1, delta, n - 3) < 0.8


@pytest.mark.parametrize("least", [students_t, critical])
def test_the_seeds_needed_are_the_first_number_with_that_power(least):
    d = 0.9 + stats.zscore(sample(6), ddof=1)
    by_loop = next(n for n in range(6, 1000) if _power(0.9, 1.0, 0.3, 0.0, n, least(n)) >= POWER)
    assert seeds_needed(d, 0.3, critical=least) == by_loop


def test_slack_increases_the_seeds_needed_until_no_number_is_enough() -> None:
    d = 1.0 + stats.zscore(sample(6), ddof=1)
    few, more = seeds_needed(d, 0.2), seeds_needed(d, 0.2, slack=0.3)
    assert few is not None
    assert more is not None
    assert few < more
    assert seeds_needed(d, 0.2, slack=0.9) is None


def test_effects_far_beyond_delta_need_few_seeds() -> None:
    assert seeds_needed(1e6 + sample(5), 0.1) == 5
    assert seeds_needed([2.0, 2.0, 2.0], 0.1) == 3


@pytest.mark.parametrize("d", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_the_seeds_needed_are_unknown_without_two_finite_differences(d: list[float]) -> None:
    assert seeds_needed(d, 0.1) is None


def test_repeated_looks_need_more_seeds_than_one() -> None:
    d = 0.5 * stats.zscore(sample(12), ddof=1) + 0.8
    once, ever = seeds_needed(d, 0.5), seeds_needed(d, 0.5, critical=critical)
    assert once is not None
    assert ever is not None
    assert 1.5 * once < ever < 3 * once
