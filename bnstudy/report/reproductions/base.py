"""A reproduction of a published result, and the checks of its expected values."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from scipy.stats import binomtest

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures.style import ReportFigure
from bnstudy.stats.intervals import Estimate
from bnstudy.stats.means import ALPHA

MARKS = {
    "v": "checked against the paper",
    "n": "from notes or a notebook of others, often one run; not checked",
    "m": "from memory; not checked",
    "c": "computed, not published",
}

Result = Literal["met", "not met", "undecided", "no data", "not comparable"]
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """An expected value and its reliability: `mark` is one of `MARKS`."""

    text: str
    mark: Literal["v", "n", "m", "c"]
    source: str

    @property
    def label(self) -> str:
        return f"{self.text} ({self.mark})"


@dataclass(frozen=True)
class Check:
    """A row of the table, as text.

    measured: the mean over seeds with its 95% interval. tolerance: which values meet the expected one.
    """

    quantity: str
    arm: str
    expected: Expected
    measured: str
    tolerance: str
    result: Result


class Reproduction(ABC):
    """Compares a study with a published result; `conf/reproduction/STUDY.yaml` names its class.

    note: what was measured, and how the setting differs from the published one.
    """

    note: ClassVar[str]

    def __init__(self, study: StudyData) -> None:
        self.study = study

    @abstractmethod
    def checks(self) -> list[Check]: ...

    @abstractmethod
    def draw(self) -> ReportFigure | None:
        """The figure; None if the study has no measurements for it."""

    def conclusions(self) -> list[str]:
        """What was found, in sentences, in place of the list of values that are not met; none by default."""
        return []

    def describe_checks(self) -> str:
        """The measured values, for readers who cannot see the figure."""
        return "; ".join(f"{check.arm}: {check.quantity} {check.measured}" for check in self.checks())


def make_check(
    quantity: str, arm: str, expected: Expected, measured: Estimate, bounds: Bounds, tolerance: str
) -> Check:
    """Check an interval against bounds; `tolerance` describes them."""
    return Check(quantity, arm, expected, format_estimate(measured), tolerance, compare_with_bounds(measured, bounds))


def compare_with_bounds(measured: Estimate, bounds: Bounds) -> Result:
    """Met if the whole interval lies within the bounds, not met if all of it lies outside."""
    if measured.n == 0 or math.isnan(measured.mean):
        return "no data"
    low, high = bounds
    if math.isnan(measured.low):
        return "undecided"
    if low <= measured.low and measured.high <= high:
        return "met"
    return "not met" if measured.high < low or measured.low > high else "undecided"


def format_estimate(estimate: Estimate) -> str:
    if estimate.n == 0 or math.isnan(estimate.mean):
        return "-"
    seeds = "1 seed" if estimate.n == 1 else f"{estimate.n} seeds"
    if math.isnan(estimate.low):
        return f"{estimate.mean:.3f} ({seeds})"
    return f"{estimate.mean:.3f} ({estimate.low:.3f} to {estimate.high:.3f}, {seeds})"


def share_interval(hits: int, n: int) -> Estimate:
    """The share of hits with its Clopper-Pearson interval, which covers at least as often as it states."""
    interval = binomtest(hits, n).proportion_ci(1 - ALPHA, method="exact")
    return Estimate(hits / n, float(interval.low), float(interval.high), n)
