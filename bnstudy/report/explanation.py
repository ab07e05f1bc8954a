"""What a claim's verdicts say, in two sentences: how large the effect is, and what that means."""

from __future__ import annotations

from collections.abc import Sequence

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.contrasts import SIDES, Contrast
from bnstudy.claims.effect_text import describe_delta
from bnstudy.claims.learning_rates import Side
from bnstudy.claims.metrics import View
from bnstudy.claims.verdicts import ACROSS, Verdict, describe_rates
from bnstudy.report.phrases import describe_effects, group_by_result, noun_of, preposition, primary_of, reach_of, scope

VIEWS: dict[View, str] = {
    "same_rate": "both sides at the same learning rate",
    "best_rate": "each side at its best learning rate",
    "fixed_rate": "at the only learning rate tried",
    "all_rates": "over all learning rates",
    "before_training": "before training",
}
"""How the sides are compared."""


def claim_sentences(of_claim: Sequence[Verdict]) -> list[str]:
    """The result of one claim in its primary view, in two sentences: how large it is, and what the verdict means."""
    primary = primary_of(of_claim)
    if len(primary) == 1:
        return [_how_large(primary[0]), _what_it_means(primary[0])]
    seeds = sorted({verdict.n for verdict in primary})
    several = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    views = " or ".join(dict.fromkeys(VIEWS[verdict.contrast.view] for verdict in primary))
    each = "Each network" if noun_of(primary) == "networks" else "Each case"
    return [
        f"{_describe_groups(primary)}.",
        f"{each} has {several} {'seed' if seeds == [1] else 'seeds'}, {views}; an effect counts beyond "
        f"{_deltas(primary)}, the smallest of interest.",
    ]


# Several cases


def _deltas(of_claim: Sequence[Verdict]) -> str:
    """`"1.25x"`; by dataset where it differs: `"0.5 percentage points on MNIST or 1 percentage point on Digits"`."""
    names = dict[str, dict[str, None]]()
    for verdict in of_claim:
        c = verdict.contrast
        names.setdefault(describe_delta(c.claim, c.delta), {})[c.case.data] = None
    by_data = (f"{delta} on {' and '.join(datasets)}" for delta, datasets in names.items())
    return next(iter(names)) if len(names) == 1 else " or ".join(by_data)


def _describe_groups(of_claim: Sequence[Verdict]) -> str:
    """`"SUPPORTED on 5 of 6 networks: 1.5x fewer steps, with intervals from 1.3 to 3.6; INCONCLUSIVE on 1"`."""
    first, *others = group_by_result(of_claim)
    status, (low, high, words) = first[0].status, reach_of(first)
    with_effect = status in ("SUPPORTED", "CONTRADICTED")
    intervals = f"{'an interval' if len(first) == 1 else 'intervals'} from {low} to {high}"
    result = f"{describe_effects(first)}, with {intervals}" if with_effect else f"{intervals} {words}"
    begin = f"{status}{scope(first, of_claim)}{f': {result}' if low else ''}"
    rest = [
        f"{group[0].status}{preposition(of_claim)}{len(group)}"
        + (f": {describe_effects(group)}" if group[0].status in ("SUPPORTED", "CONTRADICTED") else "")
        for group in others
    ]
    return "; ".join([begin, *rest])


# A single case


def _how_large(verdict: Verdict) -> str:
    """`"Over 14 seeds the geometric mean is 2.9x fewer steps (95% interval 2.2 to 3.8), each at its best ..."`."""
    if not verdict.interval:
        return "There is no estimate."
    c, text = verdict.contrast, verdict.effect_words
    mean = "geometric mean" if c.claim.scale == "log_ratio" else "mean"
    bounds = f" (95% interval {text.bounds})" if text.bounds else ""
    effect = f"{text.qualifier} {text.number} {text.words}".strip()
    over = "One seed has" if verdict.n == 1 else f"The {mean} over {verdict.n} seeds is"
    return f"{over} {effect}{bounds}, {_describe_view(c)}."


def _describe_view(c: Contrast) -> str:
    """How the two sides are compared, with their learning rates."""
    rates = {side: describe_rates(c.rates.get(side, {})) for side in SIDES}
    if c.view in ("same_rate", "fixed_rate") and rates["with"]:
        return f"{VIEWS[c.view]}, {rates['with']}"
    named = [f"{rates[side]} {_side_name(c, side)}" for side in SIDES if rates[side]]
    return f"{VIEWS[c.view]}: {' and '.join(named)}" if c.view == "best_rate" and named else VIEWS[c.view]


def _side_name(c: Contrast, side: Side) -> str:
    """`"with BatchNorm"`, or `"with"` where the sides differ in something else."""
    norm = c.norms.get(side, BASELINES[0])
    return c.name_of(side).removesuffix(" it") if norm in BASELINES else f"with {norm}"


def _what_it_means(verdict: Verdict) -> str:
    """The verdict against the smallest effect of interest."""
    claim, status = verdict.contrast.claim, verdict.status
    delta = describe_delta(claim, verdict.contrast.delta)
    if status == "INCONCLUSIVE" and verdict.because == ACROSS:
        across = f"the interval reaches across {delta}, the smallest effect of interest"
        return f"{status}: {verdict.reason.replace(ACROSS, across)}."
    if status == "INCONCLUSIVE":
        return f"{status} against {delta}, the smallest effect of interest: {verdict.reason}."
    if status == "NEGLIGIBLE":
        return f"{status}: the whole interval lies within {delta} of no difference, too small to matter."
    side = ", on the side against the claim" if status == "CONTRADICTED" else ""
    return f"{status}: the whole interval lies beyond {delta}, the smallest effect of interest{side}."
