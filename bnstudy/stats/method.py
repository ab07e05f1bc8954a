"""How differences are bounded and tested."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy.typing import ArrayLike

from bnstudy.stats.intervals import bca_interval
from bnstudy.stats.power import students_t
from bnstudy.stats.tests import sign_flip_p


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
