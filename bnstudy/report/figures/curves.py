"""Training loss and accuracy over training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.transforms import (
    Clock,
    Panel,
    bin_losses,
    divergence_points,
    hold_at_chance,
    mean_band,
    split_by_arm,
    until_divergence,
)

CAPTION = (
    "Lines are means over seeds, bands their 95% t intervals. The loss is each run's mean in 24 bins of steps, and its "
    "mean over seeds is geometric. If a run diverges (x), the mean loss of its arm ends there, the run has chance "
    "accuracy from there on, and thin lines of single seeds replace the band. A run that did not learn has chance "
    "accuracy at the end. Left: against steps. Right: against "
    "training time, without evaluation."
)
CLOCKS = {"step": "step", "seconds": "training time (s)"}


def draw_curves(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Rows: training loss, validation and test accuracy. Columns: against steps and against seconds."""
    loss = panel.network_rows("loss", "train")
    accuracy = {split: panel.network_rows("accuracy", split) for split in ("val", "test")}
    if loss.empty or any(a.empty for a in accuracy.values()):
        return None
    styles = palette.of_arms(panel.arms)
    title = f"{panel.name}: loss and accuracy over training"
    figure, axes = style.new_figure(3, 2, 6.6, title, sharex="col", sharey="row")
    clock = Clock(panel.timing)
    _draw_losses(axes[0], panel, loss, clock, styles)
    for row, split, name in ((1, "val", "validation accuracy (%)"), (2, "test", "test accuracy (%)")):
        rows = hold_at_chance(accuracy[split], panel.arm_runs)
        _draw_accuracies(axes[row], rows, panel.arm_runs, clock, styles)
        axes[row, 0].set_ylabel(name)
    for ax, label in zip(axes[2], CLOCKS.values(), strict=True):
        ax.set(xscale="log", xlabel=label)
        style.set_log_ticks(ax.xaxis)
    handles = style.line_handles(styles, panel.labels)
    if panel.arm_runs["diverged"].any():
        handles.append(style.cross_handle("a run diverged"))
    style.add_legend(figure, handles)
    return ReportFigure(title, CAPTION, _alt(panel), figure)


def _draw_losses(
    axes: list[Axes], panel: Panel, loss: pd.DataFrame, clock: Clock, styles: dict[str, LineStyle]
) -> None:
    binned = bin_losses(until_divergence(loss, panel.arm_runs))
    table = clock(mean_band(binned, ["arm", "step"], log=True))
    points = clock(divergence_points(panel, bin_losses(loss)))
    for ax, x in zip(axes, CLOCKS, strict=True):
        for arm, rows in split_by_arm(table):
            style.draw_band(ax, rows, x, styles[arm])
        for arm, rows in split_by_arm(points):
            style.draw_crosses(ax, rows[x], rows["value"], styles[arm])
        ax.set_yscale("log")
    axes[0].set_ylabel("training loss")
    style.set_log_ticks(axes[0].yaxis)


def _draw_accuracies(
    axes: list[Axes], accuracy: pd.DataFrame, runs: pd.DataFrame, clock: Clock, styles: dict[str, LineStyle]
) -> None:
    """Draw bands, and single seeds after an arm's first divergence: no interval describes a mix of both outcomes."""
    later, chance = accuracy[accuracy["step"] > 0], float(runs["chance"].mean())
    for arm, rows in split_by_arm(later):
        table, seeds = clock(mean_band(rows, ["arm", "step"])), clock(rows)
        divergence = runs.loc[(runs["arm"] == arm) & runs["diverged"], "diverged_step"].astype(float).min()
        table.loc[table["step"] >= divergence, ["low", "high"]] = float("nan")
        for ax, x in zip(axes, CLOCKS, strict=True):
            style.draw_band(ax, table, x, styles[arm], scale=100)
            if not np.isnan(divergence):
                _draw_seeds(ax, seeds, x, styles[arm])
    for ax in axes:
        style.draw_chance_level(ax, chance, "right")
    style.limit_accuracies(axes[0], 100 * min(chance, later["value"].min()), 100 * later["value"].max())


def _draw_seeds(ax: Axes, rows: pd.DataFrame, x: str, line: LineStyle) -> None:
    for _, run in rows.sort_values("step").groupby("run_id", observed=True):
        ax.plot(run[x], 100 * run["value"], color=line.colour, linewidth=0.6, alpha=0.5)


def _alt(panel: Panel) -> str:
    means = panel.arm_runs.groupby("arm", observed=True)["test_accuracy"].mean()
    parts = [f"{label} ends at {100 * means[arm]:.1f}%" for arm, label in panel.labels.items()]
    return (
        f"Line charts for {panel.name}: training loss, validation accuracy and test accuracy against steps and "
        f"against seconds. Mean test accuracy: {'; '.join(parts)}."
    )
