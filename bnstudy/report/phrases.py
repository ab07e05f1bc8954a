"""Phrases that all sentences of a report share: groups of verdicts, their effects, and how many cases they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from bnstudy.claims.claim import STATUSES
from bnstudy.claims.effect_text import describe_effect, describe_numbers
from bnstudy.claims.verdicts import Verdict


def primary_of(found: Iterable[Verdict]) -> list[Verdict]:
    return [verdict for verdict in found if verdict.contrast.is_primary]


def group_by_claim(found: Iterable[Verdict]) -> list[list[Verdict]]:
    by_name: dict[str, list[Verdict]] = {}
    for verdict in found:
        by_name.setdefault(verdict.contrast.claim.name, []).append(verdict)
    return list(by_name.values())


def group_by_result(of_claim: Sequence[Verdict]) -> list[list[Verdict]]:
    """Verdicts of one status and direction, in the order of the statuses."""

    def key(verdict: Verdict) -> tuple[int, bool]:
        return STATUSES.index(verdict.status), verdict.status == "SUPPORTED" and verdict.effect < 0

    return [list(group) for _, group in groupby(sorted(of_claim, key=key), key=key)]


def describe_result(group: Sequence[Verdict]) -> str:
    """`"2.1x to 2.9x fewer steps"`, `"no meaningful difference"`, `"undecided"`."""
    words = {"NEGLIGIBLE": "no meaningful difference", "INCONCLUSIVE": "undecided"}
    return words.get(group[0].status) or describe_effects(group)


def describe_effects(group: Sequence[Verdict]) -> str:
    """The effects of verdicts of one direction: `"at least 2.1x fewer steps"`, `"1.2 to 3.4 points more accuracy"`."""
    if len(group) == 1:
        return group[0].effect_words.short
    ordered = sorted(group, key=lambda v: v.effect_words.value)  # of ratios below 1 the largest effect has the least
    claim, ends = group[0].contrast.claim, (ordered[0], ordered[-1])
    least, most = (describe_effect(claim, v.effect, qualifier=v.contrast.qualifier) for v in ends)
    kinds = {v.effect_words.qualifier for v in group} - {""}
    if len(kinds) == 1:
        return f"{(kind := kinds.pop())} {least.unqualified if kind == 'at least' else most.unqualified}"
    return least.unqualified if least.number == most.number else f"{least.number} to {most.unqualified}"


def shorten(text: str, before: str) -> str:
    """The text without the last words that it shares with the one before: `"2.4 points lower"`."""
    words, others = text.split(), before.split()
    while len(words) > 1 and others and words[-1] == others[-1]:
        words, others = words[:-1], others[:-1]
    return " ".join(words)


def largest_end(verdict: Verdict) -> str:
    """The end of the interval that is further from no effect: `"1.2 points"`, `"1.1x"`."""
    claim, ends = verdict.contrast.claim, (verdict.effect, verdict.low, verdict.high)
    if -verdict.low > verdict.high:
        ends = (-verdict.effect, -verdict.high, -verdict.low)
    bound = describe_numbers(claim, *ends)[1].rpartition(" ")[2]
    points = " points" if "percentage points" in claim.unit else ""
    return f"{bound}{'x' if claim.scale == 'log_ratio' else points}"


def noun_of(of_claim: Sequence[Verdict]) -> str:
    cases = [v.contrast.case for v in of_claim]
    return (
        "networks"
        if len({case.panel for case in cases}) == len({case.model for case in cases}) == len(cases)
        else "cases"
    )


def preposition(of_claim: Sequence[Verdict]) -> str:
    return " on " if noun_of(of_claim) == "networks" else " in "


def scope(group: Sequence[Verdict], of_claim: Sequence[Verdict]) -> str:
    """`" on 4 of 6 networks"`, `" in both cases"`; empty for a single case."""
    n, total = len(group), len(of_claim)
    if total == 1:
        return ""
    share = f"{n} of {total}" if n < total else "both" if n == 2 else f"all {n}"
    return f"{preposition(of_claim)}{share} {noun_of(of_claim)}"


def reach_of(group: Sequence[Verdict]) -> tuple[str, str, str]:
    """`("1.3x", "3.6x", "fewer steps")`: the lowest and the highest end of the intervals, in the direction of most of
    them; empty for none."""
    ends = [end for verdict in group for end in (verdict.low, verdict.high) if math.isfinite(end)]
    if not ends:
        return "", "", ""
    claim, low, high = group[0].contrast.claim, min(ends), max(ends)
    text = describe_effect(claim, (low + high) / 2, low, high)
    low_text, _, high_text = text.bounds.partition(" to ")
    unit = "x" if claim.scale == "log_ratio" else ""
    return f"{low_text}{unit}", f"{high_text}{unit}", text.words
