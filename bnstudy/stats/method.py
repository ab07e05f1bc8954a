"""The interval and the p-value of a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from bnstudy.stats.means import confidence_interval, p_above
from bnstudy.stats.power import students_t


@dataclass(frozen=True)
class Method:
    """An interval of the mean of differences, and p-values that fit it.

    name: for a reader. interval: at 95%. p_above: twice the one-sided p for a mean of at most a bound; it is at most 5%
    where the interval lies above the bound.
    critical: by n, the approximate t statistic above which 0 is outside the interval.
    """

    name: str
    interval: Callable[[ArrayLike], tuple[float, float]]
    p_above: Callable[[ArrayLike, float], float]
    critical: Callable[[int], float]


LOOKED_AT_ONCE = Method("wider of Student's t and bootstrap-t", confidence_interval, p_above, students_t)
"""For a number of seeds fixed in advance; `sequential.anytime` is for one that grows with the results."""
