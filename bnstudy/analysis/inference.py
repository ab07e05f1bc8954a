"""What paired differences say: an interval, an exact test, and a verdict.

A claim is judged by one number a seed, d_i: the difference of a metric between two arms that share seed i (of times,
steps and learning rates the log of their ratio).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

ALPHA = 0.05
POWER = 0.8
RESAMPLES = 9_999

ENUMERATED = 20
"""Up to so many differences all 2^n signs are tried; beyond, a fixed sample of them."""

FLIPS = 100_000
MOST_SEEDS = 10_000

Status = Literal["SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE"]


def bca_interval(d: ArrayLike, level: float = 1 - ALPHA) -> tuple[float, float]:
    """Bias-corrected and accelerated bootstrap interval (Efron 1987) of the mean of d [n]; NaN where n < 2 or one is
    not finite.

    The resamples are the same for the same n, so that a report made again has the same numbers.
    """
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    if all_equal(values):
        return float(values[0]), float(values[0])
    rng = np.random.default_rng(0)
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=RESAMPLES, method="BCa", rng=rng
    ).confidence_interval
    return float(found.low), float(found.high)


def sign_flip_p(d: ArrayLike) -> float:
    """Two-sided p of the mean under random signs (Fisher 1935): the share of signs whose mean is as far from 0.

    Exact for up to 20 differences, where its smallest value is 2/2^n; beyond, from a fixed sample of signs with the
    identity counted in (Phipson & Smyth 2010). 1 where there are no differences, or one is not finite.
    """
    values = np.asarray(d, float)
    if not np.isfinite(values).all():
        return 1.0
    if len(values) <= ENUMERATED:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    else:
        sums = np.append(_signs(len(values)) @ values, values.sum())
    rounding = 1e-9 * np.abs(values).sum()
    return float((np.abs(sums) >= abs(values.sum()) - rounding).mean())


@lru_cache(maxsize=4)
def _signs(n: int) -> np.ndarray:
    """The sample of signs [flips, n] for n differences."""
    return np.random.default_rng(0).choice([-1.0, 1.0], size=(FLIPS, n))


def effect_size(d: ArrayLike) -> float:
    """d_z = mean / standard deviation of the differences (Cohen 1988); NaN where n < 2 or one is not finite, 0 where
    all are 0, infinite where all are another number."""
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return math.nan
    if all_equal(values):
        return math.copysign(math.inf, values[0]) if values[0] else 0.0
    return float(values.mean() / values.std(ddof=1))


def all_equal(values: np.ndarray) -> bool:
    """Up to rounding."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def holm(p: Sequence[float]) -> list[float]:
    """P-values adjusted for their number (Holm 1979), in their order: the family-wise error is at most alpha."""
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    adjusted = np.minimum(1, np.maximum.accumulate(np.asarray(p, float)[order] * factors))
    back = np.empty(len(p))
    back[order] = adjusted
    return [float(value) for value in back]


def students_t(n: int) -> float:
    """The t statistic of n differences from which on 0 is outside of a 95% interval of normal theory."""
    return float(stats.t.ppf(1 - ALPHA / 2, n - 1))


@dataclass(frozen=True)
class Method:
    """How differences are bounded and tested. test: its name.

    interval: of their mean, at 95%. p: two-sided, for a mean of 0.
    critical: by n, about the t statistic from which on 0 is outside of the interval.
    """

    test: str
    interval: Callable[[ArrayLike], tuple[float, float]]
    p: Callable[[ArrayLike], float]
    critical: Callable[[int], float]


LOOKED_AT_ONCE = Method("sign-flip test", bca_interval, sign_flip_p, students_t)
"""For a number of seeds that was fixed before; `sequential.anytime` for one that grew with what was seen."""


def seeds_needed(
    d: ArrayLike, delta: float, slack: float = 0.0, critical: Callable[[int], float] = students_t
) -> int | None:
    """How many seeds would settle it at 80% power, if mean and standard deviation stay what they are.

    What would be settled is that the effect is beyond delta, or within. The power is that of t tests at the interval's
    level (noncentral t; for being within, two one-sided ones, Schuirmann 1987). None where n < 2, or where 10,000
    seeds would not do. slack: as in `judge`; critical: as in `Method`.
    """
    values = np.asarray(d, float)
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    mean, sd = abs(float(values.mean())), 0.0 if all_equal(values) else float(values.std(ddof=1))
    if delta - slack <= mean <= delta + slack:
        return None
    candidates = range(max(3, len(values)), MOST_SEEDS + 1)
    tried = (n for n in candidates if n < 200 or n % 50 == 0)
    return next((n for n in tried if _power(mean, sd, delta, slack, n, critical(n)) >= POWER), None)


def _power(mean: float, sd: float, delta: float, slack: float, n: int, critical: float) -> float:
    """That the interval from n differences lies beyond delta, where the mean does, or within (-delta, delta)."""
    if sd == 0:
        return 1.0
    scale = math.sqrt(n) / sd
    if mean > delta + slack:
        return _exceeds(n, (mean - delta - slack) * scale, critical)
    inside = [_exceeds(n, (delta - slack - side * mean) * scale, critical) for side in (1, -1)]
    return max(0.0, sum(inside) - 1)


def _exceeds(n: int, shift: float, critical: float) -> float:
    """The chance that a noncentral t of n - 1 degrees of freedom is above the interval's critical value."""
    if math.isinf(critical):
        return 0.0
    return float(stats.nct.sf(critical, n - 1, min(shift, 30.0)))  # scipy's sum breaks down far beyond, where it is 1


@dataclass(frozen=True)
class Judged:
    """What the differences of a claim came to.

    effect, low, high: mean of the differences and its interval, widened by the slack.
    p, p_holm: of the test, and adjusted for the other claims of the report.
    more: how many more seeds would settle an inconclusive one at 80% power; None where none would, or none are needed.
    because: why it is inconclusive, in words.
    """

    status: Status
    effect: float
    low: float
    high: float
    d_z: float
    p: float
    p_holm: float
    n: int
    more: int | None = None
    because: str = ""


COARSE = "the steps of the grid of learning rates are too coarse to tell"
ACROSS = "the interval reaches across the smallest effect of interest"
CAPPED = "some seed has both at the bound of what was measured, beyond which they may differ"


def judge(
    d: ArrayLike,
    delta: float,
    min_seeds: int,
    p_holm: float | None = None,
    slack: float = 0.0,
    capped: bool = False,
    lacking: str = "",
    either: bool = False,
    method: Method = LOOKED_AT_ONCE,
) -> Judged:
    """The verdict on differences where positive ones speak for the claim.

    SUPPORTED if the interval lies above delta, CONTRADICTED if below -delta, both only if the test too
    rejects at 5%; NEGLIGIBLE if the interval lies within (-delta, delta); else INCONCLUSIVE, as it is with fewer than
    `min_seeds` or where something is `lacking`.

    slack: by how much every difference may be off in the same direction; the interval is widened by it.
    capped: some seed has both values at a bound. It can hide a difference but make up none, and rules out NEGLIGIBLE.
    either: the claim is that there is a difference, in whichever direction: none contradicts it.
    method: of interval and test.
    """
    values = np.asarray(d, float)
    finite = len(values) > 0 and bool(np.isfinite(values).all())
    if len(values) and not finite:
        lacking = lacking or "some difference is not a number"
    p, (low, high) = method.p(values), method.interval(values)
    effect, corrected = float(values.mean()) if finite else math.nan, p if p_holm is None else p_holm
    because = lacking or (f"{len(values)} of at least {min_seeds} seeds" if len(values) < min_seeds else "")
    status: Status = "INCONCLUSIVE"
    if not because:
        status, because = _status(low, high, delta, corrected, slack, capped, method.test)
        status = "SUPPORTED" if either and status == "CONTRADICTED" else status
    numbers = (effect, low - slack, high + slack, effect_size(values), p, corrected, len(values))
    settled = lacking or because in ("", COARSE, CAPPED)
    return Judged(status, *numbers, None if settled else _more(values, delta, min_seeds, slack, method), because)


def _status(
    low: float, high: float, delta: float, p: float, slack: float, capped: bool, test: str
) -> tuple[Status, str]:
    beyond, within = max(low, -high), max(high, -low)
    if within + slack < delta:
        return ("INCONCLUSIVE", CAPPED) if capped else ("NEGLIGIBLE", "")
    if beyond - slack > delta:
        if p > ALPHA:
            return "INCONCLUSIVE", f"the {test} does not reject (p = {p:.2g} after correction)"
        return ("SUPPORTED" if low > 0 else "CONTRADICTED"), ""
    coarse = delta - slack <= max(beyond, 0.0) and within <= delta + slack  # however many seeds make it shorter
    return "INCONCLUSIVE", COARSE if coarse else ACROSS


def _more(values: np.ndarray, delta: float, min_seeds: int, slack: float, method: Method) -> int | None:
    needed = max(min_seeds, seeds_needed(values, delta, slack, method.critical) or 0)
    return needed - len(values) if needed > len(values) else None
