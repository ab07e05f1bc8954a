"""Dead ReLU units by layer and over training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.ticker import MaxNLocator

from bnstudy.claims.metrics import dead_units
from bnstudy.report.endings import hold, with_last_step
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.depth_profiles import FROM_INPUT, MAX_NAMES, set_depth_axis
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, percent
from bnstudy.report.layer_series import layer_grid, layer_names, layer_series
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import MOMENTS, mean_band, split_by_arm
from bnstudy.validation import printable

SHARE = "Share of ReLU units whose output is zero for every sample of the probe batch"
UNITS = (
    f"{SHARE} (a convolution's unit is a channel). Means over seeds with 95% t intervals. The best learning rate "
    "is that with the highest mean validation accuracy over all seeds. All units of a diverged run count as dead from "
    "its divergence on. A claim on units that "
    "died has smaller numbers: it leaves out those that were dead before training."
)
MAP = (
    f"{SHARE}. Rows are layers, from the input at the bottom; columns are the measured steps. Means over seeds, until "
    "one of them diverges."
)
SHADES = 40
"""With more shades the colour bar would be a bitmap."""
LEAST_COLUMNS = 4
"""A map of fewer steps says less than `dead-units`."""
LEAST_TOP = 5.0
"""The colour scale reaches at least this percentage, so that a few dead units do not look like many."""


def draw_dead_units(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Share of dead units by layer at the end of training, and of the whole network over training."""
    over_time = panel.network_rows("dead_share")
    rows = with_last_step(panel.layer_rows("dead_share"), panel.arm_runs)
    at_end = pd.concat([MOMENTS[-1](rows), _all_dead(rows, panel.arm_runs)])
    if over_time.empty or at_end.empty:
        return None
    diverged = panel.arm_runs["diverged"]
    over_time = hold(over_time, panel.arm_runs, diverged[diverged].astype(float))
    ends = {arm: dead_units(runs, panel.metrics)["value"].mean() for arm, runs in split_by_arm(panel.arm_runs)}
    shares = by_arm({panel.names[arm]: end / 100 for arm, end in ends.items() if not np.isnan(end)}, percent)
    styles, title = palette.of_arms(panel.arms), f"{panel.name}: dead ReLU units after training: {shares}"
    rows_columns, height = ((2, 1), 5.0) if style.is_narrow() else ((1, 2), 3.2)
    figure, axes = style.new_figure(*rows_columns, height, title, sharey=True)
    left, right = axes.flat
    for arm, of_arm in split_by_arm(mean_band(over_time, ["arm", "step"])):
        style.draw_band(right, of_arm, "step", styles[arm], scale=100)
    _draw_points(left, mean_band(at_end, ["arm", "depth"]), styles)
    left.set(title="by layer, at the end of training")
    right.set(title="whole network, over training", xlabel="step")
    top = max(LEAST_TOP, *(1.1 * ax.get_ylim()[1] for ax in (left, right)))
    left.set_ylim(-0.02 * top, top)
    left.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    for ax in layout.leftmost([left, right]):
        ax.set_ylabel("dead units (%)")
    set_depth_axis(left, rows, "layer")
    layout.set_step_axis(right, float(over_time["step"].max()))
    style.add_legend(figure, style.line_handles(styles, panel.labels, marker=True))
    alt = f"Left: points with intervals by layer. Right: lines over training. {title}."
    return ReportFigure(title, UNITS + FROM_INPUT, alt, figure)


def _all_dead(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Every layer of the runs that diverged, with all of its units dead."""
    diverged = runs.loc[runs["diverged"], ["run_id", "arm"]]
    return rows[["arm", "depth"]].drop_duplicates().merge(diverged, on="arm").assign(value=1.0)


def _draw_points(ax: Axes, table: pd.DataFrame, styles: dict[str, LineStyle]) -> None:
    """Draw points with intervals, the arms side by side."""
    for i, (arm, rows) in enumerate(split_by_arm(table)):
        line, shift = styles[arm], 0.5 * ((i + 0.5) / len(styles) - 0.5)
        half = 100 * (rows["mean"] - rows["low"]).fillna(0)
        ax.errorbar(
            rows["depth"] + shift, 100 * rows["mean"], half, color=line.colour, linestyle="",
            marker=line.marker, elinewidth=1, capsize=2,
        )  # fmt: skip


def draw_dead_map(panel: Panel, palette: Palette) -> ReportFigure | None:  # noqa: ARG001
    """Share of dead units by layer and step, axes for each arm; None without several layers and steps."""
    rows = layer_series(panel, "dead_share")
    columns = rows.groupby("arm", observed=True)["step"].nunique()
    if rows.empty or rows["depth"].nunique() < 2 or columns.max() < LEAST_COLUMNS:
        return None
    worst = mean_band(rows, ["arm", "depth", "step"]).groupby("arm", observed=True)["mean"].max()
    most = by_arm({panel.names[str(arm)]: share for arm, share in worst.items()}, percent)
    title = f"{panel.name}: most dead units in a layer at any time: {most}"
    figure, arm_axes = layout.make_arm_axes(panel, rows, title, row=2.1, sharey=True)
    grids = {arm: 100 * layer_grid(rows[rows["arm"] == arm]) for arm in arm_axes}
    top = max(LEAST_TOP, *(float(g.max(axis=None)) for g in grids.values()))
    axes = list(arm_axes.values())
    for arm, ax in arm_axes.items():
        mesh = _draw_mesh(ax, grids[arm], top, ticks=7 if len(axes) < layout.MAX_COLUMNS else 4)
    for ax in layout.leftmost(axes):
        _name_layers(ax, layer_names(rows))
    for ax in layout.lowest(axes):
        ax.set_xlabel("step")
    figure.colorbar(mesh, ax=axes, label="dead units (%)", fraction=0.04, pad=0.02)
    return ReportFigure(title, MAP, f"Heat maps, layers by steps. {title}.", figure)


def _draw_mesh(ax: Axes, grid: pd.DataFrame, top: float, ticks: int) -> QuadMesh:
    """Draw cells of equal width, however far apart the measured steps are."""
    x, y = np.arange(grid.shape[1] + 1) - 0.5, np.append(grid.index, grid.index[-1] + 1) - 0.5
    colours = colormaps["YlOrRd"].resampled(SHADES)
    mesh = ax.pcolormesh(x, y, grid.to_numpy(), cmap=colours, vmin=0, vmax=top, edgecolors="white", linewidth=0.3)
    ax.grid(visible=False)
    columns = np.unique(np.linspace(0, grid.shape[1] - 1, min(ticks, grid.shape[1])).round().astype(int))
    ax.set_xticks(columns, [f"{grid.columns[i]:g}" for i in columns])
    return mesh


def _name_layers(ax: Axes, names: dict[int, str]) -> None:
    if len(names) <= MAX_NAMES:
        ax.set_yticks(list(names), list(map(printable, names.values())))
        return
    ax.yaxis.set_major_locator(MaxNLocator(MAX_NAMES, integer=True))
    ax.set_ylabel("layer, from the input")
