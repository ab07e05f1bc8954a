"""What a network's accuracy is with the statistics that its normalization can use."""

from __future__ import annotations

import pandas as pd

from bnstudy.report.figures import parts, style
from bnstudy.report.figures.style import Drawn, Look, Palette
from bnstudy.report.layer_series import over_time
from bnstudy.report.transforms import MeanBand, Panel

CAPTION = (
    "Accuracy on held-out images with the running statistics, as in evaluation; with those of the batch itself; and "
    "with precise ones, taken anew over many training batches (Wu and Johnson 2021). Where only the running ones lie "
    "low, it is the statistics that lag, not the weights. Means over seeds with 95% t intervals."
)
KINDS = {
    "running": Look("#d55e00"),
    "batch": Look("#0072b2", (0, (4, 1.5))),
    "precise": Look("#009e73", (0, (1, 1.2))),
}


def draw_statistics(panel: Panel, palette: Palette) -> Drawn | None:  # noqa: ARG001
    """Accuracy with running, batch and precise statistics, axes for each arm that has them."""
    tables = {kind: MeanBand(("arm", "step"))(over_time(panel, f"accuracy_{kind}")) for kind in KINDS}
    tables = {kind: table for kind, table in tables.items() if len(table)}
    if len(tables) < 2:
        return None
    title = f"{panel.name}: accuracy with running, batch and precise statistics"
    every = pd.concat(tables.values())
    figure, axes = parts.arm_axes(panel, every, title, sharex=True, sharey=True)
    for arm, ax in axes.items():
        for kind, table in tables.items():
            style.band(ax, table[table["arm"] == arm], "step", KINDS[kind], scale=100)
        parts.updates(ax, float(every["step"].max()), named=False)
    low, high = 100 * every["mean"].min(), 100 * every["mean"].max()
    next(iter(axes.values())).set_ylim(max(0.0, low - 4), min(102.0, high + 5))
    parts.outer_labels(list(axes.values()), "accuracy (%)")
    shown = {kind: KINDS[kind] for kind in tables}
    style.legend(figure, style.line_handles(shown, {k: f"{k} statistics" for k in shown}))
    return Drawn("statistics", title, CAPTION, _alt(panel, title, tables), figure)


def _alt(panel: Panel, title: str, tables: dict[str, pd.DataFrame]) -> str:
    ends = {
        kind: table.sort_values("step").groupby("arm", observed=True)["mean"].last() for kind, table in tables.items()
    }
    names, arms = parts.labels(panel), next(iter(ends.values())).index
    told = [f"{names[str(a)]} {', '.join(f'{k} {100 * e[a]:.1f}%' for k, e in ends.items() if a in e)}" for a in arms]
    return f"Line charts. {title}. At the end: {'; '.join(told)}."
