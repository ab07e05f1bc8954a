"""Parts of the titles and alternative texts of figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bnstudy.claims.numbers import two_digits

MOST_LETTERS = 70
"""If a title's list of all arms is longer, it names only the extremes."""


def rate(value: float) -> str:
    """A learning rate: `"0.0316"`, `"0.1"`."""
    return f"{value:.3g}"


def percent(share: float) -> str:
    """`"97%"`, `"2.9%"`, `"0%"`."""
    return f"{two_digits(100 * share)}%"


def times(factor: float) -> str:
    """`"0.94x"`."""
    return f"{two_digits(factor)}x"


def listed(words: Iterable[str]) -> str:
    """`"a, b and c"`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def by_arm(values: Mapping[str, float], show: Callable[[float], str] = two_digits) -> str:
    """`"NoNorm 0.7%, BatchNorm 0%"`; of many arms the lowest and the highest: `"0% (A) to 7% (B)"`."""
    is_simple = not any(mark in name for name in values for mark in ",=")
    parts = (f"{n} {show(v)}" if is_simple else f"{show(v)} ({n})" for n, v in values.items())
    every = ", ".join(parts)
    if len(every) <= MOST_LETTERS or len(values) < 2:
        return every
    lowest, highest = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    low, high = show(values[lowest]), show(values[highest])
    return f"{low} in all arms" if low == high else f"{low} ({lowest}) to {high} ({highest})"
