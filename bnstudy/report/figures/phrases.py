"""Parts of the titles and alternative texts of figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

MOST_LETTERS = 70
"""If a title's list of all arms is longer, it names only the extremes."""


def number(value: float) -> str:
    """Two significant digits: `"0.032"`, `"97"`, `"1,200"`, `"1e-22"`."""
    return f"{float(f'{value:.1e}'):,g}" if math.isfinite(value) else f"{value:g}"


def percent(share: float) -> str:
    """`"97%"`, `"2.9%"`, `"0%"`."""
    return f"{number(100 * share)}%"


def points(share: float) -> str:
    """A difference of two shares: `"2.5 points"`."""
    text = number(100 * share)
    return f"{text} point" if text == "1" else f"{text} points"


def listed(words: Iterable[str]) -> str:
    """`"a, b and c"`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def by_arm(values: Mapping[str, float], show: Callable[[float], str] = number) -> str:
    """`"NoNorm 0.7%, BatchNorm 0%"`; of many arms the lowest and the highest: `"0% (A) to 7% (B)"`."""
    every = ", ".join(f"{name} {show(value)}" for name, value in values.items())
    if len(every) <= MOST_LETTERS or len(values) < 2:
        return every
    lowest, highest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    low, high = show(values[lowest]), show(values[highest])
    return f"{low} in all arms" if low == high else f"{low} ({lowest}) to {high} ({highest})"
