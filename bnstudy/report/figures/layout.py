"""Parts that several figures share: grids of axes, the step axis, labels at the ends of lines."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from bnstudy.report.figures import style
from bnstudy.report.figures.colours import readable
from bnstudy.report.panels import Panel

MAX_COLUMNS = 3
TITLE_LETTERS = 66
"""Letters of axes titles that fit side by side."""
TITLE_LINE = 0.14
"""Height of each further line of an axes title, in inches."""
ROW = 1.75
"""Height of a row of axes in inches."""
MARGINS = 0.75
"""Height above and below all rows in inches."""
LABEL_DISTANCE = 0.14
"""Least distance of two labels in inches."""
ROOM = 3.0
"""Factor by which a log axis may extend beyond the means."""
SHARED_RATIO = 8.0
"""Axes share a scale up to this ratio of the widest range to the narrowest."""


def make_grid(n: int, title: str, row: float = ROW, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure with n axes in rows of at most three, or two for a phone, filled from the left."""
    columns = count_columns(n)
    rows = -(-n // columns)
    height = MARGINS + (max(row, 2.4) if rows == 1 else row * rows)
    figure = style.empty_figure(height, title)
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < n)
        if subplots.get("sharex") and i < n <= i + columns:  # the lowest of its column
            ax.tick_params(labelbottom=True)
    return figure, list(axes.flat[:n])


def count_columns(n: int) -> int:
    if style.is_narrow():
        return 2 if n > MAX_COLUMNS else 1
    return 2 if n == 4 else min(n, MAX_COLUMNS)


def make_arm_axes(
    panel: Panel, rows: pd.DataFrame, title: str, row: float = ROW, **subplots: Any
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with axes for each arm that has rows, titled with the arm's label."""
    labels = {arm: label for arm, label in panel.labels.items() if (rows["arm"] == arm).any()}
    width = (style.fit(TITLE_LETTERS) - 8 * style.is_narrow()) // count_columns(len(labels))
    titles = [textwrap.fill(label, width, break_long_words=False) for label in labels.values()]
    extra_lines = max(text.count("\n") for text in titles)
    figure, axes = make_grid(len(labels), title, row + TITLE_LINE * extra_lines, **subplots)
    for text, ax in zip(titles, axes, strict=True):
        ax.set_title(text, fontsize=8 if extra_lines else None)
    return figure, dict(zip(labels, axes, strict=True))


def title_axes(axes: Sequence[Axes], titles: Iterable[str]) -> None:
    """Title axes in small letters, wrapped to their width."""
    letters = style.fit(TITLE_LETTERS) // count_columns(len(axes))
    for ax, text in zip(axes, titles, strict=True):
        ax.set_title(textwrap.fill(text, letters, break_long_words=False), fontsize=8.5)


def label_outer_axes(axes: Sequence[Axes], y: str) -> None:
    """Label the y axis of the leftmost axes with `y` and the x axis of the lowest axes with "step"."""
    for ax in leftmost(axes):
        ax.set_ylabel(y)
    for ax in lowest(axes):
        ax.set_xlabel("step")


def leftmost(axes: Sequence[Axes]) -> list[Axes]:
    return [ax for ax in axes if (spec := ax.get_subplotspec()) and spec.colspan.start == 0]


def lowest(axes: Sequence[Axes]) -> list[Axes]:
    """The last axes of each column."""
    spec = axes[0].get_subplotspec()
    return list(axes[-spec.get_gridspec().ncols :] if spec else axes)


def set_step_axis(ax: Axes, last: float) -> None:
    """A log axis of steps on which step 0 has a place to the left of step 1."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.3)
    powers = np.arange(0, np.floor(np.log10(max(last, 1))) + 1)
    ax.set_xlim(-0.1, max(last, 1) * 1.15)
    ax.xaxis.set_major_locator(FixedLocator([0.0, *(10 ** powers[:: 2 if len(powers) > 4 else 1])]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def can_share_scale(ranges: Mapping[str, float]) -> bool:
    """Whether one scale for all these ranges leaves the narrowest readable."""
    positive = [r for r in ranges.values() if r > 0]
    return not positive or max(positive) <= SHARED_RATIO * min(positive)


def limit_to_means(axes: Iterable[Axes]) -> None:
    """Keep wide intervals of few seeds from stretching the y axis, which the axes share, far beyond the lines."""
    axes = list(axes)
    y = np.array([y for ax in axes for line in ax.lines for y in np.asarray(line.get_ydata(), float)])
    y = y[np.isfinite(y)]
    if not len(y):
        return
    low, high = axes[0].get_ylim()
    if axes[0].get_yscale() == "log":
        axes[0].set_ylim(max(low, y.min() / ROOM), min(high, y.max() * ROOM))
    elif margin := 0.35 * np.ptp(y):
        axes[0].set_ylim(max(low, y.min() - margin), min(high, y.max() + margin))


def label_line_ends(ax: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Label lines at their right ends, given (label, y, colour), without overlap. Set the y limits before."""
    to_share = ax.transAxes.inverted().transform
    shares = [float(to_share(ax.transData.transform((1, y)))[1]) for _, y, _ in ends]
    figure = ax.get_figure(root=True)
    height = ax.get_position().height * (figure.get_figheight() if figure else 1)
    order = np.argsort(shares, kind="stable")
    places = np.clip(np.array(shares)[order], 0.02, 0.98)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + LABEL_DISTANCE / height)
    places -= max(0.0, places[-1] - 1) if len(places) else 0.0
    for i, place in zip(order, places, strict=True):
        label, _, colour = ends[i]
        ax.text(1.02, place, label, transform=ax.transAxes, color=readable(colour), fontsize=8, va="center", ha="left")


GRIDS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
"""Ticks within a power of ten, from coarse to fine."""
TICK_WIDTH = 0.45
"""Of a label of the x axis, in inches."""


def set_log_ticks(axis: Axis, most: int) -> None:
    """The finest ticks of `GRIDS` that are no more than `most`; of powers of ten, if they are more, every second."""
    low, high = axis.get_view_interval()
    powers = 10.0 ** np.arange(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    grids = [[t for t in np.outer(powers, steps).ravel() if low <= t <= high] for steps in GRIDS]
    ticks = next((grid for grid in reversed(grids) if len(grid) <= most), grids[0][:: 1 + len(grids[0]) // most])
    if len(ticks) < 2:  # the axis spans less than two of them
        ticks = [t for t in MaxNLocator(most - 1).tick_values(low, high) if low <= t <= high]
    axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def count_ticks(columns: int) -> int:
    """How many labels fit below each of so many axes."""
    return max(2, int((style.width() / columns - 0.3) / TICK_WIDTH))
