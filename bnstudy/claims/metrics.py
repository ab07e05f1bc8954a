"""The numbers that claims are about: one a seed, of an arm or of a family of arms.

A diverged run is never left out. Its accuracy is that of guessing; of what is measured at the end of training a run
that left early has the worst value or, where there is no such value, was not measured. What is bounded, as the number
of updates is by the length of training, is *capped* at the bound: two values capped at the same one differ by no more
than the true ones do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from bnstudy.claims.measures import dead_units_at_end
from bnstudy.claims.measures import mean_training_loss as mean_loss

OUTPUT = "out"
"""The layer that makes the logits: it is none of the hidden ones."""

SMOOTHED = 3
"""Validation accuracies are averaged over so many successive evaluations."""

NEAR = 1.0
"""Percentage points below the best accuracy within which a learning rate counts as good."""

WORST_LOSS = 10.0
"""A run has diverged when its loss is so many times the initial one."""

Reader = Callable[[pd.DataFrame, pd.DataFrame, float], pd.DataFrame]
Kind = Literal["of_arm", "of_several", "of_family", "untrained"]


@dataclass(frozen=True)
class Metric:
    """How a metric is read.

    read: (runs, metrics, target) -> `value`, NaN where it was not measured, and `capped`, by seed; `runs` as `Study`
        has them, `metrics` what was recorded of them.
    names: which recorded metrics `read` wants to see.
    scales: how two values may be compared.
    kind: what `runs` are: those of one arm; of several arms of a side, each at its learning rate (of_several); of all
        learning rates of a family (of_family); of an arm before training, whatever its learning rate (untrained).
    target: the value to be reached that `read` is given: a validation `accuracy`, or the `training_loss` that both
        sides end with; null for none.
    slack: by how much, on the claim's scale, a difference may be off where learning rates are this factor apart.
    """

    read: Reader
    names: tuple[str, ...] = ()
    scales: tuple[str, ...] = ("difference",)
    kind: Kind = "of_arm"
    target: Literal["accuracy", "training_loss"] | None = None
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
    """Mean over all updates of the loss of the batch in use; 10 times the initial loss for runs that left early."""
    rows = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss") & (metrics["step"] == 0)]
    first = runs["run_id"].map(rows.set_index(rows["run_id"].astype(str))["value"]).astype(float)
    lost = left_early(runs)
    return by_seed(runs, _of_run(runs, mean_loss(metrics)).mask(lost, WORST_LOSS * first), lost)


def test_accuracy(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """At the end, in percentage points; that of guessing for runs that diverged."""
    return by_seed(runs, 100 * runs["test_accuracy"], runs["diverged"])


def accuracy_above_chance(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Test accuracy at the end less that of guessing, in percentage points; 0 for runs that diverged."""
    return by_seed(runs, 100 * (runs["test_accuracy"] - runs["chance"]), pd.Series(False, runs.index))


def dead_units(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Dead ReLU units at the end, in percentage points of all; 100 for runs that left early."""
    lost = left_early(runs)
    return by_seed(runs, (100 * _of_run(runs, dead_units_at_end(metrics))).mask(lost, 100.0), lost)


def test_accuracy_at_training_loss(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:
    """Test accuracy in percentage points, interpolated between evaluations, where the training loss first is `target`
    or less, a mean over the updates since the evaluation before; at the end for runs that never get there, that of
    guessing for runs that diverged."""
    test = metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")]
    loss = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")]
    losses = {str(r): rows for r, rows in loss.groupby("run_id", observed=True)}
    found = {str(r): _accuracy_at(rows, losses[str(r)], target) for r, rows in test.groupby("run_id", observed=True)}
    reached, lost = runs["run_id"].map(found).astype(float), runs["diverged"].astype(bool)
    value = reached.fillna(runs["test_accuracy"]).mask(lost, runs["chance"])
    return by_seed(runs, 100 * value, lost | reached.isna())


def _accuracy_at(accuracy: pd.DataFrame, loss: pd.DataFrame, target: float) -> float:
    """NaN where the loss never is that low."""
    ordered, by_update = accuracy.sort_values("step"), loss.sort_values("step")
    steps = ordered["step"].to_numpy()
    total = np.concatenate([[0.0], by_update["value"].cumsum().to_numpy()])
    ends = np.minimum(steps, len(by_update))
    means = np.diff(total[ends]) / np.maximum(1, np.diff(ends))
    below = np.flatnonzero(means <= target)
    if not len(below):
        return math.nan
    i = below[0]
    at = steps[i + 1]
    if i > 0:
        at = np.interp(target, [means[i], means[i - 1]], [steps[i + 1], steps[i]])
    return float(np.interp(at, steps, ordered["value"]))


def generalization_gap(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Accuracy on training images, in evaluation mode, less that on the test images, at the end, in percentage
    points; 100 for runs that left early."""
    gap = 100 * (_of_run(runs, at_end(metrics, "train_accuracy")) - runs["final.test_accuracy"].astype(float))
    lost = left_early(runs)
    return by_seed(runs, gap.mask(lost, 100.0), lost)


def distribution_drift(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """How far the percentiles of a unit's pre-activations move from one measurement to the next, over their spread: the
    geometric mean over hidden layers and measurements, so that the first updates, when most moves, do not decide it."""
    rows = metrics[(metrics["metric"] == "z_drift_relative") & (metrics["layer"] != OUTPUT)]
    return _unless_left(runs, geometric_means(rows))


def gradient_shift(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """1 - cos(G, G') of a layer's gradient before and after the update of the layers in front of it (Santurkar et al.
    2018): the mean over layers and measurements, 0 for no shift and 2 for opposite gradients."""
    rows = metrics[(metrics["metric"] == "ics_cosine") & np.isfinite(metrics["value"])]
    return _unless_left(runs, 1 - rows.groupby("run_id", observed=True)["value"].mean(), worst=2.0)


def roughness(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Effective smoothness beta along the gradient in the coordinates W/||W|| (`beta_eff_scaled` of the landscape
    probe), the geometric mean over measurements: smaller is smoother."""
    return _unless_left(runs, geometric_means(metrics[metrics["metric"] == "beta_eff_scaled"]))


def saturated_units(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Saturated outputs of sigmoid or tanh units at the end, mean over the layers, in percentage points; 100 for runs
    that left early."""
    rows = metrics[metrics["metric"] == "saturated_share"]
    last = rows[rows["step"] == rows.groupby("run_id", observed=True)["step"].transform("max")]
    return _unless_left(runs, 100 * last.groupby("run_id", observed=True)["value"].mean(), worst=100.0)


def precise_less_running(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:
    """Accuracy on held-out images at the end by precise statistics less that by running ones, percentage points."""
    return _by_statistics(runs, metrics, "precise", target)


def batch_less_running(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:
    """The same by the statistics of each batch."""
    return _by_statistics(runs, metrics, "batch", target)


def _by_statistics(runs: pd.DataFrame, metrics: pd.DataFrame, kind: str, target: float) -> pd.DataFrame:  # noqa: ARG001
    """0 for runs that left early: a network that guesses guesses by any statistics."""
    gain = 100 * (at_end(metrics, f"accuracy_{kind}") - at_end(metrics, "accuracy_running"))
    return _unless_left(runs, gain, worst=0.0)


def ms_per_update(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Median milliseconds per update after the warm-up, without evaluation and probes, of runs trained one by one: the
    time of a stack is not that of its runs."""
    return by_seed(runs, runs["step_ms"].where(runs["engine"] == "serial"), pd.Series(False, runs.index))


def seconds_to_target(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:
    """`updates_to_target` times the seconds that an update takes."""
    updates, ms = updates_to_target(runs, metrics, target), ms_per_update(runs, metrics, target)
    return updates.assign(value=updates["value"] * ms["value"] / 1000)


def gradient_slope(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Size of the slope of the log gradient over depth, before training: 0 is ideal."""
    rows = metrics[(metrics["metric"] == "backprop_slope") & (metrics["step"] == 0)]
    slope = rows.set_index(rows["run_id"].astype(str))["value"].abs()
    return by_seed(runs, _of_run(runs, slope), pd.Series(False, runs.index))


def geometric_means(rows: pd.DataFrame) -> pd.Series:
    """Of each run's values that are finite and above 0."""
    positive = rows[(rows["value"] > 0) & np.isfinite(rows["value"])]
    return np.exp(np.log(positive["value"]).groupby(positive["run_id"].astype(str)).mean())


def at_end(metrics: pd.DataFrame, name: str) -> pd.Series:
    """The last value of a metric of the whole network by run."""
    rows = metrics[(metrics["metric"] == name) & (metrics["layer"] == "")]
    return rows.sort_values("step", kind="stable").groupby(rows["run_id"].astype(str))["value"].last()


def _unless_left(runs: pd.DataFrame, values: pd.Series, worst: float = math.nan) -> pd.DataFrame:
    """The runs' values, and `worst` for those that left early: not measured where there is no such value."""
    lost = left_early(runs)
    return by_seed(runs, _of_run(runs, values).mask(lost, worst), lost)


# -------------------------------------------------------------------------------------- of several arms of a side


def spread_of_accuracy(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Best less worst, over the arms, of the highest validation accuracy, in percentage points."""
    return _over_arms(runs, lambda accuracies: 100 * (accuracies.max() - accuracies.min()))


def deviation_of_accuracy(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Standard deviation over the arms of the highest validation accuracy, in percentage points."""
    return _over_arms(runs, lambda accuracies: 100 * accuracies.std(ddof=1))


def share_near_best(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """Arms whose highest validation accuracy is at least 90% of the best arm's, in percentage points of all."""
    return _over_arms(runs, lambda accuracies: 100 * float((accuracies >= 0.9 * accuracies.max()).mean()))


def _over_arms(runs: pd.DataFrame, read: Callable[[pd.Series], float]) -> pd.DataFrame:
    """`best_accuracy` is that of guessing where a run diverged, so that nothing is beyond what was measured."""
    values = runs.groupby("seed")["best_accuracy"].agg(read)
    return pd.DataFrame({"value": values.astype(float), "capped": False})


def left_early(runs: pd.DataFrame) -> pd.Series:
    """Which runs did not get to the end of training: nothing can be known of their end. Those that only ended near
    guessing, which count as diverged, too, were measured there."""
    return runs["diverged"].astype(bool) & ~(runs["diverged_step"].astype(float) >= runs["steps"].astype(float))


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


OF_GRID = ("seed", "lr", "diverged", "diverged_step", "steps", "test_accuracy", "score")
"""What is looked at of the runs of a family."""


def _each_seed(runs: pd.DataFrame, read: Callable[[pd.DataFrame], tuple[float, bool]]) -> pd.DataFrame:
    ordered = runs[[c for c in OF_GRID if c in runs]].sort_values("lr", kind="stable")
    found = {seed: read(of_seed) for seed, of_seed in ordered.groupby("seed")}
    return pd.DataFrame.from_dict(found, orient="index", columns=["value", "capped"]).rename_axis("seed")


def coarseness(rates: np.ndarray) -> float:
    """The largest factor between neighbours of a grid of learning rates; infinite where there is but one."""
    grid = np.unique(rates)
    return float((grid[1:] / grid[:-1]).max()) if len(grid) > 1 else math.inf


def largest_useful_rate(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """The largest learning rate of the grid with at least 90% of the seed's best test accuracy. Capped at the edge."""
    return _each_seed(runs, _useful)


def _useful(ordered: pd.DataFrame) -> tuple[float, bool]:
    rates, accuracy = ordered["lr"].to_numpy(float), ordered["test_accuracy"].to_numpy(float)
    last = int(np.flatnonzero(accuracy >= 0.9 * accuracy.max())[-1])
    return float(rates[last]), last == len(rates) - 1


def best_learning_rate(runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.DataFrame:  # noqa: ARG001
    """The learning rate with the highest validation accuracy at the end, the smaller of equals. Capped at the edge."""
    return _each_seed(runs, _best_rate)


def _best_rate(ordered: pd.DataFrame) -> tuple[float, bool]:
    rates, score = ordered["lr"].to_numpy(float), ordered["score"].to_numpy(float)
    best = int(score.argmax())
    return float(rates[best]), best in (0, len(rates) - 1)


BOTH = ("difference", "log_ratio")
RATIO = ("log_ratio",)
METRICS = {
    "updates_to_target": Metric(updates_to_target, ("accuracy",), BOTH, target="accuracy"),
    "seconds_to_target": Metric(seconds_to_target, ("accuracy",), RATIO, target="accuracy"),
    "ms_per_update": Metric(ms_per_update, (), BOTH),
    "mean_training_loss": Metric(mean_training_loss, ("loss",), BOTH),
    "test_accuracy": Metric(test_accuracy),
    "accuracy_above_chance": Metric(accuracy_above_chance),
    "test_accuracy_at_training_loss": Metric(
        test_accuracy_at_training_loss, ("loss", "accuracy"), target="training_loss"
    ),
    "generalization_gap": Metric(generalization_gap, ("train_accuracy",)),
    "dead_units": Metric(dead_units, ("dead_share",)),
    "saturated_units": Metric(saturated_units, ("saturated_share",)),
    "distribution_drift": Metric(distribution_drift, ("z_drift_relative",), BOTH),
    "gradient_shift": Metric(gradient_shift, ("ics_cosine",), BOTH),
    "roughness": Metric(roughness, ("beta_eff_scaled",), RATIO),
    "precise_less_running": Metric(precise_less_running, ("accuracy_precise", "accuracy_running")),
    "batch_less_running": Metric(batch_less_running, ("accuracy_batch", "accuracy_running")),
    "gradient_slope": Metric(gradient_slope, ("backprop_slope",), kind="untrained"),
    "spread_of_accuracy": Metric(spread_of_accuracy, kind="of_several"),
    "deviation_of_accuracy": Metric(deviation_of_accuracy, kind="of_several"),
    "share_near_best": Metric(share_near_best, kind="of_several"),
    "largest_tolerated_rate": Metric(largest_tolerated_rate, (), RATIO, kind="of_family", slack=math.log),
    "largest_useful_rate": Metric(largest_useful_rate, (), RATIO, kind="of_family", slack=math.log),
    "best_learning_rate": Metric(best_learning_rate, (), RATIO, kind="of_family", slack=math.log),
    # Either end of the range lies anywhere within a step of the grid.
    "width_of_good_rates": Metric(width_of_good_rates, kind="of_family", slack=lambda factor: 2 * math.log10(factor)),
}
