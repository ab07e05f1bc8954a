"""The numbers that claims are about: one number per seed, of one arm or of several.

A metric is one decorated function: `metric` says what it reads and how its values are compared. A claim names it,
`metric: test_accuracy` for one of this file and `metric: my_package.MyMetric` for one of the user's.

No run is dropped. The accuracy of a run that diverged or did not learn is that of guessing. A diverged run has the
worst value of what is measured at the end of training, or counts as not measured where there is no worst value. A value
can be at a *bound* of what was measured, such as the length of training for the step at which a target is reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pandas as pd

from bnstudy.store.thin import MEAN, SUM, of_training
from bnstudy.validation import ConfigError, import_object, nearest

OUTPUT = "out"
"""The layer that returns the logits. It is no hidden layer."""

TARGET_SHARE = 0.95
"""Default of the target of training, as a share of the baseline's final validation accuracy."""

SMOOTHED = 3
"""Number of successive evaluations over which validation accuracies are averaged."""

NEAR = 1.0
"""Percentage points below the best accuracy within which a learning rate counts as good."""

LATE = 1 / 3
"""Share of the training after which a network is at the edge of stability, if it gets there."""

WORST_LOSS = 10.0
"""The worst loss, times the larger of the loss of guessing and the initial loss: above it a run may have diverged."""

Frame: TypeAlias = pd.DataFrame
Target: TypeAlias = "float | pd.Series"
Reader = Callable[[Frame, Frame, Target], Frame]
Kind = Literal["of_arm", "of_several", "of_family", "untrained"]
View = Literal["same_rate", "best_rate", "fixed_rate", "all_rates", "before_training"]
Bound = Literal["", "at least", "at most", "worst"]
"""What a value is of the quantity that a metric measures: the quantity itself, a bound of it, or the worst value, which
stands for a run that failed."""

VIEWS: dict[Kind, tuple[View, ...]] = {
    "of_arm": ("best_rate", "same_rate"),
    "of_several": ("best_rate",),
    "of_family": ("all_rates",),
    "untrained": ("before_training",),
}
"""By a metric's kind the views that its claims may have; a claim has all of them by default. Where there is a single
learning rate, fixed_rate takes the place of the first two."""

RATIO = ("log_ratio",)
RATIO_FIRST = ("log_ratio", "difference")
POINTS = {"default": 1.5, "MNIST": 0.5, "FashionMNIST": 0.5, "Digits": 1}
"""Smallest effects of interest on accuracies, in percentage points by dataset."""


@dataclass(frozen=True)
class Metric:
    """A metric of a claim.

    read: (runs, metrics, target) -> a frame by seed with `value`, NaN where not measured, and `bound`. `runs` are as in
        `StudyData`, `metrics` their measurements.
    names: the recorded metrics that `read` needs.
    scales: how two values may be compared; the first is the default.
    kind: what `runs` are: those of one arm; of several arms of one side, each at its learning rate (of_several); of a
        family at all its learning rates (of_family); of an arm before training, at any learning rate (untrained).
    target: what `target` is: a validation `accuracy` to reach, one number; or by seed the `training_loss` or
        `training_error` at the end of the side where it is higher, so that both sides reach it; None for none.
    tuned_by: what chooses the learning rates: the final validation `accuracy`; the `best_accuracy` on validation; or
        the metric's own `lowest` value, for one that does not read the test split.
    floor: the smallest value that is possible: where both sides are within delta of it, a difference is not.
    most_apart: the largest possible difference of two values, in the metric's unit. Intervals of differences end there.
    learned: whether it describes a trained network, so that it says nothing where most runs of a side failed.
    images: of accuracies on test images, whether the metric is that at the end (test) or at another step (final: the
        standard error over images is that of the accuracies at the end); empty for others.
    whole: whether it reads the course of training, which runs that stopped early do not have to its end.
    slack: the possible error of a difference, on the claim's scale, where learning rates are this factor apart.
    delta: the default smallest effect of interest on a difference, one number or one per dataset.
    reads_thin: of metrics that read `loss`, whether they have the same value where the training losses of most steps
        are left out, as `store/thin.py` describes.
    """

    read: Reader
    names: tuple[str, ...] = ()
    scales: tuple[str, ...] = ("difference",)
    kind: Kind = "of_arm"
    target: Literal["accuracy", "training_loss", "training_error"] | None = None
    tuned_by: Literal["accuracy", "best_accuracy", "lowest"] = "accuracy"
    floor: float | None = None
    most_apart: float = math.inf
    learned: bool = False
    images: Literal["", "test", "final"] = ""
    whole: bool = False
    slack: Callable[[float], float] = lambda _: 0.0
    delta: float | dict[str, Any] | None = None
    reads_thin: bool = False

    @property
    def rows(self) -> set[str]:
        """The recorded metrics that `read` gets."""
        return {*self.names, *((MEAN, SUM) if "loss" in self.names and self.reads_thin else ())}

    @property
    def reads_every_loss(self) -> bool:
        """Whether it has another value, or none, where training losses are left out."""
        return "loss" in self.names and not self.reads_thin

    def __call__(self, runs: Frame, metrics: Frame, target: Target = math.nan) -> Frame:
        return self.read(runs, metrics, target)

    @property
    def views(self) -> tuple[View, ...]:
        return VIEWS[self.kind]


def metric(*names: str, **attributes: Any) -> Callable[[Callable[..., Frame]], Metric]:
    """Decorate a function as the metric that reads these recorded metrics; `attributes` are those of `Metric`."""
    return lambda read: Metric(cast(Reader, read), names, **attributes)


def find_metric(name: str) -> Metric:
    """The metric with this name: one of this module, or, with dots, an object that is imported.

    Raises:
        ConfigError: there is no such metric.
    """
    found = import_object(name, f"claim.metric={name}") if "." in name else globals().get(name)
    if isinstance(found, Metric):
        return found
    known = [key for key, value in globals().items() if isinstance(value, Metric)]
    hint = nearest(name, known) or "."
    raise ConfigError(
        f"claim.metric={name} is not allowed: it must be one of {', '.join(known)}, or the dotted name of a function "
        f"with the decorator bnstudy.claims.metrics.metric{hint}"
    )


def by_seed(runs: Frame, value: pd.Series, is_bound: pd.Series | bool = False, bound: Bound = "worst") -> Frame:
    """A metric's result from values in the order of the runs.

    Args:
        is_bound: which values are at a bound, and `bound`, at which.
    """
    frame = pd.DataFrame({"value": value.astype(float)}, runs.index).assign(is_bound=is_bound)
    frame["bound"] = np.where(frame.pop("is_bound").astype(bool), bound, "")
    return frame.set_axis(pd.Index(runs["seed"]))


@metric("accuracy", scales=RATIO_FIRST, target="accuracy", tuned_by="lowest", whole=True)
def updates_to_target(runs: Frame, metrics: Frame, target: float) -> Frame:
    """First step at which the smoothed validation accuracy, a share, is at least `target`, interpolated between
    evaluations; the length of training for runs that count as guessing or never reached it."""
    rows = metrics[(metrics["split"] == "val") & (metrics["metric"] == "accuracy") & (metrics["layer"] == "")]
    ordered = rows.sort_values(["run_id", "step"], kind="stable")
    steps, values = ordered["step"].to_numpy(float), ordered["value"].to_numpy(float)
    places = ordered.groupby("run_id", observed=True).indices
    reached = {str(r): first_reached(steps[i], values[i], target) for r, i in places.items()}
    first, total = runs["run_id"].map(reached).astype(float), runs["steps"].astype(float)
    late = runs["counts_as_guessing"].astype(bool) | (first >= total)
    return by_seed(runs, first.mask(late, total), late, "at least")


def first_reached(step: np.ndarray, value: np.ndarray, target: float) -> float:
    """The first step, at least 1, at which the smoothed value is at least `target`; infinite if there is none."""
    smooth = smoothed(value)
    above = np.flatnonzero(smooth >= target)
    if not len(above):
        return math.inf
    i = above[0]
    if i == 0:
        return max(1.0, float(step[0]))
    return max(1.0, float(np.interp(target, smooth[i - 1 : i + 1], step[i - 1 : i + 1])))


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means over `SMOOTHED` successive values around each; fewer at the ends."""
    window, edge = np.ones(SMOOTHED), SMOOTHED // 2
    sums, counts = (np.convolve(v, window)[edge:-edge] for v in (values, np.ones(len(values))))
    return sums / counts


@metric(scales=RATIO_FIRST)
def ms_per_update(runs: Frame, *_: Any) -> Frame:
    """Median milliseconds per step after the warm-up, without evaluation and probes. Only runs trained one at a time
    have it: the time of a stack is not that of its runs."""
    return by_seed(runs, runs["step_ms"].where(runs["engine"] == "serial"))


@metric("accuracy", scales=RATIO, target="accuracy", tuned_by="lowest", whole=True)
def seconds_to_target(runs: Frame, metrics: Frame, target: float) -> Frame:
    """`updates_to_target` times the seconds per step."""
    steps, ms = updates_to_target(runs, metrics, target), ms_per_update(runs, metrics)
    return steps.assign(value=steps["value"] * ms["value"] / 1000)


@metric(
    "loss", "accuracy", target="training_loss", delta=POINTS, most_apart=100, learned=True, images="final", whole=True,
    reads_thin=True,
)  # fmt: skip
def test_accuracy_at_training_loss(runs: Frame, metrics: Frame, target: pd.Series) -> Frame:
    """Test accuracy in percentage points, interpolated between evaluations, where the training loss first is at most
    the seed's `target`; the loss is averaged over the steps since the evaluation before. That of guessing for runs that
    diverged or did not learn."""
    targets = dict(zip(runs["run_id"], runs["seed"].map(target), strict=True))
    found = {r: _accuracy_at(*curves, targets[r]) for r, curves in _losses_at_tests(metrics).items()}
    reached, lost = runs["run_id"].map(found).astype(float), runs["counts_as_guessing"].astype(bool)
    value = reached.fillna(runs["test_accuracy"]).mask(lost, runs["chance"])
    return by_seed(runs, 100 * value, lost | reached.isna())


def final_training_loss(runs: Frame, metrics: Frame) -> pd.Series:
    """By seed, the loss since the evaluation before the last; missing for runs that count as guessing."""
    found = {r: losses[-1] for r, (_, _, losses) in _losses_at_tests(metrics).items() if len(losses)}
    values = runs["run_id"].map(found).astype(float).mask(runs["counts_as_guessing"].astype(bool))
    return values.set_axis(pd.Index(runs["seed"]))


def _losses_at_tests(metrics: Frame) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """By run the steps of its evaluations on the test split, the accuracies there, and, one fewer, the mean training
    losses between them."""
    test = _test_accuracies(metrics)
    losses = {str(r): rows for r, rows in batch_losses(metrics).groupby("run_id", observed=True)}
    sums = {str(r): rows for r, rows in of_training(metrics, SUM).groupby("run_id", observed=True)}
    found = {}
    for r, rows in test.groupby("run_id", observed=True):
        ordered = rows.sort_values("step")
        steps = ordered["step"].to_numpy()
        ends, totals = _loss_sums(losses[str(r)], sums.get(str(r)), steps)
        found[str(r)] = steps, ordered["value"].to_numpy(float), np.diff(totals) / np.maximum(1, np.diff(ends))
    return found


def _loss_sums(losses: Frame, sums: Frame | None, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of training losses of a run before these steps, and their sums; `sums` are those that a thin run
    recorded."""
    if sums is not None:
        ends = np.minimum(steps, losses["step"].max() + 1)
        known = {0: 0.0, **dict(zip(sums["step"], sums["value"], strict=True))}
        return ends, np.array([known[end] for end in ends])
    total = np.concatenate([[0.0], losses.sort_values("step")["value"].cumsum().to_numpy()])
    ends = np.minimum(steps, len(losses))
    return ends, total[ends]


def _accuracy_at(steps: np.ndarray, accuracies: np.ndarray, losses: np.ndarray, target: float) -> float:
    """NaN where the loss is never that low."""
    below = np.flatnonzero(losses <= target)
    if not len(below):
        return math.nan
    i = below[0]
    at = steps[i + 1]
    if i > 0:
        at = np.interp(target, [losses[i], losses[i - 1]], [steps[i + 1], steps[i]])
    return float(np.interp(at, steps, accuracies))


@metric("loss", scales=RATIO_FIRST, tuned_by="lowest", whole=True, reads_thin=True)
def mean_training_loss(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Mean over all steps of the loss of the current batch; for diverged runs 10 times the larger of the loss of
    guessing, which runs of earlier versions lack, and the initial loss."""
    losses = batch_losses(metrics)
    first = losses[losses["step"] == 0].groupby("run_id", observed=True)["value"].first()
    exact = of_training(metrics, MEAN).groupby("run_id", observed=True)["value"].first()
    means = exact.combine_first(losses.groupby("run_id", observed=True)["value"].mean())
    guessing = runs["dataset.guessing.loss"].astype(float) if "dataset.guessing.loss" in runs else math.nan
    worst, lost = WORST_LOSS * np.fmax(of_runs(runs, first), guessing), runs["diverged"].astype(bool)
    return by_seed(runs, of_runs(runs, means).mask(lost, worst), lost)


def batch_losses(metrics: Frame) -> Frame:
    """The recorded losses of training batches, one per step; of thin runs those of some steps."""
    return of_training(metrics, "loss")


@metric(delta=POINTS, most_apart=100, images="test")
def test_accuracy(runs: Frame, *_: Any) -> Frame:
    """Final test accuracy in percentage points; that of guessing for runs that diverged or did not learn."""
    return by_seed(runs, 100 * runs["test_accuracy"], runs["counts_as_guessing"])


@metric(most_apart=100, images="test")
def accuracy_above_chance(runs: Frame, *_: Any) -> Frame:
    """Final test accuracy minus that of guessing, in percentage points; 0 for runs that diverged or did not
    learn."""
    return by_seed(runs, 100 * (runs["test_accuracy"] - runs["chance"]))


@metric(
    "train_accuracy", "accuracy", target="training_error", delta=POINTS, most_apart=200, learned=True, images="final",
    whole=True,
)  # fmt: skip
def gap_at_training_accuracy(runs: Frame, metrics: Frame, target: pd.Series) -> Frame:
    """Accuracy on training images, in evaluation mode, minus that on test images, in percentage points, interpolated
    between measurements, where the error on training images first is at most the seed's `target`. 0, the gap of
    guessing, for runs that diverged or did not learn."""
    targets = dict(zip(runs["run_id"], runs["seed"].map(target), strict=True))
    tests = {str(r): rows.sort_values("step") for r, rows in _test_accuracies(metrics).groupby("run_id", observed=True)}
    gaps = {r: _gap_at(curve, tests[r], 1 - targets[r]) for r, curve in _training_accuracies(metrics).items()}
    reached, lost = runs["run_id"].map(gaps).astype(float), runs["counts_as_guessing"].astype(bool)
    return by_seed(runs, (100 * reached).mask(lost, 0.0), lost)


def final_training_error(runs: Frame, metrics: Frame) -> pd.Series:
    """By seed, the share of training images that the trained network gets wrong; missing for runs that count as
    guessing."""
    found = {r: 1 - curve["value"].iloc[-1] for r, curve in _training_accuracies(metrics).items()}
    values = runs["run_id"].map(found).astype(float).mask(runs["counts_as_guessing"].astype(bool))
    return values.set_axis(pd.Index(runs["seed"]))


LEVELS: dict[str, Callable[[Frame, Frame], pd.Series]] = {
    "training_loss": final_training_loss,
    "training_error": final_training_error,
}
"""By the kind of a target, the level that each run of a side reaches."""


def _training_accuracies(metrics: Frame) -> dict[str, Frame]:
    rows = metrics[(metrics["metric"] == "train_accuracy") & (metrics["layer"] == "")]
    return {str(r): curve.sort_values("step") for r, curve in rows.groupby("run_id", observed=True)}


def _test_accuracies(metrics: Frame) -> Frame:
    return metrics[(metrics["split"] == "test") & (metrics["metric"] == "accuracy")]


def _gap_at(train: Frame, test: Frame, target: float) -> float:
    """NaN where the accuracy on training images is never that high."""
    steps, accuracy = train["step"].to_numpy(float), train["value"].to_numpy(float)
    above = np.flatnonzero(accuracy >= target - 1e-9)  # 1 - (1 - a) may exceed a
    if not len(above):
        return math.nan
    i = int(above[0])
    step, reached = steps[i], accuracy[i]
    if i > 0:
        step, reached = np.interp(target, accuracy[i - 1 : i + 1], steps[i - 1 : i + 1]), target
    return float(reached - np.interp(step, test["step"], test["value"]))


@metric("dead_share", floor=0.0, most_apart=100, learned=True)
def dead_units(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Dead ReLU units after the last step, in percent of all; 100 for diverged runs."""
    return _with_worst(runs, 100 * at_end(metrics, "dead_share"), worst=100.0)


@metric("died_share", floor=0.0, most_apart=100, learned=True)
def units_that_died(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """The dead units that were alive before training, in percent of all; 100 for diverged runs. Units that
    revive do not make up for them."""
    return _with_worst(runs, 100 * at_end(metrics, "died_share"), worst=100.0)


@metric("saturated_share", floor=0.0, most_apart=100, learned=True)
def saturated_units(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Saturated outputs of sigmoid or tanh units after the last step, mean over the layers, in percent; 100 for
    diverged runs."""
    rows = metrics[metrics["metric"] == "saturated_share"]
    last = rows[rows["step"] == rows.groupby("run_id", observed=True)["step"].transform("max")]
    return _with_worst(runs, 100 * last.groupby("run_id", observed=True)["value"].mean(), worst=100.0)


@metric("accuracy_precise", "accuracy_running", delta=POINTS, most_apart=200)
def precise_less_running(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Final accuracy on held-out images with precise statistics minus that with running ones, in percentage points;
    0 for diverged runs, which guess with any statistics."""
    gain = at_end(metrics, "accuracy_precise") - at_end(metrics, "accuracy_running")
    return _with_worst(runs, 100 * gain, worst=0.0)


@metric("accuracy_batch", "accuracy_running", delta=POINTS, most_apart=200)
def batch_less_running(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """The same with the statistics of each batch."""
    gain = at_end(metrics, "accuracy_batch") - at_end(metrics, "accuracy_running")
    return _with_worst(runs, 100 * gain, worst=0.0)


@metric("z_drift_relative", scales=RATIO_FIRST, learned=True, whole=True)
def distribution_drift(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Drift of the percentiles of a unit's pre-activations between measurements, relative to their spread: the
    geometric mean over hidden layers and measurements, so that the first steps do not dominate."""
    rows = metrics[(metrics["metric"] == "z_drift_relative") & (metrics["layer"] != OUTPUT)]
    return _with_worst(runs, geometric_means(rows))


@metric("ics_cosine", scales=RATIO_FIRST, learned=True, whole=True)
def gradient_shift(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """1 - cos(G, G') of a layer's gradient before and after the layers in front of it are updated (Santurkar et al.
    2018): the mean over layers and measurements, 0 for no shift and 2 for opposite gradients."""
    rows = metrics[(metrics["metric"] == "ics_cosine") & np.isfinite(metrics["value"])]
    return _with_worst(runs, 1 - rows.groupby("run_id", observed=True)["value"].mean(), worst=2.0)


@metric("beta_eff_scaled", scales=RATIO, learned=True, whole=True)
def roughness(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Effective smoothness beta along the gradient in the coordinates W/||W|| (`beta_eff_scaled` of the landscape
    probe), the geometric mean over measurements; smaller is smoother."""
    return _with_worst(runs, geometric_means(metrics[metrics["metric"] == "beta_eff_scaled"]))


@metric("lr_sharpness", learned=True, whole=True)
def late_lr_sharpness(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Learning rate times sharpness, the mean over the measurements after a third of the training (Cohen et al. 2021);
    not measured for diverged runs."""
    rows = metrics[metrics["metric"] == "lr_sharpness"]
    total = rows["run_id"].astype(str).map(runs.set_index("run_id")["steps"]).astype(float)
    late = rows[rows["step"] >= LATE * total]
    return _with_worst(runs, late.groupby("run_id", observed=True)["value"].mean())


@metric("backprop_slope", kind="untrained")
def signed_gradient_slope(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Slope of the log gradient over depth before training: below 0 where gradients grow on their way back to the
    first layer."""
    rows = metrics[(metrics["metric"] == "backprop_slope") & (metrics["step"] == 0)]
    return by_seed(runs, of_runs(runs, rows.groupby("run_id", observed=True)["value"].first()))


@metric("backprop_slope", kind="untrained")
def gradient_slope(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Its size; 0 is ideal."""
    table = signed_gradient_slope(runs, metrics)
    return table.assign(value=table["value"].abs())


@metric("effective_rank", scales=RATIO, kind="untrained")
def rank_of_last_layer(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """Effective rank of the outputs of the last hidden layer before training: exp of the entropy of the singular values
    of the centred matrix [samples, units], divided by their sum."""
    rows = metrics[(metrics["metric"] == "effective_rank") & (metrics["layer"] != OUTPUT) & (metrics["step"] == 0)]
    return by_seed(runs, of_runs(runs, rows.groupby("run_id", observed=True)["value"].last()))


def geometric_means(rows: Frame) -> pd.Series:
    """Geometric mean by run of the values that are finite and positive."""
    positive = rows[(rows["value"] > 0) & np.isfinite(rows["value"])]
    return np.exp(np.log(positive["value"]).groupby(positive["run_id"].astype(str)).mean())


def at_end(metrics: Frame, name: str) -> pd.Series:
    """By run the last value of a metric of the whole network."""
    rows = metrics[(metrics["metric"] == name) & (metrics["layer"] == "")]
    return rows.sort_values("step", kind="stable").groupby(rows["run_id"].astype(str))["value"].last()


def of_runs(runs: Frame, values: pd.Series) -> pd.Series:
    """`values`, by run_id, in the order of the runs."""
    return runs["run_id"].map(values.set_axis(values.index.astype(str))).astype(float)


def _with_worst(runs: Frame, values: pd.Series, worst: float = math.nan) -> Frame:
    """The runs' values, `worst` for those that diverged."""
    lost = runs["diverged"].astype(bool)
    return by_seed(runs, of_runs(runs, values).mask(lost, worst), lost)


def over_arms(read: Callable[[Frame, int], float]) -> Reader:
    """Apply `read`, 100 times, to the highest validation accuracies of the arms [seeds, arms] for each seed; that of
    guessing for runs that diverged or did not learn, so that no value is at a bound."""

    def read_all(runs: Frame, *_: Any) -> Frame:
        named = runs.assign(family=runs["family"].astype(str))
        table = named.pivot(index="seed", columns="family", values="best_accuracy").astype(float)
        values = {seed: 100 * read(table, seed) for seed in table.index}
        return pd.DataFrame({"value": pd.Series(values, dtype=float), "bound": ""}).rename_axis("seed")

    return read_all


@metric(kind="of_several", tuned_by="best_accuracy", most_apart=200)
@over_arms
def spread_of_accuracy(accuracies: Frame, seed: int) -> float:
    """Best minus worst arm, by their highest validation accuracy, in percentage points. Which arms are best and worst
    the other seeds decide: the range of the seed's own accuracies would exceed 0 by chance where all arms are equal."""
    others = accuracies.drop(seed).mean()
    if others.isna().all():
        return math.nan
    return float(accuracies.loc[seed, others.idxmax()] - accuracies.loc[seed, others.idxmin()])


@metric(kind="of_several", tuned_by="best_accuracy", most_apart=100)
@over_arms
def share_near_best(accuracies: Frame, seed: int) -> float:
    """Arms whose highest validation accuracy is at least 90% of the best arm's, in percent of all. Which arm is best
    the other seeds decide."""
    others = accuracies.drop(seed).mean()
    if others.isna().all():
        return math.nan
    own = accuracies.loc[seed]
    return float((own >= 0.9 * own[others.idxmax()]).mean())


@metric("loss", kind="of_several", tuned_by="best_accuracy", floor=0.0, most_apart=100, whole=True)
def weight_decay_mismatch(runs: Frame, metrics: Frame, *_: Any) -> Frame:
    """How much the training loss with weight decay and a constant rate differs from that without weight decay and
    another schedule: the mean over the steps of |a - b| / max(a, b), in percent; 100 where one of them diverged."""
    apart = {str(seed): 100 * relative_distance(a, b) for seed, a, b in decay_pairs(runs, metrics)}
    of_seeds, pairs = runs.drop_duplicates("seed"), pd.concat(decay_sides(runs))
    lost = of_seeds["seed"].isin(pairs.loc[pairs["diverged"].astype(bool), "seed"])
    return by_seed(of_seeds, of_seeds["seed"].astype(str).map(apart).astype(float).mask(lost, 100.0), lost)


def decay_sides(runs: Frame) -> tuple[Frame, Frame]:
    """The runs with weight decay and a constant rate, and those without weight decay and another schedule."""
    decays, constant = runs["optim.weight_decay"].astype(float) > 0, runs["schedule"] == "Constant"
    return runs[decays & constant], runs[~decays & ~constant]


def decay_pairs(runs: Frame, metrics: Frame) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """By seed, the training losses of the two sides, of runs that have one loss for each step."""
    losses = batch_losses(metrics).sort_values("step").groupby("run_id", observed=True)
    whole = {str(r): rows for r, rows in losses if np.array_equal(rows["step"], np.arange(len(rows)))}
    values = {r: rows["value"].to_numpy(float) for r, rows in whole.items()}
    sides = decay_sides(runs[runs["run_id"].astype(str).isin([*whole])])
    one, other = (dict(zip(side["seed"], side["run_id"].map(values), strict=True)) for side in sides)
    yield from ((seed, one[seed], other[seed]) for seed in sorted({*one} & {*other}))


def relative_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The mean of |a - b| / max(a, b) over the steps that both have."""
    n = min(len(a), len(b))
    return float((np.abs(a[:n] - b[:n]) / np.maximum(a[:n], b[:n])).mean())


OF_GRID = ("seed", "lr", "diverged", "test_accuracy", "score")
"""The columns of runs that metrics of a family need."""


def each_seed(read: Callable[[Frame], tuple[float, Bound]]) -> Reader:
    """Apply `read`, which gives value and bound, to the runs of each seed in the order of their learning rates."""

    def read_all(runs: Frame, *_: Any) -> Frame:
        ordered = runs[[c for c in OF_GRID if c in runs]].sort_values("lr", kind="stable")
        found = {seed: read(of_seed) for seed, of_seed in ordered.groupby("seed")}
        return pd.DataFrame.from_dict(found, orient="index", columns=["value", "bound"]).rename_axis("seed")

    return read_all


@metric(scales=RATIO, kind="of_family", slack=math.log)
@each_seed
def largest_tolerated_rate(ordered: Frame) -> tuple[float, Bound]:
    """The largest learning rate of the grid such that neither its run nor those at smaller rates diverge; one grid
    step below the grid where all diverge. A run that did not learn did not diverge."""
    rates, lost = ordered["lr"].to_numpy(float), ordered["diverged"].to_numpy(bool)
    tolerated = rates[np.logical_and.accumulate(~lost)]
    if not len(tolerated):
        return rates[0] / coarseness(rates), "at most"
    return float(tolerated[-1]), "at least" if tolerated[-1] == rates[-1] else ""


@metric(scales=RATIO, kind="of_family", slack=math.log)
@each_seed
def best_learning_rate(ordered: Frame) -> tuple[float, Bound]:
    """The learning rate with the highest final validation accuracy, the smaller of equals."""
    rates, score = ordered["lr"].to_numpy(float), ordered["score"].to_numpy(float)
    best = int(score.argmax())
    return float(rates[best]), "at most" if best == 0 else "at least" if best == len(rates) - 1 else ""


@metric(kind="of_family", slack=lambda factor: 2 * math.log10(factor))  # either end is known up to a grid step
@each_seed
def width_of_good_rates(ordered: Frame) -> tuple[float, Bound]:
    """log10(highest/lowest) of the learning rates around the best one on validation data whose test accuracy is less
    than 1 point below that of the best. A bound where they reach the edge of the grid."""
    rates, points = ordered["lr"].to_numpy(float), 100 * ordered["test_accuracy"].to_numpy(float)
    best = int(ordered["score"].to_numpy(float).argmax())
    bad = np.flatnonzero(points < points[best] - NEAR)
    low, high = bad[bad < best].max(initial=-1) + 1, bad[bad > best].min(initial=len(rates)) - 1
    at_edge = low == 0 or high == len(rates) - 1
    return math.log10(rates[high] / rates[low]), "at least" if at_edge else ""


def coarseness(rates: np.ndarray) -> float:
    """The largest factor between neighbours of a grid of learning rates; infinite for a single rate."""
    grid = np.unique(rates)
    return float((grid[1:] / grid[:-1]).max()) if len(grid) > 1 else math.inf
