"""A published figure beside what the runs here say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy.special import betaincinv

from bnstudy.stats.intervals import LEVEL, Estimate

MARKS = {
    "v": "checked against the paper",
    "n": "from notes or a notebook of others, often one run; not checked",
    "m": "from memory; not checked",
    "c": "computed, not published",
}

Met = Literal["yes", "no", "not settled", "not there", "not comparable", ""]


@dataclass(frozen=True)
class Expected:
    """What is expected, and how far that is to be trusted: `mark` is one of `MARKS`."""

    text: str
    mark: Literal["v", "n", "m", "c"]
    source: str

    @property
    def shown(self) -> str:
        return f"{self.text} ({self.mark})"


@dataclass(frozen=True)
class Check:
    """A row of the table, in words.

    here: the mean over seeds with its 95% interval. tolerance: what counts as met.
    """

    quantity: str
    arm: str
    expected: Expected
    here: str
    tolerance: str
    met: Met


def against(
    quantity: str, arm: str, expected: Expected, here: Estimate, bounds: tuple[float, float], tolerance: str
) -> Check:
    """Met if the whole interval lies within the bounds, not if all of it lies outside."""
    return Check(quantity, arm, expected, shown(here), tolerance, met(here, bounds))


def met(here: Estimate, bounds: tuple[float, float]) -> Met:
    if here.n == 0 or math.isnan(here.mean):
        return "not there"
    low, high = bounds
    if math.isnan(here.low):
        return "not settled"
    if low <= here.low and here.high <= high:
        return "yes"
    return "no" if here.high < low or here.low > high else "not settled"


def shown(here: Estimate) -> str:
    if here.n == 0 or math.isnan(here.mean):
        return "-"
    seeds = "1 seed" if here.n == 1 else f"{here.n} seeds"
    if math.isnan(here.low):
        return f"{here.mean:.3f} ({seeds})"
    return f"{here.mean:.3f} ({here.low:.3f} to {here.high:.3f}, {seeds})"


def share_interval(hits: int, n: int, level: float = LEVEL) -> Estimate:
    """The share of hits with its Clopper-Pearson interval, which covers at least as often as it says."""
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Estimate(hits / n, low, high, n)
