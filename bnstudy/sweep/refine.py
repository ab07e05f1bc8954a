"""The second pass of a study: finer learning rates around the best one of each family of the first pass."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bnstudy.claims.claim import Claim, load_claims
from bnstudy.claims.finer_rates import fine_rates
from bnstudy.claims.frames import NothingFinished, load_study
from bnstudy.claims.learning_rates import LEAST_RATES
from bnstudy.store.runs import SharedStore
from bnstudy.sweep.messages import plural
from bnstudy.sweep.request import PlannedRun, Request, join

MAX_NAMED = 5
"""So many incomplete families are named."""


def may_refine(request: Request, folders: Sequence[Path] = ()) -> bool:
    """Whether some study of the request has enough learning rates, and compares networks at their best ones.

    folders: with the user's own claims.

    Raises:
        ConfigError: as `load_claims`.
    """
    return any([bool(_claims_to_refine(member, folders)) for member in request.members or (request,)])  # noqa: C419, all are checked


def refine(request: Request, folders: Sequence[Path] = ()) -> Request:
    """The request with the finer learning rates, for all its seeds. They follow from the stored runs of the request.

    A family of which some run is not stored gets none, and a warning names it.
    """
    members = request.members or (request,)
    readers = Counter(run_id for member in members for run_id in {run.spec.run_id for run in member.runs})
    store = SharedStore(request.settings.results, readers)
    finer = [_refine_study(member, _claims_to_refine(member, folders), store) for member in members]
    return join(finer) if request.members else finer[0]


def _claims_to_refine(request: Request, folders: Sequence[Path]) -> list[Claim]:
    """The study's claims; none if its learning rates are too few, or no claim compares at the best ones."""
    claims = load_claims(request.study.claims, folders) if request.study else []
    enough = len({run.spec.lr for run in request.runs}) >= LEAST_RATES
    return claims if enough and any("best_rate" in claim.views for claim in claims) else []


def _refine_study(request: Request, claims: Sequence[Claim], store: SharedStore) -> Request:
    run_ids = {run.spec.run_id for run in request.runs}
    if not claims or not any(map(store.is_finished, run_ids)):
        store.release(run_ids)
        return request
    try:
        data = load_study(store, picked=run_ids)
    except NothingFinished:  # all are damaged; the results name them
        return request
    finally:
        store.release(run_ids)
    named = data.specs[["run_id", "panel", "family"]].itertuples(index=False)
    family_of = {run_id: (panel, family) for run_id, panel, family in named}
    incomplete = {family_of[run_id] for run_id in family_of.keys() - {*data.runs["run_id"]}}
    if incomplete:
        _warn_of(sorted(f"{family} ({panel})" for panel, family in incomplete))
    rates = {family: found for family, found in fine_rates(data, claims).items() if family not in incomplete}
    at_one_rate: dict[tuple[tuple[str, str], int], PlannedRun] = {}  # by family and seed, as in the command line
    for run in request.runs:
        if (family := family_of.get(run.spec.run_id)) in rates:
            at_one_rate.setdefault((family, run.spec.seed), run)
    most = max(map(len, rates.values()), default=0)
    fine = [
        at_rate(run, rates[family][i])
        for i in range(most)
        for (family, _), run in at_one_rate.items()
        if i < len(rates[family])
    ]
    return replace(request, runs=(*request.runs, *fine))


def at_rate(run: PlannedRun, rate: float) -> PlannedRun:
    """The run at another learning rate, also in its name."""
    name, arm = (re.sub(r"(?<!\S)lr=\S+", f"lr={rate:g}", text) for text in (run.name, run.arm))
    return PlannedRun(replace(run.spec, lr=float(rate)), name, arm)


def _warn_of(incomplete: Sequence[str]) -> None:
    named = ", ".join(incomplete[:MAX_NAMED])
    others = f" and {len(incomplete) - MAX_NAMED} more" if len(incomplete) > MAX_NAMED else ""
    logging.getLogger("bnstudy").warning(
        f"No finer learning rates for {named}{others}: some of their runs are not stored."
    )


def describe_second_pass(fine: Sequence[PlannedRun]) -> str:
    """What the second pass adds, in one sentence."""
    families = len({replace(run.spec, lr=1.0, seed=0).run_id for run in fine})
    around = f"each of {families} families" if families > 1 else "one family"
    return f"Second pass: finer learning rates around the best of {around}: {plural(len(fine), 'run')}."
