"""A metric of the layers against depth, at several moments of training: gradient norms, backpropagated gradients."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bnstudy.report.endings import with_last_step
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import Palette, ReportFigure
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import MOMENTS, mean_band, split_by_arm
from bnstudy.validation import printable

MAX_NAMES = 8
"""An axis with more layers has numbers instead of names."""


@dataclass(frozen=True)
class DepthProfile:
    """axis: label of the y axis; layer: what the x axis counts."""

    metric: str
    axis: str
    title: str
    layer: str
    caption: str


GRADIENT_NORM = DepthProfile(
    "grad_norm", "gradient norm", "gradient norm by layer", "weight layer",
    "Euclidean norm of the gradient of each layer's weights on a training batch. Points are geometric means over "
    "seeds, bands 95% t intervals on the log axis; gradients that are zero or not finite are left out. Arms with and "
    "without normalization are not on one scale: a normalized layer's gradient is proportional to 1/||W||.",
)  # fmt: skip
BACKPROP = DepthProfile(
    "backprop_rms", "RMS of dL/dz", "size of the gradient that reaches each layer", "hidden layer",
    "Root mean square, over samples and units, of the derivative of the training batch's loss with respect to each "
    "hidden layer's pre-activations. A flat line is a gradient that neither vanishes nor explodes on its way back. "
    "Points are geometric means over seeds, bands 95% t intervals on the log axis.",
)  # fmt: skip


def draw_gradients(panel: Panel, palette: Palette) -> ReportFigure | None:
    return _draw_profile(GRADIENT_NORM, panel, palette)


def draw_backprop(panel: Panel, palette: Palette) -> ReportFigure | None:
    return _draw_profile(BACKPROP, panel, palette)


def _draw_profile(profile: DepthProfile, panel: Panel, palette: Palette) -> ReportFigure | None:
    """Draw a metric against depth, axes for each of `MOMENTS` at which it was measured, on a log axis."""
    rows = with_last_step(panel.layer_rows(profile.metric), panel.arm_runs)
    measured = [(m.title, at) for m in MOMENTS if not (at := m(rows)).empty]
    if not measured:
        return None
    styles, title = palette.of_arms(panel.arms), f"{panel.name}: {profile.title}"
    columns = min(2, len(measured))
    n_rows = -(-len(measured) // columns)
    figure, axes = style.new_figure(n_rows, columns, 0.8 + 2.3 * n_rows, title, sharex=True, sharey=True)
    for ax, (moment, at) in zip(axes.flat, measured, strict=False):
        for arm, table in split_by_arm(mean_band(at, ["arm", "depth"], log=True)):
            style.draw_band(ax, table, "depth", styles[arm], marker=styles[arm].marker)
        ax.set(title=_name_moment(moment, at), yscale="log")
    for ax in axes.flat[len(measured) :]:
        ax.set_visible(False)
    layout.limit_to_means(axes.flat)
    style.set_log_ticks(axes[0, 0].yaxis)
    for ax in axes[-1]:
        set_depth_axis(ax, rows, profile.layer)
    for ax in axes[:, 0]:
        ax.set_ylabel(profile.axis)
    style.add_legend(figure, style.line_handles(styles, panel.labels, marker=True))
    return ReportFigure(title, profile.caption, _alt(profile, panel, *measured[-1]), figure)


def set_depth_axis(ax: Axes, rows: pd.DataFrame, layer: str) -> None:
    """Name the layers on the x axis if they are few and the same in every arm, else number them."""
    names = rows.drop_duplicates(["depth", "layer"]).sort_values("depth")
    if len(names) <= MAX_NAMES and not names["depth"].duplicated().any():
        is_long = sum(len(n) for n in names["layer"]) > 40
        rotation, ha = (30, "right") if is_long else (0, "center")
        ax.set_xticks(names["depth"], [printable(str(name)) for name in names["layer"]], rotation=rotation, ha=ha)
        ax.set_xlim(0.5, len(names) + 0.5)
        ax.set_xlabel(f"{layer}, from input to output")
        return
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"{layer}, counted from the input")


def _name_moment(title: str, at: pd.DataFrame) -> str:
    steps = at["step"].unique()
    return f"{title}: step {steps[0]}" if len(steps) == 1 and steps[0] > 0 else title


def _alt(profile: DepthProfile, panel: Panel, moment: str, at: pd.DataFrame) -> str:
    ends = mean_band(at, ["arm", "depth"], log=True).groupby("arm", observed=True)["mean"].agg(["first", "last"])
    parts = [
        f"{panel.labels[str(arm)]} {end['first']:.2g} in the first and {end['last']:.2g} in the last"
        for arm, end in ends.iterrows()
    ]
    return f"Line charts for {panel.name}: {profile.axis} of each layer. At the {moment}: {'; '.join(parts)}."
