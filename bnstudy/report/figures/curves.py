"""Training loss and accuracy over the course of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look, Palette
from bnstudy.report.transforms import Clock, HoldAtChance, LogBins, MeanBand, Panel, UntilDivergence, crosses

CAPTION = (
    "Lines are means over seeds, bands their 95% t intervals. The loss is each run's mean within 24 bins of updates, "
    "its mean over seeds a geometric one. Where a run diverges (x) the mean loss of its arm ends, and the run counts "
    "as guessing in the accuracies from there on; thin lines of single seeds then take the place of the band. Left "
    "against updates, right against the training time that these took, without evaluation."
)
CLOCKS = {"step": "updates", "seconds": "training time (s)"}


def draw_curves(panel: Panel, palette: Palette) -> Drawn | None:
    """Rows: training loss, validation and test accuracy; columns: against updates and against seconds."""
    loss = panel.measured("loss", "train")
    accuracy = {split: panel.measured("accuracy", split) for split in ("val", "test")}
    if loss.empty or any(a.empty for a in accuracy.values()):
        return None
    looks = palette.of_arms(panel.shown)
    title = f"{panel.name}: the course of training"
    figure, axes = style.canvas(3, 2, 6.6, title, sharex="col", sharey="row")
    clock = Clock(panel.timing)
    _losses(axes[0], panel, loss, clock, looks)
    hold = HoldAtChance(panel.shown_runs)
    for row, split, name in ((1, "val", "validation accuracy (%)"), (2, "test", "test accuracy (%)")):
        _accuracies(axes[row], hold(accuracy[split]), panel.shown_runs, clock, looks)
        axes[row, 0].set_ylabel(name)
    for column, label in enumerate(CLOCKS.values()):
        axes[2, column].set_xscale("log")
        axes[2, column].set_xlabel(label)
        style.log_ticks(axes[2, column].xaxis)
    handles = style.line_handles(looks, dict(zip(panel.shown["arm"], panel.shown["label"], strict=True)))
    if panel.shown_runs["diverged"].any():
        handles.append(style.cross_handle("a run diverged"))
    style.legend(figure, handles)
    return Drawn("curves", title, CAPTION, _alt(panel), figure)


def _losses(axes: list[Axes], panel: Panel, loss: pd.DataFrame, clock: Clock, looks: dict[str, Look]) -> None:
    shared = UntilDivergence(panel.shown_runs)(loss)
    table = clock(MeanBand(("arm", "step"), log=True)(LogBins()(shared)))
    marks = clock(crosses(panel, LogBins()(loss)))
    for ax, x in zip(axes, CLOCKS, strict=True):
        for arm, rows in table.groupby("arm", observed=True):
            style.band(ax, rows, x, looks[str(arm)])
        for arm, rows in marks.groupby("arm", observed=True):
            style.cross(ax, rows[x], rows["value"], looks[str(arm)])
        ax.set_yscale("log")
    axes[0].set_ylabel("training loss")
    style.log_ticks(axes[0].yaxis)


def _accuracies(axes: list[Axes], held: pd.DataFrame, runs: pd.DataFrame, clock: Clock, looks: dict[str, Look]) -> None:
    """Bands, and single seeds from an arm's first divergence on: no interval describes what both trains and fails."""
    later, chance = held[held["step"] > 0], float(runs["chance"].mean())
    for arm, rows in later.groupby("arm", observed=True):
        table, seeds = clock(MeanBand(("arm", "step"))(rows)), clock(rows)
        split = runs.loc[runs["arm"] == arm, "diverged_step"].astype(float).min()
        table.loc[table["step"] >= split, ["low", "high"]] = float("nan")
        for ax, x in zip(axes, CLOCKS, strict=True):
            style.band(ax, table, x, looks[str(arm)], scale=100)
            if not np.isnan(split):
                _seeds(ax, seeds, x, looks[str(arm)])
    for ax in axes:
        style.chance_line(ax, chance, "right")
    low, high = 100 * min(chance, later["value"].min()), 100 * later["value"].max()
    axes[0].set_ylim(max(0.0, low - 4), min(102.0, high + 5))


def _seeds(ax: Axes, rows: pd.DataFrame, x: str, look: Look) -> None:
    for _, run in rows.sort_values("step").groupby("run_id", observed=True):
        ax.plot(run[x], 100 * run["value"], color=look.colour, linewidth=0.6, alpha=0.5)


def _alt(panel: Panel) -> str:
    ends = panel.shown_runs.groupby("arm", observed=True)["test_accuracy"].mean()
    named = zip(panel.shown["arm"], panel.shown["label"], strict=True)
    parts = [f"{label} ends at {100 * ends[arm]:.1f}%" for arm, label in named]
    return (
        f"Line charts for {panel.name}: training loss, validation accuracy and test accuracy against updates and "
        f"against seconds. Mean test accuracy: {'; '.join(parts)}."
    )
