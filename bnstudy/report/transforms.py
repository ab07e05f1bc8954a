"""Transforms from measurements to the values that figures show.

    hold_at_chance(accuracy, runs).pipe(mean_band, ["arm", "step"])

A transform returns a new frame. Frames of measurements have the columns `run_id`, `arm`, `step` and `value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnstudy.stats.intervals import summarize

SMALLEST_LOSS = 1e-7
"""Cross-entropy in single precision rounds to zero below this, and a log axis cannot show zero."""


def mean_band(rows: pd.DataFrame, by: Sequence[str], log: bool = False) -> pd.DataFrame:
    """`mean` `low` `high` `n` over the runs of each group of `by`, with a 95% t interval.

    Args:
        log: geometric mean, with the interval on the log axis; values that are not above 0 are left out.
    """
    if not log:
        return summarize(rows, by, "value")
    positive = rows[rows["value"] > 0]
    table = summarize(positive.assign(value=np.log(positive["value"])), by, "value")
    return table.assign(**np.exp(table[["mean", "low", "high"]]))


def split_by_arm(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for arm, of_arm in rows.groupby("arm", observed=True):
        yield str(arm), of_arm


def last_means(table: pd.DataFrame) -> pd.Series:
    """The last mean of each arm, by arm; `table` comes from `mean_band`."""
    return table.sort_values("step").groupby("arm", observed=True)["mean"].last()


def bin_losses(loss: pd.DataFrame, n: int = 24) -> pd.DataFrame:
    """Each run's mean loss in `n` bins of steps, evenly spaced on a log axis.

    The loss in row `step` belongs to the batch of step + 1. The new `step` is the middle of the bin from `start` to
    `end`.
    """
    number = loss["step"] + 1
    edges = np.unique(np.geomspace(1, max(2, number.max() + 1), n + 1).round())
    keys = ["arm", "run_id", np.searchsorted(edges, number, side="right")]
    bins = loss.assign(number=number).groupby(keys, observed=True)
    table = bins.agg(value=("value", "mean"), start=("number", "min"), end=("number", "max")).reset_index()
    return table.assign(step=(table["start"] + table["end"]) / 2, value=table["value"].clip(lower=SMALLEST_LOSS))


class Clock:
    """Adds `seconds`, the training time until `step` (fractions allowed): the mean over the arm's longest runs.

    The time is missing after the last timed step of an arm.
    """

    def __init__(self, timing: pd.DataFrame) -> None:
        last = timing.groupby("run_id", observed=True)["step"].transform("max")
        longest = timing[last == last.groupby(timing["arm"], observed=True).transform("max")]
        self.means = longest.groupby(["arm", "step"], observed=True)["seconds"].mean()

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        seconds = pd.Series(np.nan, rows.index)
        for arm, of_arm in rows.groupby("arm", observed=True):
            if arm in self.means:
                clock = self.means[arm]
                seconds[of_arm.index] = np.interp(of_arm["step"], clock.index, clock, right=np.nan)
        return rows.assign(seconds=seconds)


@dataclass(frozen=True)
class Moment:
    """A point of training, as the share of steps done; a measurement between `low` and `high` may represent it."""

    title: str
    share: float
    low: float
    high: float

    def __call__(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Each run's rows at its nearest measured step; `rows` also has the runs' `steps`."""
        share = rows["step"] / rows["steps"]
        near = rows[share.between(self.low, self.high)].assign(distance=(share - self.share).abs())
        by_run = near.groupby("run_id", observed=True)["distance"]
        nearest = near[near["distance"] == by_run.transform("min")]
        return nearest[nearest["step"] == nearest.groupby("run_id", observed=True)["step"].transform("min")]


MOMENTS = (
    Moment("before training", 0.0, 0.0, 0.0),
    Moment("early (5% done)", 0.05, 0.005, 0.2),
    Moment("half-way", 0.5, 0.3, 0.7),
    Moment("end of training", 1.0, 1.0, 1.0),
)
