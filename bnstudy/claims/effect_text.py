"""An effect in words: its number, what it is a number of, and its interval. Every sentence and table gets it here."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bnstudy.claims.claim import Claim
from bnstudy.claims.metrics import Bound
from bnstudy.claims.numbers import round_together

OTHER_BOUND: dict[Bound, Bound] = {"at least": "at most", "at most": "at least"}


@dataclass(frozen=True)
class EffectText:
    """`"at least"`, `"2.9x"`, `"fewer steps"`, `"2.5 to 3.4"`: qualifier, number, words and bounds; "" for none.

    value: what the number shows, in full.
    """

    qualifier: str
    number: str
    words: str
    bounds: str
    value: float

    @property
    def unqualified(self) -> str:
        """`"2.9x fewer steps"`."""
        return f"{self.number} {self.words.replace('percentage points', 'points')}"

    @property
    def short(self) -> str:
        """`"at least 2.9x fewer steps"`, for titles."""
        return f"{self.qualifier} {self.unqualified}".strip()

    @property
    def full(self) -> str:
        """`"at least 2.9x fewer steps (2.5 to 3.4)"`."""
        bounds = f" ({self.bounds})" if self.bounds else ""
        return f"{self.qualifier} {self.number} {self.words}{bounds}".strip()


def describe_effect(
    claim: Claim, effect: float, low: float = math.nan, high: float = math.nan, qualifier: Bound = ""
) -> EffectText:
    """An effect on the claim's scale of differences. One against the claim is turned round: `"2.4x more steps"`.

    A ratio below 1 is that of the metric where the claim has no words for this direction:
    `"2.4x the steps to the target"`.
    """
    is_ratio, words, turned = claim.scale == "log_ratio", claim.unit, False
    if effect < 0 and claim.opposite:
        words, turned = claim.opposite, True
    elif effect < 0 and is_ratio and not words.startswith("times the "):
        words, turned = f"times the {claim.quantity_name}", claim.better == "lower"
    if turned:
        effect, low, high, qualifier = -effect, -high, -low, OTHER_BOUND.get(qualifier, qualifier)
    number, bounds = describe_numbers(claim, effect, low, high)
    words = words.removeprefix("times ") if is_ratio else words
    return EffectText(qualifier, number, words, bounds, claim.in_unit(effect))


def describe_numbers(claim: Claim, effect: float, low: float, high: float) -> tuple[str, str]:
    """`("2.9x", "2.5 to 3.4")` in the claim's unit; without bounds where there is no finite interval."""
    known = (low, high) if math.isfinite(low) and math.isfinite(high) else ()
    number, *bounds = round_together(*(claim.in_unit(value) for value in (effect, *known)))
    return f"{number}x" if claim.scale == "log_ratio" else number, " to ".join(bounds)


def describe_delta(claim: Claim, delta: float) -> str:
    """The smallest effect of interest: `"1.25x"`, `"5 percentage points"`, `"0.05"`."""
    points = f" percentage {'point' if delta == 1 else 'points'}" if "percentage points" in claim.unit else ""
    return f"{delta:g}x" if claim.scale == "log_ratio" else f"{delta:g}{points}"
