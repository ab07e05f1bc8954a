"""How many seeds a verdict needs."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from bnstudy.stats.means import ALPHA, all_equal

POWER = 0.8
NUMBERS = (*range(3, 200), *range(200, 10_001, 50))
"""Of seeds, that are tried."""


def students_t(n: int) -> float:
    """The t statistic of n differences above which 0 is outside the 95% t interval."""
    return float(stats.t.ppf(1 - ALPHA / 2, n - 1))


def seeds_needed(
    d: ArrayLike, delta: float, slack: float = 0.0, critical: Callable[[int], float] = students_t
) -> int | None:
    """The number of seeds that shows at 80% power whether the effect is beyond delta or within, if mean and standard
    deviation stay the same; None where n < 2 or 10,000 seeds are not enough.

    The power is that of t tests at the interval's level (noncentral t; for an effect within delta, two one-sided
    tests, Schuirmann 1987).

    Args:
        slack: by which the interval is widened. critical: as in `Method`.
    """
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    mean, sd = abs(float(values.mean())), 0.0 if all_equal(values) else float(values.std(ddof=1))
    if delta - slack <= mean <= delta + slack:
        return None
    tried = [n for n in NUMBERS if n >= len(values)]
    first = bisect_left(tried, POWER, key=lambda n: _power(mean, sd, delta, slack, n, critical(n)))  # it grows with n
    return tried[first] if first < len(tried) else None


def _power(mean: float, sd: float, delta: float, slack: float, n: int, critical: float) -> float:
    """The probability that the interval of n differences lies beyond delta, if the mean does, else within it."""
    if sd == 0:
        return 1.0
    scale = math.sqrt(n) / sd
    if mean > delta + slack:
        return _exceeds(n, (mean - delta - slack) * scale, critical)
    inside = [_exceeds(n, (delta - slack - side * mean) * scale, critical) for side in (1, -1)]
    return max(0.0, sum(inside) - 1)


def _exceeds(n: int, shift: float, critical: float) -> float:
    """The probability that a noncentral t with n - 1 degrees of freedom exceeds the critical value."""
    if math.isinf(critical):
        return 0.0
    return float(stats.nct.sf(critical, n - 1, min(shift, 30.0)))  # scipy's sum fails for larger shifts, where it is 1
