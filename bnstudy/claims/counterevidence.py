"""What counts against a claim in its own results: what a reader who doubts it would look for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import pandas as pd

from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.verdicts import Verdict, effect_bounds, reason, view, where
from bnstudy.stats.tests import ALPHA

NEAR_DELTA = 0.1
"""An interval that ends within this share of delta from delta is close to it,"""
NEAR_ALPHA = ALPHA / 2
"""and a p-value from here to 5% is close to that."""

NOTHING = "Nothing that these runs show."


def objections(found: Sequence[Verdict]) -> list[str]:
    """Sentences on the verdicts of one claim; `NOTHING` where there are none."""
    primary = [v for v in found if v.is_primary]
    told = [*_not_supported(primary), *_two_ways(primary), *_views(found), *_inconclusive(found)]
    told += [*_against_the_mean(primary), *_close(found), *_diverged(primary), *_coarse(primary)]
    return told or [NOTHING]


def _not_supported(primary: Sequence[Verdict]) -> Iterator[str]:
    """Where others of its cases are."""
    supported = [v for v in primary if v.judged.status == "SUPPORTED"]
    for status, word in (("CONTRADICTED", "Contradicted"), ("NEGLIGIBLE", "Negligible")):
        cases = [v for v in primary if v.judged.status == status]
        if cases:
            others = f", while it is supported for {_some([where(v.contrast) for v in supported])}" if supported else ""
            yield f"{word} for {_listed(cases)}{others}."


def _two_ways(primary: Sequence[Verdict]) -> Iterator[str]:
    """Of a claim that there is a difference, whichever: that the cases differ in its direction."""
    supported = [v for v in primary if v.judged.status == "SUPPORTED"]
    up, down = ([v for v in supported if v.judged.effect * sign > 0] for sign in (1, -1))
    if up and down:
        yield f"The effect goes one way for {_listed(up)} and the other way for {_listed(down)}."


def _views(found: Sequence[Verdict]) -> Iterator[str]:
    def place(v: Verdict) -> str:
        return where(v.contrast)

    for case, rows in groupby(sorted(found, key=place), key=place):
        statuses = [(v.judged.status, view(v.contrast)) for v in rows]
        if len({status for status, _ in statuses}) > 1:
            yield f"{case}: the views disagree: {'; '.join(f'{name}: {status}' for status, name in statuses)}."


def _inconclusive(found: Sequence[Verdict]) -> Iterator[str]:
    """Cases by what they lack."""
    lacking = [v for v in found if v.judged.status == "INCONCLUSIVE"]
    reasons = {reason(v.judged): None for v in lacking}
    for because in reasons:
        cases = [f"{where(v.contrast)}, {view(v.contrast)}" for v in lacking if reason(v.judged) == because]
        yield f"Inconclusive for {_some(cases, '; ')}: {because}."


def _against_the_mean(primary: Sequence[Verdict]) -> Iterator[str]:
    for v in primary:
        d, effect = v.contrast.d, v.judged.effect
        opposite = int(((d < 0) if effect > 0 else (d > 0)).sum())
        if v.judged.status in ("SUPPORTED", "CONTRADICTED") and opposite:
            yield f"{where(v.contrast)}: in {opposite} of {len(d)} seeds the difference goes the other way."


def _close(found: Sequence[Verdict]) -> Iterator[str]:
    """Verdicts that little would change."""
    for v in found:
        c, judged, delta = v.contrast, v.judged, v.contrast.threshold
        if judged.status == "INCONCLUSIVE" or not math.isfinite(judged.low):
            continue
        case = f"{where(c)}, {view(c)}"
        if judged.status != "NEGLIGIBLE" and judged.p_holm > NEAR_ALPHA:
            yield f"{case}: the test rejects narrowly, p = {judged.p_holm:.2g} after correction."
        beyond, within = max(judged.low, -judged.high), max(judged.high, -judged.low)
        room = delta - within if judged.status == "NEGLIGIBLE" else beyond - delta
        if room < NEAR_DELTA * delta:
            bound = f"the smallest effect of interest, {c.delta:g}"
            yield f"{case}: the interval, {effect_bounds(c, judged)}, ends close to {bound}."


def _diverged(primary: Sequence[Verdict]) -> Iterator[str]:
    """At the learning rates that are compared; over all rates divergence is what is measured."""
    for v in primary:
        c = v.contrast
        for side, runs, rate in _sides(c):
            at = runs[runs["lr"] == rate]
            lost = int(at["diverged"].sum())
            if lost:
                count = f"{lost} of {len(at)} runs {side} it"
                yield f"{where(c)}: {count} diverged at learning rate {rate:g}, and count with the worst value."


def _sides(c: Contrast) -> list[tuple[str, pd.DataFrame, float]]:
    rates = c.rates or (math.nan, math.nan)
    sides = [("with", c.pair.with_, rates[0]), ("without", c.pair.without, rates[1])]
    return [(name, runs, rate) for name, runs, rate in sides if len(runs) and not math.isnan(rate)]


def _coarse(primary: Sequence[Verdict]) -> Iterator[str]:
    """What is known up to a step of the grid."""
    wide = [v for v in primary if 0 < v.contrast.slack < math.inf and v.judged.n]
    if wide:
        step = (
            f"{math.exp(wide[0].contrast.slack):.3g} times" if _is_ratio(wide[0]) else f"{wide[0].contrast.slack:.3g}"
        )
        yield f"It is known up to a step of the grid of learning rates: intervals are {step} wider for it, either way."


def _is_ratio(v: Verdict) -> bool:
    return v.contrast.claim.scale == "log_ratio"


def _listed(cases: Sequence[Verdict]) -> str:
    return _some([f"{where(v.contrast)}{_bounds(v)}" for v in cases], "; ")


def _bounds(v: Verdict) -> str:
    bounds = effect_bounds(v.contrast, v.judged)
    return f": {bounds} {v.contrast.claim.unit}" if bounds else ""


def _some(names: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
