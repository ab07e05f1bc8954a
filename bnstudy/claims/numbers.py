"""Numbers in words: two significant digits, and the same decimals for an estimate and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST_DIGITS = 3
"""Significant digits of an estimate whose interval is narrow."""

SMALL_SHARE = 0.01
"""A bound below this share of the largest number may be shown as 0."""

MOST_DECIMALS = 5
"""Smaller numbers have an exponent."""


def two_digits(value: float) -> str:
    """`"2.9"`, `"0.042"`, `"420"`; a dash for none."""
    return round_together(value)[0]


def round_together(estimate: float, *bounds: float) -> list[str]:
    """The estimate and its bounds with the same decimals: `["2.9", "2.5", "3.4"]`.

    Two significant digits of the estimate, or of the larger bound where the interval is wider than the estimate; more
    where the interval would vanish, or where a bound that is not small beside the others would be 0. Positive values so
    far apart that one would have a single digit have two each: `["12", "4.9", "27"]`.
    """
    values = (estimate, *bounds)
    finite = [abs(value) for value in values if math.isfinite(value)]
    if not finite or not any(finite):
        return [_fixed(value, 0) for value in values]
    width = (max(bounds) - min(bounds)) / 2 if bounds and all(map(math.isfinite, bounds)) else 0.0
    widest = max(finite)
    reference = abs(estimate) if math.isfinite(estimate) and abs(estimate) > width else widest
    decimals = 1 - _exponent(reference)
    if width > 0:
        enough = min(-_exponent(2 * width), MOST_DIGITS - 1 - _exponent(reference))
        decimals = max(decimals, enough)
    large = [size for size in map(abs, bounds) if SMALL_SHARE * widest <= size < math.inf]
    decimals = max([decimals, *(-_exponent(size) for size in large if round(size, decimals) == 0)])
    apart = min(values) > 0 and decimals < 1 - _exponent(min(finite))
    if decimals > MOST_DECIMALS or apart:
        return [_fixed(value, 1 - _exponent(abs(value)) if value and math.isfinite(value) else 0) for value in values]
    return [_fixed(value, decimals) for value in values]


def same_decimals(values: Sequence[float], most: int = 3) -> list[str]:
    """A column of numbers with the same decimals: the largest has `most` significant digits, or more so that the
    smallest is not 0. Numbers too far apart for that have `most` digits each; a dash for none."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value]
    decimals = max(most - 1 - _exponent(max(sizes)), -_exponent(min(sizes)), 0) if sizes else 0
    if decimals > MOST_DECIMALS or (sizes and max(sizes) > 10 ** (most + 1) * min(sizes)):
        return [f"{value:.{most}g}" if math.isfinite(value) else "-" for value in values]
    return [_fixed(value, decimals) for value in values]


def _exponent(value: float) -> int:
    """Of a positive number with two digits: 9.96 is 1.0e+01."""
    return int(f"{value:.1e}".partition("e")[2])


def _fixed(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "-"
    if decimals > MOST_DECIMALS:
        return f"{value:.2g}"
    return f"{round(value, decimals) + 0.0:.{max(0, decimals)}f}"  # + 0.0: no minus before a zero
