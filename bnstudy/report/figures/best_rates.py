"""The best learning rate by batch size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnstudy.claims.arms import tried_with_all_seeds
from bnstudy.claims.metrics import best_learning_rate
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import listed, rate
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import mean_band

CAPTION = (
    "Each seed's best learning rate by its final validation accuracy, the geometric mean over seeds with its 95% "
    "interval. Dotted: a rate proportional to the batch size, through the first point without normalization. Open "
    "markers: the best rate of some seed lies on the edge of the grid."
)
DODGE = 1.03
"""Factor on the batch size that keeps intervals apart."""


def draw_best_rates(panel: Panel, palette: Palette) -> ReportFigure | None:
    """A line for each norm; None if the panel's families do not differ in norm and batch size alone."""
    table = best_rates(panel.runs)
    if table.empty:
        return None
    title = f"{panel.name}: best learning rate {_result(table)}"
    figure, axes = style.new_figure(1, 1, 3.4, title)
    ax, sizes, styles = axes[0, 0], sorted(table["batch_size"].unique()), {}
    for i, (norm, rows) in enumerate(table.groupby("norm", observed=True)):
        line = styles[str(norm)] = palette.norms.get(str(norm), LineStyle(style.COLOURS[i]))
        shifted = rows.assign(batch_size=rows["batch_size"] * DODGE**i)
        style.draw_band(ax, shifted, "batch_size", line, marker="")
        for is_edge, own in shifted.groupby("is_edge"):
            face = {"markerfacecolor": "white"} if is_edge else {}
            ax.plot(own["batch_size"], own["mean"], line.marker, color=line.colour, markersize=5, **face)
    first = table.iloc[0]
    ax.plot(sizes, first["mean"] * np.array(sizes) / sizes[0], color=style.NEUTRAL, linestyle=style.DOTTED, zorder=1)
    ax.set(xscale="log", yscale="log", xlabel="batch size", ylabel="best learning rate")
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    layout.set_log_ticks(ax.yaxis, most=7)
    style.add_legend(figure, style.line_handles(styles, marker=True))
    return ReportFigure(title, CAPTION, f"Chart of the best learning rate against the batch size. {title}.", figure)


def best_rates(runs: pd.DataFrame) -> pd.DataFrame:
    """`norm` `batch_size` `mean` `low` `high` `is_edge`, the baseline first; empty where families differ otherwise, or
    in their norm alone."""
    families = runs.drop_duplicates("family")
    several = families["batch_size"].nunique() > 1 and (runs.groupby("family", observed=True)["lr"].nunique() > 2).all()
    if not several or families.duplicated(["norm_label", "batch_size"]).any() or runs["score"].isna().all():
        return pd.DataFrame()
    parts = []
    for (norm, size), own in runs.groupby(["norm_label", "batch_size"], observed=True):
        found = best_learning_rate(tried_with_all_seeds(own), own)
        parts.append(found.assign(norm=norm, batch_size=size, is_edge=bool((found["bound"] != "").any())))
    table = mean_band(pd.concat(parts), ["norm", "batch_size", "is_edge"], log=True)
    norms = runs["norm_label"].cat.categories
    return table.assign(norm=pd.Categorical(table["norm"], norms, ordered=True)).sort_values(["norm", "batch_size"])


def _result(table: pd.DataFrame) -> str:
    """`"0.03 to 0.3 (NoNorm) and 0.05 to 2 (BatchNorm) from batch size 8 to 512"`."""
    parts = []
    for norm, rows in table.groupby("norm", observed=True):
        ends = rows.sort_values("batch_size")["mean"]
        parts.append(f"{rate(ends.iloc[0])} to {rate(ends.iloc[-1])} ({norm})")
    return f"{listed(parts)} from batch size {table['batch_size'].min()} to {table['batch_size'].max()}"
