"""What counts against a claim in its own results: what a sceptical reader would look for.

One sentence for each kind of doubt, about the cases in their primary view, with all cases that it is about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from bnstudy.claims.arms import commas
from bnstudy.claims.effect_text import describe_delta, describe_effect
from bnstudy.claims.verdicts import ACROSS, Verdict, describe_failures
from bnstudy.stats.means import ALPHA, RESAMPLES, smallest_p

NEAR_DELTA = 0.1
"""An interval that ends within this share of delta from delta is close to it."""

HOW_FAILURES_COUNT = (
    "In accuracies both count as guessing, and in steps to a target with the whole length of training. Elsewhere "
    "diverged runs have the worst value, and runs that did not learn the measured one."
)
NOTHING = "Nothing that these runs show."


def find_counterevidence(verdicts: Sequence[Verdict]) -> list[str]:
    """Sentences on the verdicts of one claim; `NOTHING` where there are none. With too few seeds these are all."""
    primary = [v for v in verdicts if v.contrast.is_primary]
    if few := list(_few_seeds(primary)):
        return few
    found = [*_not_supported(primary), *_opposite_signs(primary), *_views(verdicts), *_inconclusive(primary)]
    found += [*_opposite_seeds(primary), *_narrow(primary), *_uncorrected(primary), *_failed(primary)]
    found += [*_at_bounds(primary), *_coarse_grid(primary), *_dropped_rates(primary)]
    found += [*_one_rate(primary), *_fixed_rate(primary)]
    return found or [NOTHING]


def _few_seeds(primary: Sequence[Verdict]) -> Iterator[str]:
    """Where no case has enough seeds: how many there are, and what else rules out a verdict in every case."""
    least = min(v.contrast.claim.min_seeds for v in primary)
    n = max(v.n for v in primary)
    if not 0 < n < least or any(v.status != "INCONCLUSIVE" for v in primary):
        return
    yield f"Too few seeds for a verdict: {n} of at least {least}." + (f" {describe_smallest_p(n)}" if n > 1 else "")
    obstacles = [v.contrast.obstacle.split("; ") for v in primary]
    if common := [text for text in obstacles[0] if text and all(text in others for others in obstacles)]:
        yield f"More seeds alone would not do: {'; '.join(common)}."


def describe_smallest_p(n: int) -> str:
    """Of a test of n differences."""
    above = f", above the level of {ALPHA:g}" if smallest_p(n) > ALPHA else ""
    return f"With {n} seeds {smallest_p(n):.2g} is the smallest p there is{above}."


def _not_supported(primary: Sequence[Verdict]) -> Iterator[str]:
    supported = [v for v in primary if v.status == "SUPPORTED"]
    for status in ("CONTRADICTED", "NEGLIGIBLE"):
        if cases := [v for v in primary if v.status == status]:
            others = f", while it is supported for {_names(supported, primary)}" if supported else ""
            yield f"{status.capitalize()}{_with_effects(cases, primary)}{others}."


def _opposite_signs(primary: Sequence[Verdict]) -> Iterator[str]:
    """Cases that differ in the direction of the effect, of a two-sided claim."""
    up, down = ([v for v in primary if v.status == "SUPPORTED" and v.effect * sign > 0] for sign in (1, -1))
    if up and down:
        both = f"{_with_effects(up, primary)} and the other way{_with_effects(down, primary)}"
        yield f"The effect goes one way{both}."


def _views(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Cases whose views have different verdicts, by what these are."""
    primary = [v for v in verdicts if v.contrast.is_primary]
    disagreeing: dict[str, list[Verdict]] = {}
    for _, of_case in groupby(sorted(verdicts, key=lambda v: v.case), key=lambda v: v.case):
        views = list(of_case)
        if len({v.status for v in views}) > 1:
            text = ", ".join(f"{v.contrast.view_name}: {v.status}" for v in views)
            disagreeing.setdefault(text, []).append(views[0])
    for text, cases in disagreeing.items():
        yield f"The views disagree{_for(cases, primary)}: {text}."


def _inconclusive(primary: Sequence[Verdict]) -> Iterator[str]:
    """Cases by the reason."""
    undecided = [v for v in primary if v.status == "INCONCLUSIVE"]
    across = [v for v in undecided if v.because == ACROSS]
    if len(across) > 1:
        named = [f"{_name(v, primary)}{f' ({_more(v)})' if v.more else ''}" for v in across]
        yield f"Inconclusive, as {ACROSS}: {list_some(named, '; ')}."
        undecided = [v for v in undecided if v.because != ACROSS]
    for reason in dict.fromkeys(v.reason for v in undecided):
        cases = [v for v in undecided if v.reason == reason]
        yield f"Inconclusive{_for(cases, primary)}: {reason}."


def _more(verdict: Verdict) -> str:
    """`"about 13 more seeds"`."""
    return verdict.reason.rpartition("; ")[2].partition(" would")[0]


def _opposite_seeds(primary: Sequence[Verdict]) -> Iterator[str]:
    counts = [(v, int(((v.contrast.d < 0) if v.effect > 0 else (v.contrast.d > 0)).sum())) for v in primary]
    found = [(v, f"{n} of {v.n}") for v, n in counts if n and v.status in ("SUPPORTED", "CONTRADICTED")]
    yield from _each("In some seeds the difference goes the other way", found, primary)


def _narrow(primary: Sequence[Verdict]) -> Iterator[str]:
    """Verdicts that a small change would overturn."""
    found = []
    for v in primary:
        delta = v.contrast.threshold
        beyond, within = max(v.low, -v.high), max(v.high, -v.low)
        room = delta - within if v.status == "NEGLIGIBLE" else beyond - delta
        if v.status != "INCONCLUSIVE" and math.isfinite(v.low) and room < NEAR_DELTA * delta:
            found.append((v, f"{v.effect_text} against {describe_delta(v.contrast.claim, v.contrast.delta)}"))
    yield from _each("The interval ends close to the smallest effect of interest", found, primary)


def _uncorrected(primary: Sequence[Verdict]) -> Iterator[str]:
    """Verdicts that the number of cases in the report may explain."""
    lost = [v for v in primary if v.status != "INCONCLUSIVE" and not v.survives]
    found = [(v, f"p = {v.p:.2g}{_smallest(v)}, {v.p_holm:.2g} after it") for v in lost]
    yield from _each("Does not survive the correction for the number of cases in this report", found, primary)


def _smallest(v: Verdict) -> str:
    """Whether no effect of as many seeds could have a smaller p."""
    least = max(smallest_p(v.n), 2 / (RESAMPLES + 1))
    return f", the smallest for {v.n} seeds" if v.p <= 1.001 * least else ""


def _failed(primary: Sequence[Verdict]) -> Iterator[str]:
    """Evaluated runs that diverged or did not learn."""
    found = [
        (v, f"{v.contrast.name_of(side)} {describe_failures(lost, n)}")
        for v in primary
        for side, (lost, n) in v.contrast.failed.items()
        if lost
    ]
    for sentence in _each("Runs diverged or did not learn", found, primary):
        yield f"{sentence} {HOW_FAILURES_COUNT}"


def _at_bounds(primary: Sequence[Verdict]) -> Iterator[str]:
    """Values that are only bounds of what the metric measures."""
    found = []
    for v in primary:
        for (side, bound), n in v.contrast.bounds.items():
            if bound in ("at least", "at most"):
                found.append((v, f"{v.contrast.name_of(side)} {bound} the value measured in {n} of {v.n} seeds"))
    name = primary[0].contrast.claim.metric_name
    effect = " and of the effect" if any(v.contrast.qualifier for v, _ in found) else ""
    yield from _each(f"Only a bound is known of the {name}{effect}", found, primary)


def _coarse_grid(primary: Sequence[Verdict]) -> Iterator[str]:
    widened = [v.contrast for v in primary if 0 < v.contrast.slack < math.inf and v.n]
    if widened:
        ends = dict.fromkeys(f"{widened[0].claim.in_unit(slack):.3g}" for slack in sorted(c.slack for c in widened))
        kind = "a factor of " if widened[0].claim.scale == "log_ratio" else ""
        distance = f"{kind}{' or '.join(ends)}"
        reason = "The metric is known only to within one step of the grid of learning rates"
        yield f"{reason}, so both ends of the 95% interval are moved out by {distance}."


def _dropped_rates(primary: Sequence[Verdict]) -> Iterator[str]:
    found = [
        (v, f"{list_some([f'{rate:g}' for rate in rates])} {v.contrast.name_of(side)}")
        for v in primary
        for side, rates in v.contrast.dropped.items()
        if rates
    ]
    yield from _each("Learning rates are left out, as they were not tried with all seeds", found, primary)


def _one_rate(primary: Sequence[Verdict]) -> Iterator[str]:
    """The effect at one rate for all, where it differs in the digits shown: near a tie of two rates, the others choose
    the one at which a seed is worse."""
    differing = [v for v in primary if not math.isnan(v.contrast.at_one_rate)]
    texts = [(v, describe_effect(v.contrast.claim, v.contrast.at_one_rate)) for v in differing]
    found = [(v, text.short) for v, text in texts if text.unqualified != v.effect_words.unqualified]
    yield from _each("The seeds differ in their learning rates. With one rate for all the effect is", found, primary)


def _fixed_rate(primary: Sequence[Verdict]) -> Iterator[str]:
    fixed = [v for v in primary if v.contrast.view == "fixed_rate" and v.n]
    if fixed:
        yield f"Only one learning rate was tried ({fixed[0].view}): at its own best rate each side may do better."


def _each(begin: str, found: Sequence[tuple[Verdict, str]], primary: Sequence[Verdict]) -> Iterator[str]:
    """A sentence on some cases, with a text on each: `"In some seeds ...: cell=gru: 1 of 14; cell=rnn: 3 of 14."`."""
    if found:
        texts = [f"{_name(v, primary)}: {text}" if len(primary) > 1 else text for v, text in found]
        yield f"{begin}{' ' if begin.endswith(' is') and len(primary) == 1 else ': '}{list_some(texts, '; ')}."


def _name(verdict: Verdict, primary: Sequence[Verdict]) -> str:
    """The case without what all cases share: the dataset, or the network and the dataset."""
    case, cases = verdict.contrast.case, [v.contrast.case for v in primary]
    if len({other.data for other in cases}) > 1:
        return case.name
    model = case.model if len({other.model for other in cases}) > 1 else ""
    return commas(model, case.setting) or case.name


def _names(verdicts: Iterable[Verdict], primary: Sequence[Verdict]) -> str:
    return list_some([_name(v, primary) for v in verdicts], "; ")


def _for(verdicts: Sequence[Verdict], primary: Sequence[Verdict]) -> str:
    """`" for cell=gru; cell=rnn"`, `" in all 3 cases"`; empty where there is only one case."""
    if len(primary) == 1:
        return ""
    return f" in all {len(primary)} cases" if len(verdicts) == len(primary) else f" for {_names(verdicts, primary)}"


def _with_effects(verdicts: Sequence[Verdict], primary: Sequence[Verdict]) -> str:
    """`": 15 percentage points more dead units"`, with the cases where there are several."""
    if len(primary) == 1:
        return f": {verdicts[0].effect_text}"
    effects = [f"{_name(v, primary)}: {v.effect_text}" if v.interval else _name(v, primary) for v in verdicts]
    return f" for {list_some(effects, '; ')}"


def list_some(names: Sequence[object], separator: str = ", ", most: int = 6) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(map(str, names[:most])) + rest
