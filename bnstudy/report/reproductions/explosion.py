"""Yang et al. 2019: gradients explode in deep networks with batch normalization, at initialization."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy.claims.arms import BASELINES
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.stats.intervals import mean_interval, summarize

TOLERANCE = 0.03
LIMIT = math.pi / (math.pi - 1)
YANG = "Yang et al. 2019, Theorem 8"
CONFIRMED = "its formula from memory, confirmed by our own simulation"
STYLES = {
    ("NoNorm", "relu"): LineStyle(style.BASELINE_COLOUR),
    ("NoNorm", "linear"): LineStyle(style.NEUTRAL, style.LINES[1], "s"),
    ("BatchNorm", "relu"): LineStyle(style.COLOURS[0], "-", "^"),
    ("BatchNorm", "linear"): LineStyle(style.COLOURS[1], style.LINES[1], "D"),
}


def growth(metrics: pd.DataFrame) -> pd.Series:
    """The growth per layer of each run, by run_id."""
    rows = metrics[(metrics["metric"] == "backprop_rms") & (metrics["step"] == 0)]
    return rows.groupby("run_id", observed=True)["value"].agg(growth_of).astype(float)


def growth_of(rms: pd.Series) -> float:
    """The growth from the root mean squares by layer, in order of depth; NaN if one in the middle is not above 0."""
    quarter = len(rms) // 4
    middle = rms.to_numpy()[quarter : len(rms) - quarter]
    if len(middle) < 2 or not (middle > 0).all():
        return math.nan
    return math.exp(-np.polyfit(np.arange(len(middle)), 2 * np.log(middle), 1)[0])


def theory(norm: str, activation: str, batch_size: int) -> float:
    """The growth in a wide network; NaN if it is not known."""
    if norm in BASELINES:
        return {"relu": 1.0, "linear": 2.0}.get(activation, math.nan)
    if norm != "BatchNorm" or batch_size <= 3:
        return math.nan
    if activation == "linear":
        return (batch_size - 2) / (batch_size - 3)
    return relu_growth(batch_size) if activation == "relu" else math.nan


def relu_growth(batch_size: int) -> float:
    """((B - 1 + J'(c))/(1 - J(c)) - 1)/(B - 3), which tends to pi/(pi - 1), for ReLU and batches of B.

    J(c) = (sqrt(1 - c^2) + (pi - arccos c) c)/pi is the arc-cosine kernel, and c = -1/(B - 1).
    """
    c = -1 / (batch_size - 1)
    slope = (math.pi - math.acos(c)) / math.pi
    kernel = math.sqrt(1 - c * c) / math.pi + slope * c
    return ((batch_size - 1 + slope) / (1 - kernel) - 1) / (batch_size - 3)


def expected(norm: str, activation: str, batch_size: int) -> Expected:
    value = f"{theory(norm, activation, batch_size):.3f}"
    if norm in BASELINES:
        return Expected(value, "c", "the variances of He initialization in a wide network")
    return Expected(value, "c", f"{YANG}, for a batch of {batch_size}; {CONFIRMED}")


class YangExplosion(Reproduction):
    note = (
        "Growth of the squared norm of dL/dz from one layer to the one before it, in the middle half of the network "
        "before training: exp of minus the slope of log(rms^2) over depth, where z are the pre-activations."
    )

    def runs(self) -> pd.DataFrame:
        """The study's runs with their `growth`."""
        runs = self.study.runs
        return runs.assign(growth=runs["run_id"].map(growth(self.study.metrics)).astype(float))

    def checks(self) -> list[Check]:
        runs, quantity = self.runs(), "growth per layer"
        checks = []
        keys = ["norm", "model.activation", "batch_size"]
        settings = set(self.study.specs[keys].itertuples(index=False, name=None))
        for norm, activation, batch in sorted(settings, reverse=True):
            value = theory(norm, activation, batch)
            if not math.isnan(value):
                arm = f"{norm}, {activation}, batch {batch}"
                of_arm = runs[(runs[keys] == [norm, activation, batch]).all(axis=1)]
                checks.append(check_growth(quantity, arm, expected(norm, activation, batch), of_arm["growth"], value))
        relu = runs[(runs["norm"] == "BatchNorm") & (runs["model.activation"] == "relu")]
        largest = relu[relu["batch_size"] == relu["batch_size"].max()]
        limit = Expected(f"{LIMIT:.3f}", "v", f"{YANG}, the limit of large batches")
        arm = f"BatchNorm, relu, batch {largest['batch_size'].iloc[0]}" if len(largest) else "BatchNorm, relu"
        return [*checks, check_growth(f"{quantity}, the largest batch", arm, limit, largest["growth"], LIMIT)]

    def draw(self) -> ReportFigure | None:
        runs = self.runs().dropna(subset=["growth"])
        if runs.empty:
            return None
        title = f"Growth of the squared gradient norm per layer, before training: {_growths(runs)}"
        figure, axes = style.new_figure(1, 1, 3.6, title)
        ax, styles = axes[0, 0], {}
        for (norm, activation), rows in runs.groupby(["norm", "model.activation"]):
            line, label = STYLES.get((norm, activation), LineStyle(style.COLOURS[2])), f"{norm}, {activation}"
            table = summarize(rows, ["batch_size"], "growth")
            half = (table["mean"] - table["low"]).fillna(0)
            ax.errorbar(table["batch_size"], table["mean"], half, color=line.colour, fmt=line.marker, capsize=2)
            sizes = np.arange(table["batch_size"].min(), table["batch_size"].max() + 1)
            ax.plot(sizes, [theory(norm, activation, int(b)) for b in sizes], color=line.colour, linestyle=line.line)
            styles[label] = line
        style.draw_level(ax, LIMIT)
        label_growth(ax, runs)
        style.add_legend(figure, style.line_handles(styles, marker=True))
        caption = (
            f"{self.note} Points are means over seeds with 95% t intervals. Lines are the theory of wide networks (for "
            "batch normalization from memory, confirmed by our own simulation). Dotted: its published limit for ReLU "
            "and large batches, pi/(pi - 1)."
        )
        return ReportFigure(title, caption, f"Chart of growth against batch size. {title}.", figure)


def label_growth(ax: Axes, runs: pd.DataFrame) -> None:
    """Label the axes of growth against the batch sizes of the runs, on a log axis."""
    ax.set(xscale="log", xlabel="batch size", ylabel="growth per layer")
    ticks = sorted(runs["batch_size"].unique())
    ax.set_xticks(ticks, [str(b) for b in ticks])
    ax.minorticks_off()


def _growths(runs: pd.DataFrame) -> str:
    """`"BatchNorm, relu 1.78x to 1.47x"`, from the smallest to the largest batch."""
    parts = []
    for (norm, activation), rows in runs.groupby(["norm", "model.activation"]):
        means = rows.groupby("batch_size")["growth"].mean()
        ends = dict.fromkeys(f"{mean:.2f}x" for mean in (means.iloc[0], means.iloc[-1]))
        parts.append(f"{' to '.join(ends)} ({norm}, {activation})")
    return ", ".join(parts)


def check_growth(quantity: str, arm: str, expected: Expected, growths: pd.Series, value: float) -> Check:
    bounds = (1 - TOLERANCE) * value, (1 + TOLERANCE) * value
    return make_check(quantity, arm, expected, mean_interval(growths), bounds, f"within {TOLERANCE:.0%}")
