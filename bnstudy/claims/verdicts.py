"""The verdicts of a report: what was found on each claim, for each network and dataset and view."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.claims.claim import Claim, load_claims
from bnstudy.claims.contrasts import Contrast, contrasts
from bnstudy.claims.frames import StudyData
from bnstudy.claims.judge import Judged, judge
from bnstudy.stats.method import LOOKED_AT_ONCE, Method
from bnstudy.stats.sequential import anytime
from bnstudy.stats.tests import holm
from bnstudy.store.files import conf_dir

STATUSES = ("SUPPORTED", "CONTRADICTED", "NEGLIGIBLE", "INCONCLUSIVE")


@dataclass(frozen=True)
class Verdict:
    """One claim on one pair in one view. study: the name of the one whose runs it rests on."""

    contrast: Contrast
    judged: Judged
    study: str = ""

    @property
    def is_primary(self) -> bool:
        """Whether the view is the one that the claim is told by."""
        return self.contrast.view == self.contrast.claim.views[0]


@dataclass(frozen=True)
class VerdictRow:
    """A verdict as tables show it: texts, but for the number of seeds.

    effect: with its unit; bounds: without.
    with_, without: of the two sides the mean of the metric in its own unit, a geometric one for ratios.
    """

    claim: str
    statement: str
    where: str
    view: str
    is_primary: bool
    status: str
    effect: str
    bounds: str
    seeds: int
    reason: str
    rate_with: str
    rate_without: str
    with_: str
    without: str
    d_z: str
    p: str
    p_holm: str
    more: str

    @property
    def sentence(self) -> str:
        """For the terminal."""
        return f"{self.status}: {self.statement} {self.told}"

    @property
    def told(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"{self.where}, {self.view}: {self.effect}, {self.seeds} seeds{because}."


def verdicts(study: StudyData, folders: Sequence[Path] = ()) -> list[Verdict]:
    """On all claims that the study bears on, corrected together. folders: with claims of the user's own.

    Raises:
        ConfigError: a claim is not known, or its file is not one.
    """
    return corrected(asked(study, claims_of(study.claims, folders)))


@dataclass(frozen=True)
class Asked:
    """A contrast that is to be judged, by which method. study: the name of the one whose runs it rests on."""

    contrast: Contrast
    study: str
    method: Method


def claims_of(names: Sequence[str], folders: Sequence[Path]) -> list[Claim]:
    """Raises ConfigError: a claim is not known, or its file is not one."""
    return load_claims(names, [*folders, conf_dir() / "claim"])


def asked(study: StudyData, claims: Iterable[Claim]) -> list[Asked]:
    """What a study's runs are asked, in the order of the claims."""
    return [Asked(c, study.name, _method(study, claim)) for claim in claims for c in contrasts(study, claim)]


def _method(study: StudyData, claim: Claim) -> Method:
    return anytime(claim.min_seeds) if study.looks == "repeated" else LOOKED_AT_ONCE


def corrected(of_all: Sequence[Asked]) -> list[Verdict]:
    """The verdicts, their p-values corrected together (Holm). Views of a claim that came to the same learning rates are
    one test, told twice."""
    p = {_test(a.contrast): a.method.p(a.contrast.d.to_numpy()) for a in of_all if len(a.contrast.d)}
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return [_judged(a, adjusted.get(_test(a.contrast))) for a in of_all]


def _test(contrast: Contrast) -> tuple[str, ...]:
    """What tells one test from another."""
    pair, rates = contrast.pair, contrast.rates
    return contrast.claim.name, pair.model, pair.data, pair.setting, str(rates) if rates else contrast.view


def _judged(a: Asked, p_holm: float | None) -> Verdict:
    c, claim = a.contrast, a.contrast.claim
    either = claim.better == "either"
    judged = judge(
        c.d.to_numpy(), c.threshold, claim.min_seeds, p_holm, c.slack, c.capped, c.lacking, either, a.method
    )  # fmt: skip
    return Verdict(c, judged, a.study)


# ------------------------------------------------------------------------------------------------------ in words


def rows(found: Sequence[Verdict]) -> list[VerdictRow]:
    return [row(verdict) for verdict in found]


def row(verdict: Verdict) -> VerdictRow:
    c, judged = verdict.contrast, verdict.judged
    rates, means = c.rates or (math.nan, math.nan), side_means(c)
    return VerdictRow(
        claim=c.claim.name,
        statement=c.claim.statement,
        where=where(c),
        view=view(c),
        is_primary=verdict.is_primary,
        status=judged.status,
        effect=effect(c, judged),
        bounds=effect_bounds(c, judged) or "-",
        seeds=judged.n,
        reason=reason(judged),
        rate_with=digits(rates[0]),
        rate_without=digits(rates[1]),
        with_=digits(means[0]),
        without=digits(means[1]),
        d_z=digits(judged.d_z, 2),
        p=digits(judged.p if judged.n else math.nan, 2),
        p_holm=digits(judged.p_holm if judged.n else math.nan, 2),
        more="-" if judged.more is None else str(judged.more),
    )


def where(c: Contrast) -> str:
    return f"{c.pair.model} on {c.pair.data}" + (f", {c.pair.setting}" if c.pair.setting else "")


def view(c: Contrast) -> str:
    if c.view == "all_rates":
        return "over all learning rates"
    if c.view == "before_training":
        return "before training"
    rates = c.rates or (math.nan, math.nan)
    if c.view == "same_rate":
        return "same learning rate" + ("" if math.isnan(rates[1]) else f", {rates[1]:g}")
    at = "" if any(map(math.isnan, rates)) else f", {rates[0]:g} with and {rates[1]:g} without"
    return f"each at its best{at}"


def effect(c: Contrast, judged: Judged) -> str:
    """`"12.3 (8.1 to 15.2) times the learning rate"`; a dash where there is none."""
    bounds = effect_bounds(c, judged)
    return f"{bounds} {c.claim.unit}" if bounds else "-"


def effect_bounds(c: Contrast, judged: Judged) -> str:
    """The same without the unit; empty where there is none."""
    if not math.isfinite(judged.effect):
        return ""
    mean, low, high = (f"{c.claim.in_unit(v):.3g}" for v in (judged.effect, judged.low, judged.high))
    has_interval = math.isfinite(judged.low) and math.isfinite(judged.high)
    return f"{mean} ({low} to {high})" if has_interval else mean


def reason(judged: Judged) -> str:
    if judged.more is None:
        return judged.because
    return f"{judged.because}; about {judged.more} more {'seed' if judged.more == 1 else 'seeds'} would settle it"


def side_means(c: Contrast) -> tuple[float, float]:
    """Of the metric in its own unit, with and without; NaN where there is none."""
    if c.values.empty:
        return math.nan, math.nan
    means = [_mean(c.values[side].astype(float), c.claim.scale == "log_ratio") for side in ("with", "without")]
    return means[0], means[1]


def _mean(values: pd.Series, geometric: bool) -> float:
    return float(np.exp(np.log(values).mean())) if geometric and (values > 0).all() else float(values.mean())


def summarize_claim(of_claim: Sequence[VerdictRow]) -> str:
    """What the rows of one claim come to in the view that it is told by; where all have one status, what follows it."""
    told = [row for row in of_claim if row.is_primary]
    if len(told) == 1:
        return f"for {told[0].told}"
    view = told[0].view.partition(",")[0]
    if len({row.status for row in told}) == 1:
        return f"in all {len(told)} cases, {view}."
    return f"Of {len(told)} cases, {view}: {counted(told)}."


def counted(some: Sequence[VerdictRow]) -> str:
    """`"SUPPORTED in 2, NEGLIGIBLE in 1"`."""
    counts = Counter(row.status for row in some)
    return ", ".join(f"{status} in {counts[status]}" for status in STATUSES if counts[status])


def tally(some: Sequence[VerdictRow]) -> str:
    """`"3 verdicts in all views: 2 SUPPORTED, 1 NEGLIGIBLE."`."""
    counts = Counter(row.status for row in some)
    noun = "verdict" if len(some) == 1 else "verdicts"
    return f"{len(some)} {noun} in all views: {', '.join(f'{counts[s]} {s}' for s in STATUSES if counts[s])}."


def digits(value: float, n: int = 4) -> str:
    return f"{value:.{n}g}" if math.isfinite(value) else "-"


# ------------------------------------------------------------------------------------------------------- as data


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What `claims.json` holds: numbers in full, null where there is none."""
    return [_entry(verdict) for verdict in found]


def _entry(verdict: Verdict) -> dict[str, Any]:
    c, judged = verdict.contrast, verdict.judged
    claim, rates, means = c.claim, c.rates or (math.nan, math.nan), side_means(c)
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "source": claim.source,
        "caveats": list(claim.caveats),
        "study": verdict.study,
        "metric": claim.metric,
        "better": claim.better,
        "scale": claim.scale,
        "model": c.pair.model,
        "data": c.pair.data,
        "setting": c.pair.setting,
        "view": c.view,
        "primary": verdict.is_primary,
        "lr_with": number(rates[0]),
        "lr_without": number(rates[1]),
        "mean_with": number(means[0]),
        "mean_without": number(means[1]),
        "status": judged.status,
        "effect": number(claim.in_unit(judged.effect)),
        "ci_low": number(claim.in_unit(judged.low)),
        "ci_high": number(claim.in_unit(judged.high)),
        "unit": claim.unit,
        "threshold": c.delta,
        "n_seeds": judged.n,
        "p": judged.p,
        "p_holm": judged.p_holm,
        "d_z": number(judged.d_z),
        "more_seeds": judged.more,
        "because": judged.because,
        "seeds": [int(seed) for seed in c.d.index],
        "differences": [number(float(d)) for d in c.d],
        "run_ids": list(c.run_ids),
    }


def number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
