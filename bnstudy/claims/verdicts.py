"""The verdicts of a report: for each contrast an interval, a test, and what follows from them.

The interval and the test are in `stats/method.py`; `decide` is the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bnstudy.claims.claim import load_claims
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import StudyData
from bnstudy.stats.intervals import effect_size
from bnstudy.stats.power import seeds_needed
from bnstudy.stats.tests import ALPHA, holm

Status = Literal["SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE"]
STATUSES: tuple[Status, ...] = ("SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE")

COARSE = "the steps of the grid of learning rates are too coarse to tell"
ACROSS = "the interval reaches across the smallest effect of interest"
CAPPED = "some seed has both at the bound of what was measured, beyond which they may differ"


@dataclass(frozen=True)
class Verdict:
    """The verdict on a contrast.

    effect, low, high: mean of the differences and its interval, widened by the slack; NaN for none.
    p, p_holm: of the test, and adjusted for the other contrasts of the report.
    n: number of differences.
    more: how many more seeds would settle an inconclusive verdict at 80% power; None where none are needed or would.
    because: why the verdict is inconclusive, in words.
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
    more: int | None = None
    because: str = ""

    @property
    def case(self) -> str:
        return self.contrast.case.name

    @property
    def view(self) -> str:
        """`"each at its best, 1 with and 0.316 without"`."""
        name, (with_, without) = self.contrast.view_name, self.contrast.rates
        if self.contrast.view == "same_rate" and not math.isnan(without):
            return f"{name}, {without:g}"
        if self.contrast.view == "best_rate" and not (math.isnan(with_) or math.isnan(without)):
            return f"{name}, {with_:g} with and {without:g} without"
        return name

    @property
    def interval(self) -> str:
        """`"12.3 (8.1 to 15.2)"`, the effect in the claim's unit; empty for none."""
        if not math.isfinite(self.effect):
            return ""
        mean, low, high = (f"{self.contrast.claim.in_unit(v):.3g}" for v in (self.effect, self.low, self.high))
        return f"{mean} ({low} to {high})" if math.isfinite(self.low) and math.isfinite(self.high) else mean

    @property
    def effect_text(self) -> str:
        """`"12.3 (8.1 to 15.2) times the learning rate"`; a dash for none."""
        return f"{self.interval} {self.contrast.claim.unit}" if self.interval else "-"

    @property
    def reason(self) -> str:
        """Why the verdict is inconclusive, and how many more seeds would settle it."""
        if self.more is None:
            return self.because
        missing = self.contrast.claim.min_seeds - self.n
        if missing <= 0:
            return f"{self.because}; about {self.more} more {'seed' if self.more == 1 else 'seeds'} would settle it"
        rest = f", about {self.more} to settle it" if self.more > missing else ""
        return f"{self.because}: {missing} more {'is' if missing == 1 else 'are'} needed{rest}"

    @property
    def result(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return f"{self.case}, {self.view}: {self.effect_text}, {self.n} {'seed' if self.n == 1 else 'seeds'}{reason}."

    @property
    def sentence(self) -> str:
        """For the terminal."""
        return f"{self.status}: {self.contrast.claim.statement} {self.result}"


def verdicts(study: StudyData, folders: Sequence[Path] = ()) -> list[Verdict]:
    """The verdicts on all claims of the study, corrected together; ConfigError as `load_claims`."""
    claims = load_claims(study.claims, folders)
    return judge_all([contrast for claim in claims for contrast in contrasts(study, claim)])


def judge_all(every: Iterable[Contrast]) -> list[Verdict]:
    """The verdicts, their p-values corrected together (Holm). Contrasts that are the same test count once."""
    every = list(every)
    p = {c.test_key: c.method.p(c.d.to_numpy()) for c in every if len(c.d)}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return [judge(c, adjusted.get(c.test_key)) for c in every]


def judge(contrast: Contrast, p_holm: float | None = None) -> Verdict:
    """The verdict on a contrast: the interval of the mean difference, the test, and the rule of `decide`.

    Contrasts with an obstacle or too few seeds are INCONCLUSIVE.

    Args:
        p_holm: the test's p after correction; that of the test itself by default.
    """
    c, claim, d = contrast, contrast.claim, contrast.d.to_numpy(float)
    finite = len(d) > 0 and bool(np.isfinite(d).all())
    p, (low, high) = c.method.p(d), c.method.interval(d)
    p_holm = p if p_holm is None else p_holm
    obstacle = c.obstacle or ("some difference is not a number" if len(d) and not finite else "")
    status: Status = "INCONCLUSIVE"
    because = obstacle or (f"{len(d)} of at least {claim.min_seeds} seeds" if len(d) < claim.min_seeds else "")
    if not because:
        status, because = decide(low, high, c.threshold, p_holm, c.slack, c.capped, c.method.test)
        status = "SUPPORTED" if claim.better == "either" and status == "CONTRADICTED" else status
    more = None if obstacle or because in ("", COARSE, CAPPED) else _seeds_to_add(contrast)
    effect = float(d.mean()) if finite else math.nan
    bounds = low - c.slack, high + c.slack
    return Verdict(contrast, status, effect, *bounds, effect_size(d), p, p_holm, len(d), more, because)


def decide(
    low: float, high: float, delta: float, p: float, slack: float = 0.0, capped: bool = False, test: str = "test"
) -> tuple[Status, str]:
    """The rule: a status, and the reason if it is INCONCLUSIVE.

    SUPPORTED if the interval lies above delta, CONTRADICTED if below -delta, both only if the test rejects at 5%, too;
    NEGLIGIBLE if the interval lies within (-delta, delta), unless values are capped; else INCONCLUSIVE.

    Args:
        low, high: the interval, which `slack` widens.
        p: of the test, after correction.
    """
    beyond, within = max(low, -high), max(high, -low)
    if within + slack < delta:
        return ("INCONCLUSIVE", CAPPED) if capped else ("NEGLIGIBLE", "")
    if beyond - slack > delta:
        if p > ALPHA:
            return "INCONCLUSIVE", f"the {test} does not reject (p = {p:.2g} after correction)"
        return ("SUPPORTED" if low > 0 else "CONTRADICTED"), ""
    return "INCONCLUSIVE", COARSE if is_too_coarse(low, high, delta, slack) else ACROSS


def is_too_coarse(low: float, high: float, delta: float, slack: float) -> bool:
    """Whether the interval, before `slack` widens it, is so close to delta that no number of seeds would settle it."""
    return delta - slack <= max(low, -high, 0.0) and max(high, -low) <= delta + slack


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
        "lr_with": or_none(c.rates[0]),
        "lr_without": or_none(c.rates[1]),
        "mean_with": or_none(c.means[0]),
        "mean_without": or_none(c.means[1]),
        "status": v.status,
        "effect": or_none(claim.in_unit(v.effect)),
        "ci_low": or_none(claim.in_unit(v.low)),
        "ci_high": or_none(claim.in_unit(v.high)),
        "unit": claim.unit,
        "threshold": c.delta,
        "n_seeds": v.n,
        "p": v.p,
        "p_holm": v.p_holm,
        "d_z": or_none(v.d_z),
        "more_seeds": v.more,
        "because": v.because,
        "seeds": [int(seed) for seed in c.d.index],
        "differences": [or_none(float(d)) for d in c.d],
        "run_ids": list(c.run_ids),
    }


def or_none(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
