"""The verdicts of a report: what was found on each claim, for each network and dataset and view."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnstudy.analysis.claims import load_claims
from bnstudy.analysis.frames import Study
from bnstudy.analysis.inference import Judged, holm, judge, sign_flip_p
from bnstudy.analysis.protocol import Contrast, contrasts
from bnstudy.files import conf_dir


@dataclass(frozen=True)
class Verdict:
    """One claim on one pair in one view."""

    contrast: Contrast
    judged: Judged


@dataclass(frozen=True)
class VerdictRow:
    """A verdict as the table shows it: texts, but for the number of seeds."""

    statement: str
    where: str
    view: str
    status: str
    effect: str
    seeds: int
    reason: str

    @property
    def sentence(self) -> str:
        """For the terminal."""
        because = f" ({self.reason})" if self.reason else ""
        return f"{self.status}: {self.statement} {self.where}, {self.view}: {self.effect}, {self.seeds} seeds{because}."


def verdicts(study: Study, folders: Sequence[Path] = ()) -> list[Verdict]:
    """On all claims that the study bears on, corrected together. folders: with claims of the user's own.

    Raises:
        ConfigError: a claim is not known, or its file is not one.
    """
    claims = load_claims(study.claims, [*folders, conf_dir() / "claim"])
    found = [contrast for claim in claims for contrast in contrasts(study, claim)]
    corrected = iter(holm([sign_flip_p(c.d.to_numpy()) for c in found if len(c.d)]))
    return [Verdict(c, _judged(c, next(corrected) if len(c.d) else None)) for c in found]


def _judged(c: Contrast, p_holm: float | None) -> Judged:
    claim = c.claim
    return judge(c.d.to_numpy(), claim.threshold, claim.min_seeds, p_holm, c.slack, c.capped, c.lacking)


def rows(found: Sequence[Verdict]) -> list[VerdictRow]:
    return [_row(verdict.contrast, verdict.judged) for verdict in found]


def _row(c: Contrast, judged: Judged) -> VerdictRow:
    where = f"{c.pair.model} on {c.pair.data}" + (f", {c.pair.setting}" if c.pair.setting else "")
    return VerdictRow(c.claim.statement, where, _view(c), judged.status, _effect(c, judged), judged.n, _reason(judged))


def _view(c: Contrast) -> str:
    if c.view == "all_rates":
        return "over all learning rates"
    rates = c.rates or (math.nan, math.nan)
    if c.view == "same_rate":
        return "same learning rate" + ("" if math.isnan(rates[1]) else f", {rates[1]:g}")
    at = "" if any(map(math.isnan, rates)) else f", {rates[0]:g} with and {rates[1]:g} without"
    return f"each at its best{at}"


def _effect(c: Contrast, judged: Judged) -> str:
    """`"12.3 (8.1 to 15.2) times the learning rate"`; a dash where there is none."""
    if not math.isfinite(judged.effect):
        return "-"
    effect, low, high = (f"{c.claim.in_unit(v):.3g}" for v in (judged.effect, judged.low, judged.high))
    bounds = f" ({low} to {high})" if math.isfinite(judged.low) and math.isfinite(judged.high) else ""
    return f"{effect}{bounds} {c.claim.unit}"


def _reason(judged: Judged) -> str:
    if judged.more is None:
        return judged.because
    return f"{judged.because}; about {judged.more} more {'seed' if judged.more == 1 else 'seeds'} would settle it"


def as_json(found: Sequence[Verdict]) -> list[dict[str, Any]]:
    """What `claims.json` holds: numbers in full, null where there is none."""
    return [_entry(verdict.contrast, verdict.judged) for verdict in found]


def _entry(c: Contrast, judged: Judged) -> dict[str, Any]:
    claim, rates = c.claim, c.rates or (math.nan, math.nan)
    return {
        "claim": claim.name,
        "statement": claim.statement,
        "model": c.pair.model,
        "data": c.pair.data,
        "setting": c.pair.setting,
        "view": c.view,
        "lr_with": _number(rates[0]),
        "lr_without": _number(rates[1]),
        "status": judged.status,
        "effect": _number(claim.in_unit(judged.effect)),
        "ci_low": _number(claim.in_unit(judged.low)),
        "ci_high": _number(claim.in_unit(judged.high)),
        "unit": claim.unit,
        "threshold": claim.delta,
        "n_seeds": judged.n,
        "p": judged.p,
        "p_holm": judged.p_holm,
        "d_z": _number(judged.d_z),
        "more_seeds": judged.more,
        "because": judged.because,
        "run_ids": list(c.run_ids),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
