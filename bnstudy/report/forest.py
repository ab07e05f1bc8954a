"""The forest plot: one strip for each verdict, on an axis that all claims share, as numbers for the page's template.

Claims have different units, so a strip is drawn in multiples of its claim's smallest effect of interest. The axis is
linear within 1, the band of effects too small to matter, and logarithmic beyond.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bnstudy.claims.claim import Claim
from bnstudy.claims.verdicts import Verdict

SHORTEST, LONGEST = 2.0, 100.0
"""Least and largest multiple at which the axis ends on either side."""
TICKS = {6.0: (1, 2, 5, 10), 9.0: (1, 3, 10, 30, 100), math.inf: (1, 10, 100)}
"""By the largest width of an axis, as `warp` measures it, that has room for them."""
MARGIN = 2.0
"""Percent of the strip's width beyond either end of the axis."""
DOTS, SPREAD = 9.0, 11.0
"""Height of the middle of the dots, and of all of them, in pixels."""
GOLDEN = 0.618
"""Places neighbouring seeds at different heights."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, in multiples of the smallest effect of interest; positive values are for the claim."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a multiple is, in percent of the width; one beyond an end of the axis is at the end."""
        low, high = warp(self.low), warp(self.high)
        share = (min(max(warp(value), low), high) - low) / (high - low)
        return round(MARGIN + (100 - 2 * MARGIN) * share, 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The place and text of each tick."""
        width = warp(self.high) - warp(self.low)
        positive = next(ticks for most, ticks in TICKS.items() if width <= most)
        values = [v for v in sorted({0, *positive, *(-tick for tick in positive)}) if self.low <= v <= self.high]
        return [(self.at(v), f"{v:+d}".replace("-", "\N{MINUS SIGN}") if v else "0") for v in values]


@dataclass(frozen=True)
class Strip:
    """What is drawn of a verdict. Places across are in percent of the width, heights of dots in pixels.

    bar: the interval of the mean. slack: by how much a step of the grid widens it at either end.
    beyond: at which ends, "low" and "high", something lies outside of the axis.
    """

    dots: list[tuple[float, float]]
    mean: float | None = None
    bar: Span | None = None
    slack: list[Span] = field(default_factory=list)
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A row of the forest: its verdict, and the link to what it rests on.

    again: whether the row above is of the same claim. multiple: the effect in multiples of the smallest of interest.
    """

    verdict: Verdict
    href: str
    again: bool
    strip: Strip
    multiple: float

    @property
    def alt(self) -> str:
        """The strip in words."""
        seeds, of = multiples(self.verdict), "times the smallest effect of interest"
        if not seeds:
            return "No difference between seeds was measured."
        ends = f"Seeds from {min(seeds):.2g} to {max(seeds):.2g} {of}"
        return f"{ends}, mean {self.multiple:.2g}." if math.isfinite(self.multiple) else f"{ends}."


@dataclass(frozen=True)
class Forest:
    axis: Axis
    rows: list[Row]

    @property
    def directions(self) -> tuple[str, str]:
        """What lies left and right of zero."""
        claims = [row.verdict.contrast.claim for row in self.rows]
        if len({claim.directions for claim in claims}) == 1:
            return claims[0].directions
        is_either = all(claim.better == "either" for claim in claims)
        return ("less", "more") if is_either else ("against the claim", "for the claim")

    @property
    def is_mixed(self) -> bool:
        """Whether some claims name a direction and others do not."""
        return len({row.verdict.contrast.claim.better == "either" for row in self.rows}) > 1

    @property
    def has_cases(self) -> bool:
        """Whether the network and data differ between rows."""
        return len({row.verdict.case for row in self.rows}) > 1

    @property
    def is_widened(self) -> bool:
        return any(row.strip.slack for row in self.rows)


def forest_of(shown: Sequence[Verdict], href: Callable[[Verdict], str]) -> Forest:
    """A row for each verdict, in order."""
    axis, rows, last = axis_of(shown), [], None
    for verdict in shown:
        claim = verdict.contrast.claim
        rows.append(Row(verdict, href(verdict), claim == last, strip_of(verdict, axis), multiple_of(verdict)))
        last = claim
    return Forest(axis, rows)


def warp(multiple: float) -> float:
    """The axis: linear within 1 and logarithmic beyond, without a kink."""
    return multiple if abs(multiple) <= 1 else math.copysign(1 + math.log(abs(multiple)), multiple)


def axis_of(shown: Iterable[Verdict]) -> Axis:
    """An axis that holds all seeds and intervals, as far as it may reach."""
    values = [value for verdict in shown for value in (*multiples(verdict), *ends_of(verdict)) if math.isfinite(value)]
    low, high = min([*values, -SHORTEST]), max([*values, SHORTEST])
    return Axis(max(low, -LONGEST), min(high, LONGEST))


def multiples(verdict: Verdict) -> list[float]:
    """The finite differences of the seeds, in multiples of the smallest effect of interest."""
    found = [float(d) / verdict.contrast.threshold for d in verdict.contrast.d]
    return [value for value in found if math.isfinite(value)]


def multiple_of(verdict: Verdict) -> float:
    return verdict.effect / verdict.contrast.threshold


def strip_of(verdict: Verdict, axis: Axis) -> Strip:
    """Where the seeds, their mean and its interval are on the axis."""
    seeds = sorted(multiples(verdict))
    dots = [(axis.at(value), _height(i)) for i, value in enumerate(seeds)]
    low, high = ends_of(verdict)
    beyond = _beyond([*seeds, *(value for value in (low, high) if math.isfinite(value))], axis)
    if not math.isfinite(verdict.effect):
        return Strip(dots, beyond=beyond)
    mean = axis.at(multiple_of(verdict))
    if not (math.isfinite(low) and math.isfinite(high)):
        return Strip(dots, mean, beyond=beyond)
    step = verdict.contrast.slack / verdict.contrast.threshold
    inner = (axis.at(low + step), axis.at(high - step))
    slack = [(axis.at(low), inner[0]), (inner[1], axis.at(high))] if step > 0 else []
    return Strip(dots, mean, inner, slack, beyond)


def short_name(claim: Claim) -> str:
    """`"Higher learning rates"`, `"Dead ReLUs"`."""
    return claim.name.replace("_", " ").capitalize().replace("relu", "ReLU")


def ends_of(verdict: Verdict) -> Span:
    """The interval, in multiples of the smallest effect of interest."""
    return verdict.low / verdict.contrast.threshold, verdict.high / verdict.contrast.threshold


def _beyond(values: Sequence[float], axis: Axis) -> tuple[str, ...]:
    outside = {"low": any(v < axis.low for v in values), "high": any(v > axis.high for v in values)}
    return tuple(end for end, is_outside in outside.items() if is_outside)


def _height(i: int) -> float:
    return round(DOTS + ((i * GOLDEN) % 1 - 0.5) * SPREAD, 1)
