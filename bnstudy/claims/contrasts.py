"""How runs answer a claim: which are compared, at which learning rates, on which seeds, and what forbids a verdict.

Families that differ in nothing but what the claim says are a *pair*, one side with it and one without. Learning rates
are chosen on the validation accuracy of the tuning seeds; the other seeds are evaluated, one difference a seed. Nothing
is pooled over pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from bnstudy.claims.cases import Case, cases, matching, shown, texts
from bnstudy.claims.claim import Claim
from bnstudy.claims.completeness import gaps, missing_by_arm
from bnstudy.claims.frames import StudyData
from bnstudy.claims.metrics import coarseness

LEAST_RATES = 7
LARGEST_FACTOR = math.sqrt(10) * 1.01
"""Between neighbours of the grid of learning rates; 0.00316 and 0.01 are to pass."""

Side = Literal["with", "without"]


@dataclass(frozen=True)
class Pair:
    """Two sides of one model and dataset that are otherwise alike: their finished runs, of one family or, where the
    claim is over several, of these.

    setting: what else distinguishes them from other pairs of the panel.
    without: empty where the claim compares with a reference.
    at_reference: the same at the value of `across` that the claim compares with.
    lacking: which of their runs are missing, in words.
    """

    model: str
    data: str
    setting: str
    with_: pd.DataFrame
    without: pd.DataFrame
    at_reference: Pair | None = None
    lacking: str = ""


@dataclass(frozen=True)
class Contrast:
    """What a pair says of a claim in one view.

    rates: the learning rates of the two sides, (with, without), where there is one each; NaN for none.
    d: differences by evaluation seed on the claim's scale, positive where they speak for it.
    values: by seed the metric of the two sides, `with` and `without`; of an interaction, those away from the reference.
    slack, capped: as in `inference.judge`. lacking: why no verdict is possible, in words.
    run_ids: of all runs that it rests on.
    """

    claim: Claim
    pair: Pair
    view: str
    rates: tuple[float, float] | None = None
    d: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    values: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"with": [], "without": []}))
    slack: float = 0.0
    capped: bool = False
    lacking: str = ""
    run_ids: tuple[str, ...] = ()

    @property
    def delta(self) -> float:
        """The smallest effect of interest here, in the claim's unit."""
        return self.claim.delta_for(self.pair.data)

    @property
    def threshold(self) -> float:
        """The same on the scale of the differences."""
        return self.claim.threshold(self.pair.data)


def contrasts(study: StudyData, claim: Claim) -> list[Contrast]:
    """One for each pair and view, in the order of the panels; where a panel has no pair, one that says so."""
    return [contrast(study, claim, pair, view) for pair in pairs(study, claim) for view in claim.views]


# ----------------------------------------------------------------------------------------------------- the pairs


def pairs(study: StudyData, claim: Claim) -> list[Pair]:
    """Those of the runs begun: families of which no run is finished are part of them."""
    finished = Finished(study)
    found: list[Pair] = []
    for panel, specs in study.settings.groupby("panel", observed=True):
        model, data = (str(specs[c].iloc[0]) for c in ("model", "data"))
        of_panel = [finished.pair(str(panel), model, data, case) for case in cases(claim, specs)]
        if not of_panel:
            of_panel = [Pair(model, data, "", study.runs[:0], study.runs[:0], lacking=no_case(claim, specs))]
        found += of_panel
    return found


class Finished:
    """The finished runs of a study, and what is missing of them."""

    def __init__(self, study: StudyData) -> None:
        self.runs = study.runs
        missing = gaps(study)
        self.short = {key: f"{key[1]}: {gap.text}" for key, gap in missing.items()}
        unbegun = missing_by_arm(study)[1]
        self.rest_of_plan = [f"{unbegun} runs of the plan have not begun"] if unbegun else []

    def pair(self, panel: str, model: str, data: str, case: Case) -> Pair:
        sides = [self._of(panel, families) for families in (case.with_, case.without)]
        reasons = [self.short[panel, f] for f in (*case.with_, *case.without) if (panel, f) in self.short]
        reference = self.pair(panel, model, data, case.at_reference) if case.at_reference else None
        lacking = "; ".join([*reasons, *self.rest_of_plan])
        return Pair(model, data, case.setting, sides[0], sides[1], reference, lacking)

    def _of(self, panel: str, families: Sequence[str]) -> pd.DataFrame:
        return self.runs[(self.runs["panel"] == panel) & self.runs["family"].isin(families)]


def no_case(claim: Claim, specs: pd.DataFrame) -> str:
    """Why there is none."""
    for side, values in (("with", claim.with_), ("without", claim.without or {})):
        if not matching(specs, values).any():
            return f"no runs {side} it ({', '.join(f'{column}={shown(value)}' for column, value in values.items())})"
    for column, value in claim.across.items():
        return f"no two families at {column}={shown(value)} and another value of it that differ in it alone"
    return "no two families differ in it alone"


# -------------------------------------------------------------------------------------------------- the protocol


def contrast(study: StudyData, claim: Claim, pair: Pair, view: str) -> Contrast:
    """What can be computed is, even where a verdict is not possible."""
    squares = [pair, *([pair.at_reference] if pair.at_reference else [])]
    needed = [runs for p in squares for runs in (p.with_, *([p.without] if claim.reference is None else []))]
    if any(runs.empty for runs in needed):
        lacking = "; ".join(p.lacking for p in squares if p.lacking)
        return Contrast(claim, pair, view, lacking=lacking or "none of its runs is finished")
    seeds = sorted({seed for runs in needed for seed in runs["seed"]})
    read = [Reading(study, claim, p, view, seeds[: claim.tuning_seeds]) for p in squares]
    d = read[0].d - read[1].d if len(read) > 1 else read[0].d
    d = d.reindex(sorted(set.intersection(*({*r.d.index} for r in read))))
    reasons = dict.fromkeys(reason for r in read for reason in r.lacking())
    unmeasured = int(d.isna().sum())
    if unmeasured:
        reasons[f"{claim.metric} was not measured in {unmeasured} of {len(d)} seeds"] = None
    return Contrast(
        claim, pair, view, read[0].rates, d, read[0].values,
        slack=sum(claim.reading.slack(r.factor) for r in read),
        capped=any(r.capped for r in read),
        lacking="; ".join(reasons),
        run_ids=tuple(sorted({*pd.concat([r.used for r in read])})),
    )  # fmt: skip


class Reading:
    """What a claim's metric says of one pair in one view.

    tuning: seeds that choose the learning rates. chosen: each family's learning rate in this view.
    rates: those of the two sides, where there is one each.
    values: by evaluation seed that both sides have. d: the differences. used: ids of the runs.
    factor: between neighbours of the coarser grid.
    """

    def __init__(self, study: StudyData, claim: Claim, pair: Pair, view: str, tuning: list[int]) -> None:
        self.claim, self.pair, self.view, self.tuning = claim, pair, view, tuning
        self.sides: dict[Side, pd.DataFrame] = {"with": pair.with_}
        if claim.reference is None:
            self.sides["without"] = pair.without
        self.best = {side: {f: self._best(own) for f, own in families(runs)} for side, runs in self.sides.items()}
        evaluated = {side: self._evaluated(side) for side in self.sides}
        rates = [self._single(side) for side in ("with", "without")]
        self.rates = (rates[0], rates[1]) if view in ("same_rate", "best_rate") else None
        self.factor = max(
            coarseness(own["lr"].to_numpy(float)) for runs in self.sides.values() for _, own in families(runs)
        )
        self.target = self._target()
        tables = {
            s: claim.reading.read(runs, rows_of(study, runs, claim.reading.names), self.target)
            for s, runs in evaluated.items()
        }
        if claim.reference is not None:
            tables["without"] = tables["with"].assign(value=claim.reference)  # at a bound where the metric is at one
        both = (
            tables["with"].add_suffix("_with").join(tables["without"].add_suffix("_without"), how="inner").sort_index()
        )
        self.values = both[["value_with", "value_without"]].set_axis(["with", "without"], axis=1)
        self.capped = bool((both["capped_with"].astype(bool) & both["capped_without"].astype(bool)).any())
        self.d = differences(claim, self.values["with"], self.values["without"])
        self.used = pd.concat([runs["run_id"] for runs in (*evaluated.values(), *self._tuned().values())]).astype(str)

    def _best(self, runs: pd.DataFrame) -> float:
        """The learning rate with the highest mean score on the tuning seeds, the smaller of equals; NaN for no runs."""
        means = runs[runs["seed"].isin(self.tuning)].groupby("lr")["score"].mean()
        return float(means.idxmax()) if len(means) else math.nan

    def _rate(self, side: Side, family: str) -> float:
        """The learning rate at which a family is evaluated."""
        if self.view == "before_training":
            return float(self.sides[side].loc[self.sides[side]["family"] == family, "lr"].min())
        if self.view == "same_rate":  # a side then has one family
            return next(iter(self.best["without"].values()))
        return self.best[side][family]

    def _evaluated(self, side: Side) -> pd.DataFrame:
        runs = self.sides[side][~self.sides[side]["seed"].isin(self.tuning)]
        if self.view == "all_rates":
            return runs
        return runs[runs["lr"] == runs["family"].astype(str).map({f: self._rate(side, f) for f in self.best[side]})]

    def _single(self, side: Side) -> float:
        if side not in self.sides or len(self.best[side]) != 1 or self.view not in ("same_rate", "best_rate"):
            return math.nan
        return self._rate(side, next(iter(self.best[side])))

    def _tuned(self) -> dict[Side, pd.DataFrame]:
        return {side: runs[runs["seed"].isin(self.tuning)] for side, runs in self.sides.items()}

    def _target(self) -> float:
        """Of the tuning seeds at the learning rates of this view."""
        kind, share = self.claim.reading.target, self.claim.target_share
        if kind is None:
            return math.nan
        chosen = {side: runs[runs["lr"] == self._single(side)] for side, runs in self._tuned().items()}
        if kind == "accuracy":
            baseline = self._tuned()["without"]
            at_best = baseline[baseline["lr"] == next(iter(self.best["without"].values()))]
            return float((share or 1.0) * at_best["val_accuracy"].mean())
        ends = [runs.loc[~runs["diverged"].astype(bool), "final.train_loss"].mean() for runs in chosen.values()]
        return float(np.max(ends))  # NaN where no run of a side has an end

    # ------------------------------------------------------------------------------------ what forbids a verdict

    def lacking(self) -> list[str]:
        reasons = [self.pair.lacking] if self.pair.lacking else []
        if self.view == "before_training":
            return reasons
        if self.claim.reading.target == "training_loss" and math.isnan(self.target):
            reasons.append("on some side every run that chooses the learning rate diverged: no loss is reached by both")
        return [*reasons, *self._grid(), *self._edges(), *self._several()]

    def _several(self) -> list[str]:
        """What keeps families that are one side together from being compared: others on either side, or one alone."""
        over = self.claim.over
        if not over:
            return []
        values = [{*zip(*(texts(runs, c) for c in over), strict=True)} for runs in self.sides.values()]
        if values[0] != values[-1] or len(values[0]) < 2:
            return [f"both sides must have the same values of {' and '.join(over)}, two or more"]
        lost = [side for side, runs in self.sides.items() if runs["diverged"].all()]
        return [f"every run {side} it diverged, and all are equally bad" for side in lost]

    def _grid(self) -> list[str]:
        """What is wrong with the learning rates tried: too few, too far apart, or others on either side."""
        tried = [own for runs in self.sides.values() for _, own in families(runs)]
        grids = [np.unique(own["lr"].to_numpy(float)) for own in tried]
        fewest = min(map(len, grids))
        if fewest < LEAST_RATES:
            rates = "rate" if fewest == 1 else "rates"
            return [f"the grid has {fewest} learning {rates}, a fair choice needs {LEAST_RATES}"]
        if self.factor > LARGEST_FACTOR:
            return [
                f"learning rates of the grid are {self.factor:.3g} times apart, a fair choice needs "
                f"{math.sqrt(10):.3g} or less"
            ]
        if any(len(own) < own["seed"].nunique() * own["lr"].nunique() for own in tried):
            return ["not every seed was tried at every learning rate"]
        if self.claim.reading.kind == "of_family" and len({tuple(grid) for grid in grids}) > 1:
            return ["the two sides were tried at different learning rates"]
        return []

    def _edges(self) -> list[str]:
        """Whether a learning rate that was to be the best lies on the edge of its grid, or was not tried."""
        if self.view == "all_rates":
            return []
        told = []
        sides: list[Side] = ["without"] if self.view == "same_rate" else list(self.sides)
        if self.view == "same_rate" and self._nothing_is_best():
            return ["no learning rate is best without it: all of them diverged"]
        for side in sides:
            for family, own in families(self.sides[side]):
                rate = self.best[side][family]
                who = f"{side} it" if len(self.best[side]) == 1 else f"of {family}"
                if math.isnan(rate):
                    told.append(f"no seeds to choose the learning rate {who}")
                elif rate in (own["lr"].min(), own["lr"].max()) and self._chosen_for_a_reason(own):
                    told.append(f"the best learning rate {who}, {rate:g}, lies on the edge of the grid")
        with_, rate = self.sides["with"], self._single("with")
        if self.view == "same_rate" and not math.isnan(rate) and not (with_["lr"] == rate).any():
            told.append(f"no runs with it at learning rate {rate:g}")
        return told

    def _nothing_is_best(self) -> bool:
        return not any(self._chosen_for_a_reason(own) for _, own in families(self.sides["without"]))

    def _chosen_for_a_reason(self, runs: pd.DataFrame) -> bool:
        """Where every run diverged, all learning rates are as good, and none is best."""
        return not runs.loc[runs["seed"].isin(self.tuning), "diverged"].all()


def families(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for family, own in runs.groupby("family", observed=True):
        yield str(family), own


def rows_of(study: StudyData, runs: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """What was recorded of the runs by these names."""
    rows = study.metrics_of.of(runs["run_id"]) if names else study.metrics[:0]
    return rows[rows["metric"].isin(names)]


def differences(claim: Claim, with_: pd.Series, without: pd.Series) -> pd.Series:
    """On the claim's scale, positive where they speak for it; NaN where there is none."""
    sign = -1.0 if claim.better == "lower" else 1.0
    if claim.scale == "difference":
        return sign * (with_.astype(float) - without.astype(float))
    positive = (with_ > 0) & (without > 0)
    return sign * np.log(with_.where(positive).astype(float) / without.where(positive).astype(float))
