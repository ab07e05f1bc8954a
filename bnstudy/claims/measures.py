"""One number a run, read off its metrics: what findings tell of beside the accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from bnstudy.stats.intervals import Estimate, mean_interval, paired_difference


@dataclass(frozen=True)
class Measure:
    """What is measured, how it is read off a frame of metrics (a value by run_id), how a number is written, and within
    which bounds it lies: of an interval only the part within is told, which covers as often."""

    name: str
    read: Callable[[pd.DataFrame], pd.Series]
    text: Callable[[float], str]
    bounds: tuple[float, float] = (-math.inf, math.inf)


def mean_training_loss(metrics: pd.DataFrame) -> pd.Series:
    """Mean over all updates of the loss of the batch in use: the area under the training curve, per update."""
    rows = metrics[(metrics["split"] == "train") & (metrics["metric"] == "loss")]
    return rows.groupby("run_id", observed=True)["value"].mean()


def dead_units_at_end(metrics: pd.DataFrame) -> pd.Series:
    """Share of all ReLU units that are dead after the last update."""
    rows = metrics[(metrics["metric"] == "dead_share") & (metrics["layer"] == "")]
    return rows.sort_values("step", kind="stable").groupby("run_id", observed=True)["value"].last()


MEASURES = (
    Measure("mean training loss over all updates", mean_training_loss, lambda v: f"{v:.3f}"),
    Measure("dead units at the end (% of all ReLU units)", dead_units_at_end, lambda v: f"{100 * v:.1f}", (0.0, 1.0)),
)


def sentence(
    measure: Measure, where: str, values: dict[str, pd.Series], names: dict[str, str], pairs: dict[str, str]
) -> str:
    """What a measure came to for each arm in `names`, and how much arms differ from those they are paired with.

    values: arm -> the measure by seed, complete and of runs that did not diverge.
    """
    parts = [f"{name} {_with_bounds(measure, mean_interval(values[arm]))}" for arm, name in names.items()]
    for arm, reference in pairs.items():
        difference = paired_difference(values[arm], values[reference])
        if difference.n > 1:
            told = _with_bounds(measure, difference, signed=True)
            parts.append(f"{names[arm]} minus {names[reference]}, paired, {told}")
    return f"{measure.name}{where}: {'; '.join(parts)}."


def _with_bounds(measure: Measure, estimate: Estimate, signed: bool = False) -> str:
    def write(value: float) -> str:
        return ("+" if signed and value >= 0 else "") + measure.text(value)

    if estimate.n < 2:
        return write(estimate.mean)
    least, most = (-math.inf, math.inf) if signed else measure.bounds
    low, high = max(least, estimate.low), min(most, estimate.high)
    return f"{write(estimate.mean)} (95% interval {write(low)} to {write(high)})"
