"""Accuracy against the learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from bnstudy.claims import best_arms
from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look, Palette
from bnstudy.report.transforms import Panel
from bnstudy.stats import intervals

CAPTION = (
    "Test accuracy at the end of training. Lines are means over seeds, bars their 95% t intervals, faint dots single "
    "seeds. Diverged runs (x) count as guessing. The ring marks the learning rate chosen on mean validation accuracy."
)
DODGE = 0.12
"""Distance between the first and last family at one learning rate, as a share of the grid's spacing."""


def draw_rates(panel: Panel, palette: Palette) -> Drawn | None:
    """One line a family; None where no family has several learning rates, or there is no accuracy."""
    table = intervals.summarize(panel.runs, ["family", "lr"], "test_accuracy")
    rates = sorted(panel.runs["lr"].unique())
    if not table["family"].duplicated().any() or table["mean"].isna().all():
        return None
    title = f"{panel.name}: test accuracy by learning rate"
    figure, axes = style.canvas(1, 1, 3.7, title)
    ax, chance = axes[0, 0], float(panel.runs["chance"].mean())
    families = list(table["family"].drop_duplicates())
    chosen = best_arms.best_arms(panel.runs).set_index("family")["lr"]
    for family, shift in zip(families, _shifts(len(families), rates), strict=True):
        runs, look = panel.runs[panel.runs["family"] == family], palette.looks[family]
        _family(ax, table[table["family"] == family], runs, look, shift, float(chosen[family]))
    _accuracy_axis(ax, float(panel.runs["test_accuracy"].min()), chance)
    _rate_axis(ax, rates)
    style.legend(figure, _handles(families, palette, bool(panel.runs["diverged"].any())))
    return Drawn("learning-rates", title, CAPTION, _alt(panel.name, table, chosen), figure)


def _family(ax: Axes, table: pd.DataFrame, runs: pd.DataFrame, look: Look, shift: float, chosen: float) -> None:
    x, mean = table["lr"] * shift, 100 * table["mean"]
    spread = 100 * (table["mean"] - table["low"]).fillna(0)
    fine, lost = runs[~runs["diverged"]], runs[runs["diverged"]]
    ax.plot(fine["lr"] * shift, 100 * fine["test_accuracy"], ".", color=look.colour, alpha=0.3, markersize=5, zorder=2)
    style.cross(ax, lost["lr"] * shift, 100 * lost["test_accuracy"], look)
    some = table["lr"].isin(fine["lr"])
    ax.plot(x, mean, color=look.colour, linestyle=look.line)
    ax.errorbar(x[some], mean[some], spread[some], color=look.colour, fmt=look.marker, elinewidth=1, capsize=2)
    ring = some & (table["lr"] == chosen)  # nothing is best of what always diverged
    ax.plot(
        x[ring],
        mean[ring],
        "o",
        markersize=9.5,
        markerfacecolor="none",
        markeredgecolor=look.colour,
        markeredgewidth=1.2,
    )


def _shifts(n: int, rates: list[float]) -> np.ndarray:
    """Factors on the learning rate that keep the families' bars apart."""
    gap = np.diff(np.log10(rates)).min() if len(rates) > 1 else 0.5
    return 10 ** (np.linspace(-0.5, 0.5, n) * DODGE * gap * min(1, n - 1))


def _accuracy_axis(ax: Axes, lowest: float, chance: float) -> None:
    """Down to guessing, unless everything is far above it."""
    if lowest < 0.5:
        style.chance_line(ax, chance, "left")
        lowest = min(lowest, chance)
    ax.set_ylim(100 * lowest - 4, 102)
    ax.set_ylabel("test accuracy (%)")


def _rate_axis(ax: Axes, rates: list[float]) -> None:
    ax.set_xscale("log")
    ax.set_xlabel("learning rate")
    if len(rates) > 10:
        style.log_ticks(ax.xaxis)
        return
    ax.set_xticks(rates, [f"{lr:.3g}" for lr in rates])
    ax.xaxis.set_minor_locator(NullLocator())


def _handles(families: list[str], palette: Palette, diverged: bool) -> list[Line2D]:
    looks = {family: palette.looks[family] for family in families}
    handles = style.line_handles(looks, {f: str(f) for f in families}, marker=True)
    ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": style.NEUTRAL}
    handles.append(Line2D([], [], linestyle="", label="best on validation", **ring))
    return [*handles, style.cross_handle("a run diverged")] if diverged else handles


def _alt(panel: str, table: pd.DataFrame, chosen: pd.Series) -> str:
    at_best = table[table["lr"] == table["family"].map(chosen).astype(float)]
    parts = [f"{r.family} {100 * r.mean:.1f}% at its chosen rate {r.lr:g}" for r in at_best.itertuples()]
    low, high = table["lr"].min(), table["lr"].max()
    return (
        f"Line chart for {panel}: mean test accuracy for learning rates from {low:g} to {high:g}. {'; '.join(parts)}."
    )
