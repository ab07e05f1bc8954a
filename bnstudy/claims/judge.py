"""What paired differences say: an interval, an exact test, and a verdict.

A claim is judged by one number a seed, d_i: the difference of a metric between two arms that share seed i (of times,
steps and learning rates the log of their ratio).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from bnstudy.stats.intervals import effect_size
from bnstudy.stats.method import LOOKED_AT_ONCE, Method
from bnstudy.stats.power import seeds_needed
from bnstudy.stats.tests import ALPHA

Status = Literal["SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE"]


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
