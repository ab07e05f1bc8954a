"""The verdicts of a report: for each contrast an interval, a p-value, and what follows from them.

The interval and the p-value are in `stats/means.py`; `decide` is the rule. A verdict is that of its case alone. Beside
it stands the p-value that is corrected for the number of cases in the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bnstudy.claims.claim import STATUSES, Claim, Status, load_claims
from bnstudy.claims.contrasts import ROUNDING, SIDES, Contrast, contrasts
from bnstudy.claims.effect_text import EffectText, describe_delta, describe_effect, describe_numbers
from bnstudy.claims.frames import StudyData
from bnstudy.stats.corrections import holm
from bnstudy.stats.intervals import effect_size
from bnstudy.stats.means import ALPHA
from bnstudy.stats.method import LOOKED_AT_ONCE, Method
from bnstudy.stats.outliers import LARGEST_SHARE, failure_interval, find_outlier
from bnstudy.stats.power import seeds_needed
from bnstudy.store.renames import FORMER_CLAIMS

__all__ = ["STATUSES", "Status", "Verdict", "as_json", "decide", "judge", "judge_all", "verdicts"]

WIDENED = "widened by a grid step"
"""Of an interval with slack: it is no 95% interval of the mean."""

COARSE = "the steps of the grid of learning rates are too coarse to tell"
ACROSS = "the interval reaches across the smallest effect of interest"
AT_BOUND = "some values are at the bound of what was measured, beyond which the sides may differ"
WORST = "some runs failed, and the worst value stands for them"
ONLY_BOUND = "some values are at the bound of what was measured, and the true effect may be smaller"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a contrast.

    effect, low, high: mean of the differences and its interval, widened by the slack; NaN for none.
    p: of the hypothesis that the verdict rejects, or comes closest to rejecting. p_holm: the same, corrected for the
        other cases of the report; NaN where no verdict was possible.
    n: number of differences.
    because: why the verdict is inconclusive, in words.
    may_settle: whether more seeds may settle it.
    more: how many would at 80% power; None where none are needed or would.
    """

    contrast: Contrast
    status: Status
    effect: float
    low: float
    high: float
    d_z: float
    p: float
    p_holm: float
    n: int
    because: str = ""
    may_settle: bool = False
    more: int | None = None

    @property
    def case(self) -> str:
        return self.contrast.case.name

    @property
    def survives(self) -> bool:
        """Whether the verdict stands after the correction for the number of cases in the report."""
        return self.status != "INCONCLUSIVE" and self.p_holm <= ALPHA

    @property
    def view(self) -> str:
        """`"each at its best, 1 with and 0.316 (12 seeds) or 0.562 (2) without"`."""
        c = self.contrast
        with_, without = (describe_rates(c.rates.get(side, {})) for side in SIDES)
        if not with_:
            return c.view_name
        if not without or c.view != "best_rate":
            return f"{c.view_name}, {with_}"
        names = [c.name_of(side).removesuffix(" it") for side in SIDES]
        return f"{c.view_name}, {with_} {names[0]} and {without} {names[1]}"

    @property
    def interval(self) -> str:
        """`"at least 2.9x (2.5 to 3.4, widened by a grid step)"`, the effect in the claim's unit; empty for none."""
        if not math.isfinite(self.effect):
            return ""
        number, bounds = describe_numbers(self.contrast.claim, self.effect, self.low, self.high)
        return f"{self.contrast.qualifier} {number}{f' ({bounds}{self._widened})' if bounds else ''}".strip()

    @property
    def effect_words(self) -> EffectText:
        """The effect in words, with its direction."""
        c = self.contrast
        words = describe_effect(c.claim, self.effect, self.low, self.high, c.qualifier)
        return replace(words, bounds=f"{words.bounds}{self._widened}" if words.bounds else "")

    @property
    def _widened(self) -> str:
        return f", {WIDENED}" if self.contrast.slack > 0 else ""

    @property
    def effect_text(self) -> str:
        """`"12x the learning rate (8.1 to 15)"`; a dash for none."""
        return self.effect_words.full if self.interval else "-"

    @property
    def image_error(self) -> str:
        """`"0.31 (standard error of the 359 test images), after 200 steps"`; empty for metrics of other images."""
        c = self.contrast
        if not c.claim.measure.images or not self.interval:
            return ""
        if not math.isfinite(c.image_error):
            return "unknown: these runs did not record which test images they got right"
        after = f", after {c.steps} steps" if c.steps else ""
        of = ", for the accuracies at the end" if c.claim.measure.images == "final" else ""
        return f"{c.image_error:.2g} (standard error of the {c.images} test images{of}){after}"

    @property
    def reason(self) -> str:
        """Why the verdict is inconclusive, and how many more seeds would settle it."""
        if self.more is None:
            return self.because
        missing, about = self.contrast.claim.min_seeds - self.n, int(float(f"{self.more:.2g}"))
        if missing <= 0:
            return f"{self.because}; about {about} more {'seed' if about == 1 else 'seeds'} would settle it"
        rest = f", about {about} to settle it" if self.more > missing else ""
        return f"{self.because}: {missing} more {'is' if missing == 1 else 'are'} needed{rest}"

    @property
    def result(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        images = f"; {self.image_error}" if math.isfinite(self.contrast.image_error) and self.image_error else ""
        seeds = f"{self.n} {'seed' if self.n == 1 else 'seeds'}"
        return f"{self.case}, {self.view}: {self.effect_text}, {seeds}{images}{reason}."

    @property
    def sentence(self) -> str:
        """For the terminal."""
        return f"{self.status}: {self.contrast.claim.statement} {self.result}"


def describe_rates(rates: Mapping[float, int]) -> str:
    """`"0.316 (12 seeds) or 0.562 (2)"`, the most frequent first; a single rate without its count."""
    if len(rates) == 1:
        return f"{next(iter(rates)):g}"
    ordered = sorted(rates.items(), key=lambda item: (-item[1], item[0]))
    return " or ".join(f"{rate:g} ({n}{' seeds' * (i == 0)})" for i, (rate, n) in enumerate(ordered))


def verdicts(study: StudyData, folders: Sequence[Path] = ()) -> list[Verdict]:
    """The verdicts on all claims of the study; ConfigError as `load_claims`."""
    claims = load_claims(study.claims, folders)
    return judge_all([contrast for claim in claims for contrast in contrasts(study, claim)])


def judge_all(every: Iterable[Contrast]) -> list[Verdict]:
    """The verdicts, with p-values corrected for their number (Holm 1979), and open where another claim is required.

    Contrasts that are the same test count once; those that have no verdict do not count.
    """
    found = [judge(contrast) for contrast in every]
    tested = {v.contrast.test_key: v.p for v in found if is_tested(v)}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    found = [replace(v, p_holm=corrected[v.contrast.test_key] if is_tested(v) else math.nan) for v in found]
    return [check_required(v, found) for v in found]


def is_tested(verdict: Verdict) -> bool:
    return not verdict.contrast.obstacle and verdict.n >= verdict.contrast.claim.min_seeds


def judge(contrast: Contrast) -> Verdict:
    """The verdict on a contrast by itself: the interval of the mean difference, and the rule of `decide`.

    INCONCLUSIVE with an obstacle or too few seeds. Where one seed decides, SUPPORTED and NEGLIGIBLE are withheld;
    NEGLIGIBLE also where a value is at a bound, or where it could not be otherwise; SUPPORTED and CONTRADICTED also
    where values are at a bound beyond which the effect is smaller.
    """
    c, claim, d = contrast, contrast.claim, contrast.d.to_numpy(float)
    finite = len(d) > 0 and bool(np.isfinite(d).all())
    low, high = c.method.interval(d)
    status, p = decide(d, c.threshold, c.slack, c.method)
    may_be_smaller = {"SUPPORTED": -1, "CONTRADICTED": 1}.get(status) in c.directions
    status = "SUPPORTED" if claim.better == "either" and status == "CONTRADICTED" else status
    because, may_settle = "", False
    obstacle = c.obstacle or ("some difference is not a number" if len(d) and not finite else "")
    if obstacle:
        because, may_settle = obstacle, c.may_pass
    elif len(d) < claim.min_seeds:
        because, may_settle = f"{len(d)} of at least {claim.min_seeds} seeds", True
    elif status == "INCONCLUSIVE":
        too_coarse = is_too_coarse(low, high, c.threshold, c.slack)
        because, may_settle = COARSE if too_coarse else one_seed_decides(c) or ACROSS, not too_coarse
    elif status in ("SUPPORTED", "NEGLIGIBLE") and (because := one_seed_decides(c)):
        may_settle = True
    elif may_be_smaller:
        because = ONLY_BOUND
    elif status == "NEGLIGIBLE":
        kinds = {bound for _, bound in c.bounds}
        because = AT_BOUND if kinds - {"worst"} else WORST if kinds else near_floor(c)
    counts = because == ACROSS or (len(d) < claim.min_seeds and not obstacle)
    return Verdict(
        contrast, "INCONCLUSIVE" if because else status, float(d.mean()) if finite else math.nan,
        claim.end(low - c.slack), claim.end(high + c.slack), effect_size(d), p, p, len(d), because, may_settle,
        more=_seeds_to_add(c) if counts else None,
    )  # fmt: skip


def decide(d: ArrayLike, delta: float, slack: float = 0.0, method: Method = LOOKED_AT_ONCE) -> tuple[Status, float]:
    """The rule: a status, and the p-value of the hypothesis that it rejects or comes closest to rejecting.

    SUPPORTED rejects an effect <= delta, CONTRADICTED an effect >= -delta, NEGLIGIBLE an |effect| >= delta by two
    one-sided tests (Schuirmann 1987). Each does so where the interval, widened by `slack`, lies beyond delta or within.
    """
    minus = -np.asarray(d, float)
    within = max(method.p_above(d, slack - delta), method.p_above(minus, slack - delta))
    p: dict[Status, float] = {
        "SUPPORTED": method.p_above(d, delta + slack),
        "CONTRADICTED": method.p_above(minus, delta + slack),
        "NEGLIGIBLE": within if slack < delta else 1.0,
    }
    status = min(p, key=p.__getitem__)
    return status if p[status] <= ALPHA else "INCONCLUSIVE", p[status]


def is_too_coarse(low: float, high: float, delta: float, slack: float) -> bool:
    """Whether the interval, before `slack` widens it, is so close to delta that no number of seeds would settle it."""
    return slack > 0 and delta - slack <= max(low, -high, 0.0) and max(high, -low) <= delta + slack


def one_seed_decides(c: Contrast) -> str:
    """Why the interval is not to be trusted; empty where it is."""
    outlier = find_outlier(c.d)
    if outlier is None or float((c.d - c.d.median()).abs().max()) <= c.slack * ROUNDING:
        return ""  # within a step of the grid, by which the interval is widened
    why = f"few seeds decide, as the skew of the differences is {outlier.skew:.2g}"
    if outlier.share > LARGEST_SHARE:
        why = f"one seed decides, as seed {c.d.index[outlier.index]} carries {outlier.share:.0%} of the variance"
    counts = [(c.name_of(side), c.failed[side]) for side in SIDES if c.failed.get(side, (0,))[0]]
    failures = [f"{name} {describe_failures(*count)}" for name, count in counts]
    return f"{why} (failed: {'; '.join(failures)})" if failures else why


def describe_failures(failed: int, n: int) -> str:
    """`"1 of 14 runs, 0.2% to 33.9%"`, with the exact interval of the rate."""
    low, high = failure_interval(failed, n)
    return f"{failed} of {n} runs, {low:.1%} to {high:.1%}"


def near_floor(c: Contrast) -> str:
    """Why no effect of interest is possible: both sides are within delta of the smallest value there is."""
    floor, (with_, without) = c.claim.measure.floor, c.means
    if floor is None or max(with_, without) - floor >= c.threshold:
        return ""
    unit = "%" if "percentage points" in c.claim.unit else ""
    names = c.name_of("with"), c.name_of("without").removesuffix(" it")
    values = f"{with_:.2g}{unit} {names[0]} and {without:.2g}{unit} {names[1]}"
    delta = describe_delta(c.claim, c.delta)
    return f"there are few {c.claim.quantity_name} on either side, {values}, so they cannot differ by {delta}"


def check_required(verdict: Verdict, found: Sequence[Verdict]) -> Verdict:
    """The verdict, or INCONCLUSIVE where a claim that it requires has another status."""
    if verdict.status == "INCONCLUSIVE":
        return verdict
    for name, allowed in verdict.contrast.claim.requires.items():
        required = find_required(verdict, name, found)
        has = f"is {required.status}" if required else "has no verdict here"
        if required is None or required.status not in allowed:
            because = f"the question only arises where {name} is {' or '.join(allowed)}, and it {has}"
            return replace(verdict, status="INCONCLUSIVE", because=because)
    return verdict


def find_required(verdict: Verdict, name: str, found: Sequence[Verdict]) -> Verdict | None:
    """The verdict on a claim about some of the same families, in the same view if it has that."""
    case = verdict.contrast.case
    fitting = [
        v
        for v in found
        if v.contrast.claim.name == FORMER_CLAIMS.get(name, name)
        and v.contrast.study == verdict.contrast.study
        and v.contrast.case.panel == case.panel
        and v.contrast.case.families <= case.families
    ]
    same = [v for v in fitting if v.contrast.view == verdict.contrast.view]
    return next(iter([*same, *fitting]), None)


def _seeds_to_add(c: Contrast) -> int | None:
    needed = seeds_needed(c.d, c.threshold, c.slack, c.method.critical) or 0
    return max(0, max(c.claim.min_seeds, needed) - len(c.d)) or None


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The content of `claims.json`: numbers in full, null for none."""
    return [_entry(verdict) for verdict in found]


def _entry(v: Verdict) -> dict[str, Any]:
    c, claim = v.contrast, v.contrast.claim
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "caveats": list(claim.caveats),
        "study": c.study,
        "metric": claim.metric,
        "better": claim.better,
        "scale": claim.scale,
        "model": c.case.model,
        "data": c.case.data,
        "setting": c.case.setting,
        "view": c.view,
        "primary": c.is_primary,
        "lr_with": or_none(c.rate_of("with")),
        "lr_without": or_none(c.rate_of("without")),
        "seeds_by_lr": {side: {f"{rate:g}": n for rate, n in rates.items()} for side, rates in c.rates.items()},
        "grids": {side: list(grid) for side, grid in c.grids.items()},
        "mean_with": or_none(c.means[0]),
        "mean_without": or_none(c.means[1]),
        "status": v.status,
        "survives_holm": v.survives,
        "effect_is": c.qualifier,
        "effect": _in_unit(claim, v.effect),
        "effect_at_one_rate": _in_unit(claim, c.at_one_rate),
        "ci_low": _in_unit(claim, v.low),
        "ci_high": _in_unit(claim, v.high),
        "interval_is": f"95%, {WIDENED}" if c.slack > 0 else "95%",
        "unit": claim.unit,
        "opposite": claim.opposite,
        "threshold": c.delta,
        "slack": or_none(c.slack),
        "steps": c.steps or None,
        "image_error": or_none(c.image_error),
        "n_images": c.images or None,
        "failed": {side: {"runs": n, "failed": lost} for side, (lost, n) in c.failed.items()},
        "n_seeds": v.n,
        "p": v.p,
        "p_holm": or_none(v.p_holm),
        "d_z": or_none(v.d_z),
        "more_seeds": v.more,
        "because": v.because,
        "seeds": [int(seed) for seed in c.d.index],
        "differences": [or_none(float(d)) for d in c.d],
        "run_ids": list(c.run_ids),
    }


def _in_unit(claim: Claim, difference: float) -> float | None:
    """None for what is not finite: a ratio of it would pass for a number."""
    return claim.in_unit(difference) if math.isfinite(difference) else None


def or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
