"""The results in sentences: the answer of a report, and the title and summary of each claim.

An inconclusive case is named, and its number is never stated as a finding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby

from bnstudy.claims.claim import STATUSES, Claim, Status
from bnstudy.claims.contrasts import SIDES, Contrast
from bnstudy.claims.effect_text import describe_delta, describe_effect, describe_numbers
from bnstudy.claims.learning_rates import Side
from bnstudy.claims.verdicts import Verdict, describe_rates
from bnstudy.store.renames import FORMER_CLAIMS

MOST_WORDS = 35
"""Of an answer: what does not fit is counted."""

YES_OR_NO = ("do ", "does ", "is ", "are ", "can ")
"""Beginnings of questions that yes, no or partly answers."""


def answer(found: Sequence[Verdict], question: str = "") -> str:
    """The answer to the question of a study, in one sentence, from the verdicts on its claims in their primary view.

    It says yes, no or partly where the question allows that and every claim has a direction. Of several studies: how
    many claims hold.
    """
    primary = _primary(found)
    if len({verdict.contrast.study for verdict in primary}) > 1:
        return _tally(primary)
    asked = _without_checks(primary)
    if not asked:
        return "This study judges no claim."
    if all(verdict.status == "INCONCLUSIVE" for verdict in asked):
        return _no_answer(asked)
    decided, undecided = _results(asked)
    word = _yes_or_no(asked, question)
    return _fit(f"{_where(asked)}{f', {word}' if word else ''}:", decided, undecided)


def claim_title(of_claim: Sequence[Verdict]) -> str:
    """The result of one claim as a title: `"BatchNorm reaches the same accuracy in 2.9x fewer steps"`."""
    primary = _primary(of_claim)
    claim = primary[0].contrast.claim
    first, *others = _groups(primary)
    scopes = [_scope(len(group), primary) for group in (first, *others)]
    status, effect = first[0].status, _effects(first)
    if status == "INCONCLUSIVE":
        return f"Undecided{scopes[0]}: {claim.quantity_name}"
    if status == "NEGLIGIBLE":
        most = f": at most {_largest(first[0])}" if len(primary) == 1 else scopes[0]
        begin = f"No meaningful difference in {claim.quantity_name}{most}"
    elif claim.title:
        begin = f"{claim.title.replace('{effect}', effect)}{scopes[0]}"
    elif status == "SUPPORTED" and claim.better != "either":
        begin = f"{claim.statement.rstrip('.')}: {effect}{scopes[0]}"
    else:
        begin = f"{'Against the claim' if status == 'CONTRADICTED' else claim.quantity_name}: {effect}{scopes[0]}"
    rest = [f"{_brief(group)}{_preposition(primary)}{len(group)}" for group in others]
    title = "; ".join([begin, *rest])
    return title[:1].upper() + title[1:]


def claim_sentences(of_claim: Sequence[Verdict]) -> list[str]:
    """The result of one claim in its primary view, in two sentences: how large it is, and what the verdict means."""
    primary = _primary(of_claim)
    if len(primary) == 1:
        return [_how_large(primary[0]), _what_it_means(primary[0])]
    counts = ", ".join(_count(group, primary) for group in _groups(primary))
    seeds = sorted({verdict.n for verdict in primary})
    several = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    views = " or ".join(dict.fromkeys(verdict.contrast.view_name for verdict in primary))
    deltas = dict.fromkeys(describe_delta(v.contrast.claim, v.contrast.delta) for v in primary)
    return [
        f"Of {len(primary)} {_noun(primary)}: {counts}.",
        f"Each compares {several} seeds, {views}; effects below {' or '.join(deltas)} count as too small to matter.",
    ]


def count_statuses(verdicts: Iterable[Verdict]) -> list[tuple[Status, int]]:
    """The statuses that occur, and how often."""
    counts = Counter(verdict.status for verdict in verdicts)
    return [(status, counts[status]) for status in STATUSES if counts[status]]


def _primary(found: Iterable[Verdict]) -> list[Verdict]:
    return [verdict for verdict in found if verdict.contrast.is_primary]


def _without_checks(found: Sequence[Verdict]) -> list[Verdict]:
    """Without the claims that others of the study only require: they check the experiment."""
    required = {FORMER_CLAIMS.get(name, name) for verdict in found for name in verdict.contrast.claim.requires}
    return [verdict for verdict in found if verdict.contrast.claim.name not in required]


def _by_claim(found: Iterable[Verdict]) -> list[list[Verdict]]:
    by_name: dict[str, list[Verdict]] = {}
    for verdict in found:
        by_name.setdefault(verdict.contrast.claim.name, []).append(verdict)
    return list(by_name.values())


def _groups(of_claim: Sequence[Verdict]) -> list[list[Verdict]]:
    """Verdicts of one status and direction, in the order of the statuses."""

    def key(verdict: Verdict) -> tuple[int, bool]:
        return STATUSES.index(verdict.status), verdict.status == "SUPPORTED" and verdict.effect < 0

    return [list(group) for _, group in groupby(sorted(of_claim, key=key), key=key)]


# The answer


def _tally(primary: Sequence[Verdict]) -> str:
    """`"Of 41 claims, 14 hold in every case, 9 in some, 1 is contradicted, 3 are negligible and 14 undecided."`."""
    counts = Counter(_standing({verdict.status for verdict in of_claim}) for of_claim in _by_claim(primary))
    words = {
        "all": ("holds in every case", "hold in every case"),
        "some": ("holds in some cases", "hold in some cases"),
        "CONTRADICTED": ("is contradicted", "are contradicted"),
        "NEGLIGIBLE": ("makes no meaningful difference", "make no meaningful difference"),
        "INCONCLUSIVE": ("is undecided", "are undecided"),
    }
    parts = [f"{counts[key]} {words[key][counts[key] != 1]}" for key in words if counts[key]]
    n = counts.total()
    return f"Of {n} {'claim' if n == 1 else 'claims'}, {_and(parts)}."


def _standing(statuses: set[Status]) -> str:
    if statuses == {"SUPPORTED"}:
        return "all"
    return "some" if "SUPPORTED" in statuses else next(status for status in STATUSES if status in statuses)


def _no_answer(asked: Sequence[Verdict]) -> str:
    """Why a study has no answer yet, or what is undecided."""
    n, needed = max(v.n for v in asked), max(v.contrast.claim.min_seeds for v in asked)
    if 0 < n < needed:
        return f"Too few seeds for an answer: {n} of at least {needed}."
    names = [of_claim[0].contrast.claim.quantity_name for of_claim in _by_claim(asked)]
    if n == 0:
        words = asked[0].reason.split()
        return f"No answer yet: {' '.join(words[:25]).rstrip(',;:')}{' ...' if len(words) > 25 else '.'}"
    return _fit(f"{_where(asked)}, undecided:", names, "")


def _yes_or_no(asked: Sequence[Verdict], question: str) -> str:
    """yes: the first claim holds in all its cases, most others do, and none is contradicted. no: none holds, and all
    cases are decided."""
    if not question.lower().startswith(YES_OR_NO) or any(v.contrast.claim.better == "either" for v in asked):
        return ""
    counts, first = Counter(v.status for v in asked), _by_claim(asked)[0]
    if not counts["SUPPORTED"]:
        return "" if counts["INCONCLUSIVE"] else "no"
    holds = all(v.status == "SUPPORTED" for v in first) and 2 * counts["SUPPORTED"] > len(asked)
    return "yes" if holds and not counts["CONTRADICTED"] else "partly"


def _where(asked: Sequence[Verdict]) -> str:
    """`"For this MLP on Digits"`, `"On 6 networks"`."""
    cases = {v.contrast.case.panel: v.contrast.case for v in asked}
    if len(cases) == 1:
        return f"For this {next(iter(cases))}"
    models, data = ({getattr(case, field) for case in cases.values()} for field in ("model", "data"))
    if len(models) == 1:
        return f"For this {models.pop()} on {len(data)} datasets"
    return f"On {len(models)} networks" + (f" and {len(data)} datasets" if len(data) > 1 else "")


def _results(asked: Sequence[Verdict]) -> tuple[list[str], str]:
    """What is decided of each claim, and what is not, in words."""
    decided, open_claims, some_open = list[str](), list[str](), False
    for of_claim in _by_claim(asked):
        groups = [group for group in _groups(of_claim) if group[0].status != "INCONCLUSIVE"]
        if not groups:
            open_claims.append(of_claim[0].contrast.claim.quantity_name)
            continue
        some_open |= sum(map(len, groups)) < len(of_claim)
        decided += [f"{_brief(group, named=True)}{_scope(len(group), of_claim)}" for group in groups]
    if not open_claims:
        return decided, "the rest undecided" if some_open else ""
    return decided, f"undecided: {', '.join(open_claims)}{', and the rest' if some_open else ''}"


def _fit(begin: str, results: Sequence[str], last: str) -> str:
    """The sentence with as many results as fit into `MOST_WORDS`, at least one, and how many more there are."""
    for kept in range(len(results), 0, -1):
        more = f" and {len(results) - kept} more" if kept < len(results) else ""
        sentence = f"{begin} {', '.join(results[:kept])}{more}{f'; {last}' if last else ''}."
        if len(sentence.split()) <= MOST_WORDS:
            return sentence
    head, *others = last.split(", ")
    return sentence if not others else _fit(begin, results, f"{head} and {len(others)} more")


# Effects and scopes


def _brief(group: Sequence[Verdict], named: bool = False) -> str:
    """`"2.1x to 2.9x fewer steps"`, `"no meaningful difference in dead ReLUs"`, `"undecided"`."""
    status, claim = group[0].status, group[0].contrast.claim
    if status == "NEGLIGIBLE":
        return "no meaningful difference" + (f" in {claim.quantity_name}" if named else "")
    return "undecided" if status == "INCONCLUSIVE" else _effects(group)


def _effects(group: Sequence[Verdict]) -> str:
    """The effects of verdicts with one direction: `"at least 2.1x fewer steps"`, `"1.2 to 3.4 points higher accuracy"`."""
    texts = [v.effect_words for v in sorted(group, key=lambda v: abs(v.effect))]
    if len(texts) == 1 or len({text.short for text in texts}) == 1:
        return texts[0].short
    kinds = {text.qualifier for text in texts} - {""}
    if len(kinds) == 1:
        end = texts[0] if kinds == {"at least"} else texts[-1]
        return f"{kinds.pop()} {end.unqualified}"
    return f"{texts[0].number} to {texts[-1].unqualified}"


def _largest(verdict: Verdict) -> str:
    """The end of the interval that is further from no effect: `"1.2 points"`, `"1.1x"`."""
    claim, ends = verdict.contrast.claim, (verdict.effect, verdict.low, verdict.high)
    if -verdict.low > verdict.high:
        ends = (-verdict.effect, -verdict.high, -verdict.low)
    bound = describe_numbers(claim, *ends)[1].rpartition(" ")[2]
    points = " points" if "percentage points" in claim.unit else ""
    return f"{bound}{'x' if claim.scale == 'log_ratio' else points}"


def _noun(of_claim: Sequence[Verdict]) -> str:
    cases = [v.contrast.case for v in of_claim]
    return (
        "networks"
        if len({case.panel for case in cases}) == len({case.model for case in cases}) == len(cases)
        else "cases"
    )


def _preposition(of_claim: Sequence[Verdict]) -> str:
    return " on " if _noun(of_claim) == "networks" else " in "


def _scope(n: int, of_claim: Sequence[Verdict]) -> str:
    """`" on 4 of 6 networks"`, `" in all 3 cases"`; empty for a single case."""
    total = len(of_claim)
    if total == 1:
        return ""
    return f"{_preposition(of_claim)}{f'all {total}' if n == total else f'{n} of {total}'} {_noun(of_claim)}"


def _count(group: Sequence[Verdict], primary: Sequence[Verdict]) -> str:
    """`"SUPPORTED on 5 (at least 1.5x fewer steps)"`."""
    status = group[0].status
    effect = f" ({_effects(group)})" if status in ("SUPPORTED", "CONTRADICTED") else ""
    return f"{status}{_preposition(primary)}{len(group)}{effect}"


# The two sentences of a claim with one case


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
    if c.view == "same_rate" and rates["with"]:
        return f"both at the learning rate {rates['with']}"
    if c.view == "fixed_rate" and rates["with"]:
        return f"at the only learning rate tried, {rates['with']}"
    if c.view != "best_rate":
        return c.view_name
    named = [f"{rates[side]} {_side_name(c.claim, side)}" for side in SIDES if rates[side]]
    each = "each at its best learning rate" if len(named) == 2 else "at its best learning rate"
    return f"{each}: {' and '.join(named)}" if named else each


def _side_name(claim: Claim, side: Side) -> str:
    """`"with BatchNorm"`, or `"with"` where the sides differ in something else or have several values."""
    values = claim.with_ if side == "with" else claim.without or {}
    other = claim.without if side == "with" else claim.with_
    norm = values.get("norm")
    differs = isinstance(norm, str) and (other or {}).get("norm") != norm
    return f"with {norm}" if differs and norm != "NoNorm" else side


def _what_it_means(verdict: Verdict) -> str:
    """The verdict against the smallest effect of interest."""
    claim, status = verdict.contrast.claim, verdict.status
    delta = describe_delta(claim, verdict.contrast.delta)
    if status == "INCONCLUSIVE":
        return f"{status} against the smallest effect of interest, {delta}: {verdict.reason}."
    if status == "NEGLIGIBLE":
        return f"{status}: the whole interval lies within {delta} of no difference, too small to matter."
    side = " against the claim" if status == "CONTRADICTED" else ""
    return f"{status}: the whole interval lies beyond the smallest effect of interest, {delta}{side}."


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
