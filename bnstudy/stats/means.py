"""The interval and the p-value of the mean of paired differences.

Both take the more cautious of two methods, side by side: Student's t, which is exact for normal differences, and the
bootstrap-t (studentized bootstrap: Efron & Tibshirani 1993, section 12.5), which allows for skewed ones.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 0.05
"""The level of every verdict. An interval leaves out half of it on either side, and the p-value of a verdict is twice
that of its one-sided test, so that p <= ALPHA exactly where the interval excludes the value that is tested."""

RESAMPLES = 19_999
"""So many that they do not limit the p-value of 14 seeds: 2/20,000 is below `smallest_p(14)`, which a report with
hundreds of cases multiplies by their number."""
MOST_RESAMPLED = 300
"""With more differences, Student's t alone: there the two hardly differ."""


def confidence_interval(d: ArrayLike) -> tuple[float, float]:
    """The 95% interval of the mean of d [n]: on either side the farther bound of Student's t and of the bootstrap-t.

    Student's t alone where ties make the bootstrap-t unbounded. NaN where n < 2 or a value is not finite. Equal d give
    equal intervals: the resamples are a function of n.
    """
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    if all_equal(values):
        return float(values[0]), float(values[0])
    mean, error = values.mean(), standard_error(values)
    t = float(stats.t.ppf(1 - ALPHA / 2, len(values) - 1))
    below, above = t, t
    if (resampled := _resampled_t(values)) is not None:
        nth = _rank()
        below, above = max(t, resampled[-nth]), max(t, -resampled[nth - 1])
    return float(mean - below * error), float(mean + above * error)


def p_above(d: ArrayLike, bound: float) -> float:
    """Twice the one-sided p for a mean of d [n] of at most `bound`, and at most 1: the larger of the two methods' p.

    At least 2/2^n, the smallest p of any test that takes the signs of n differences as exchangeable. 1 where n < 2 or a
    value is not finite.
    """
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return 1.0
    if all_equal(values):
        return smallest_p(len(values)) if values[0] > bound else 1.0
    t = (values.mean() - bound) / standard_error(values)
    p = float(stats.t.sf(t, len(values) - 1))
    if (resampled := _resampled_t(values)) is not None:
        as_large = len(resampled) - int(np.searchsorted(resampled, t, side="left"))
        p = max(p, (1 + as_large) / (len(resampled) + 1))
    return float(min(1.0, max(2 * p, smallest_p(len(values)))))


def smallest_p(n: int) -> float:
    """The smallest two-sided p of a sign-flip test of n differences."""
    return 2.0 / 2.0**n


def standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


def all_equal(values: np.ndarray) -> bool:
    """Up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _rank() -> int:
    """The quantile of the interval, counted from the outside: the 500th of 19,999."""
    return round(ALPHA / 2 * (RESAMPLES + 1))


def _resampled_t(values: np.ndarray) -> np.ndarray | None:
    """The t statistics of the resamples, ascending; None where the quantiles of the interval are infinite.

    They do not depend on the order of the values, and those of -values are the same with the other sign.
    """
    if len(values) > MOST_RESAMPLED:
        return None
    centred = values - values.mean()
    sign = -1.0 if (np.sort(centred) ** 3).sum() < 0 else 1.0
    t = _resampled_t_of(tuple(np.sort(sign * centred)))
    return (t if sign > 0 else -t[::-1]) if np.isfinite([t[-_rank()], t[_rank() - 1]]).all() else None


@lru_cache(maxsize=4)
def _resampled_t_of(values: tuple[float, ...]) -> np.ndarray:
    """Of values with a mean of 0."""
    centred, n = np.array(values), len(values)
    counts = _resamples(n)
    means = counts @ centred / n
    variances = np.maximum(0, counts @ centred**2 / n - means**2) * n / (n - 1)
    errors = np.sqrt(variances / n)
    is_constant = errors <= 1e-9 * standard_error(centred)
    t = np.where(is_constant, np.copysign(math.inf, means), means / np.where(is_constant, 1, errors))
    return np.sort(t)


@lru_cache(maxsize=8)
def _resamples(n: int) -> np.ndarray:
    """How often each of n values is drawn, by resample [resamples, n]."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)
