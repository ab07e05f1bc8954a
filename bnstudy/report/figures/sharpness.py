"""The largest eigenvalue of the Hessian, and the stability limit that the learning rate sets."""

from __future__ import annotations

from typing import Any

import pandas as pd

from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm
from bnstudy.report.figures.titles import rate as three_digits
from bnstudy.report.layer_series import network_series, stability_limits
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import last_means, mean_band, split_by_arm

CAPTION = (
    "Largest eigenvalue of the Hessian of the training loss, geometric mean over seeds with its 95% interval. Dashed: "
    "2 (1 + momentum) divided by the learning rate of that step, above which gradient descent on a quadratic diverges; "
    "drawn for plain SGD."
)
OPEN_CIRCLES = (
    " Open circles: the Lanczos iteration had not converged (its residual is above 10% of the eigenvalue), so the "
    "eigenvalue is a lower bound."
)
EDGE = 2.0
EDGE_CAPTION = (
    "The learning rate times the largest eigenvalue of the Hessian of the training loss: means over seeds with 95% t "
    "intervals. Each batch is the whole training set. Dotted: 2, above which gradient descent on a quadratic diverges; "
    "Cohen et al. (2021) found that training stays near this edge once it gets there."
)
LARGE_RESIDUAL = 0.1
LIMIT_COLOUR = "#d55e00"


def draw_sharpness(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Sharpness and its limit over training, axes for each arm."""
    table = mean_band(network_series(panel, "sharpness"), ["arm", "step"], log=True)
    if table.empty:
        return None
    limits, lower_bounds = stability_limits(panel).rename(columns={"value": "mean"}), _lower_bounds(panel)
    last = {panel.names[str(arm)]: value for arm, value in last_means(table).items()}
    title = f"{panel.name}: sharpness at the end of the lines: {by_arm(last)}"
    figure, axes = layout.make_arm_axes(panel, table, title, sharex=True, sharey=True)
    styles, ends = palette.of_arms(panel.arms), {}
    for arm, ax in axes.items():
        sharpness, limit = (rows[rows["arm"] == arm].sort_values("step") for rows in (table, limits))
        colour = styles[arm].colour
        lines = (("sharpness", sharpness, colour), ("limit", limit, LIMIT_COLOUR))
        ends[arm] = [(name, float(rows["mean"].iloc[-1]), c) for name, rows, c in lines if len(rows)]
        style.draw_band(ax, sharpness, "step", styles[arm], marker="o", markersize=3)
        hollow = sharpness.merge(lower_bounds, on=["arm", "step"])
        ax.plot(hollow["step"], hollow["mean"], "o", ms=3, color=colour, markerfacecolor="white")
        ax.plot(limit["step"], limit["mean"], color=LIMIT_COLOUR, linestyle="--", linewidth=1)
        ax.set_yscale("log")
    layout.limit_to_means(axes.values())
    for arm, ax in axes.items():
        style.set_log_ticks(ax.yaxis)
        layout.set_step_axis(ax, float(table["step"].max()))
        layout.label_line_ends(ax, ends[arm])
    layout.label_outer_axes(list(axes.values()), "largest eigenvalue")
    alt = f"Line charts of the sharpness and the limit of stability. {title}."
    return ReportFigure(title, CAPTION + OPEN_CIRCLES * bool(len(lower_bounds)), alt, figure)


def _lower_bounds(panel: Panel) -> pd.DataFrame:
    """`arm` and `step` where the mean relative residual of the eigenvalue is large."""
    residual = mean_band(network_series(panel, "sharpness_residual"), ["arm", "step"])
    return residual.loc[residual["mean"] > LARGE_RESIDUAL, ["arm", "step"]]


def draw_edge(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Learning rate times sharpness over training, of the runs whose batches are the whole training set."""
    full = panel.arm_runs[panel.arm_runs["batch_size"] == panel.arm_runs["dataset.train"]]
    rows = network_series(panel, "lr_sharpness")
    table = mean_band(rows[rows["run_id"].isin(full["run_id"])], ["arm", "step"])
    if table.empty:
        return None
    last = {panel.names[str(arm)]: value for arm, value in last_means(table).items()}
    title = f"{panel.name}: learning rate times sharpness at the end of training: {by_arm(last, three_digits)}"
    figure, axes = style.new_figure(1, 1, 3.2, title)
    ax, styles = axes[0, 0], palette.of_arms(panel.arms)
    for arm, of_arm in split_by_arm(table):
        style.draw_band(ax, of_arm, "step", styles[arm], marker=styles[arm].marker, markersize=3.5)
    style.draw_level(ax, EDGE)
    layout.limit_to_means([ax])
    ax.set_ylim(bottom=0)
    place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "top"}
    ax.text(1.0, EDGE, "edge of stability", fontsize=8, color=style.NEUTRAL, **place)
    ax.set(xlabel="step", ylabel="learning rate times sharpness")
    shown = {arm: styles[arm] for arm in panel.labels if arm in {*table["arm"].astype(str)}}
    style.add_legend(figure, style.line_handles(shown, panel.labels, marker=True))
    return ReportFigure(title, EDGE_CAPTION, f"Line chart of the learning rate times the sharpness. {title}.", figure)
