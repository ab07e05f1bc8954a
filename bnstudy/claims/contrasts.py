"""The differences that decide on a claim: one per seed, for each case and view. Nothing is pooled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.claims.cases import Case, Families, cases, empty_case, explain_no_case
from bnstudy.claims.claim import Claim
from bnstudy.claims.completeness import find_gaps, missing_by_arm
from bnstudy.claims.frames import StudyData
from bnstudy.claims.images import ImageError, image_error
from bnstudy.claims.learning_rates import RateChoice, Side, Sides, name_side
from bnstudy.claims.metrics import LEVELS, Bound, Frame, Target, View
from bnstudy.stats.method import LOOKED_AT_ONCE, Method
from bnstudy.stats.sequential import anytime

VIEW_NAMES: dict[View, str] = {
    "same_rate": "same learning rate",
    "best_rate": "each at its best",
    "fixed_rate": "at a fixed learning rate",
    "all_rates": "over all learning rates",
    "before_training": "before training",
}

UNCHOSEN: tuple[View, ...] = ("all_rates", "before_training")
SIDES: tuple[Side, ...] = ("with", "without")

ROUNDING = 1.03
"""Grids have three digits: a step of 1.78 may be one of 1.80."""


@dataclass(frozen=True)
class Contrast:
    """The differences between the two sides of a case in one view.

    study: name of the study of the runs. method: of the interval and the test.
    norms: the norm of each side; empty unless each side has a single norm and they differ.
    rates: by side the learning rates at which its seeds are evaluated, and how many at each; empty for several families
        or all rates. grids: by side the learning rates that were tried.
    best: by side the rates that all seeds choose. at_one_rate: the mean difference there, NaN where each seed has them.
    dropped: by side the learning rates that were not tried with all seeds, and are left out.
    d: differences by seed on the claim's scale, positive where they support it.
    values: by seed the metric of the sides, `with` and `without`; of an interaction, those away from the reference.
    target: the validation accuracy to reach, a share; NaN for metrics without one.
    slack: the possible error of every difference in the same direction; it widens the interval.
    bounds: by side and kind of bound, how many values are at one.
    obstacle: why no verdict is possible, in words; "" for none. may_pass: with more seeds, which may choose better.
    failed: by side, how many of the evaluated runs diverged or did not learn, and how many there are.
    steps: of training; 0 where runs differ.
    image_error: standard error of the effect from the choice of the test images, in the claim's unit; NaN if unknown.
    images: number of test images; 0 if unknown.
    run_ids: of all runs used, those that choose the learning rates included.
    """

    claim: Claim
    case: Case
    view: View
    study: str = ""
    method: Method = LOOKED_AT_ONCE
    norms: Mapping[Side, str] = field(default_factory=dict)
    rates: Mapping[Side, Mapping[float, int]] = field(default_factory=dict)
    grids: Mapping[Side, tuple[float, ...]] = field(default_factory=dict)
    best: Mapping[Side, tuple[float, ...]] = field(default_factory=dict)
    at_one_rate: float = math.nan
    dropped: Mapping[Side, Sequence[float]] = field(default_factory=dict)
    d: pd.Series = field(default_factory=lambda: pd.Series(dtype=float))
    values: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"with": [], "without": []}))
    target: float = math.nan
    slack: float = 0.0
    bounds: Mapping[tuple[Side, Bound], int] = field(default_factory=dict)
    obstacle: str = ""
    may_pass: bool = False
    failed: Mapping[Side, tuple[int, int]] = field(default_factory=dict)
    steps: int = 0
    image_error: float = math.nan
    images: int = 0
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
        """Whether the view is the claim's first, or the only one of the case."""
        return self.view in (self.claim.views[0], "fixed_rate")

    @property
    def view_name(self) -> str:
        """`"each at its best"`."""
        return VIEW_NAMES[self.view]

    def name_of(self, side: Side) -> str:
        """`"with it"`, or, where the claim compares two norms, `"with DyT"`."""
        return name_side(self.norms, side)

    def rate_of(self, side: Side) -> float:
        """The learning rate at which most seeds of a side are evaluated, the smaller of equals; NaN for none."""
        rates = self.rates.get(side)
        return max(sorted(rates), key=rates.__getitem__) if rates else math.nan

    @property
    def directions(self) -> set[int]:
        """Where the true effect may lie, as values are only bounds: 1 beyond the mean of the differences, -1 below."""
        sign = -1 if self.claim.better == "lower" else 1
        up = {("with", "at least"), ("without", "at most")}
        return {sign if key in up else -sign for key in self.bounds if key[1] in ("at least", "at most")}

    @property
    def qualifier(self) -> Bound:
        """What the mean effect is of the true one if values are at a bound: at least, or at most. Empty if neither."""
        return "" if len(self.directions) != 1 else "at least" if self.directions == {1} else "at most"

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
        """Equal for contrasts that are the same test: views of a claim with the same differences."""
        return self.claim.name, self.study, self.case.name, str(self.d.tolist())


def contrasts(study: StudyData, claim: Claim) -> list[Contrast]:
    """The contrasts of a claim for each case and view, in the order of the panels.

    A panel without a case has contrasts that say why. Cases are those of the runs begun: families of which no run is
    finished are part of them.
    """
    finished, found = FinishedRuns(study), list[Contrast]()
    for _, specs in study.settings.groupby("panel", observed=True):
        of_panel = cases(claim, specs)
        found += [finished.contrast(claim, case, view) for case in of_panel for view in finished.views(claim, case)]
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

    def views(self, claim: Claim, case: Case) -> tuple[View, ...]:
        """The claim's views; where the case has a single learning rate, fixed_rate in place of those that choose."""
        if claim.measure.kind not in ("of_arm", "of_several"):
            return claim.views
        return ("fixed_rate",) if self.has_single_rate(case) else claim.views

    def has_single_rate(self, case: Case) -> bool:
        """Whether all runs of the case have the same learning rate."""
        specs = self.study.settings
        of_case = (specs["panel"] == case.panel) & specs["family"].isin(case.families)
        return specs.loc[of_case, "lr"].nunique() == 1

    def contrast(self, claim: Claim, case: Case, view: View) -> Contrast:
        """As much as can be computed, even where a verdict is not possible."""
        sides = [self.sides(claim, square) for square in case.squares]
        if claim.measure.reads_every_loss and any(map(self._lack_losses, sides)):
            return self.make(claim, case, view, f"{claim.metric} reads losses, of which this thin store lacks most")
        missing = [self._missing(square) for square in case.squares]
        if any(runs.empty for square in sides for runs in square.values()):
            return self.make(claim, case, view, "; ".join(filter(None, missing)) or "none of its runs is finished")
        choices = [self.choose(claim, view, square) for square in sides]
        if any(runs.empty for choice in choices for runs in choice.sides.values()):
            obstacles = [*filter(None, missing), "no learning rate was tried on both sides"]
            return self.make(claim, case, view, "; ".join(dict.fromkeys(obstacles)))
        tables = [self._values(choice, choice.evaluated_runs) for choice in choices]
        d = _differences(claim, tables)
        failed = _count_failed(choices)
        slack = sum(claim.measure.slack(c.factor) for c in choices)
        obstacles = [text for m, c in zip(missing, choices, strict=True) for text in (m, *c.obstacles()) if text]
        if unmeasured := int(d.isna().sum()):
            obstacles.append(f"{claim.metric} was not measured in {unmeasured} of {len(d)} seeds")
        if claim.measure.whole and (stopped := sum(_stopped_early(runs) for one in sides for runs in one.values())):
            trained = sum(len(runs) for one in sides for runs in one.values())
            obstacles.append(
                f"{claim.metric} is of whole courses of training; {stopped} of {trained} runs stopped early"
            )
        steps = sorted({int(n) for square in sides for runs in square.values() for n in runs["steps"].unique()})
        obstacles += self._limits(claim, case, slack, failed, steps, choices[0].norms)
        obstacles += _below_guessing(claim, choices)
        images = self._image_error(claim, choices, d)
        few_seeds = len(d) < claim.min_seeds and {*obstacles} <= {text for c in choices for text in c.edges()}
        return self.make(
            claim, case, view, "; ".join(dict.fromkeys(obstacles)),
            may_pass=few_seeds,
            norms=choices[0].norms,
            rates={side: choices[0].rates_of(side) for side in SIDES},
            grids={side: tuple(map(float, sorted(runs["lr"].unique()))) for side, runs in choices[0].sides.items()},
            best={side: tuple(best.values()) for side, best in choices[0].best.items()},
            at_one_rate=self._effect_at_one_rate(claim, choices),
            dropped=choices[0].dropped,
            d=d,
            values=tables[0][["value_with", "value_without"]].set_axis(["with", "without"], axis=1),
            target=choices[0].accuracy_target,
            slack=slack,
            bounds=_count_bounds(tables),
            failed=failed,
            steps=steps[0] if len(steps) == 1 else 0,
            image_error=len(choices) * 100 * images.standard_error if images else math.nan,
            images=images.images if images else 0,
            run_ids=tuple(sorted({str(r) for c in choices for runs in c.sides.values() for r in runs["run_id"]})),
        )  # fmt: skip

    def _lack_losses(self, sides: Sides) -> bool:
        """Whether the store lacks training losses of any of the runs."""
        return any(runs["run_id"].astype(str).isin(self.study.thin_runs).any() for runs in sides.values())

    def make(self, claim: Claim, case: Case, view: View, obstacle: str, **values: Any) -> Contrast:
        method = anytime(claim.min_seeds) if self.study.looks == "repeated" else LOOKED_AT_ONCE
        return Contrast(claim, case, view, self.study.name, method, obstacle=obstacle, **values)

    def choose(self, claim: Claim, view: View, sides: Sides) -> RateChoice:
        return RateChoice(claim, view, sides, lambda runs, target: self._read(claim, runs, target))

    def _read(self, claim: Claim, runs: Frame, target: Target) -> Frame:
        return claim.measure(runs, self._measurements(claim, runs), target)

    def _measurements(self, claim: Claim, runs: Frame) -> Frame:
        names = claim.measure.rows
        rows = self.study.metrics_of.of(runs["run_id"]) if names else self.study.metrics[:0]
        return rows[rows["metric"].isin(names)]

    def _image_error(self, claim: Claim, choices: Sequence[RateChoice], d: pd.Series) -> ImageError | None:
        """Of the mean of the choices' differences in final test accuracy; an interaction's reference is subtracted."""
        if not claim.measure.images:
            return None
        ids: dict[Side, list[str]] = {"with": [], "without": []}
        for choice, sides in zip(choices, (SIDES, SIDES[::-1]), strict=False):
            for side, counted in zip(SIDES, sides, strict=True):
                if side in choice.sides:
                    ids[counted] += choice.evaluated_runs[side].set_index("seed")["run_id"].reindex(d.index).tolist()
        return image_error(self.study, ids["with"], ids["without"])

    def _limits(
        self, claim: Claim, case: Case, slack: float, failed: Mapping[Side, tuple[int, int]], steps: Sequence[int],
        norms: Mapping[Side, str],
    ) -> list[str]:  # fmt: skip
        """What the metric cannot show of these runs."""
        found, delta = [], claim.threshold(case.data)
        if 0 < delta * ROUNDING < slack < math.inf:
            step = f"one step of the grid of learning rates, {claim.in_unit(slack):.3g}"
            found.append(f"{step}, exceeds the smallest effect of interest, {claim.delta_for(case.data):g}")
        if steps[0] < claim.min_steps:
            found.append(f"{steps[0]} of at least {claim.min_steps} steps of training")
        for side, (lost, n) in failed.items():
            if claim.measure.learned and lost > n / 2:
                found.append(
                    f"{lost} of {n} runs {name_side(norms, side)} diverged or did not learn, and the metric describes "
                    "trained networks"
                )
        return found

    def sides(self, claim: Claim, case: Case) -> Sides:
        sides: Sides = {"with": self._of(case, case.with_)}
        return sides if claim.reference is not None else {**sides, "without": self._of(case, case.without)}

    def _of(self, case: Case, families: Families) -> pd.DataFrame:
        runs = self.study.runs
        return runs[(runs["panel"] == case.panel) & runs["family"].isin(families)]

    def _missing(self, case: Case) -> str:
        """Which runs of the case are missing, in words."""
        keys = [(case.panel, family) for family in (*case.with_, *case.without)]
        return "; ".join([*(self.gaps[key] for key in keys if key in self.gaps), *self.rest_of_plan])

    def _effect_at_one_rate(self, claim: Claim, choices: Sequence[RateChoice]) -> float:
        """The mean difference at the one rate of each family that all seeds choose; NaN where the seeds agree on it."""
        if all(len(c.rates_of(side)) < 2 for c in choices for side in SIDES):
            return math.nan
        return float(_differences(claim, [self._values(c, c.runs_at_best) for c in choices]).mean())

    def _values(self, choice: RateChoice, evaluated: Sides) -> pd.DataFrame:
        """By seed that both sides have: `value` and `bound`, with the suffixes `_with` and `_without`."""
        claim = choice.claim
        target: Target = choice.accuracy_target
        if level := LEVELS.get(claim.measure.target or ""):
            levels = [level(runs, self._measurements(claim, runs)) for runs in evaluated.values()]
            target = pd.concat(levels, axis=1).max(axis=1)
        tables = {side: self._read(claim, runs, target) for side, runs in evaluated.items()}
        if claim.reference is not None:
            tables["without"] = tables["with"].assign(value=claim.reference, bound="")
        with_, without = (tables[side].add_suffix(f"_{side}") for side in SIDES)
        return with_.join(without, how="inner").sort_index()


def _stopped_early(runs: Frame) -> int:
    """How many of the runs early stopping ended."""
    return int(runs["stopped_step"].notna().sum()) if "stopped_step" in runs else 0


def _differences(claim: Claim, tables: list[pd.DataFrame]) -> pd.Series:
    """On the claim's scale, positive where they support it, NaN where a value is missing; of an interaction, the
    difference of the differences."""
    sign, found = -1.0 if claim.better == "lower" else 1.0, list[pd.Series]()
    for table in tables:
        with_, without = (table[f"value_{side}"].astype(float) for side in SIDES)
        if claim.scale == "log_ratio":
            positive = (with_ > 0) & (without > 0)
            found.append(sign * np.log(with_.where(positive) / without.where(positive)))
        else:
            found.append(sign * (with_ - without))
    d = found[0] - found[1] if len(found) > 1 else found[0]
    return d.reindex(sorted(set.intersection(*({*one.index} for one in found))))


def _count_bounds(tables: Sequence[pd.DataFrame]) -> dict[tuple[Side, Bound], int]:
    """How many values are at a bound. Those of an interaction's reference count for the other side, as their difference
    is subtracted."""
    found: Counter[tuple[Side, Bound]] = Counter()
    for table, sides in zip(tables, (SIDES, SIDES[::-1]), strict=False):
        for side, counted in zip(SIDES, sides, strict=True):
            found.update((counted, bound) for bound in table[f"bound_{side}"] if bound)
    return dict(found)


def _below_guessing(claim: Claim, choices: Sequence[RateChoice]) -> Iterator[str]:
    """Sides whose networks learned and are right less often than guessing, as can be where classes differ in size: runs
    that count as guessing would then be the best."""
    measure = claim.measure
    if not measure.images and measure.target != "accuracy" and measure.tuned_by != "best_accuracy":
        return
    for norms, side, runs in ((c.norms, *item) for c in choices for item in c.evaluated_runs.items()):
        learned = runs[~runs["counts_as_guessing"]]
        accuracy, guessing = learned["test_accuracy"].mean(), learned["chance"].mean()
        if accuracy < guessing:
            yield (
                f"the networks {name_side(norms, side)} that learned are right for {accuracy:.1%} of the test images, "
                f"fewer than by guessing the most frequent class, {guessing:.1%}: accuracy does not rank them"
            )


def _count_failed(choices: Sequence[RateChoice]) -> dict[Side, tuple[int, int]]:
    """Of the evaluated runs. Not for all rates, where divergence is the metric itself, and not before training."""
    counts: dict[Side, tuple[int, int]] = {}
    for side in SIDES:
        runs = [
            c.evaluated_runs[side]["counts_as_guessing"] for c in choices if side in c.sides and c.view not in UNCHOSEN
        ]
        if runs:
            counts[side] = sum(int(r.sum()) for r in runs), sum(map(len, runs))
    return counts
