"""What becomes of the layers over time, as maps of layer against updates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.ticker import MaxNLocator

from bnstudy.report.figures import parts
from bnstudy.report.figures.style import Drawn, Palette
from bnstudy.report.layer_series import layer_names, layers_by_time, layers_over_time
from bnstudy.report.transforms import Panel

CAPTION = (
    "Share of ReLU units whose output is zero for every sample of the probe batch, by layer, from the input at the "
    "bottom, and by update: a column is a measurement. Means over seeds, until one of them diverges."
)
NAMED = 8
"""Up to so many layers are named, more are numbered."""
SHADES = 40
"""More, and the colour bar would be a bitmap."""
LEAST = 5.0
"""Per cent that the scale of colours reaches at least, so that a few dead units do not look like many."""


def draw_dead_map(panel: Panel, palette: Palette) -> Drawn | None:  # noqa: ARG001
    """Share of dead units, axes for each arm; None where there are not several layers and updates."""
    rows = layers_over_time(panel, "dead_share")
    if rows.empty or rows["depth"].nunique() < 2 or rows["step"].nunique() < 3:
        return None
    title = f"{panel.name}: dead units by layer over training"
    figure, axes = parts.arm_axes(panel, rows, title, row=2.1, sharey=True)
    grids = {arm: 100 * layers_by_time(rows[rows["arm"] == arm]) for arm in axes}
    top = max(LEAST, *(float(g.max(axis=None)) for g in grids.values()))
    for arm, ax in axes.items():
        image = _map(ax, grids[arm], top, ticks=7 if len(axes) < parts.COLUMNS else 4)
    left, lowest = parts.outer(list(axes.values()))
    names = layer_names(rows)
    for ax in left:
        _layer_axis(ax, names)
    for ax in lowest:
        ax.set_xlabel("updates")
    figure.colorbar(image, ax=list(axes.values()), label="dead units (%)", fraction=0.04, pad=0.02)
    return Drawn("dead-map", title, CAPTION, _alt(panel, title, grids), figure)


def _map(ax: Axes, grid: pd.DataFrame, top: float, ticks: int) -> QuadMesh:
    """Cells of equal width, whatever the updates between two measurements."""
    x, y = np.arange(grid.shape[1] + 1) - 0.5, np.append(grid.index, grid.index[-1] + 1) - 0.5
    image = ax.pcolormesh(
        x,
        y,
        grid.to_numpy(),
        cmap=colormaps["YlOrRd"].resampled(SHADES),
        vmin=0,
        vmax=top,
        edgecolors="white",
        linewidth=0.3,
    )
    ax.grid(visible=False)
    chosen = np.unique(np.linspace(0, grid.shape[1] - 1, min(ticks, grid.shape[1])).round().astype(int))
    ax.set_xticks(chosen, [f"{grid.columns[i]:g}" for i in chosen])
    return image


def _layer_axis(ax: Axes, names: dict[int, str]) -> None:
    if len(names) <= NAMED:
        ax.set_yticks(list(names), list(names.values()))
        return
    ax.yaxis.set_major_locator(MaxNLocator(NAMED, integer=True))
    ax.set_ylabel("layer, from the input")


def _alt(panel: Panel, title: str, grids: dict[str, pd.DataFrame]) -> str:
    ends = {arm: grid.iloc[:, -1] for arm, grid in grids.items()}
    told = [
        f"{parts.labels(panel)[a]} at most {end.max():.1f}% in a layer, {end.mean():.1f}% on average"
        for a, end in ends.items()
    ]
    return f"Heat maps. {title}. At the end: {'; '.join(told)}."
