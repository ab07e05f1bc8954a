"""Learning rates that a study still lacks: those around the best one of each family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bnstudy.claims.cases import cases
from bnstudy.claims.claim import Claim
from bnstudy.claims.contrasts import FinishedRuns
from bnstudy.claims.frames import StudyData


def fine_rates(study: StudyData, claims: Sequence[Claim]) -> dict[tuple[str, str], tuple[float, ...]]:
    """(panel, family) -> the learning rates 10^(1/4) around the best one, by the measure that a claim chooses it by.

    Empty where no claim compares at best rates, where the grid is not a fair one, or where it has these rates already.
    """
    finished, found = FinishedRuns(study), defaultdict[tuple[str, str], set[float]](set)
    chosen = set[tuple[object, ...]]()
    for _, specs in study.settings.groupby("panel", observed=True):
        for claim in claims:
            for case in (square for one in cases(claim, specs) for square in one.squares):
                sides = finished.sides(claim, case)
                if "best_rate" not in finished.views(claim, case) or any(runs.empty for runs in sides.values()):
                    continue
                own = (claim.metric, claim.share_of_target) if claim.measure.tuned_by == "lowest" else ()
                if (key := (case.panel, claim.measure.tuned_by, *own, case.with_, case.without)) in chosen:
                    continue
                chosen.add(key)
                for family, rates in finished.choose(claim, "best_rate", sides).fine_rates().items():
                    found[case.panel, family].update(rates)
    return {key: tuple(sorted(rates)) for key, rates in found.items() if rates}
