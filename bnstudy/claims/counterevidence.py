"""What counts against a claim in its own results: what a sceptical reader would look for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from bnstudy.claims.verdicts import Verdict, describe_failures
from bnstudy.stats.means import ALPHA, smallest_p

NEAR_DELTA = 0.1
"""An interval that ends within this share of delta from delta is close to it."""

NOTHING = "Nothing that these runs show."


def find_counterevidence(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences on the verdicts of one claim; `NOTHING` where there are none."""
    primary = [v for v in verdicts if v.contrast.is_primary]
    found = [
        *_not_supported(primary),
        *_opposite_signs(primary),
        *_views(verdicts),
        *_inconclusive(verdicts),
        *_few_seeds(primary),
    ]
    found += [*_opposite_seeds(primary), *_narrow(verdicts), *_uncorrected(verdicts), *_failed(primary)]
    found += [*_at_bounds(primary), *_coarse_grid(primary), *_dropped_rates(primary)]
    found += [*_one_rate(primary), *_fixed_rate(primary)]
    return found or [NOTHING]


def _not_supported(primary: Sequence[Verdict]) -> Iterator[str]:
    supported = [v.case for v in primary if v.status == "SUPPORTED"]
    for status in ("CONTRADICTED", "NEGLIGIBLE"):
        if cases := [v for v in primary if v.status == status]:
            others = f", while it is supported for {list_some(supported)}" if supported else ""
            yield f"{status.capitalize()} for {_with_effects(cases)}{others}."


def _opposite_signs(primary: Sequence[Verdict]) -> Iterator[str]:
    """Cases that differ in the direction of the effect, of a two-sided claim."""
    up, down = ([v for v in primary if v.status == "SUPPORTED" and v.effect * sign > 0] for sign in (1, -1))
    if up and down:
        yield f"The effect goes one way for {_with_effects(up)} and the other way for {_with_effects(down)}."


def _views(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for case, of_case in groupby(sorted(verdicts, key=lambda v: v.case), key=lambda v: v.case):
        views = list(of_case)
        if len({v.status for v in views}) > 1:
            yield f"{case}: the views disagree: {'; '.join(f'{v.view}: {v.status}' for v in views)}."


def _inconclusive(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Cases by the reason."""
    undecided = [v for v in verdicts if v.status == "INCONCLUSIVE"]
    for reason in dict.fromkeys(v.reason for v in undecided):
        cases = [f"{v.case}, {v.view}" for v in undecided if v.reason == reason]
        yield f"Inconclusive for {list_some(cases, '; ')}: {reason}."


def _few_seeds(primary: Sequence[Verdict]) -> Iterator[str]:
    """The smallest p that so few seeds can have."""
    numbers = {v.n for v in primary if 1 < v.n < v.contrast.claim.min_seeds}
    yield from map(describe_smallest_p, sorted(numbers))


def describe_smallest_p(n: int) -> str:
    """Of a test of n differences."""
    above = f", above the level of {ALPHA:g}" if smallest_p(n) > ALPHA else ""
    return f"With {n} seeds {smallest_p(n):.2g} is the smallest p there is{above}."


def _opposite_seeds(primary: Sequence[Verdict]) -> Iterator[str]:
    for v in primary:
        d = v.contrast.d
        opposite = int(((d < 0) if v.effect > 0 else (d > 0)).sum())
        if v.status in ("SUPPORTED", "CONTRADICTED") and opposite:
            yield f"{v.case}: in {opposite} of {len(d)} seeds the difference goes the other way."


def _narrow(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Verdicts that a small change would overturn."""
    for v in verdicts:
        if v.status == "INCONCLUSIVE" or not math.isfinite(v.low):
            continue
        case, delta = f"{v.case}, {v.view}", v.contrast.threshold
        beyond, within = max(v.low, -v.high), max(v.high, -v.low)
        room = delta - within if v.status == "NEGLIGIBLE" else beyond - delta
        if room < NEAR_DELTA * delta:
            bound = f"the smallest effect of interest, {v.contrast.delta:g}"
            yield f"{case}: the interval, {v.interval}, ends close to {bound}."


def _uncorrected(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Verdicts that the number of cases in the report may explain."""
    lost = [v for v in verdicts if v.status != "INCONCLUSIVE" and not v.survives]
    for v in lost:
        p = f"p = {v.p:.2g}, {v.p_holm:.2g} after it"
        yield f"{v.case}, {v.view}: does not survive the correction for the number of cases in this report ({p})."


def _failed(primary: Sequence[Verdict]) -> Iterator[str]:
    """Evaluated runs that diverged or did not learn."""
    for v in primary:
        for side, (lost, n) in v.contrast.failed.items():
            if lost:
                share = describe_failures(lost, n)
                counted = "They count as guessing in accuracies, and with the worst value elsewhere."
                yield f"{v.case}: {side} it {share}, diverged or did not learn. {counted}"


def _at_bounds(primary: Sequence[Verdict]) -> Iterator[str]:
    """Values that are only bounds of what the metric measures."""
    for v in primary:
        for (side, bound), n in v.contrast.bounds.items():
            if bound in ("at least", "at most"):
                value = f"the {v.contrast.claim.metric_name} {side} it is {bound} the value"
                so = f", so that the effect is {v.contrast.qualifier} the number given" if v.contrast.qualifier else ""
                yield f"{v.case}: in {n} of {v.n} seeds {value} that was measured{so}."


def _coarse_grid(primary: Sequence[Verdict]) -> Iterator[str]:
    widened = [v.contrast for v in primary if 0 < v.contrast.slack < math.inf and v.n]
    if widened:
        slack, is_ratio = widened[0].slack, widened[0].claim.scale == "log_ratio"
        distance = f"a factor of {math.exp(slack):.3g}" if is_ratio else f"{slack:.3g}"
        reason = "The metric is known only to within one step of the grid of learning rates"
        yield f"{reason}, so both ends of the 95% interval are moved out by {distance}."


def _dropped_rates(primary: Sequence[Verdict]) -> Iterator[str]:
    for v in primary:
        for side, rates in v.contrast.dropped.items():
            if rates:
                named = list_some([f"{rate:g}" for rate in rates])
                yield f"{v.case}: {side} it the learning rates {named} were not tried with all seeds, and are left out."


def _one_rate(primary: Sequence[Verdict]) -> Iterator[str]:
    """The effect at one rate for all: near a tie of two rates, the others choose the one at which a seed is worse."""
    for v in primary:
        c = v.contrast
        if not math.isnan(c.at_one_rate):
            effect = f"{c.claim.in_unit(c.at_one_rate):.3g} {c.claim.unit}"
            yield f"{v.case}: the seeds differ in their learning rates. With one rate for all, the effect is {effect}."


def _fixed_rate(primary: Sequence[Verdict]) -> Iterator[str]:
    fixed = [v for v in primary if v.contrast.view == "fixed_rate" and v.n]
    if fixed:
        yield f"Only one learning rate was tried ({fixed[0].view}): at its own best rate each side may do better."


def _with_effects(verdicts: Sequence[Verdict]) -> str:
    return list_some([f"{v.case}: {v.effect_text}" if v.interval else v.case for v in verdicts], "; ")


def list_some(names: Sequence[object], separator: str = ", ", most: int = 6) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(map(str, names[:most])) + rest
