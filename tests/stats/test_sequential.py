from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from bnstudy.stats.means import ALPHA
from bnstudy.stats.sequential import SHARES, THETAS, anytime, anytime_interval, anytime_p, critical, log_e
from scripts.simulations.looks import errors_over_looks
from scripts.simulations.verdicts import DRAWS

FIRST = 10


def sample(n: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, n)


def by_betting(d: np.ndarray, first: int = FIRST) -> list[float]:
    """E after each difference, one stake at a time."""
    sizes = np.sqrt(np.mean(np.square(d[:first])))
    stakes = [[share / 2, share / 2] for share in SHARES]
    totals = []
    for value in d:
        for theta, both in zip(THETAS, stakes, strict=True):
            plus = 1 / (1 + math.exp(-2 * theta * abs(value) / sizes))  # P(sign is +) for a positive effect
            right = plus if value > 0 else 1 - plus
            both[0] *= right / 0.5
            both[1] *= (1 - right) / 0.5
        totals.append(sum(map(sum, stakes)))
    return totals


def test_e_is_the_final_stake_of_bets_on_signs():
    d = sample(30, 0.5)
    assert np.exp(log_e(d, FIRST)) == pytest.approx(by_betting(d))


def test_the_stake_averages_one_over_all_signs_whatever_the_sizes():
    sizes = np.array([1, 1, 0, 5, 0.1, 3, 3, 100, 2, 1])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(sizes))))
    of_all = np.exp(log_e(signs * sizes, first=4))
    assert of_all.mean(0) == pytest.approx(np.ones(len(sizes)))


def test_the_bet_of_one_theta_is_the_likelihood_ratio_of_normal_differences():
    d, mean, sd = sample(20, 0.8), 0.8, 1.3
    normal = stats.norm.pdf(d, mean, sd) / (stats.norm.pdf(d, mean, sd) + stats.norm.pdf(-d, mean, sd))
    scale = np.sqrt(np.mean(d[:FIRST] ** 2))
    theta = mean * scale / sd**2
    assert 1 / (1 + np.exp(-2 * theta * d / scale)) == pytest.approx(normal)


@pytest.mark.parametrize("d", [sample(10), sample(25, 0.4, 1), np.random.default_rng(2).exponential(size=14)])
def test_the_interval_contains_the_means_that_are_not_rejected(d):
    low, high = anytime_interval(d, FIRST)
    means = np.linspace(d.min() - 5, d.max() + 5, 4001)
    kept = [m for m in means if anytime_p(d - m, FIRST) > ALPHA]
    step = means[1] - means[0]
    assert (low, high) == pytest.approx((kept[0], kept[-1]), abs=1.01 * step)
    assert anytime_p(d - low, FIRST) == pytest.approx(ALPHA)
    assert anytime_p(d - high, FIRST) == pytest.approx(ALPHA)


def test_the_p_of_a_verdict_is_at_most_5_percent_exactly_where_the_interval_excludes_the_bound():
    d, method = sample(20, 1.0), anytime(FIRST)
    low, high = method.interval(d)
    assert method.p_above(d, low - 1e-6) <= ALPHA < method.p_above(d, low + 1e-6)
    assert method.p_above(-d, -high - 1e-6) <= ALPHA < method.p_above(-d, -high + 1e-6)
    assert method.p_above(d, d.mean() + 10) == 1


def test_interval_and_p_follow_a_linear_change_of_the_differences():
    d = sample(15, 0.3)
    low, high = anytime_interval(d, FIRST)
    assert anytime_interval(7 - 100 * d, FIRST) == pytest.approx((7 - 100 * high, 7 - 100 * low))
    assert anytime_p(-3 * d, FIRST) == pytest.approx(anytime_p(d, FIRST))


@pytest.mark.parametrize("n", [10, 20, 40, 200])
def test_the_interval_is_wider_than_for_one_look_and_shrinks_with_n(n):
    d = stats.zscore(sample(n, seed=n), ddof=1)
    low, high = anytime_interval(d, FIRST)
    half = (high - low) / 2 * math.sqrt(n)
    assert stats.t.ppf(0.975, n - 1) < half < 4.2
    assert critical(n) == pytest.approx(half, rel=0.12)


def test_the_critical_value_is_where_the_mixture_over_effects_reaches_one_in_alpha():
    """Wang & Ramdas 2025; Rouder et al. 2009, equation 1, for a given g: integrated here over effects."""
    n, g = 12, 0.5
    effects, step = np.linspace(-8, 8, 4001, retstep=True)
    t, nu = critical(n), n - 1
    against = stats.nct.pdf(t, nu, effects * math.sqrt(n)) * stats.norm.pdf(effects, 0, math.sqrt(g))
    assert against.sum() * step / stats.t.pdf(t, nu) == pytest.approx(1 / ALPHA, rel=1e-3)
    assert critical(3) == math.inf


@pytest.mark.parametrize("d", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_fewer_than_two_finite_differences_have_no_interval(d):
    assert anytime_p(d, FIRST) == 1.0
    assert all(map(math.isnan, anytime_interval(d, FIRST)))


def test_few_differences_have_an_infinite_interval():
    assert anytime_interval([1.0, 1.1, 0.9], 2) == (-math.inf, math.inf)


def test_equal_differences_have_an_interval_of_one_point():
    assert anytime_interval([0.3] * 10, FIRST) == (0.3, 0.3)
    assert anytime_interval([0.0] * 10, FIRST) == (0.0, 0.0)
    assert anytime_p([0.0] * 10, FIRST) == pytest.approx(1.0)
    assert anytime_p([0.3] * 10, FIRST) < 0.01


def test_zeros_leave_the_stake_unchanged():
    assert np.exp(log_e([0.0] * 12 + [2.0], FIRST))[-2:] == pytest.approx([1.0, 1.0])
    assert np.exp(log_e([0.0] * 12 + [2.0, 2.0], FIRST))[-1] > 1.1


@pytest.mark.parametrize("n", [10, 40, 1000])
def test_the_interval_contains_the_mean_of_skewed_differences(n):
    d = np.random.default_rng(n).lognormal(sigma=2, size=n)
    assert log_e(d - d.mean(), FIRST)[-1] <= 0
    low, high = anytime_interval(d, FIRST)
    assert low < d.mean() < high


def ever_rejected(d: np.ndarray, first: int = FIRST) -> float:
    """Share of the studies [studies, n] whose E reaches 20 at any n >= `first`."""
    return float((log_e(d, first)[:, first - 1 :] >= math.log(1 / ALPHA)).any(1).mean())


SYMMETRIC = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(1.5, size=shape),
    "steps of a grid": lambda rng, shape: rng.choice([-1.0, 0, 0, 0, 1], size=shape),
    "signs": lambda rng, shape: rng.choice([-1.0, 1], size=shape),
    "differences of skewed arms": lambda rng, shape: rng.exponential(size=shape) - rng.exponential(size=shape),
}


@pytest.mark.parametrize("draw", SYMMETRIC.values(), ids=SYMMETRIC)
def test_looks_at_every_n_up_to_200_err_in_at_most_5_percent_of_studies(draw):
    assert ever_rejected(draw(np.random.default_rng(5), (1500, 200))) <= ALPHA


def test_t_intervals_for_one_look_err_far_more_often_under_repeated_looks():
    d = SYMMETRIC["normal"](np.random.default_rng(5), (500, 200))
    n = np.arange(2, 201)
    means = d.cumsum(1)[:, 1:] / n
    sds = np.sqrt(((d**2).cumsum(1)[:, 1:] - n * means**2) / (n - 1))
    t = np.abs(means) / sds * np.sqrt(n)
    assert (t > stats.t.ppf(0.975, n - 1))[:, 8:].any(1).mean() > 0.2


def test_looks_at_every_fifth_n_err_in_at_most_2_percent_of_studies():
    assert errors_over_looks(DRAWS["normal"], studies=500, seed=1, paired=False) <= 0.02
