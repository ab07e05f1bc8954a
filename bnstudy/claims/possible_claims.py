"""The claims that a report without a study judges: all that its runs can answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnstudy.claims.cases import Case, cases
from bnstudy.claims.claim import Claim, find_claims, load_claims
from bnstudy.claims.contrasts import Contrast, FinishedRuns
from bnstudy.claims.frames import StudyData
from bnstudy.store.files import conf_dir

MOST_CASES = 100
"""With more cases a report is slow to draw and hard to read."""


def possible_contrasts(study: StudyData, folders: Sequence[Path] = ()) -> tuple[list[Contrast], list[str]]:
    """The contrasts of all claims that have a case and a measured metric, and a caution if there are too many cases.

    Nobody chose the claims for these runs: one that they cannot answer is left out, where in a study it would be
    inconclusive.

    Args:
        folders: with claims of the user's own.

    Raises:
        ConfigError: as `load_claims`.
    """
    finished, recorded = FinishedRuns(study), {*study.metrics["metric"].unique()}
    claims = load_claims(sorted(find_claims([*folders, conf_dir() / "claim"])), folders)
    measured = [claim for claim in claims if {*claim.measure.names} <= recorded]
    possible = [
        (claim, case)
        for _, specs in study.settings.groupby("panel", observed=True)
        for claim in measured
        for case in cases(claim, specs)
        if can_be_judged(finished, claim, case)
    ]
    if len(possible) > MOST_CASES:
        n_claims = len({claim.name for claim, _ in possible})
        return [], [
            f"No verdicts: these runs make {len(possible)} cases of {n_claims} claims, and a report without a study "
            f"judges at most {MOST_CASES}. Draw the report on a study, or keep sweeps apart by results_dir."
        ]
    every = (finished.contrast(claim, case, view) for claim, case in possible for view in finished.views(claim, case))
    return [contrast for contrast in every if contrast.d.notna().any()], []


def can_be_judged(finished: FinishedRuns, claim: Claim, case: Case) -> bool:
    """Whether the case has what the metric is about: several learning rates, or several families a side."""
    if claim.measure.kind == "of_family":
        return not finished.has_single_rate(case)
    return not claim.over or min(len(case.with_), len(case.without or case.with_)) > 1
