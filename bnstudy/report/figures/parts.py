"""What several figures are put together from: grids of small axes, an axis of updates, names at the ends of lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.report.figures import style
from bnstudy.report.transforms import Panel

COLUMNS = 3
LETTERS = 72
"""How many letters of titles fit beside each other."""
LINE = 0.14
"""Height in inches of each further line of a title."""
ROW = 1.75
"""Height in inches of a row of small axes,"""
HEAD = 0.75
"""and of what is above and below all of them."""
NEAR = 0.085
"""Names closer than this share of the axis's height are moved apart."""
ROOM = 3.0
"""Factor by which a log axis may reach beyond the means."""
ALIKE = 8.0
"""Axes are shared where the widest range is at most so many times the narrowest."""


def grid(n: int, title: str, row: float = ROW, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure with n axes in rows of at most three, filled from the left."""
    columns = columns_of(n)
    rows = -(-n // columns)
    height = HEAD + (max(row, 2.4) if rows == 1 else row * rows)
    figure, axes = style.canvas(rows, columns, height, title, **subplots)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < n)
        if subplots.get("sharex") and i < n <= i + columns:  # the last of its column, below which there is no other
            ax.tick_params(labelbottom=True)
    return figure, list(axes.flat[:n])


def columns_of(n: int) -> int:
    return 2 if n == 4 else min(n, COLUMNS)


def arm_axes(
    panel: Panel, rows: pd.DataFrame, title: str, row: float = ROW, **subplots: Any
) -> tuple[Figure, dict[str, Axes]]:
    """Small axes for the arms that have rows, each named as in the report."""
    arms = [str(arm) for arm in panel.shown["arm"] if (rows["arm"] == arm).any()]
    names, width = labels(panel), LETTERS // columns_of(len(arms))
    wrapped = [textwrap.fill(names[arm], width, break_long_words=False) for arm in arms]
    further = max(name.count("\n") for name in wrapped)
    figure, axes = grid(len(arms), title, row + LINE * further, **subplots)
    for name, ax in zip(wrapped, axes, strict=True):
        ax.set_title(name, fontsize=8 if further else None)
    return figure, dict(zip(arms, axes, strict=True))


def labels(panel: Panel) -> dict[str, str]:
    return dict(zip(panel.shown["arm"].astype(str), panel.shown["label"], strict=True))


def by_arm(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for arm, rows in table.groupby("arm", observed=True):
        yield str(arm), rows


def outer(axes: list[Axes]) -> tuple[list[Axes], list[Axes]]:
    """The axes with none to their left, and those with none below: they bear the labels."""
    specs = [ax.get_subplotspec() for ax in axes]
    left = [ax for ax, spec in zip(axes, specs, strict=True) if spec and spec.colspan.start == 0]
    columns = specs[0].get_gridspec().ncols if specs[0] else 1
    return left, axes[-columns:]


def updates(ax: Axes, last: float, named: bool = True) -> None:
    """A log axis of updates on which update 0 has its place, left of 1."""
    ax.set_xscale("symlog", linthresh=1, linscale=0.3)
    powers = np.arange(0, np.floor(np.log10(max(last, 1))) + 1)
    few = powers[:: 2 if len(powers) > 4 else 1]
    ax.set_xlim(-0.1, max(last, 1) * 1.15)
    ax.xaxis.set_major_locator(FixedLocator([0.0, *(10**few)]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    if named:
        ax.set_xlabel("updates")


def is_alike(ranges: Mapping[str, float]) -> bool:
    """Whether axes that show these ranges can be one without hiding what is in the narrowest."""
    found = [r for r in ranges.values() if r > 0]
    return not found or max(found) <= ALIKE * min(found)


def limit_to_means(axes: Iterable[Axes]) -> None:
    """Let no interval of a few seeds stretch the axes, which share their limits, far beyond the lines."""
    axes = list(axes)
    y = np.array(
        [value for ax in axes for line in ax.lines for value in np.asarray(line.get_ydata()) if np.isfinite(value)]
    )
    if not len(y):
        return
    is_log, (low, high) = axes[0].get_yscale() == "log", axes[0].get_ylim()
    if is_log:
        axes[0].set_ylim(max(low, y.min() / ROOM), min(high, y.max() * ROOM))
    elif margin := 0.35 * np.ptp(y):
        axes[0].set_ylim(max(low, y.min() - margin), min(high, y.max() + margin))


def end_names(ax: Axes, ends: list[tuple[str, float, str]]) -> None:
    """Name lines at their right ends: (name, y, colour), moved apart where they would overlap. The limits of y must
    stand."""
    to_share = ax.transAxes.inverted().transform
    shares = [float(to_share(ax.transData.transform((1, y)))[1]) for _, y, _ in ends]
    order = np.argsort(shares, kind="stable")
    places = np.clip(np.array(shares)[order], 0.02, 0.98)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + NEAR)
    places -= max(0.0, places[-1] - 1) if len(places) else 0.0
    for i, place in zip(order, places, strict=True):
        name, _, colour = ends[i]
        ax.text(1.02, place, name, transform=ax.transAxes, color=colour, fontsize=8, va="center", ha="left")


def outer_labels(axes: list[Axes], y: str) -> None:
    """`y` beside the axes on the left, updates below the lowest."""
    left, lowest = outer(axes)
    for ax in left:
        ax.set_ylabel(y)
    for ax in lowest:
        ax.set_xlabel("updates")
