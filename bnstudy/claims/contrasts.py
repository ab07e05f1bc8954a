"""The differences that decide on a claim: one per evaluation seed, for each case and view. Nothing is pooled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.claims.cases import Case, Families, cases, empty_case, explain_no_case
from bnstudy.claims.claim import Claim
from bnstudy.claims.completeness import find_gaps, missing_by_arm
from bnstudy.claims.frames import StudyData
from bnstudy.claims.learning_rates import RateChoice, Side, Sides
from bnstudy.claims.metrics import View
from bnstudy.stats.method import LOOKED_AT_ONCE, Method
from bnstudy.stats.sequential import anytime

VIEW_NAMES: dict[View, str] = {
    "same_rate": "same learning rate",
    "best_rate": "each at its best",
    "all_rates": "over all learning rates",
    "before_training": "before training",
}


@dataclass(frozen=True)
class Contrast:
    """The differences between the two sides of a case in one view.

    study: name of the study of the runs. method: of the interval and the test.
    rates: the learning rates of the sides, (with, without); NaN for none or several.
    d: differences by evaluation seed on the claim's scale, positive where they support it.
    values: by seed the metric of the sides, `with` and `without`; of an interaction, those away from the reference.
    slack: the possible error of every difference in the same direction; it widens the interval.
    capped: some seed has both values at a bound. That can hide a difference but not create one.
    obstacle: why no verdict is possible, in words; "" for none.
    diverged: of each side with one learning rate, how many runs diverged there and how many there are.
    run_ids: of all runs used, tuning runs included.
    """

    claim: Claim
    case: Case
    view: View
    study: str = ""
    method: Method = LOOKED_AT_ONCE
    rates: tuple[float, float] = (math.nan, math.nan)
    d: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    values: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"with": [], "without": []}))
    slack: float = 0.0
    capped: bool = False
    obstacle: str = ""
    diverged: Mapping[Side, tuple[int, int]] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()

    @property
    def delta(self) -> float:
        """The smallest effect of interest here, in the claim's unit."""
        return self.claim.delta_for(self.case.data)

    @property
    def threshold(self) -> float:
        """The same on the scale of the differences."""
        return self.claim.threshold(self.case.data)

    @property
    def is_primary(self) -> bool:
        """Whether the view is the claim's first."""
        return self.view == self.claim.views[0]

    @property
    def view_name(self) -> str:
        """`"each at its best"`."""
        return VIEW_NAMES[self.view]

    @property
    def means(self) -> tuple[float, float]:
        """Means of the metric in its own unit, (with, without): geometric ones for ratios, NaN for none."""
        return self._mean("with"), self._mean("without")

    def _mean(self, side: Side) -> float:
        values = self.values[side].astype(float)
        geometric = self.claim.scale == "log_ratio" and (values > 0).all()
        return float(np.exp(np.log(values).mean()) if geometric else values.mean())

    @property
    def test_key(self) -> tuple[str, ...]:
        """Equal for contrasts that are the same test: views of a claim in which the learning rates are the same."""
        return self.claim.name, self.study, self.case.name, self.view if math.isnan(self.rates[0]) else str(self.rates)


def contrasts(study: StudyData, claim: Claim) -> list[Contrast]:
    """The contrasts of a claim for each case and view, in the order of the panels.

    A panel without a case has contrasts that say why. Cases are those of the runs begun: families of which no run is
    finished are part of them.
    """
    finished, found = FinishedRuns(study), list[Contrast]()
    for _, specs in study.settings.groupby("panel", observed=True):
        of_panel = cases(claim, specs)
        found += [finished.contrast(claim, case, view) for case in of_panel for view in claim.views]
        if not of_panel:
            case, why = empty_case(specs), explain_no_case(claim, specs)
            found += [finished.make(claim, case, view, why) for view in claim.views]
    return found


class FinishedRuns:
    """The finished runs of a study, and what is missing of them."""

    def __init__(self, study: StudyData) -> None:
        self.study = study
        self.gaps = {key: f"{key[1]}: {gap.text}" for key, gap in find_gaps(study).items()}
        unbegun = missing_by_arm(study)[1]
        self.rest_of_plan = [f"{unbegun} runs of the plan have not begun"] if unbegun else []

    def contrast(self, claim: Claim, case: Case, view: View) -> Contrast:
        """As much as can be computed, even where a verdict is not possible."""
        sides = [self._sides(claim, square) for square in case.squares]
        missing = [self._missing(square) for square in case.squares]
        if any(runs.empty for square in sides for runs in square.values()):
            return self.make(claim, case, view, "; ".join(filter(None, missing)) or "none of its runs is finished")
        seeds = sorted({seed for square in sides for runs in square.values() for seed in runs["seed"]})
        choices = [RateChoice(claim, view, square, seeds[: claim.tuning_seeds]) for square in sides]
        tables = [self._values(choice) for choice in choices]
        d = _differences(claim, tables)
        obstacles = [text for m, c in zip(missing, choices, strict=True) for text in (m, *c.obstacles()) if text]
        if unmeasured := int(d.isna().sum()):
            obstacles.append(f"{claim.metric} was not measured in {unmeasured} of {len(d)} seeds")
        choice = choices[0]
        used = [runs for c in choices for s in (c.evaluated_runs, c.tuning_runs) for runs in s.values()]
        return self.make(
            claim, case, view, "; ".join(dict.fromkeys(obstacles)),
            rates=(choice.rate_of("with"), choice.rate_of("without")),
            d=d,
            values=tables[0][["value_with", "value_without"]].set_axis(["with", "without"], axis=1),
            slack=sum(claim.measure.slack(c.factor) for c in choices),
            capped=any(bool((t["capped_with"].astype(bool) & t["capped_without"].astype(bool)).any()) for t in tables),
            diverged=_diverged(choice),
            run_ids=tuple(sorted({str(run_id) for runs in used for run_id in runs["run_id"]})),
        )  # fmt: skip

    def make(self, claim: Claim, case: Case, view: View, obstacle: str, **values: Any) -> Contrast:
        method = anytime(claim.min_seeds) if self.study.looks == "repeated" else LOOKED_AT_ONCE
        return Contrast(claim, case, view, self.study.name, method, obstacle=obstacle, **values)

    def _sides(self, claim: Claim, case: Case) -> Sides:
        sides: Sides = {"with": self._of(case, case.with_)}
        return sides if claim.reference is not None else {**sides, "without": self._of(case, case.without)}

    def _of(self, case: Case, families: Families) -> pd.DataFrame:
        runs = self.study.runs
        return runs[(runs["panel"] == case.panel) & runs["family"].isin(families)]

    def _missing(self, case: Case) -> str:
        """Which runs of the case are missing, in words."""
        keys = [(case.panel, family) for family in (*case.with_, *case.without)]
        return "; ".join([*(self.gaps[key] for key in keys if key in self.gaps), *self.rest_of_plan])

    def _values(self, choice: RateChoice) -> pd.DataFrame:
        """By evaluation seed that both sides have: `value` and `capped`, with the suffixes `_with` and `_without`."""
        claim, target = choice.claim, choice.target()
        tables = {
            side: claim.measure(runs, self._measurements(runs, claim.measure.names), target)
            for side, runs in choice.evaluated_runs.items()
        }
        if claim.reference is not None:
            tables["without"] = tables["with"].assign(value=claim.reference)  # at a bound where the metric is at one
        with_, without = (tables[side].add_suffix(f"_{side}") for side in ("with", "without"))
        return with_.join(without, how="inner").sort_index()

    def _measurements(self, runs: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
        rows = self.study.metrics_of.of(runs["run_id"]) if names else self.study.metrics[:0]
        return rows[rows["metric"].isin(names)]


def _differences(claim: Claim, tables: list[pd.DataFrame]) -> pd.Series:
    """On the claim's scale, positive where they support it, NaN where a value is missing; of an interaction, the
    difference of the differences."""
    sign, found = -1.0 if claim.better == "lower" else 1.0, list[pd.Series]()
    for table in tables:
        with_, without = (table[f"value_{side}"].astype(float) for side in ("with", "without"))
        if claim.scale == "log_ratio":
            positive = (with_ > 0) & (without > 0)
            found.append(sign * np.log(with_.where(positive) / without.where(positive)))
        else:
            found.append(sign * (with_ - without))
    d = found[0] - found[1] if len(found) > 1 else found[0]
    return d.reindex(sorted(set.intersection(*({*one.index} for one in found))))


def _diverged(choice: RateChoice) -> dict[Side, tuple[int, int]]:
    counts: dict[Side, tuple[int, int]] = {}
    for side, runs in choice.sides.items():
        rate = choice.rate_of(side)
        if not math.isnan(rate):
            at_rate = runs.loc[runs["lr"] == rate, "diverged"]
            counts[side] = int(at_rate.sum()), len(at_rate)
    return counts
