"""An interval and a test that are valid at every n at once, for seeds that are added until a claim is decided.

An interval or a test for a fixed n errs more often if one looks repeatedly. These assume that differences are symmetric
around their mean, and nothing else: no distribution, no number of looks.

Bet on the sign of each difference, given its size. If 0 is the centre, both signs are equally likely, and the stake is
multiplied by 2 / (1 + exp(-2 theta d / s)), which is 1 on average. This is the likelihood ratio of normal differences
with mean theta sd^2 / s against symmetric ones (Koning 2023, "Online permutation tests", arXiv:2310.01153; de la Pena
1999 has a bound of it). E_n is the mean of the stakes over several theta. By Ville's inequality the probability that it
ever reaches 1 / alpha is at most alpha.

Against the mean of the differences, E_n is never above 1: the log of the stake grows by x - log cosh x, with
x = theta d / s. So the mean lies in the interval, and skewed differences matter less as n grows.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from bnstudy.stats.means import ALPHA, all_equal
from bnstudy.stats.method import Method

STEPS = np.arange(10.0)
THETAS = 2 ** (1 - STEPS)
SHARES = np.minimum(1, 2 ** (2 - STEPS))
SHARES = SHARES / SHARES.sum()
"""Of the stake, half for either direction. Most is on effects that 10 to 40 seeds can detect, half a standard deviation
to two; the rest lets the interval shrink further with hundreds of seeds."""

SPREAD = 0.5
"""Variance of the effects that `critical` expects, in variances of the differences."""

CANDIDATES = 129


def log_e(d: ArrayLike, first: int) -> np.ndarray:
    """log E_n against a mean of 0 after each of the differences [..., n], in their order.

    Args:
        first: the n of the first look. s is the root mean square of that many differences: bets may depend on sizes,
            not on signs.
    """
    values = np.asarray(d, float)
    scaled = values / _scale(values, first)[..., None]
    total = np.full(values.shape, -math.inf)
    for theta, share in zip(THETAS, SHARES, strict=True):
        for side in (theta, -theta):
            growth = math.log(2) - np.logaddexp(0, -2 * side * scaled)
            total = np.logaddexp(total, math.log(share / 2) + growth.cumsum(-1))
    return total


def _scale(values: np.ndarray, first: int) -> np.ndarray:
    """The root mean square of the first differences; where all are 0, the size of the next nonzero one."""
    scale = np.sqrt((values[..., :first] ** 2).mean(-1))
    next_one = np.take_along_axis(np.abs(values), (values != 0).argmax(-1)[..., None], -1)[..., 0]
    scale = np.where(scale > 0, scale, next_one)
    return np.where(scale > 0, scale, 1.0)


def anytime_p(d: ArrayLike, first: int) -> float:
    """1 / E_n, two-sided and at most 1: the probability that it is ever below alpha is at most alpha if the mean is 0.

    1 for no differences, or where one is not finite.
    """
    values = np.asarray(d, float)
    if not len(values) or not np.isfinite(values).all():
        return 1.0
    return float(min(1.0, np.exp(-log_e(values, first)[-1])))


def anytime_interval(d: ArrayLike, first: int, level: float = 1 - ALPHA) -> tuple[float, float]:
    """The means that E_n does not reject; at all n at once they include the true one with probability `level`.

    NaN where n < 2 or a difference is not finite; infinite where even n equal differences would reject none.
    """
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    most = -math.log(1 - level)
    if log_e(np.ones(len(values)), first)[-1] < most:
        return -math.inf, math.inf
    if all_equal(values):
        return float(values[0]), float(values[0])
    means = _candidates(values)
    left = np.flatnonzero(log_e(values - means[:, None], first)[:, -1] < most)
    if left[0] == 0 or left[-1] == len(means) - 1:
        return -math.inf, math.inf

    def excess(mean: float) -> float:
        return float(log_e(values - mean, first)[-1] - most)

    low, high = (float(brentq(excess, means[i - 1], means[i])) for i in (left[0], left[-1] + 1))
    return low, high


def _candidates(values: np.ndarray) -> np.ndarray:
    """Means to try, ascending: that of the values, others as dense as the values are, and beyond them on both sides."""
    ordered, reach = np.sort(values), np.ptp(values)
    wide = np.linspace(ordered[0] - reach, ordered[-1] + reach, CANDIDATES)
    return np.unique(np.concatenate([wide, ordered, (ordered[1:] + ordered[:-1]) / 2, [values.mean()]]))


def critical(n: int, alpha: float = ALPHA) -> float:
    """The approximate t statistic of n normal differences above which 0 is outside the interval; infinite for few.

    It is exact for a related test, a mixture over normal effects (Wang & Ramdas 2025, "Anytime-valid t-tests and
    confidence sequences for Gaussian means with unknown variance", arXiv:2310.03722), and from 15 seeds on within a
    tenth of this one.
    """
    spread = 1 + n * SPREAD
    root = (spread / alpha**2) ** (1 / n)
    return math.sqrt((n - 1) * (root - 1) / (1 - root / spread)) if root < spread else math.inf


def anytime(first: int) -> Method:
    """The method for a claim that is judged on `first` seeds or more."""

    def p_above(d: ArrayLike, bound: float) -> float:
        values = np.asarray(d, float)
        return anytime_p(values - bound, first) if len(values) and values.mean() > bound else 1.0

    return Method("anytime-valid", partial(anytime_interval, first=first), p_above, critical)
