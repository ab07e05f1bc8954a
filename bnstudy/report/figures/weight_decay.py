"""Weight decay against a growing learning rate: two trainings that are the same for weights in front of a norm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy.claims.metrics import decay_pairs
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import mean_band
from bnstudy.store.thin import LOSSES as STEPS

CAPTION = (
    "Above, the training losses of one seed. Below, the distance of the losses with weight decay and with a growing "
    "rate in the same step: the geometric mean over seeds with its 95% interval. Both are drawn from the losses of up "
    f"to {STEPS} log-spaced steps. Rounding of losses near 1 is about "
    "1e-16 in float64, and 1e-7 in float32. Both runs have the same initial weights and batches."
)
ROUNDING = 1e-17
"""Below this a distance is drawn here, as a log axis cannot show 0."""
BINS = 40
LOSSES = {
    "weight decay, constant rate": LineStyle(style.BASELINE_COLOUR),
    "no weight decay, growing rate": LineStyle(style.COLOURS[1], style.LINES[1]),
}


def draw_weight_decay(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Losses for each norm, and the distances below; None without both kinds of runs."""
    pairs = {str(norm): list(_pairs(panel, norm)) for norm in panel.arm_runs["norm_label"].unique()}
    pairs = {norm: of_norm for norm, of_norm in sorted(pairs.items(), reverse=True) if of_norm}
    if not pairs:
        return None
    distances = {norm: pd.concat(_distances(*pair) for pair in of_norm) for norm, of_norm in pairs.items()}
    largest = {norm: _geometric_mean([_apart(losses).max() for _, losses in own]) for norm, own in pairs.items()}
    title = f"{panel.name}: largest distance of the losses: {by_arm(largest, lambda value: f'{value:.2g}')}"
    figure, axes = style.new_figure(2, len(pairs), 4.8, title, sharex=True, sharey="row")
    for (norm, of_norm), above, below in zip(pairs.items(), *axes, strict=True):
        for ax in (above, below) if style.is_narrow() else (above,):
            ax.set_title(norm)
        _draw_losses(above, of_norm[0][1])
        colour = (palette.norms or palette.styles).get(norm, LineStyle(style.NEUTRAL))
        style.draw_band(below, mean_band(distances[norm], ["step"], log=True), "step", colour)
    for ax in axes.flat:
        ax.set_yscale("log")
    layout.limit_to_means(axes[1])
    for row in axes:
        layout.set_log_ticks(row[0].yaxis, most=7)
    axes[0, 0].set_ylabel("training loss")
    axes[1, 0].set_ylabel("distance of the losses")
    for ax in axes[1]:
        ax.set_xlabel("step")
    style.add_legend(figure, style.line_handles(LOSSES), "losses of one seed; distances are means over seeds")
    alt = f"Line charts of the training losses with weight decay and with a growing rate, and their distance. {title}."
    return ReportFigure(title, CAPTION, alt, figure)


Pair = tuple[int, pd.DataFrame]


def _pairs(panel: Panel, norm: object) -> Iterator[Pair]:
    runs = panel.arm_runs[(panel.arm_runs["norm_label"] == norm) & ~panel.arm_runs["diverged"]]
    if {"optim.weight_decay", "schedule"} <= {*runs}:
        yield from decay_pairs(runs, panel.metrics)


def _geometric_mean(values: list[float]) -> float:
    return float(np.exp(np.log(values).mean()))


def _apart(losses: pd.DataFrame) -> pd.Series:
    return (losses["a"] - losses["b"]).abs().clip(lower=ROUNDING)


def _distances(seed: int, losses: pd.DataFrame) -> pd.DataFrame:
    """The mean distance in bins of steps."""
    parts = _parts(_apart(losses))
    return pd.DataFrame({"seed": seed, "step": [_middle(own) for own in parts], "value": [own.mean() for own in parts]})


def _draw_losses(ax: Axes, losses: pd.DataFrame) -> None:
    for line, side in zip(LOSSES.values(), ("a", "b"), strict=True):
        parts = _parts(losses[side])
        ax.plot([_middle(own) for own in parts], [own.mean() for own in parts], color=line.colour, linestyle=line.line)


def _parts(values: pd.Series) -> list[pd.Series]:
    """Bins of steps, evenly spaced."""
    bins = pd.cut(values.index, min(BINS, len(values)), labels=False)
    return [own for _, own in values.groupby(bins)]


def _middle(values: pd.Series) -> float:
    """The number of the step in the middle, from 1."""
    return float(values.index.to_numpy().mean()) + 1
