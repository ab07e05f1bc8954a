"""From measurements to what is drawn: frame -> frame transforms, each a small dataclass of its parameters.

    HoldAtChance(runs)(accuracy).pipe(MeanBand(("arm", "step")))

They return new frames and leave the given ones alone. Frames of measurements have `run_id`, `step` and `value`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from bnstudy.claims.best_arms import best_arms
from bnstudy.claims.frames import RowsByRun, StudyData
from bnstudy.stats.intervals import summarize

SWEPT = 3
"""With so many learning rates in a family only the best one's curves are shown,"""
CROWDED = 9
"""or with so many arms."""

SMALLEST_LOSS = 1e-7
"""Cross-entropy in single precision rounds to zero below this, where a log axis has no place for it."""


@dataclass(frozen=True)
class Panel:
    """One model on one dataset.

    runs: all runs. shown: the arms whose curves are drawn, one a row: `arm` `family` `label`. metrics, timing: the
    shown arms' measurements, with their runs' `arm`.
    """

    name: str
    runs: pd.DataFrame
    shown: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame

    @property
    def shown_runs(self) -> pd.DataFrame:
        return self.runs[self.runs["arm"].isin(self.shown["arm"])]

    def measured(self, metric: str, split: str = "") -> pd.DataFrame:
        """Rows of one metric of the whole network."""
        m = self.metrics
        return m[(m["metric"] == metric) & (m["split"] == split) & (m["layer"] == "")]

    def by_layer(self, metric: str) -> pd.DataFrame:
        """Rows of one metric of the layers, with `depth`: 1 for the first."""
        m = self.metrics
        rows = m[(m["metric"] == metric) & (m["layer"] != "")]
        return rows.assign(depth=rows.groupby(["run_id", "step"], observed=True).cumcount() + 1)


def panels(study: StudyData) -> list[Panel]:
    """One for each model and dataset that has finished runs, in order."""
    return [_panel(study, str(name), runs) for name, runs in study.runs.groupby("panel", observed=True)]


def _panel(study: StudyData, name: str, runs: pd.DataFrame) -> Panel:
    shown = shown_arms(runs)
    arm_of = runs[runs["arm"].isin(shown["arm"])].set_index("run_id")["arm"]
    metrics, timing = (_with_arm(rows, arm_of) for rows in (study.metrics_of, RowsByRun(study.timing)))
    return Panel(name, runs, shown, metrics, timing)


def _with_arm(rows: RowsByRun, arm_of: pd.Series) -> pd.DataFrame:
    """Those of the runs in `arm_of` (by run_id), with their arm."""
    own = rows.of(arm_of.index.to_series()).reset_index(drop=True)
    run = own["run_id"].astype("category")
    arm = arm_of.reindex(run.cat.categories).array.take(run.cat.codes.to_numpy())
    return own.assign(arm=arm)


def shown_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """`arm` `family` `label` of each family at its best learning rate if there are many, else of every arm."""
    best = best_arms(runs)
    if (best["rates"] >= SWEPT).any() or runs["arm"].nunique() >= CROWDED:
        at = [f" (best lr={lr:g})" if rates > 1 else "" for lr, rates in zip(best["lr"], best["rates"], strict=True)]
        return best[["arm", "family"]].assign(label=best["family"].astype(str) + at)
    every = runs.drop_duplicates("arm").sort_values("arm").reset_index(drop=True)
    several = every.groupby("family", observed=True)["lr"].transform("nunique") > 1
    at_lr = every["family"].astype(str) + [f", lr={lr:g}" for lr in every["lr"]]
    return every[["arm", "family"]].assign(label=at_lr.where(several, every["family"].astype(str)))


# ------------------------------------------------------------------------------------------------- transforms


@dataclass(frozen=True)
class MeanBand:
    """`mean` `low` `high` `n` over the runs of each group of `by`, with a 95% t interval.

    log: geometric mean, the interval being one on the log axis; values that are not above 0 are left out.
    """

    by: Sequence[str]
    log: bool = False

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        if not self.log:
            return summarize(frame, self.by, "value")
        positive = frame[frame["value"] > 0]
        table = summarize(positive.assign(value=np.log(positive["value"])), self.by, "value")
        return table.assign(**np.exp(table[["mean", "low", "high"]]))


@dataclass(frozen=True)
class LogBins:
    """Each run's mean loss within `n` bins, evenly spaced on a log axis, of the numbers of updates.

    The loss of row `step` is that of the batch for update step + 1; the new `step` is the mean of those in the bin.
    """

    n: int = 24

    def __call__(self, loss: pd.DataFrame) -> pd.DataFrame:
        update = loss["step"] + 1
        edges = np.unique(np.geomspace(1, max(2, update.max() + 1), self.n + 1).round())
        keys = ["arm", "run_id", np.searchsorted(edges, update, side="right")]
        bins = loss.assign(update=update).groupby(keys, observed=True)
        table = bins.agg(value=("value", "mean"), start=("update", "min"), end=("update", "max")).reset_index()
        return table.assign(step=(table["start"] + table["end"]) / 2, value=table["value"].clip(lower=SMALLEST_LOSS))


@dataclass(frozen=True)
class UntilDivergence:
    """Rows of an arm up to the first divergence among its runs: beyond, a mean would be one of survivors only."""

    runs: pd.DataFrame

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        last = self.runs.groupby("arm", observed=True)["diverged_step"].min()
        until = frame["arm"].map(last).astype(float)
        return frame[~(frame["step"] >= until) & np.isfinite(frame["value"])]


@dataclass(frozen=True)
class HoldAtChance:
    """Give diverged runs the accuracy of guessing from their divergence to the end of training.

    It is held at the steps at which the other runs of the same length were measured, and at the last.
    """

    runs: pd.DataFrame

    def __call__(self, accuracy: pd.DataFrame) -> pd.DataFrame:
        lost = self.runs.loc[self.runs["diverged"], ["run_id", "arm", "steps", "diverged_step", "chance"]]
        total = accuracy["run_id"].map(self.runs.set_index("run_id")["steps"])
        ends = pd.DataFrame({"steps": lost["steps"], "step": lost["steps"]})
        grid = pd.concat([accuracy[["step"]].assign(steps=total), ends]).drop_duplicates()
        held = lost.merge(grid, on="steps").query("step >= diverged_step").rename(columns={"chance": "value"})
        until = accuracy["run_id"].map(lost.set_index("run_id")["diverged_step"]).astype(float)
        kept = accuracy[~(accuracy["step"] >= until)]
        columns = ["run_id", "arm", "step", "value"]
        return pd.concat([kept[columns], held[columns].astype(kept[columns].dtypes)], ignore_index=True)


@dataclass(frozen=True)
class Clock:
    """`seconds` of training until `step` (fractions allowed), a mean over the arm's runs that went on longest.

    Beyond the last timed update it is missing: nothing was trained there.
    """

    timing: pd.DataFrame

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        seconds = pd.Series(np.nan, frame.index)
        for arm, rows in frame.groupby("arm", observed=True):
            if arm in self._means:
                clock = self._means[arm]
                seconds[rows.index] = np.interp(rows["step"], clock.index, clock, right=np.nan)
        return frame.assign(seconds=seconds)

    @cached_property
    def _means(self) -> dict[Hashable, pd.Series]:
        return {arm: self._mean(rows) for arm, rows in self.timing.groupby("arm", observed=True)}

    @staticmethod
    def _mean(rows: pd.DataFrame) -> pd.Series:
        last = rows.groupby("run_id", observed=True)["step"].transform("max")
        return rows[last == last.max()].groupby("step")["seconds"].mean()


@dataclass(frozen=True)
class Moment:
    """A point of training by the share of it that is done; measurements within low..high stand for it."""

    title: str
    share: float
    low: float
    high: float

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Each run's rows at its measured step that is nearest; `frame` has the runs' `steps` besides."""
        share = frame["step"] / frame["steps"]
        near = frame[share.between(self.low, self.high)].assign(off=(share - self.share).abs())
        nearest = near.groupby("run_id", observed=True)["off"].transform("min")
        chosen = near[near["off"] == nearest]
        return chosen[chosen["step"] == chosen.groupby("run_id", observed=True)["step"].transform("min")]


MOMENTS = (
    Moment("before training", 0.0, 0.0, 0.0),
    Moment("early (5% done)", 0.05, 0.005, 0.2),
    Moment("half-way", 0.5, 0.3, 0.7),
    Moment("end of training", 1.0, 1.0, 1.0),
)


def crosses(panel: Panel, loss: pd.DataFrame) -> pd.DataFrame:
    """Where shown runs diverged: `arm` `run_id` `step` and the last finite loss as `value`, given the binned loss."""
    lost = panel.shown_runs.query("diverged")[["run_id", "arm", "diverged_step"]]
    finite = loss[np.isfinite(loss["value"])].sort_values("step")
    last = finite.drop_duplicates("run_id", keep="last").set_index("run_id")["value"]
    step = lost["diverged_step"].astype(float).clip(lower=1)
    return lost.assign(step=step, value=lost["run_id"].map(last)).dropna(subset=["step", "value"])
