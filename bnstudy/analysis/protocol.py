"""How runs answer a claim: which are compared, at which learning rates, on which seeds, and what forbids a verdict.

Two families that differ in nothing but what the claim says are a *pair*. Learning rates are chosen on the validation
accuracy of the tuning seeds; the other seeds are evaluated, one difference a seed. Nothing is pooled over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.analysis.claims import Claim
from bnstudy.analysis.frames import Study
from bnstudy.analysis.gaps import gaps, missing_by_arm
from bnstudy.analysis.metrics import coarseness
from bnstudy.spec import show

LEAST_RATES = 7
LARGEST_FACTOR = math.sqrt(10) * 1.01
"""Between neighbours of the grid of learning rates; 0.00316 and 0.01 are to pass."""


@dataclass(frozen=True)
class Pair:
    """Two families of one model and dataset that are otherwise alike.

    setting: what else distinguishes them from other pairs of the panel.
    with_, without: their finished runs. lacking: which of their runs are missing, in words.
    """

    model: str
    data: str
    setting: str
    with_: pd.DataFrame
    without: pd.DataFrame
    lacking: str = ""


@dataclass(frozen=True)
class Contrast:
    """What a pair says of a claim in one view.

    rates: the learning rates of the two sides, (with, without), where there is one each.
    d: differences by evaluation seed on the claim's scale, positive where they speak for it.
    slack, capped: as in `inference.judge`. lacking: why no verdict is possible, in words.
    run_ids: of all runs that it rests on.
    """

    claim: Claim
    pair: Pair
    view: str
    rates: tuple[float, float] | None = None
    d: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    slack: float = 0.0
    capped: bool = False
    lacking: str = ""
    run_ids: tuple[str, ...] = ()


def contrasts(study: Study, claim: Claim) -> list[Contrast]:
    """One for each pair and view, in the order of the panels; where a panel has no pair, one that says so."""
    return [contrast(study, claim, pair, view) for pair in pairs(study, claim) for view in claim.views]


# ----------------------------------------------------------------------------------------------------- the pairs


def pairs(study: Study, claim: Claim) -> list[Pair]:
    """Those of the runs begun: families of which no run is finished are part of them."""
    lacking, unbegun = gaps(study), missing_by_arm(study)[1]
    short = {key: f"{key[1]}: {gap.text}" for key, gap in lacking.items()}
    rest_of_plan = [f"{unbegun} runs of the plan have not begun"] if unbegun else []
    found: list[Pair] = []
    for panel, specs in study.specs.groupby("panel", observed=True):
        model, data = (str(specs[c].iloc[0]) for c in ("model", "data"))
        of_panel = []
        for setting, *families in _families(claim, specs):
            runs = [study.runs[(study.runs["panel"] == panel) & (study.runs["family"] == f)] for f in families]
            reasons = [short[key] for f in families if (key := (str(panel), f)) in short]
            of_panel.append(Pair(model, data, setting, runs[0], runs[1], "; ".join([*reasons, *rest_of_plan])))
        found += of_panel or [Pair(model, data, "", study.runs[:0], study.runs[:0], _no_pair(claim, specs))]
    return found


def _families(claim: Claim, specs: pd.DataFrame) -> Iterator[tuple[str, str, str]]:
    """(setting, family with, family without) for each pair of one panel."""
    several = specs["rest"].nunique() > 1
    for rest, alike in specs.groupby("rest", observed=True):
        sides = [alike.loc[matching(alike, v), "family"].unique() for v in (claim.with_, claim.without)]
        ambiguous = len(sides[0]) * len(sides[1]) > 1
        for one, other in ((str(a), str(b)) for a in sides[0] for b in sides[1] if a != b):
            parts = [str(rest)] * several + [f"{one} against {other}"] * ambiguous
            yield ", ".join(parts), one, other


def _no_pair(claim: Claim, specs: pd.DataFrame) -> str:
    for side, values in (("with", claim.with_), ("without", claim.without)):
        if not matching(specs, values).any():
            return f"no runs {side} it ({', '.join(f'{column}={show(value)}' for column, value in values.items())})"
    return "no two families differ in it alone"


def matching(specs: pd.DataFrame, values: Mapping[str, Any]) -> pd.Series:
    """Which rows have all these values, as one types them."""
    fits = pd.Series(True, specs.index)
    for column, value in values.items():
        fits &= (specs[column].map(show) == show(value)) if column in specs else False
    return fits


# -------------------------------------------------------------------------------------------------- the protocol


def contrast(study: Study, claim: Claim, pair: Pair, view: str) -> Contrast:
    """What can be computed is, even where a verdict is not possible."""
    if pair.with_.empty or pair.without.empty:
        return Contrast(claim, pair, view, lacking=pair.lacking or "none of its runs is finished")
    seeds = sorted({*pair.with_["seed"], *pair.without["seed"]})
    tuning = seeds[: claim.tuning_seeds]
    best = _best(pair.with_, tuning), _best(pair.without, tuning)
    rates = {"same_rate": (best[1], best[1]), "best_rate": best}.get(view)
    sides = [runs[~runs["seed"].isin(tuning)] for runs in (pair.with_, pair.without)]
    if rates:
        sides = [runs[runs["lr"] == rate] for runs, rate in zip(sides, rates, strict=True)]
    read = _read(study, claim, sides, _target(claim, pair.without, best[1], tuning))
    d = differences(claim, read["value_with"], read["value_without"])
    lacking = [pair.lacking, *_grid(claim, pair), *_edges(pair, rates, view), _unmeasured(claim, d)]
    tuned = [runs[runs["seed"].isin(tuning)] for runs in (pair.with_, pair.without)]
    return Contrast(
        claim, pair, view, rates, d,
        slack=claim.reading.slack(max(coarseness(runs["lr"].to_numpy(float)) for runs in (pair.with_, pair.without))),
        capped=bool((read["capped_with"] & read["capped_without"]).any()),
        lacking="; ".join(reason for reason in lacking if reason),
        run_ids=tuple(sorted({*pd.concat([*sides, *tuned])["run_id"].astype(str)})),
    )  # fmt: skip


def _read(study: Study, claim: Claim, sides: list[pd.DataFrame], target: float) -> pd.DataFrame:
    """`value_with` `capped_with` `value_without` `capped_without` by seed, for the seeds that both sides have."""
    of_sides = [study.metrics[study.metrics["run_id"].isin(runs["run_id"])] for runs in sides]
    with_, without = (claim.reading.read(r, m, target) for r, m in zip(sides, of_sides, strict=True))
    both = with_.add_suffix("_with").join(without.add_suffix("_without"), how="inner").sort_index()
    return both.astype({"capped_with": bool, "capped_without": bool})


def differences(claim: Claim, with_: pd.Series, without: pd.Series) -> pd.Series:
    """On the claim's scale, positive where they speak for it; NaN where there is none."""
    sign = 1.0 if claim.better == "higher" else -1.0
    if claim.scale == "difference":
        return sign * (with_.astype(float) - without.astype(float))
    positive = (with_ > 0) & (without > 0)
    return sign * np.log(with_.where(positive).astype(float) / without.where(positive).astype(float))


def _best(runs: pd.DataFrame, tuning: list[int]) -> float:
    """The learning rate with the highest mean score on the tuning seeds, the smaller of equals; NaN for no runs."""
    means = runs[runs["seed"].isin(tuning)].groupby("lr")["score"].mean()
    return float(means.idxmax()) if len(means) else math.nan


def _target(claim: Claim, baseline: pd.DataFrame, rate: float, tuning: list[int]) -> float:
    if claim.target_share is None:
        return math.nan
    chosen = baseline[(baseline["lr"] == rate) & baseline["seed"].isin(tuning)]
    return float(claim.target_share * chosen["val_accuracy"].mean())


def _unmeasured(claim: Claim, d: pd.Series) -> str:
    missing = int(d.isna().sum())
    return f"{claim.metric} was not measured in {missing} of {len(d)} seeds" if missing else ""


def _grid(claim: Claim, pair: Pair) -> list[str]:
    """What is wrong with the learning rates tried: too few, too far apart, or others on either side."""
    grids = [np.unique(runs["lr"].to_numpy(float)) for runs in (pair.with_, pair.without)]
    fewest, factor = min(map(len, grids)), max(map(coarseness, grids))
    if fewest < LEAST_RATES:
        rates = "rate" if fewest == 1 else "rates"
        return [f"the grid has {fewest} learning {rates}, a fair choice needs {LEAST_RATES}"]
    if factor > LARGEST_FACTOR:
        return [
            f"learning rates of the grid are {factor:.3g} times apart, a fair choice needs {math.sqrt(10):.3g} or less"
        ]
    if any(len(runs) < runs["seed"].nunique() * runs["lr"].nunique() for runs in (pair.with_, pair.without)):
        return ["not every seed was tried at every learning rate"]
    if claim.reading.of_family and {*grids[0]} != {*grids[1]}:
        return ["the two sides were tried at different learning rates"]
    return []


def _edges(pair: Pair, rates: tuple[float, float] | None, view: str) -> list[str]:
    """Whether a learning rate that was to be the best lies on the edge of its grid, or was not tried."""
    if rates is None:
        return []
    told = []
    sides = [("with", pair.with_, rates[0]), ("without", pair.without, rates[1])]
    for name, runs, rate in sides if view == "best_rate" else sides[1:]:
        if math.isnan(rate):
            told.append(f"no seeds to choose the learning rate {name} it")
        elif rate in (runs["lr"].min(), runs["lr"].max()):
            told.append(f"the best learning rate {name} it, {rate:g}, lies on the edge of the grid")
    if view == "same_rate" and not (pair.with_["lr"] == rates[0]).any():
        told.append(f"no runs with it at learning rate {rates[0]:g}")
    return told
