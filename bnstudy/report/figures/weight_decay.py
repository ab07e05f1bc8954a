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

CAPTION = (
    "Above, the training losses of one seed. Below, the distance of the losses with weight decay and with a growing "
    "rate in the same step: the geometric mean over seeds with its 95% interval. Rounding of losses near 1 is about "
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
    largest = {norm: float(np.exp(np.log(_largest(of_norm)).mean())) for norm, of_norm in pairs.items()}
    title = f"{panel.name}: largest distance of the losses: {by_arm(largest, lambda value: f'{value:.2g}')}"
    figure, axes = style.new_figure(2, len(pairs), 4.8, title, sharex=True, sharey="row")
    for (norm, of_norm), above, below in zip(pairs.items(), *axes, strict=True):
        for ax in (above, below) if style.is_narrow() else (above,):
            ax.set_title(norm)
        _draw_losses(above, of_norm[0])
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


Pair = tuple[int, np.ndarray, np.ndarray]


def _pairs(panel: Panel, norm: object) -> Iterator[Pair]:
    runs = panel.arm_runs[(panel.arm_runs["norm_label"] == norm) & ~panel.arm_runs["diverged"]]
    if {"optim.weight_decay", "schedule"} <= {*runs}:
        yield from decay_pairs(runs, panel.metrics[panel.metrics["run_id"].isin(runs["run_id"])])


def _largest(pairs: list[Pair]) -> list[float]:
    return [max(ROUNDING, float(np.abs(a - b).max())) for _, a, b in pairs]


def _distances(seed: int, a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """The mean distance in bins of steps."""
    bins = np.array_split(np.arange(1, len(a) + 1), min(BINS, len(a)))
    values = [max(ROUNDING, float(np.abs(a - b)[own - 1].mean())) for own in bins]
    return pd.DataFrame({"seed": seed, "step": [own.mean() for own in bins], "value": values})


def _draw_losses(ax: Axes, pair: Pair) -> None:
    for line, losses in zip(LOSSES.values(), pair[1:], strict=True):
        binned = [own.mean() for own in np.array_split(losses, min(BINS, len(losses)))]
        steps = [own.mean() for own in np.array_split(np.arange(1, len(losses) + 1), len(binned))]
        ax.plot(steps, binned, color=line.colour, linestyle=line.line)
