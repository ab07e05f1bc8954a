"""Test accuracy against the learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bnstudy.claims.arms import best_arms
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.transforms import Panel
from bnstudy.stats import intervals

CAPTION = (
    "Test accuracy at the end of training. Lines are means over seeds, bars their 95% t intervals, faint dots single "
    "seeds. Runs that diverged (x) or did not learn (+) have chance accuracy. The ring marks the learning "
    "rate with the highest mean validation accuracy over all seeds."
)
DODGE = 0.12
"""Distance between the first and the last family at one learning rate, as a share of the grid's spacing."""


def draw_learning_rates(panel: Panel, palette: Palette) -> ReportFigure | None:
    """One line for each family; None if no family has several learning rates, or without accuracies."""
    table = intervals.summarize(panel.runs, ["family", "lr"], "test_accuracy")
    rates = sorted(panel.runs["lr"].unique())
    if not table["family"].duplicated().any() or table["mean"].isna().all():
        return None
    title = f"{panel.name}: test accuracy by learning rate"
    figure, axes = style.new_figure(1, 1, 3.7, title)
    ax, chance = axes[0, 0], float(panel.runs["chance"].mean())
    families = list(table["family"].drop_duplicates())
    best = best_arms(panel.runs).set_index("family")["lr"]
    for family, shift in zip(families, _shifts(len(families), rates), strict=True):
        runs, line = panel.runs[panel.runs["family"] == family], palette.styles[family]
        _draw_family(ax, table[table["family"] == family], runs, line, shift, float(best[family]))
    _set_accuracy_axis(ax, float(panel.runs["test_accuracy"].min()), chance)
    _set_rate_axis(ax, rates)
    style.add_legend(figure, _handles(families, palette, panel.runs))
    return ReportFigure(title, CAPTION, _alt(panel.name, table, best), figure)


def _draw_family(ax: Axes, table: pd.DataFrame, runs: pd.DataFrame, line: LineStyle, shift: float, best: float) -> None:
    x, mean, colour = table["lr"] * shift, 100 * table["mean"], line.colour
    half = 100 * (table["mean"] - table["low"]).fillna(0)
    finished = runs[~runs["counts_as_guessing"]]
    dots: dict[str, Any] = {"color": colour, "alpha": 0.3, "markersize": 5, "zorder": 2}
    ax.plot(finished["lr"] * shift, 100 * finished["test_accuracy"], ".", **dots)
    for lost, marker in ((runs["diverged"], "x"), (runs["not_learned"], "+")):
        style.draw_crosses(ax, runs.loc[lost, "lr"] * shift, 100 * runs.loc[lost, "test_accuracy"], line, marker)
    has_finished = table["lr"].isin(finished["lr"])
    ax.plot(x, mean, color=colour, linestyle=line.line)
    bars: dict[str, Any] = {"color": colour, "fmt": line.marker, "elinewidth": 1, "capsize": 2}
    ax.errorbar(x[has_finished], mean[has_finished], half[has_finished], **bars)
    is_best = has_finished & (table["lr"] == best)  # no rate is best if no run learned
    ring: dict[str, Any] = {"markersize": 9.5, "markerfacecolor": "none", "markeredgewidth": 1.2}
    ax.plot(x[is_best], mean[is_best], "o", markeredgecolor=colour, **ring)


def _shifts(n: int, rates: list[float]) -> np.ndarray:
    """Factors on the learning rate that keep the families' bars apart."""
    gap = np.diff(np.log10(rates)).min() if len(rates) > 1 else 0.5
    return 10 ** (np.linspace(-0.5, 0.5, n) * DODGE * gap * min(1, n - 1))


def _set_accuracy_axis(ax: Axes, lowest: float, chance: float) -> None:
    """Include chance accuracy unless all accuracies are far above it."""
    if lowest < 0.5:
        style.draw_chance_level(ax, chance, "left")
        lowest = min(lowest, chance)
    ax.set_ylim(100 * lowest - 4, 102)
    ax.set_ylabel("test accuracy (%)")


def _set_rate_axis(ax: Axes, rates: list[float]) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    if len(rates) > 10:
        style.set_log_ticks(ax.xaxis)
        return
    ax.set_xticks(rates, [f"{lr:.3g}" for lr in rates])
    ax.xaxis.set_minor_locator(NullLocator())


def _handles(families: list[str], palette: Palette, runs: pd.DataFrame) -> list[Line2D]:
    handles = style.line_handles({str(f): palette.styles[f] for f in families}, marker=True)
    ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": style.NEUTRAL}
    handles.append(Line2D([], [], linestyle="", label="best mean validation accuracy", **ring))
    if runs["diverged"].any():
        handles.append(style.cross_handle("a run diverged"))
    return [*handles, style.cross_handle("a run did not learn", "+")] if runs["not_learned"].any() else handles


def _alt(panel: str, table: pd.DataFrame, best: pd.Series) -> str:
    at_best = table[table["lr"] == table["family"].map(best).astype(float)]
    parts = [
        f"{r.family} has its best mean validation accuracy at {r.lr:g}, with a test accuracy of {100 * r.mean:.1f}%"
        for r in at_best.itertuples()
    ]
    low, high = table["lr"].min(), table["lr"].max()
    return (
        f"Line chart for {panel}: mean test accuracy for learning rates from {low:g} to {high:g}. {'; '.join(parts)}."
    )
