"""The numbers that claims are about: one a seed, of an arm or of a family of arms.

A diverged run has the worst value and is never left out. What is bounded, as the number of updates is by the length of
training, is *capped* at the bound: two values capped at the same one differ by no more than the true ones do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnstudy.analysis.measures import dead_units_at_end
from bnstudy.analysis.measures import mean_training_loss as mean_loss

SMOOTHED = 3
"""Validation accuracies are averaged over so many successive evaluations."""

NEAR = 1.0
"""Percentage points below the best accuracy within which a learning rate counts as good."""

WORST_LOSS = 10.0
"""A run has diverged when its loss is so many times the initial one."""

Reader = Callable[[pd.DataFrame, pd.DataFrame, float], pd.DataFrame]


@dataclass(frozen=True)
class Metric:
    """How a metric is read.

    read: (runs, metrics, target) -> `value`, NaN where it was not measured, and `capped`, by seed; runs are those of
        one arm, or with `of_family` of all arms of a family, metrics what was recorded of them.
    scales: how two values may be compared.
    targeted: whether it is about an accuracy to be reached, the target.
    slack: by how much, on the claim's scale, a difference may be off where learning rates are this factor apart.
    """

    read: Reader
    scales: tuple[str, ...] = ("difference",)
    of_family: bool = False
    targeted: bool = False
    slack: Callable[[float], float] = lambda _: 0.0


def by_seed(runs: pd.DataFrame, value: pd.Series, capped: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"value": value.astype(float), "capped": capped.astype(bool)}).set_axis(runs["seed"])


# --------------------------------------------------------------------------------------------------- of an arm


def updates_to_target(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:
    """First update at which the smoothed validation accuracy is `target` (a share) or more, interpolated between
    evaluations; the length of training for runs that diverged or never got there."""
    rows = metrics[(metrics["split"] == "val") & (metrics["metric"] == "accuracy") & (metrics["layer"] == "")]
    reached = {str(r): first_reached(curve, target) for r, curve in rows.groupby("run_id", observed=True)}
    first, total = runs["run_id"].map(reached).astype(float), runs["steps"].astype(float)
    late = runs["diverged"].astype(bool) | (first >= total)
    return by_seed(runs, first.mask(late, total), late)


def first_reached(curve: pd.DataFrame, target: float) -> float:
    """Where the smoothed `value` over `step` first is `target` or more, at least 1; infinite where it never is."""
    ordered = curve.sort_values("step", kind="stable")
    step = ordered["step"].to_numpy(float)
    smooth = ordered["value"].rolling(SMOOTHED, center=True, min_periods=1).mean().to_numpy()
    above = np.flatnonzero(smooth >= target)
    if not len(above):
        return math.inf
    i = above[0]
    if i == 0:
        return max(1.0, float(step[0]))
    return max(1.0, float(np.interp(target, smooth[i - 1 : i + 1], step[i - 1 : i + 1])))


def mean_training_loss(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Mean over all updates of the loss of the batch in use; 10 times the initial loss for runs that diverged."""
    rows = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss") & (metrics["step"] == 0)]
    first = runs["run_id"].map(rows.set_index(rows["run_id"].astype(str))["value"]).astype(float)
    lost = runs["diverged"].astype(bool)
    return by_seed(runs, _of_run(runs, mean_loss(metrics)).mask(lost, WORST_LOSS * first), lost)


def test_accuracy(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """At the end, in percentage points; that of guessing for runs that diverged."""
    return by_seed(runs, 100 * runs["test_accuracy"], runs["diverged"])


def dead_units(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Dead ReLU units at the end, in percentage points of all; 100 for runs that diverged."""
    lost = runs["diverged"].astype(bool)
    return by_seed(runs, (100 * _of_run(runs, dead_units_at_end(metrics))).mask(lost, 100.0), lost)


def gradient_slope(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Size of the slope of the log gradient over depth, before training: 0 is ideal."""
    rows = metrics[(metrics["metric"] == "backprop_slope") & (metrics["step"] == 0)]
    slope = rows.set_index(rows["run_id"].astype(str))["value"].abs()
    return by_seed(runs, _of_run(runs, slope), pd.Series(False, runs.index))


def _of_run(runs: pd.DataFrame, values: pd.Series) -> pd.Series:
    """`values`, by run_id, in the order of the runs."""
    return runs["run_id"].map(values.set_axis(values.index.astype(str))).astype(float)


# ------------------------------------------------------------------------------------------------ of a family


def largest_tolerated_rate(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """The largest learning rate of the grid such that with it and all smaller ones the seed's run does not diverge;
    one step below the grid where it does with all. Capped where it is the grid's largest, or below the grid."""
    return _each_seed(runs, _tolerated)


def _tolerated(ordered: pd.DataFrame) -> tuple[float, bool]:
    """Rates at the lower end at which the network had learned next to nothing by the end are too small, not too large:
    they do not count as divergence, which they are for every other purpose."""
    rates, lost = ordered["lr"].to_numpy(float), ordered["diverged"].to_numpy(bool)
    at_the_end = lost & (ordered["diverged_step"].to_numpy(float) >= ordered["steps"].to_numpy(float))
    too_small = np.logical_and.accumulate(at_the_end) & ~lost.all()
    borne = rates[np.logical_and.accumulate(~lost | too_small) & ~too_small]
    if not len(borne):
        return rates[0] / coarseness(rates), True
    return float(borne[-1]), bool(borne[-1] == rates[-1])


def width_of_good_rates(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """log10(highest/lowest) of the learning rates around the best whose test accuracy is within 1 point of it. Capped
    where they reach the edge of the grid."""
    return _each_seed(runs, _width)


def _width(ordered: pd.DataFrame) -> tuple[float, bool]:
    rates, points = ordered["lr"].to_numpy(float), 100 * ordered["test_accuracy"].to_numpy(float)
    best = low = high = int(points.argmax())
    good = points >= points[best] - NEAR
    while low > 0 and good[low - 1]:
        low -= 1
    while high < len(rates) - 1 and good[high + 1]:
        high += 1
    return math.log10(rates[high] / rates[low]), low == 0 or high == len(rates) - 1


def _each_seed(runs: pd.DataFrame, read: Callable[[pd.DataFrame], tuple[float, bool]]) -> pd.DataFrame:
    found = {seed: read(of_seed.sort_values("lr")) for seed, of_seed in runs.groupby("seed")}
    return pd.DataFrame.from_dict(found, orient="index", columns=["value", "capped"]).rename_axis("seed")


def coarseness(rates: np.ndarray) -> float:
    """The largest factor between neighbours of a grid of learning rates; infinite where there is but one."""
    grid = np.unique(rates)
    return float((grid[1:] / grid[:-1]).max()) if len(grid) > 1 else math.inf


BOTH = ("difference", "log_ratio")
METRICS = {
    "updates_to_target": Metric(updates_to_target, BOTH, targeted=True),
    "mean_training_loss": Metric(mean_training_loss, BOTH),
    "test_accuracy": Metric(test_accuracy),
    "dead_units": Metric(dead_units),
    "gradient_slope": Metric(gradient_slope),
    "largest_tolerated_rate": Metric(largest_tolerated_rate, ("log_ratio",), of_family=True, slack=math.log),
    # Either end of the range lies anywhere within a step of the grid.
    "width_of_good_rates": Metric(width_of_good_rates, of_family=True, slack=lambda factor: 2 * math.log10(factor)),
}
