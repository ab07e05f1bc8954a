"""The results in sentences: the answer of a report, and the title and summary of each claim."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bnstudy.claims.verdicts import STATUSES, Verdict


def answer(found: Sequence[Verdict]) -> str:
    """The answer to the question of a study, in one sentence, from the verdicts on all of its claims."""
    primary = [verdict for verdict in found if verdict.contrast.is_primary]
    return f"{', '.join(f'{status} in {n}' for status, n in count_statuses(primary))}."


def claim_title(of_claim: Sequence[Verdict]) -> str:
    """The result of one claim as a title."""
    return of_claim[0].contrast.claim.statement


def claim_sentences(of_claim: Sequence[Verdict]) -> list[str]:
    """The result of one claim in its primary view, in two sentences: how large, and how it was compared."""
    primary = [verdict for verdict in of_claim if verdict.contrast.is_primary]
    if len(primary) == 1:
        return [f"{primary[0].status}: {primary[0].result}"]
    view = " or ".join(dict.fromkeys(verdict.contrast.view_name for verdict in primary))
    counts = ", ".join(f"{status} in {n}" for status, n in count_statuses(primary))
    return [f"Of {len(primary)} cases, {view}: {counts}."]


def count_statuses(verdicts: Sequence[Verdict]) -> list[tuple[str, int]]:
    """The statuses that occur, and how often."""
    counts = Counter(verdict.status for verdict in verdicts)
    return [(status, counts[status]) for status in STATUSES if counts[status]]
