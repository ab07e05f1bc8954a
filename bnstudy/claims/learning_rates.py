"""The learning rates at which a claim's two sides are evaluated, and the conditions of a fair choice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from bnstudy.claims.arms import (
    BASELINES,
    LEAST_RATES,
    best_rate,
    rates_by_other_seeds,
    runs_at,
    scores_by_rate,
    tried_with_all_seeds,
)
from bnstudy.claims.cases import texts
from bnstudy.claims.claim import Claim
from bnstudy.claims.metrics import View, coarseness

LARGEST_FACTOR = math.sqrt(10) * 1.01
"""Between neighbours of a grid of learning rates; 0.00316 and 0.01 are allowed."""
FINE = 10**0.25
LARGEST_FINE_FACTOR = FINE * 1.01
"""Between the best learning rate and its neighbours. Without normalization the optimum is narrow: a coarse grid misses
it, and the other side seems to gain."""

Side = Literal["with", "without"]
Sides = dict[Side, pd.DataFrame]
"""The finished runs of each side; without "without" where the claim compares with a reference."""

Read = Callable[[pd.DataFrame, float], pd.DataFrame]
"""(runs, target) -> the claim's metric, in the order of the runs."""


def name_side(norms: Mapping[Side, str], side: Side) -> str:
    """`"with it"`, `"without it"`; or `"with DyT"` and `"with BatchNorm"` where a norm is compared with another, and
    `"without normalization"` where that is what the claim is about."""
    if norms.get("without", "NoNorm") in BASELINES:
        return f"{side} it"
    return "without normalization" if norms[side] in BASELINES else f"with {norms[side]}"


class RateChoice:
    """The learning rates of the two sides of a case in one view: for each seed those that all other seeds choose.

    scores: by side and family, the score of each seed at each learning rate.
    best: by side and family, the rate that all seeds choose; NaN for no runs.
    factor: between neighbours of the coarser grid.
    dropped: by side, the rates that are left out of a family's grid, since it was not tried at them with all seeds.
    baseline: the runs that set `accuracy_target`, the validation accuracy to reach; none for metrics without it.
    """

    def __init__(self, claim: Claim, view: View, sides: Sides, read: Read) -> None:
        self.claim, self.view = claim, view
        tried = {side: at_complete_rates(runs) for side, runs in sides.items()}
        self.dropped = {side: sorted({*runs["lr"]} - {*tried[side]["lr"]}) for side, runs in sides.items()}
        self.sides = _at_common_rates(tried) if view in ("all_rates", "same_rate") else tried
        self.baseline = self._baseline(tried)
        self.accuracy_target = float(claim.share_of_target * self.baseline["val_accuracy"].astype(float).mean())
        self.scores = {
            side: {family: self._scores(own, read) for family, own in families(runs)}
            for side, runs in self.sides.items()
        }
        self.best = {side: {f: best_rate(s) for f, s in of_side.items()} for side, of_side in self.scores.items()}
        self.runs_by_family = [own for runs in self.sides.values() for _, own in families(runs)]
        self.grids = [np.unique(own["lr"].to_numpy(float)) for own in self.runs_by_family]
        self.factor = max(map(coarseness, self.grids), default=math.inf)

    @property
    def norms(self) -> dict[Side, str]:
        """The norm of each side; empty unless each side has a single norm and they differ."""
        found = {side: {*runs["norm"].astype(str)} for side, runs in self.sides.items()}
        norms = {side: next(iter(names)) for side, names in found.items() if len(names) == 1}
        return norms if len({*norms.values()}) == len(self.sides) else {}

    def _scores(self, runs: pd.DataFrame, read: Read) -> pd.DataFrame:
        measure = self.claim.measure
        if measure.tuned_by == "accuracy" or self.view in ("all_rates", "before_training", "fixed_rate"):
            return scores_by_rate(runs)
        if measure.tuned_by == "best_accuracy":
            return scores_by_rate(runs, "best_accuracy")
        values = read(runs, self.accuracy_target)["value"].to_numpy(float)
        if self.claim.scale == "log_ratio":
            values = np.log(np.where(values > 0, values, np.nan))
        return scores_by_rate(runs.assign(own=-values), "own")

    def _baseline(self, sides: Sides) -> pd.DataFrame:
        """The runs whose mean accuracy sets the target: the side without, at the rate that is best for accuracy."""
        if self.claim.measure.target != "accuracy" or "without" not in sides:
            return pd.DataFrame({"val_accuracy": [], "counts_as_guessing": []})
        baseline = sides["without"]
        return baseline[baseline["lr"] == best_rate(scores_by_rate(baseline))]

    @cached_property
    def evaluated_runs(self) -> Sides:
        """The runs at the learning rates of the view."""
        if self.view == "all_rates":
            return self.sides
        return {
            side: pd.concat([runs_at(own, self._rates(side, family)) for family, own in families(runs)])
            for side, runs in self.sides.items()
        }

    @property
    def runs_at_best(self) -> Sides:
        """The runs at the one rate of each family that all seeds choose."""
        own = self.best["without"] if self.view == "same_rate" else None
        rates = {side: dict.fromkeys(of_side, *own.values()) if own else of_side for side, of_side in self.best.items()}
        return {
            side: runs[runs["lr"] == runs["family"].astype(str).map(rates[side])] for side, runs in self.sides.items()
        }

    def _rates(self, side: Side, family: str) -> pd.Series:
        """The learning rate of each seed."""
        scores = self.scores[side][family]
        if self.view in ("before_training", "fixed_rate"):
            return pd.Series(scores.columns[0], scores.index)
        if self.view == "same_rate":  # a side then has one family
            scores = next(iter(self.scores["without"].values()))
        return rates_by_other_seeds(scores)

    def rates_of(self, side: Side) -> dict[float, int]:
        """How many seeds are evaluated at each learning rate, ascending; empty where there is not one for each seed."""
        alone = self.view in ("same_rate", "best_rate") and len(self.best.get(side, {})) == 1
        if not alone and (self.view != "fixed_rate" or side not in self.sides):
            return {}
        one_a_seed = self.evaluated_runs[side].drop_duplicates("seed")
        return dict(sorted(Counter(map(float, one_a_seed["lr"])).items()))

    def obstacles(self) -> list[str]:
        """What rules out a verdict, in words."""
        if self.view == "before_training":
            return []
        found = [*self._target(), *self._unmeasured()]
        if self.view == "fixed_rate":
            return [*found, *self._groups()]
        return [*found, *self._grid(), *self.edges(), *self._groups()]

    def _target(self) -> list[str]:
        """A baseline that learned nothing gives no accuracy to reach."""
        if self.claim.measure.target != "accuracy" or self.baseline.empty:
            return []
        lost = int(self.baseline["counts_as_guessing"].sum())
        if lost <= len(self.baseline) / 2:
            return []
        failed = f"{lost} of {len(self.baseline)} runs {name_side(self.norms, 'without')} diverged or did not learn"
        return [f"{failed}, so there is no accuracy to reach"]

    def _unmeasured(self) -> list[str]:
        """A side that the claim's own metric cannot tune, since no run has it."""
        scores = [s for of_side in self.scores.values() for s in of_side.values()]
        return [f"{self.claim.metric} was not measured"] if any(s.isna().all(axis=None) for s in scores) else []

    def _grid(self) -> list[str]:
        """Too few learning rates, too far apart, or not all of them with all seeds."""
        fewest = min(map(len, self.grids))
        if fewest < LEAST_RATES:
            rates = "rate" if fewest == 1 else "rates"
            return [f"the grid has {fewest} learning {rates}, a fair choice needs {LEAST_RATES}"]
        if self.factor > LARGEST_FACTOR:
            needed = f"a fair choice needs {math.sqrt(10):.3g} or less"
            return [f"learning rates of the grid are {self.factor:.3g} times apart, {needed}"]
        if any(len(own) < own["seed"].nunique() * own["lr"].nunique() for own in self.runs_by_family):
            return ["not every seed was tried at every learning rate"]
        return []

    def edges(self) -> list[str]:
        """A best learning rate at the edge of its grid, or with a neighbour that is too far away."""
        if self.view not in ("same_rate", "best_rate"):
            return []
        sides: list[Side] = ["without"] if self.view == "same_rate" else list(self.sides)
        if self.view == "same_rate" and not any(map(learns, self._families("without"))):
            name = name_side(self.norms, "without")
            return [f"no learning rate is best {name}: all runs diverged or did not learn"]
        tried = [(side, family, own) for side in sides for family, own in families(self.sides[side])]
        return [text for side, family, own in tried for text in self._edge(side, family, own)]

    def _families(self, side: Side) -> list[pd.DataFrame]:
        return [own for _, own in families(self.sides[side])]

    def _edge(self, side: Side, family: str, runs: pd.DataFrame) -> list[str]:
        rate, rates = self.best[side][family], np.unique(runs["lr"].to_numpy(float))
        name = name_side(self.norms, side) if len(self.best[side]) == 1 else f"of {family}"
        if math.isnan(rate) or not learns(runs):
            return []
        if rate in (rates[0], rates[-1]):
            return [f"the best learning rate {name}, {rate:g}, lies on the edge of the grid"]
        gap = _gap_around(rates, rate)
        if self.view == "best_rate" and gap > LARGEST_FINE_FACTOR:
            needed = f"a fair choice needs {FINE:.3g} or less"
            return [f"the neighbours of the best learning rate {name}, {rate:g}, are {gap:.3g} times away, {needed}"]
        return []

    def _groups(self) -> list[str]:
        """Why families that make up one side cannot be compared: the sides differ in them, or have only one."""
        over = self.claim.over
        if not over:
            return []
        values = [{*zip(*(texts(runs, c) for c in over), strict=True)} for runs in self.sides.values()]
        if values[0] != values[-1] or len(values[0]) < 2:
            return [f"both sides must have the same values of {' and '.join(over)}, two or more"]
        lost = [side for side, runs in self.sides.items() if runs["counts_as_guessing"].all()]
        return [
            f"every run {name_side(self.norms, side)} diverged or did not learn, and all are equally bad"
            for side in lost
        ]

    def fine_rates(self) -> dict[str, tuple[float, ...]]:
        """By family, the learning rates that the view still lacks around the best one; empty for an unfair grid."""
        if self._grid():
            return {}
        every = [(side, family, own) for side, runs in self.sides.items() for family, own in families(runs)]
        return {
            family: rates_around(own, self.best[side][family])
            for side, family, own in every
            if learns(own) and not math.isnan(self.best[side][family])
        }


def rates_around(runs: pd.DataFrame, best: float) -> tuple[float, ...]:
    """The rates 10^(1/4) away from the best one where its neighbour is farther away, with three digits. Beyond the edge
    of the grid also that 10^(1/2) away, so that a best rate at the edge can become an inner one."""
    rates = np.unique(runs["lr"].to_numpy(float))
    below, above = best / rates[rates < best / 1.001], rates[rates > best * 1.001] / best
    quarters = 4 * math.log10(best)  # of a decade: 0.316 stands for 10^(-2/4)
    quarters = round(quarters) if abs(quarters - round(quarters)) < 0.01 else quarters
    steps = []
    for factors, direction in ((below, -1), (above, 1)):
        if factors.min(initial=math.inf) > LARGEST_FINE_FACTOR:
            steps += [direction] if len(factors) else [direction, 2 * direction]
    return tuple(float(f"{10 ** ((quarters + step) / 4):.3g}") for step in sorted(steps))


def _gap_around(rates: np.ndarray, rate: float) -> float:
    """The factor to the farther neighbour."""
    i = int(np.searchsorted(rates, rate))
    return float(max(rates[i + 1] / rate, rate / rates[i - 1]))


def at_complete_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of each family at the rates that it was tried at with all of its seeds."""
    parts = [tried_with_all_seeds(own) for _, own in families(runs)]
    return pd.concat(parts) if parts else runs


def _at_common_rates(sides: Sides) -> Sides:
    """The runs at the learning rates that every family of both sides was tried at."""
    grids = [set(own["lr"]) for runs in sides.values() for _, own in families(runs)]
    common = set.intersection(*grids) if grids else set()
    return {side: runs[runs["lr"].isin(common)] for side, runs in sides.items()}


def learns(runs: pd.DataFrame) -> bool:
    """Whether some run neither diverged nor ended near guessing; where all did, no learning rate is best."""
    return not runs["counts_as_guessing"].all()


def families(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for family, own in runs.groupby("family", observed=True):
        yield str(family), own
