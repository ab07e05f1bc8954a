"""The learning rates at which a claim's two sides are evaluated, and the conditions of a fair choice."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from bnstudy.claims.cases import texts
from bnstudy.claims.claim import Claim
from bnstudy.claims.frames import StudyData
from bnstudy.claims.metrics import View, coarseness

LEAST_RATES = 7
LARGEST_FACTOR = math.sqrt(10) * 1.01
"""Between neighbours of a grid of learning rates; 0.00316 and 0.01 are allowed."""

Side = Literal["with", "without"]
Sides = dict[Side, pd.DataFrame]
"""The finished runs of each side; without "without" where the claim compares with a reference."""


class RateChoice:
    """The learning rates of the two sides of a case in one view, chosen on the score of the tuning seeds.

    best: by side and family, the rate with the highest mean score; NaN for no runs.
    factor: between neighbours of the coarser grid.
    """

    def __init__(self, claim: Claim, view: View, sides: Sides, tuning: Sequence[int]) -> None:
        self.claim, self.view, self.sides, self.tuning = claim, view, sides, tuning
        self.best = {side: {f: self._best(own) for f, own in families(runs)} for side, runs in sides.items()}
        self.runs_by_family = [own for runs in sides.values() for _, own in families(runs)]
        self.grids = [np.unique(own["lr"].to_numpy(float)) for own in self.runs_by_family]
        self.factor = max(map(coarseness, self.grids))

    def _best(self, runs: pd.DataFrame) -> float:
        """The smaller of equals."""
        means = self._of_tuning(runs).groupby("lr")["score"].mean()
        return float(means.idxmax()) if len(means) else math.nan

    def _of_tuning(self, runs: pd.DataFrame) -> pd.DataFrame:
        return runs[runs["seed"].isin(self.tuning)]

    @property
    def tuning_runs(self) -> Sides:
        return {side: self._of_tuning(runs) for side, runs in self.sides.items()}

    @property
    def evaluated_runs(self) -> Sides:
        """The runs of the other seeds, at the learning rates of the view."""
        others = {side: runs[~runs["seed"].isin(self.tuning)] for side, runs in self.sides.items()}
        if self.view == "all_rates":
            return others
        rates = {side: {family: self._rate(side, family) for family in best} for side, best in self.best.items()}
        return {side: runs[runs["lr"] == runs["family"].astype(str).map(rates[side])] for side, runs in others.items()}

    def _rate(self, side: Side, family: str) -> float:
        if self.view == "before_training":
            return float(self.sides[side].loc[self.sides[side]["family"] == family, "lr"].min())
        if self.view == "same_rate":  # a side then has one family
            return next(iter(self.best["without"].values()))
        return self.best[side][family]

    def rate_of(self, side: Side) -> float:
        """The learning rate of a side; NaN where it has none or several."""
        if side not in self.sides or len(self.best[side]) != 1 or self.view not in ("same_rate", "best_rate"):
            return math.nan
        return self._rate(side, next(iter(self.best[side])))

    def target(self) -> float:
        """The metric's target, by the tuning seeds at the learning rates of the view; NaN for none.

        For a training loss, NaN also where all runs of a side diverged.
        """
        kind, tuning = self.claim.measure.target, self.tuning_runs
        if kind is None:
            return math.nan
        if kind == "accuracy":
            baseline = tuning["without"]
            at_best = baseline[baseline["lr"] == next(iter(self.best["without"].values()))]
            return float(self.claim.share_of_target * at_best["val_accuracy"].mean())
        chosen = [runs[runs["lr"] == self.rate_of(side)] for side, runs in tuning.items()]
        return float(np.max([runs.loc[~runs["diverged"].astype(bool), "final.train_loss"].mean() for runs in chosen]))

    def obstacles(self) -> list[str]:
        """What rules out a verdict, in words."""
        if self.view == "before_training":
            return []
        found = []
        if self.claim.measure.target == "training_loss" and math.isnan(self.target()):
            found.append("on some side every run that chooses the learning rate diverged: no loss is reached by both")
        return [*found, *self._grid(), *self._edges(), *self._groups()]

    def _grid(self) -> list[str]:
        """Too few learning rates, too far apart, or different ones on the two sides."""
        fewest = min(map(len, self.grids))
        if fewest < LEAST_RATES:
            rates = "rate" if fewest == 1 else "rates"
            return [f"the grid has {fewest} learning {rates}, a fair choice needs {LEAST_RATES}"]
        if self.factor > LARGEST_FACTOR:
            needed = f"a fair choice needs {math.sqrt(10):.3g} or less"
            return [f"learning rates of the grid are {self.factor:.3g} times apart, {needed}"]
        if any(len(own) < own["seed"].nunique() * own["lr"].nunique() for own in self.runs_by_family):
            return ["not every seed was tried at every learning rate"]
        if self.claim.measure.kind == "of_family" and len({tuple(grid) for grid in self.grids}) > 1:
            return ["the two sides were tried at different learning rates"]
        return []

    def _edges(self) -> list[str]:
        """A best learning rate at the edge of its grid, or one that was not tried."""
        if self.view == "all_rates":
            return []
        sides: list[Side] = ["without"] if self.view == "same_rate" else list(self.sides)
        if self.view == "same_rate" and not any(self._learns(own) for _, own in families(self.sides["without"])):
            return ["no learning rate is best without it: all of them diverged"]
        tried = [(side, family, own) for side in sides for family, own in families(self.sides[side])]
        found = [text for side, family, own in tried for text in self._edge(side, family, own)]
        rate = self.rate_of("with")
        if self.view == "same_rate" and not math.isnan(rate) and not (self.sides["with"]["lr"] == rate).any():
            found.append(f"no runs with it at learning rate {rate:g}")
        return found

    def _edge(self, side: Side, family: str, runs: pd.DataFrame) -> list[str]:
        rate = self.best[side][family]
        name = f"{side} it" if len(self.best[side]) == 1 else f"of {family}"
        if math.isnan(rate):
            return [f"no seeds to choose the learning rate {name}"]
        if rate in (runs["lr"].min(), runs["lr"].max()) and self._learns(runs):
            return [f"the best learning rate {name}, {rate:g}, lies on the edge of the grid"]
        return []

    def _learns(self, runs: pd.DataFrame) -> bool:
        """Whether some tuning run did not diverge; where all did, no learning rate is best."""
        return not self._of_tuning(runs)["diverged"].all()

    def _groups(self) -> list[str]:
        """Why families that make up one side cannot be compared: the sides differ in them, or have only one."""
        over = self.claim.over
        if not over:
            return []
        values = [{*zip(*(texts(runs, c) for c in over), strict=True)} for runs in self.sides.values()]
        if values[0] != values[-1] or len(values[0]) < 2:
            return [f"both sides must have the same values of {' and '.join(over)}, two or more"]
        lost = [side for side, runs in self.sides.items() if runs["diverged"].all()]
        return [f"every run {side} it diverged, and all are equally bad" for side in lost]


def families(runs: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for family, own in runs.groupby("family", observed=True):
        yield str(family), own


def fine_rates(study: StudyData, claims: Sequence[Claim]) -> dict[tuple[str, str], tuple[float, ...]]:
    """(panel, family) -> the learning rates to add around the family's best one; empty where the study compares nothing
    at its best rate, where the grid is not fair or is fine already."""
    if not any("best_rate" in claim.views for claim in claims):
        return {}
    found = {}
    for (panel, family), own in study.runs.groupby(["panel", "family"], observed=True):
        grid = np.unique(own["lr"].to_numpy(float))
        if len(grid) < LEAST_RATES or coarseness(grid) > LARGEST_FACTOR or own["diverged"].all():
            continue
        best = float(own.groupby("lr")["score"].mean().idxmax())
        steps = [-0.25, 0.25]
        steps += [0.5] if best == grid[-1] else []
        steps += [-0.5] if best == grid[0] else []
        points = [float(f"{best * 10**step:.3g}") for step in sorted(steps)]
        new = tuple(p for p in points if np.abs(np.log(grid / p)).min() > np.log(1.01))
        if new:
            found[str(panel), str(family)] = new
    return found
