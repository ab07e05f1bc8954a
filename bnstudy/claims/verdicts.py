"""The verdicts of a report: for each contrast an interval, a test, and what follows from them.

`judge` computes the interval; `decide` is the rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from bnstudy.claims.claim import Claim, load_claims
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import StudyData
from bnstudy.stats.intervals import effect_size
from bnstudy.stats.power import seeds_needed
from bnstudy.stats.tests import ALPHA, holm
from bnstudy.store.files import conf_dir

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


def verdicts(study: StudyData, folders: Sequence[Path] = ()) -> list[Verdict]:
    """The verdicts on all claims that the study bears on, corrected together. folders: with claims of the user's own.

    Raises:
        ConfigError: a claim is not known, or its file is not a claim.
    """
    claims = claims_named(study.claims, folders)
    return judge_all([contrast for claim in claims for contrast in contrasts(study, claim)])


def claims_named(names: Sequence[str], folders: Sequence[Path]) -> list[Claim]:
    """The claims with these names, those of the user's folders first.

    Raises:
        ConfigError: a claim is not known, or its file is not a claim.
    """
    return load_claims(names, [*folders, conf_dir() / "claim"])


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
    needed = seeds_needed(c.d.to_numpy(float), c.threshold, c.slack, c.method.critical) or 0
    needed = max(c.claim.min_seeds, needed)
    return needed - len(c.d) if needed > len(c.d) else None


def side_means(c: Contrast) -> tuple[float, float]:
    """Means of the metric in its own unit, with and without: geometric ones for ratios, NaN for none."""
    if c.values.empty:
        return math.nan, math.nan
    with_, without = (_mean(c.values[side].astype(float), c.claim.scale == "log_ratio") for side in ("with", "without"))
    return with_, without


def _mean(values: pd.Series, geometric: bool) -> float:
    return float(np.exp(np.log(values).mean())) if geometric and (values > 0).all() else float(values.mean())


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """The content of `claims.json`: numbers in full, null for none."""
    return [_entry(verdict) for verdict in found]


def _entry(v: Verdict) -> dict[str, Any]:
    c, claim = v.contrast, v.contrast.claim
    rates, means = c.rates or (math.nan, math.nan), side_means(c)
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
        "lr_with": or_none(rates[0]),
        "lr_without": or_none(rates[1]),
        "mean_with": or_none(means[0]),
        "mean_without": or_none(means[1]),
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
