"""Yang et al. 2019: gradients explode in deep networks with batch normalization, at initialization."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look
from bnstudy.report.reproductions.checks import Check, Expected, against
from bnstudy.stats.intervals import mean_interval, summarize

NOTE = (
    "By how much the squared norm of dL/dz grows from one layer to the one before it, in the middle half of the "
    "network before training: exp of minus the slope of log(rms^2) over depth, z being the pre-activations."
)
TOLERANCE = 0.03
LIMIT = math.pi / (math.pi - 1)
YANG = "Yang et al. 2019, Theorem 8"
LOOKS = {
    ("NoNorm", "relu"): Look(style.BASELINE_COLOUR),
    ("NoNorm", "linear"): Look(style.NEUTRAL, style.LINES[1], "s"),
    ("BatchNorm", "relu"): Look(style.COLOURS[0], "-", "^"),
    ("BatchNorm", "linear"): Look(style.COLOURS[1], style.LINES[1], "D"),
}


def growth(metrics: pd.DataFrame) -> pd.Series:
    """The growth per layer of each run, by run_id."""
    rows = metrics[(metrics["metric"] == "backprop_rms") & (metrics["step"] == 0)]
    return rows.groupby("run_id", observed=True)["value"].agg(growth_of).astype(float)


def growth_of(rms: pd.Series) -> float:
    """From the root mean squares by layer, in order of depth; NaN where a middle layer has none above 0."""
    quarter = len(rms) // 4
    middle = rms.to_numpy()[quarter : len(rms) - quarter]
    if len(middle) < 2 or not (middle > 0).all():
        return math.nan
    return math.exp(-np.polyfit(np.arange(len(middle)), 2 * np.log(middle), 1)[0])


def theory(norm: str, activation: str, batch_size: int) -> float:
    """The growth in a wide network; NaN where none is known."""
    if norm in BASELINES:
        return {"relu": 1.0, "linear": 2.0}.get(activation, math.nan)
    if norm != "BatchNorm" or batch_size <= 3:
        return math.nan
    if activation == "linear":
        return (batch_size - 2) / (batch_size - 3)
    return relu_growth(batch_size) if activation == "relu" else math.nan


def relu_growth(batch_size: int) -> float:
    """With J(c) = (sqrt(1 - c^2) + (pi - arccos c) c)/pi, the arc-cosine kernel, and c = -1/(B - 1), it is
    ((B - 1 + J'(c))/(1 - J(c)) - 1)/(B - 3), which tends to pi/(pi - 1)."""
    c = -1 / (batch_size - 1)
    slope = (math.pi - math.acos(c)) / math.pi
    kernel = math.sqrt(1 - c * c) / math.pi + slope * c
    return ((batch_size - 1 + slope) / (1 - kernel) - 1) / (batch_size - 3)


def expected(norm: str, activation: str, batch_size: int) -> Expected:
    value = f"{theory(norm, activation, batch_size):.3f}"
    if norm in BASELINES:
        return Expected(value, "c", "the variances of He initialization in a wide network")
    return Expected(value, "m", f"{YANG}, for a batch of {batch_size}")


def checks(study: StudyData) -> list[Check]:
    runs, quantity = with_growth(study), "growth per layer"
    rows = []
    keys = ["norm", "model.activation", "batch_size"]
    for norm, activation, batch in sorted(set(study.specs[keys].itertuples(index=False, name=None)), reverse=True):
        value = theory(norm, activation, batch)
        own = runs[(runs[keys] == [norm, activation, batch]).all(axis=1)]
        if not math.isnan(value):
            arm = f"{norm}, {activation}, batch {batch}"
            rows.append(_within(quantity, arm, expected(norm, activation, batch), own["growth"], value))
    relu = runs[(runs["norm"] == "BatchNorm") & (runs["model.activation"] == "relu")]
    largest = relu[relu["batch_size"] == relu["batch_size"].max()]
    limit = Expected(f"{LIMIT:.3f}", "v", f"{YANG}, the limit of large batches")
    arm = f"BatchNorm, relu, batch {largest['batch_size'].iloc[0]}" if len(largest) else "BatchNorm, relu"
    return [*rows, _within(f"{quantity}, the largest batch", arm, limit, largest["growth"], LIMIT)]


def _within(quantity: str, arm: str, expected: Expected, values: pd.Series, value: float) -> Check:
    bounds = (1 - TOLERANCE) * value, (1 + TOLERANCE) * value
    return against(quantity, arm, expected, mean_interval(values), bounds, f"within {TOLERANCE:.0%}")


def with_growth(study: StudyData) -> pd.DataFrame:
    return study.runs.assign(growth=study.runs["run_id"].map(growth(study.metrics)).astype(float))


def draw(study: StudyData) -> Drawn | None:
    runs = with_growth(study).dropna(subset=["growth"])
    if runs.empty:
        return None
    title = "Growth of the squared gradient norm per layer, before training"
    figure, axes = style.canvas(1, 1, 3.6, title)
    ax, looks, alt = axes[0, 0], {}, []
    for (norm, activation), own in runs.groupby(["norm", "model.activation"]):
        look, label = LOOKS.get((norm, activation), Look(style.COLOURS[2])), f"{norm}, {activation}"
        table = summarize(own, ["batch_size"], "growth")
        half = (table["mean"] - table["low"]).fillna(0)
        ax.errorbar(table["batch_size"], table["mean"], half, color=look.colour, fmt=look.marker, capsize=2)
        sizes = np.arange(table["batch_size"].min(), table["batch_size"].max() + 1)
        ax.plot(sizes, [theory(norm, activation, int(b)) for b in sizes], color=look.colour, linestyle=look.line)
        looks[label] = look
        alt.append(f"{label} from {table['mean'].iloc[0]:.2f} to {table['mean'].iloc[-1]:.2f}")
    ax.axhline(LIMIT, color=style.NEUTRAL, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    ax.set(xscale="log", xlabel="batch size", ylabel="growth per layer")
    ax.set_xticks(
        sorted(runs["batch_size"].unique()), [str(b) for b in sorted(runs["batch_size"].unique())], minor=False
    )
    ax.minorticks_off()
    style.legend(figure, style.line_handles(looks, {label: label for label in looks}, marker=True))
    caption = (
        f"{NOTE} Points are means over seeds with 95% t intervals, lines what theory says of wide networks (for batch "
        "normalization from memory), dotted its published limit for ReLU and large batches, pi/(pi - 1)."
    )
    return Drawn("explosion", title, caption, f"Chart of growth against batch size: {'; '.join(alt)}.", figure)
