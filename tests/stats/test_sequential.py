from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bnstudy.claims.judge import judge
from bnstudy.claims.verdicts import verdicts
from bnstudy.report.summary import cautions
from bnstudy.stats.intervals import bca_interval
from bnstudy.stats.power import seeds_needed
from bnstudy.stats.sequential import SHARES, THETAS, anytime, anytime_interval, anytime_p, critical, log_e
from bnstudy.stats.tests import ALPHA
from scripts.coverage import DRAWS, errors_over_looks
from tests import sweeps

FIRST = 10


def sample(n: int, mean: float = 0.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, 1, n)


def by_betting(d: np.ndarray, first: int = FIRST) -> list[float]:
    """E after each difference, a stake at a time: half of a bet on + or - is lost where the coin is fair."""
    sizes = np.sqrt(np.mean(np.square(d[:first])))
    stakes = [[share / 2, share / 2] for share in SHARES]
    told = []
    for value in d:
        for theta, both in zip(THETAS, stakes, strict=True):
            plus = 1 / (1 + math.exp(-2 * theta * abs(value) / sizes))  # that the sign is +, were the effect positive
            right = plus if value > 0 else 1 - plus
            both[0] *= right / 0.5
            both[1] *= (1 - right) / 0.5
        told.append(sum(map(sum, stakes)))
    return told


def test_it_is_what_becomes_of_a_stake():
    d = sample(30, 0.5)
    assert np.exp(log_e(d, FIRST)) == pytest.approx(by_betting(d))


def test_the_stake_is_one_on_average_over_all_signs():
    """However large the differences are: nothing is assumed of them but that both signs are as likely."""
    sizes = np.array([1, 1, 0, 5, 0.1, 3, 3, 100, 2, 1])
    signs = np.array(list(itertools.product((-1, 1), repeat=len(sizes))))
    of_all = np.exp(log_e(signs * sizes, first=4))
    assert of_all.mean(0) == pytest.approx(np.ones(len(sizes)))


def test_the_likelihood_ratio_of_normal_differences_is_what_one_theta_bets():
    d, mean, sd = sample(20, 0.8), 0.8, 1.3
    normal = stats.norm.pdf(d, mean, sd) / (stats.norm.pdf(d, mean, sd) + stats.norm.pdf(-d, mean, sd))
    scale = np.sqrt(np.mean(d[:FIRST] ** 2))
    theta = mean * scale / sd**2
    assert 1 / (1 + np.exp(-2 * theta * d / scale)) == pytest.approx(normal)


@pytest.mark.parametrize("d", [sample(10), sample(25, 0.4, 1), np.random.default_rng(2).exponential(size=14)])
def test_the_interval_holds_the_means_that_are_not_rejected(d):
    low, high = anytime_interval(d, FIRST)
    means = np.linspace(d.min() - 5, d.max() + 5, 4001)
    kept = [m for m in means if anytime_p(d - m, FIRST) > ALPHA]
    step = means[1] - means[0]
    assert (low, high) == pytest.approx((kept[0], kept[-1]), abs=1.01 * step)
    assert anytime_p(d - low, FIRST) == pytest.approx(ALPHA)
    assert anytime_p(d - high, FIRST) == pytest.approx(ALPHA)


def test_it_moves_and_stretches_with_the_differences():
    d = sample(15, 0.3)
    low, high = anytime_interval(d, FIRST)
    assert anytime_interval(7 - 100 * d, FIRST) == pytest.approx((7 - 100 * high, 7 - 100 * low))
    assert anytime_p(-3 * d, FIRST) == pytest.approx(anytime_p(d, FIRST))


@pytest.mark.parametrize("n", [10, 20, 40, 200])
def test_it_is_wider_than_an_interval_for_one_look_and_shrinks(n):
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


# ------------------------------------------------------------------------------------------------------ the extremes


@pytest.mark.parametrize("d", [[], [1.0], [1.0, math.nan], [1.0, math.inf, 2.0]])
def test_where_nothing_can_be_said(d):
    assert anytime_p(d, FIRST) == 1.0
    assert all(map(math.isnan, anytime_interval(d, FIRST)))


def test_few_differences_bound_nothing():
    assert anytime_interval([1.0, 1.1, 0.9], 2) == (-math.inf, math.inf)
    judged = judge([1.0, 1.1, 0.9], 0.1, 2, method=anytime(2))
    assert judged.status == "INCONCLUSIVE"


def test_differences_that_are_all_equal_have_an_interval_of_one_point():
    assert anytime_interval([0.3] * 10, FIRST) == (0.3, 0.3)
    assert anytime_interval([0.0] * 10, FIRST) == (0.0, 0.0)
    assert anytime_p([0.0] * 10, FIRST) == pytest.approx(1.0)
    assert anytime_p([0.3] * 10, FIRST) < 0.01


def test_zeros_at_first_are_nothing_to_bet_on():
    assert np.exp(log_e([0.0] * 12 + [2.0], FIRST))[-2:] == pytest.approx([1.0, 1.0])
    assert np.exp(log_e([0.0] * 12 + [2.0, 2.0], FIRST))[-1] > 1.1


@pytest.mark.parametrize("n", [10, 40, 1000])
def test_the_mean_lies_in_the_interval_however_skewed_the_differences_are(n):
    d = np.random.default_rng(n).lognormal(sigma=2, size=n)
    assert log_e(d - d.mean(), FIRST)[-1] <= 0
    low, high = anytime_interval(d, FIRST)
    assert low < d.mean() < high


# ------------------------------------------------------------------------------------------------- over many looks


def ever_rejected(d: np.ndarray, first: int = FIRST) -> float:
    """Share of the studies [studies, n] whose E reaches 20 at any n from `first` on."""
    return float((log_e(d, first)[:, first - 1 :] >= math.log(1 / ALPHA)).any(1).mean())


SYMMETRIC = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "heavy tails": lambda rng, shape: rng.standard_t(1.5, size=shape),
    "steps of a grid": lambda rng, shape: rng.choice([-1.0, 0, 0, 0, 1], size=shape),
    "signs": lambda rng, shape: rng.choice([-1.0, 1], size=shape),
    "of arms that are skewed alike": lambda rng, shape: rng.exponential(size=shape) - rng.exponential(size=shape),
}


@pytest.mark.parametrize("draw", SYMMETRIC.values(), ids=SYMMETRIC)
def test_a_look_at_every_n_up_to_200_errs_in_no_more_than_five_of_a_hundred(draw):
    assert ever_rejected(draw(np.random.default_rng(5), (1500, 200))) <= ALPHA


def test_normal_intervals_for_one_look_err_far_more_often():
    d = SYMMETRIC["normal"](np.random.default_rng(5), (500, 200))
    n = np.arange(2, 201)
    means = d.cumsum(1)[:, 1:] / n
    sds = np.sqrt(((d**2).cumsum(1)[:, 1:] - n * means**2) / (n - 1))
    t = np.abs(means) / sds * np.sqrt(n)
    assert (t > stats.t.ppf(0.975, n - 1))[:, 8:].any(1).mean() > 0.2


def test_looks_at_batches_err_less():
    assert errors_over_looks(DRAWS["normal"], studies=500, seed=1, paired=False) <= 0.02


# ----------------------------------------------------------------------------------------------------- the verdicts


@pytest.mark.parametrize(
    ("mean", "sd", "status"),
    [
        (1.0, 0.2, "SUPPORTED"),
        (-1.0, 0.2, "CONTRADICTED"),
        (0.0, 0.1, "NEGLIGIBLE"),
        (0.5, 0.5, "INCONCLUSIVE"),
    ],
)
def test_the_rule_is_that_of_one_look(mean, sd, status):
    d = mean + sd * stats.zscore(sample(12))
    judged = judge(d, 0.5, 10, method=anytime(10))
    assert judged.status == status
    assert (judged.low, judged.high) == anytime_interval(d, 10)
    assert judged.p == anytime_p(d, 10)


def test_the_corrected_test_must_reject_too():
    judged = judge(1 + 0.1 * sample(10), 0.5, 10, p_holm=0.06, method=anytime(10))
    assert judged.because == "the anytime-valid test does not reject (p = 0.06 after correction)"


def test_to_settle_it_takes_more_seeds_than_with_one_look():
    d = 0.5 * stats.zscore(sample(12), ddof=1) + 0.8
    once, ever = seeds_needed(d, 0.5), seeds_needed(d, 0.5, critical=critical)
    assert 1.5 * once < ever < 3 * once


def test_a_study_is_judged_by_how_often_it_was_looked_at():
    study = sweeps.of(claims=("dead_relus",), fewer=0.1, noise=0.05)
    again = replace(study, looks="repeated")
    for looked_at, interval in ((study, bca_interval), (again, lambda d: anytime_interval(d, 10))):
        for verdict in verdicts(looked_at):
            assert (verdict.judged.low, verdict.judged.high) == interval(verdict.contrast.d)
    assert [line for line in cautions(again) if line not in cautions(study)] == [cautions(again)[-1]]
    assert "The number of seeds was not fixed before" in cautions(again)[-1]
