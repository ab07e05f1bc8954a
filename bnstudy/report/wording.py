"""The results in sentences: the answer of a report, and the title and summary of each claim.

An inconclusive case is named, and its number is never stated as a finding.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from bnstudy.claims.claim import STATUSES, Status
from bnstudy.claims.verdicts import Verdict
from bnstudy.report.explanation import claim_sentences
from bnstudy.report.phrases import (
    describe_effects,
    describe_result,
    group_by_claim,
    group_by_result,
    largest_end,
    noun_of,
    preposition,
    primary_of,
    scope,
    shorten,
)
from bnstudy.store.renames import FORMER_CLAIMS

__all__ = ["answer", "claim_sentences", "claim_title", "count_statuses"]

MOST_WORDS = 35
"""Of an answer: what does not fit is counted."""

YES_OR_NO = re.compile(r"(do|does|is|are|can) (?!.*\b(and|or) (do|does|is|are|can) )", re.IGNORECASE)
"""A question that yes, no or partly answers: one, not two."""


def answer(found: Sequence[Verdict], question: str = "") -> str:
    """The answer to the question of a study, in one sentence, from the verdicts on its claims in their primary view.

    It says yes, no or partly where the question allows that and every claim has a direction. Of several studies: how
    many claims hold.
    """
    primary = primary_of(found)
    if len({verdict.contrast.study for verdict in primary}) > 1:
        return _tally(primary)
    asked = _without_checks(primary)
    if not asked:
        return "This study judges no claim: its findings say what was measured."
    if all(verdict.status == "INCONCLUSIVE" for verdict in asked):
        return _no_answer(asked)
    decided, undecided = _results(asked)
    word = _yes_or_no(asked, question)
    return _fit(f"{_where(asked)}{f', {word}' if word else ''}:", decided, undecided)


def claim_title(of_claim: Sequence[Verdict]) -> str:
    """The result of one claim as a title: `"BatchNorm reaches the same accuracy in 2.9x fewer steps"`."""
    primary = primary_of(of_claim)
    first, *others = group_by_result(primary)
    texts = [describe_result(group) for group in (first, *others)]
    rest = [
        f"{shorten(text, before)}{preposition(primary)}{len(group)}"
        for before, text, group in zip(texts, texts[1:], others, strict=False)
    ]
    title = "; ".join([_headline(first, primary), *rest])
    return title[:1].upper() + title[1:]


def _headline(group: Sequence[Verdict], primary: Sequence[Verdict]) -> str:
    """The title of the verdicts of one status and direction among all of a claim."""
    claim, status, where = group[0].contrast.claim, group[0].status, scope(group, primary)
    if status == "INCONCLUSIVE":
        return f"undecided{where} whether {_lower(claim.statement.rstrip('.'))}"
    if status == "NEGLIGIBLE":
        most = f": at most {largest_end(group[0])}" if len(primary) == 1 else where
        return f"no meaningful difference in {claim.quantity_name}{most}"
    if claim.title:
        return f"{claim.title.replace('{effect}', describe_effects(group))}{where}"
    if status == "CONTRADICTED":
        return f"against the claim: {describe_effects(group)}{where}"
    about = claim.quantity_name if claim.better == "either" else claim.statement.rstrip(".")
    return f"{about}: {describe_effects(group)}{where}"


def _lower(sentence: str) -> str:
    """With a small first letter, unless the first word is a name such as SGD."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() or sentence[1:2] == " " else sentence


def count_statuses(verdicts: Iterable[Verdict]) -> list[tuple[Status, int]]:
    """The statuses that occur, and how often."""
    counts = Counter(verdict.status for verdict in verdicts)
    return [(status, counts[status]) for status in STATUSES if counts[status]]


def _without_checks(found: Sequence[Verdict]) -> list[Verdict]:
    """Without the claims that others of the study only require: they check the experiment."""
    required = {FORMER_CLAIMS.get(name, name) for verdict in found for name in verdict.contrast.claim.requires}
    return [verdict for verdict in found if verdict.contrast.claim.name not in required]


# The answer


def _tally(primary: Sequence[Verdict]) -> str:
    """`"Of 41 claims, 14 hold in every case, 9 hold in some cases, 1 is contradicted and 17 are undecided."`."""
    counts = Counter(_standing({verdict.status for verdict in of_claim}) for of_claim in group_by_claim(primary))
    words = {
        "SUPPORTED": ("holds in every case", "hold in every case"),
        "some SUPPORTED": ("holds in some cases", "hold in some cases"),
        "both": (
            "holds in some cases and is contradicted in others",
            "hold in some cases and are contradicted in others",
        ),
        "CONTRADICTED": ("is contradicted", "are contradicted"),
        "some CONTRADICTED": ("is contradicted in some cases", "are contradicted in some cases"),
        "NEGLIGIBLE": ("makes no meaningful difference", "make no meaningful difference"),
        "some NEGLIGIBLE": (
            "makes no meaningful difference in some cases",
            "make no meaningful difference in some cases",
        ),
        "INCONCLUSIVE": ("is undecided", "are undecided"),
    }
    parts = [f"{counts[key]} {words[key][counts[key] != 1]}" for key in words if counts[key]]
    n = counts.total()
    return f"Of {n} {'claim' if n == 1 else 'claims'}, {_and(parts)}."


def _standing(statuses: set[Status]) -> str:
    """The first of the statuses in their order; with "some" where there are others; "both" where they are opposite."""
    if {"SUPPORTED", "CONTRADICTED"} <= statuses:
        return "both"
    first = next(status for status in STATUSES if status in statuses)
    return first if len(statuses) == 1 else f"some {first}"


def _no_answer(asked: Sequence[Verdict]) -> str:
    """Why a study has no answer yet, or what is undecided."""
    n, needed = max(v.n for v in asked), max(v.contrast.claim.min_seeds for v in asked)
    if 0 < n < needed:
        return f"Too few seeds for an answer: {n} of at least {needed}."
    names = [of_claim[0].contrast.claim.quantity_name for of_claim in group_by_claim(asked)]
    if n == 0:
        words = asked[0].reason.split()
        return f"No answer yet: {' '.join(words[:25]).rstrip(',;:')}{' ...' if len(words) > 25 else '.'}"
    return _fit(f"{_where(asked)}, undecided:", names)


def _yes_or_no(asked: Sequence[Verdict], question: str) -> str:
    """yes: the first claim holds in all its cases, most others do, and none is contradicted. no: none holds, and all
    cases are decided."""
    if not YES_OR_NO.match(question) or any(v.contrast.claim.better == "either" for v in asked):
        return ""
    counts, first = Counter(v.status for v in asked), group_by_claim(asked)[0]
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


def _results(asked: Sequence[Verdict]) -> tuple[list[str], list[str]]:
    """What is decided of each claim, effects first and of these what is contradicted, as the end may be left out; and
    what is not decided, in words and in fewer words."""
    effects, negligible, open_claims, some_open = list[str](), list[str](), list[str](), False
    on_networks = len({v.contrast.case.panel for v in asked}) > 1
    for of_claim in sorted(group_by_claim(asked), key=lambda of: all(v.status != "CONTRADICTED" for v in of)):
        groups = [group for group in group_by_result(of_claim) if group[0].status != "INCONCLUSIVE"]
        groups.sort(key=lambda group: group[0].status != "CONTRADICTED")
        if not groups:
            open_claims.append(of_claim[0].contrast.claim.quantity_name)
            continue
        some_open |= sum(map(len, groups)) < len(of_claim)
        before = ""
        for i, group in enumerate(groups):
            known = i > 0 or (on_networks and noun_of(of_claim) == "networks" and len(group) < len(of_claim))
            where = f"{preposition(of_claim)}{len(group)}" if known else scope(group, of_claim)
            if group[0].status == "NEGLIGIBLE":
                begin = "in" if negligible else "no meaningful difference in"
                negligible.append(f"{begin} {group[0].contrast.claim.quantity_name}{where}")
            else:
                effect = describe_effects(group)
                effects.append(f"{shorten(effect, before)}{where}")
                before = effect
    rest = ["the rest undecided"] if some_open or open_claims else []
    if open_claims:
        rest = [f"undecided: {', '.join(open_claims)}{', and the rest' if some_open else ''}", *rest]
    return [*effects, *negligible], rest


def _fit(begin: str, results: Sequence[str], last: Sequence[str] = ()) -> str:
    """The sentence with as many results as fit into `MOST_WORDS`, at least one, and how many more there are.

    last: what ends it, in words and in fewer words.
    """
    for kept in range(len(results), 0, -1):
        left = len(results) - kept
        more = f", and {left} more {'result' if left == 1 else 'results'}" if left else ""
        for end in [f"; {words}" for words in last] or [""]:
            sentence = f"{begin} {', '.join(results[:kept])}{more}{end}."
            if len(sentence.split()) <= MOST_WORDS:
                return sentence
    return sentence


def _and(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
