"""Panels, and transforms from measurements to the values that figures show.

    hold_at_chance(accuracy, runs).pipe(mean_band, ["arm", "step"])

A transform returns a new frame. Frames of measurements have the columns `run_id`, `arm`, `step` and `value`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bnstudy.claims.arms import best_arms
from bnstudy.claims.frames import RowsByRun, StudyData
from bnstudy.stats.intervals import summarize

MANY_RATES = 3
MANY_ARMS = 9
"""With that many learning rates in a family, or arms, curves are drawn only at each family's best rate."""

SMALLEST_LOSS = 1e-7
"""Cross-entropy in single precision rounds to zero below this, and a log axis cannot show zero."""


@dataclass(frozen=True)
class Panel:
    """One model on one dataset.

    Args:
        runs: all runs.
        arms: the arms whose curves are drawn, one a row: `arm` `family` `label`.
        metrics, timing: the measurements of these arms, with the column `arm`.
    """

    name: str
    runs: pd.DataFrame
    arms: pd.DataFrame
    metrics: pd.DataFrame
    timing: pd.DataFrame

    @property
    def arm_runs(self) -> pd.DataFrame:
        return self.runs[self.runs["arm"].isin(self.arms["arm"])]

    @property
    def labels(self) -> dict[str, str]:
        return dict(zip(self.arms["arm"].astype(str), self.arms["label"], strict=True))

    @property
    def names(self) -> dict[str, str]:
        """Short labels for titles: without the learning rate where a family has one arm."""
        alone = ~self.arms["family"].duplicated(keep=False)
        names = self.arms["label"].mask(alone, self.arms["family"].astype(str))
        return dict(zip(self.arms["arm"].astype(str), names, strict=True))

    def network_rows(self, metric: str, split: str = "") -> pd.DataFrame:
        """Rows of a metric of the whole network."""
        m = self.metrics
        return m[(m["metric"] == metric) & (m["split"] == split) & (m["layer"] == "")]

    def layer_rows(self, metric: str) -> pd.DataFrame:
        """Rows of a metric of the layers, with `depth`, which is 1 for the first layer."""
        m = self.metrics
        rows = join_calls(m[(m["metric"] == metric) & (m["layer"] != "")])
        return rows.assign(depth=rows.groupby(["run_id", "step"], observed=True).cumcount() + 1)


def join_calls(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace the rows of the calls of a layer, `name`, `name.2`, `name.3`, ..., by their mean: a recurrent layer has a
    call at each step of a sequence."""
    names = rows["layer"].unique().astype(str)
    layers = {name: _called_layer(name, {*names}) for name in names}
    if all(name == layer for name, layer in layers.items()):
        return rows
    others = [column for column in rows if column != "value"]
    named = rows.assign(layer=rows["layer"].astype(str).map(layers))
    return named.groupby(others, sort=False, observed=True, dropna=False, as_index=False)["value"].mean()[[*rows]]


def _called_layer(name: str, names: set[str]) -> str:
    layer, _, number = name.rpartition(".")
    return layer if layer in names and number.isdecimal() else name


def panels(study: StudyData) -> list[Panel]:
    """One panel for each model and dataset with finished runs, in order."""
    return [_panel(study, str(name), runs) for name, runs in study.runs.groupby("panel", observed=True)]


def _panel(study: StudyData, name: str, runs: pd.DataFrame) -> Panel:
    arms = choose_arms(runs)
    arm_of_run = runs[runs["arm"].isin(arms["arm"])].set_index("run_id")["arm"]
    metrics, timing = (_add_arm(rows, arm_of_run) for rows in (study.metrics_of, RowsByRun(study.timing)))
    return Panel(name, runs, arms, metrics, timing)


def _add_arm(rows: RowsByRun, arm_of_run: pd.Series) -> pd.DataFrame:
    """The rows of the runs in `arm_of_run` (arm by run_id), with their arm."""
    selected = rows.of(arm_of_run.index.to_series()).reset_index(drop=True)
    run = selected["run_id"].astype("category")
    arm = arm_of_run.reindex(run.cat.categories).array.take(run.cat.codes.to_numpy())  # `map` would lose the categories
    return selected.assign(arm=arm)


def choose_arms(runs: pd.DataFrame) -> pd.DataFrame:
    """The arms to draw, `arm` `family` `label`: each family at its best learning rate if there are many, else all."""
    best = best_arms(runs)
    if (best["rates"] >= MANY_RATES).any() or runs["arm"].nunique() >= MANY_ARMS:
        at = [f" (best lr={lr:g})" if rates > 1 else "" for lr, rates in zip(best["lr"], best["rates"], strict=True)]
        return best[["arm", "family"]].assign(label=best["family"].astype(str) + at)
    every = runs.drop_duplicates("arm").sort_values("arm").reset_index(drop=True)
    has_rates = every.groupby("family", observed=True)["lr"].transform("nunique") > 1
    at_lr = every["family"].astype(str) + [f", lr={lr:g}" for lr in every["lr"]]
    return every[["arm", "family"]].assign(label=at_lr.where(has_rates, every["family"].astype(str)))


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


def until_divergence(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Finite rows of each arm before the first of its runs diverges: later means would be means of survivors."""
    first = runs[runs["diverged"]].groupby("arm", observed=True)["diverged_step"].min()
    rows = until_stopped(rows, runs)
    end = rows["arm"].map(first).astype(float)
    return rows[~(rows["step"] >= end) & np.isfinite(rows["value"])]


def until_stopped(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of each arm up to where the first of its runs stops early."""
    first = stopped_steps(runs).groupby(runs["arm"], observed=True).min()
    return rows[~(rows["step"] > rows["arm"].map(first).astype(float))]


def stopped_steps(runs: pd.DataFrame) -> pd.Series:
    """The steps at which early stopping ended runs; missing for the others."""
    none = pd.Series(np.nan, runs.index)
    return runs.get("stopped_step", none).astype(float)


def with_last_step(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows with the number of `steps` that their run made."""
    steps = stopped_steps(runs).fillna(runs["steps"])
    return rows.merge(runs[["run_id"]].assign(steps=steps), on="run_id")


def hold_at_chance(accuracy: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Give diverged runs chance accuracy from their divergence on, and runs that did not learn at the end."""
    return hold(accuracy, runs, runs.loc[runs["counts_as_guessing"], "chance"])


def hold(rows: pd.DataFrame, runs: pd.DataFrame, worst: pd.Series) -> pd.DataFrame:
    """Give runs their value in `worst`, by the index of `runs`, from their divergence to the end of training, or at the
    end if they did not diverge. Rows of an arm end where the first of its runs stops early.

    The new rows are at the steps at which other runs of the same length were measured, and at the last step.
    """
    ends = stopped_steps(runs).fillna(runs["steps"])
    since = runs["diverged_step"].where(runs["diverged"]).astype(float).fillna(ends)
    lost = runs.assign(since=since).loc[worst.index, ["run_id", "arm", "steps", "since"]].assign(value=worst)
    total = rows["run_id"].map(runs.set_index("run_id")["steps"])
    ends = pd.DataFrame({"steps": lost["steps"], "step": lost["steps"]})
    grid = pd.concat([rows[["step"]].assign(steps=total), ends]).drop_duplicates()
    held = lost.merge(grid, on="steps").query("step >= since")
    end = rows["run_id"].map(lost.set_index("run_id")["since"]).astype(float)
    columns = ["run_id", "arm", "step", "value"]
    kept = rows.loc[~(rows["step"] >= end), columns]
    return until_stopped(pd.concat([kept, held[columns].astype(kept.dtypes)], ignore_index=True), runs)


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


def divergence_points(panel: Panel, loss: pd.DataFrame) -> pd.DataFrame:
    """Where runs diverged: `arm` `run_id` `step`, and the last finite value of the binned loss as `value`."""
    runs = panel.arm_runs
    diverged = runs.loc[runs["diverged"], ["run_id", "arm", "diverged_step"]]
    finite = loss[np.isfinite(loss["value"])].sort_values("step")
    last = finite.drop_duplicates("run_id", keep="last").set_index("run_id")["value"]
    step = diverged["diverged_step"].astype(float).clip(lower=1)
    return diverged.assign(step=step, value=diverged["run_id"].map(last)).dropna(subset=["step", "value"])
