"""Accuracy with running, batch and precise statistics."""

from __future__ import annotations

import pandas as pd

from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.layer_series import network_series
from bnstudy.report.transforms import Panel, last_means, mean_band

CAPTION = (
    "Accuracy on held-out images with running statistics, as in evaluation; with the statistics of the batch; and with "
    "precise statistics, recomputed over many training batches (Wu and Johnson 2021). If only the accuracy with "
    "running statistics is low, the statistics lag behind and the weights are fine. Means over seeds with 95% t "
    "intervals; lines end where the arm's first run diverges."
)
KINDS = {
    "running": LineStyle("#d55e00"),
    "batch": LineStyle("#0072b2", (0, (4, 1.5)), "s"),
    "precise": LineStyle("#009e73", (0, (1, 1.2)), "^"),
}


def draw_statistics(panel: Panel, palette: Palette) -> ReportFigure | None:  # noqa: ARG001
    """Accuracy with each kind of statistics over training, axes for each arm that has them."""
    tables = {kind: mean_band(network_series(panel, f"accuracy_{kind}"), ["arm", "step"]) for kind in KINDS}
    tables = {kind: table for kind, table in tables.items() if len(table)}
    if len(tables) < 2:
        return None
    title = f"{panel.name}: accuracy with running, batch and precise statistics"
    every = pd.concat(tables.values())
    figure, arm_axes = layout.make_arm_axes(panel, every, title, sharex=True, sharey=True)
    for arm, ax in arm_axes.items():
        for kind, table in tables.items():
            style.draw_band(ax, table[table["arm"] == arm], "step", KINDS[kind], scale=100)
        layout.set_step_axis(ax, float(every["step"].max()))
    axes = list(arm_axes.values())
    style.limit_accuracies(axes[0], 100 * every["mean"].min(), 100 * every["mean"].max())
    layout.label_outer_axes(axes, "accuracy (%)")
    styles = {f"{kind} statistics": KINDS[kind] for kind in tables}
    style.add_legend(figure, style.line_handles(styles))
    return ReportFigure(title, CAPTION, _alt(panel, title, tables), figure)


def _alt(panel: Panel, title: str, tables: dict[str, pd.DataFrame]) -> str:
    ends = pd.DataFrame({kind: last_means(table) for kind, table in tables.items()})
    parts = [
        f"{panel.labels[str(arm)]} {', '.join(f'{kind} {100 * end:.1f}%' for kind, end in row.dropna().items())}"
        for arm, row in ends.iterrows()
    ]
    return f"Line charts. {title}. Where the lines end: {'; '.join(parts)}."
