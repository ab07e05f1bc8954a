"""The interval and the test of a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from bnstudy.stats.intervals import bca_interval
from bnstudy.stats.power import students_t
from bnstudy.stats.tests import sign_flip_p


@dataclass(frozen=True)
class Method:
    """An interval and a test of differences.

    test: its name. interval: of their mean, at 95%. p: two-sided, for a mean of 0.
    critical: by n, the approximate t statistic above which 0 is outside the interval.
    """

    test: str
    interval: Callable[[ArrayLike], tuple[float, float]]
    p: Callable[[ArrayLike], float]
    critical: Callable[[int], float]


LOOKED_AT_ONCE = Method("sign-flip test", bca_interval, sign_flip_p, students_t)
"""For a number of seeds fixed in advance; `sequential.anytime` is for one that grows with the results."""
