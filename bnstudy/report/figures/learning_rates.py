"""Test error against the learning rate, and the share of runs that failed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bnstudy.claims.arms import best_arms
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.facets import Block, Facets, lowest, make_blocks, share_limits, split_families
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, listed, percent, rate
from bnstudy.report.panels import Panel

CAPTION = (
    "Test error at the end of training on a log axis: lower is better. Lines are medians over seeds, dots single "
    "seeds. Runs that diverged (x) or did not learn (+) have the error of guessing. The ring marks the learning rate "
    "with the highest mean validation accuracy over all seeds."
)
FAILURES = " Below: the share of seeds whose run diverged or did not learn."
NO_ERROR = " A run without an error is drawn at half an image."
DODGE = 0.12
"""Distance between the first and the last family at one learning rate, as a share of the grid's spacing."""


def draw_learning_rates(panel: Panel, palette: Palette) -> ReportFigure | None:
    """A line for each family; None if no family has several learning rates, or without accuracies."""
    has_rates = panel.runs.groupby("family", observed=True)["lr"].nunique().gt(1).any()
    if not has_rates or panel.runs["test_accuracy"].isna().all():
        return None
    runs, facets = with_errors(panel.runs), split_families(panel.runs, palette)
    table = medians(runs)
    best = best_arms(panel.runs).astype({"family": str}).set_index("family")["lr"]
    title = f"{panel.name}: {_result(table, best, facets)}"
    figure, blocks = _make_axes(facets, title, has_failures=bool(table["failed"].any()))
    rates, chance = sorted(runs["lr"].unique()), 100 * float(1 - runs["chance"].mean())
    for names, axes in zip(facets.groups.values(), blocks, strict=True):
        for family, shift in zip(names, _shifts(len(names), rates), strict=True):
            own, line = runs[runs["family"] == family], facets.styles[family]
            _draw_errors(axes[0], table[table["family"] == family], own, line, shift, float(best[family]))
            if len(axes) > 1:
                _draw_failures(axes[1], table[table["family"] == family], line, shift)
    _set_error_axes([axes[0] for axes in blocks], runs, chance)
    _set_rate_axes(blocks, rates)
    style.add_legend(figure, _handles(facets, runs), "medians over seeds")
    caption = CAPTION + FAILURES * bool(table["failed"].any()) + NO_ERROR * bool((runs["test_accuracy"] == 1).any())
    return ReportFigure(title, caption, _alt(panel.name, table, best), figure)


def with_errors(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the test `error` in percent; half an image where there is none, which a log axis cannot show."""
    half = 50 / runs["dataset.test"].astype(float)
    return runs.assign(error=(100 * (1 - runs["test_accuracy"])).clip(lower=half))


def medians(runs: pd.DataFrame) -> pd.DataFrame:
    """By `family` and `lr` the median `error` and the share that `failed`, both in percent."""
    groups = runs.astype({"family": str}).groupby(["family", "lr"], sort=True)
    return groups.agg(error=("error", "median"), failed=("counts_as_guessing", lambda f: 100 * f.mean())).reset_index()


def good_rates(table: pd.DataFrame, worst: float) -> list[float]:
    """The learning rates next to each other, around the one with the lowest error, whose error is at most `worst`."""
    ordered = table.sort_values("lr")
    errors, rates = ordered["error"].to_numpy(), ordered["lr"].to_numpy()
    best, bad = int(errors.argmin()), np.flatnonzero(errors > worst)
    low, high = bad[bad < best].max(initial=-1) + 1, bad[bad > best].min(initial=len(errors))
    return list(map(float, rates[low:high]))


def _result(table: pd.DataFrame, best: pd.Series, facets: Facets) -> str:
    """What the figure shows: for a few families the rates at which they all do well, else the errors at the best."""
    at_best = (
        table[table["lr"] == table["family"].map(best).astype(float)].set_index("family").reindex([*facets.styles])
    )
    learning = at_best[at_best["failed"] < 50]
    if facets.is_split or len(table["family"].unique()) > 3 or len(learning) < 2:
        errors = {str(family): row["error"] / 100 for family, row in at_best.iterrows()}
        return f"test error at the best learning rate: {by_arm(errors, percent)}"
    worst = float(math.ceil(learning["error"].max() + 1))
    parts = []
    for family in learning.index:
        ends = [rate(lr) for lr in good_rates(table[table["family"] == family], worst)]
        parts.append(f"{family} {ends[0]} to {ends[-1]}" if len(ends) > 1 else f"{family} only {ends[0]}")
    return f"test error of {worst:g}% or less at learning rates: {listed(parts)}"


def _make_axes(facets: Facets, title: str, has_failures: bool) -> tuple[Figure, list[Block]]:
    """For each group the axes of errors and, where there are any, those of failures below."""
    n = len(facets.groups)
    heights = ([2.6, 0.8] if n == 1 else [1.6, 0.55])[: 2 if has_failures else 1]
    figure, blocks = make_blocks(list(facets.groups), heights, layout.count_columns(n), title)
    for ax in layout.leftmost([block[0] for block in blocks]):
        ax.set_ylabel("test error (%)")
    if has_failures:
        failures = [block[1] for block in blocks]
        for ax in failures:
            ax.set(ylim=(-8, 108), yticks=[0, 50, 100])
        share_limits(failures)
        for ax in layout.leftmost(failures):
            ax.set_ylabel("failed (%)")
    return figure, blocks


def _draw_errors(ax: Axes, table: pd.DataFrame, runs: pd.DataFrame, line: LineStyle, shift: float, best: float) -> None:
    colour, finished = line.colour, runs[~runs["counts_as_guessing"]]
    ax.plot(finished["lr"] * shift, finished["error"], ".", color=colour, alpha=0.35, markersize=4.5, zorder=2)
    for lost, marker in ((runs["diverged"], "x"), (runs["not_learned"], "+")):
        style.draw_crosses(ax, runs.loc[lost, "lr"] * shift, runs.loc[lost, "error"], line, marker)
    ax.plot(table["lr"] * shift, table["error"], color=colour, linestyle=line.line, zorder=3)
    learns = table[table["failed"] < 50]
    ax.plot(learns["lr"] * shift, learns["error"], line.marker, color=colour, zorder=3)
    at_best = learns[learns["lr"] == best]  # no rate is best if no run learned
    ring: dict[str, Any] = {"markersize": 9.5, "markerfacecolor": "none", "markeredgewidth": 1.2}
    ax.plot(at_best["lr"] * shift, at_best["error"], "o", markeredgecolor=colour, **ring)


def _draw_failures(ax: Axes, table: pd.DataFrame, line: LineStyle, shift: float) -> None:
    marks: dict[str, Any] = {"color": line.colour, "marker": line.marker, "markersize": 3, "clip_on": False}
    ax.plot(table["lr"] * shift, table["failed"], linestyle=line.line, **marks)


def _shifts(n: int, rates: list[float]) -> np.ndarray:
    """Factors on the learning rate that keep the families' dots apart."""
    gap = np.diff(np.log10(rates)).min() if len(rates) > 1 else 0.5
    return 10 ** (np.linspace(-0.5, 0.5, n) * DODGE * gap * min(1, n - 1))


def _set_error_axes(axes: Sequence[Axes], runs: pd.DataFrame, chance: float) -> None:
    """One log scale for all, up to the error of guessing if runs come near it."""
    low, high = float(runs["error"].min()), float(runs["error"].max())
    if near := high > chance / 2:
        high = max(high, chance)
    for i, ax in enumerate(axes):
        ax.set_yscale("log")
        ax.set_ylim(low / 1.25, high * (1.6 if near else 1.25))
        layout.set_log_ticks(ax.yaxis, most=7)
        if near:
            style.draw_chance_level(ax, chance / 100, "left") if i == 0 else style.draw_level(ax, chance)
    share_limits(axes)


def _set_rate_axes(blocks: Sequence[Block], rates: Sequence[float]) -> None:
    for block in blocks:
        block[0].set_xscale("log")
        block[0].set_xlim(rates[0] / 1.3, rates[-1] * 1.3)
        layout.set_log_ticks(block[0].xaxis, layout.count_ticks(layout.count_columns(len(blocks))))
        block[-1].tick_params(labelbottom=block in lowest(blocks))
    for block in lowest(blocks):
        block[-1].set_xlabel("learning rate")


def _handles(facets: Facets, runs: pd.DataFrame) -> list[Line2D]:
    handles = style.line_handles(facets.legend, marker=True)
    ring: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgecolor": style.NEUTRAL}
    handles.append(Line2D([], [], linestyle="", label="best mean validation accuracy", **ring))
    if runs["diverged"].any():
        handles.append(style.cross_handle("a run diverged"))
    return [*handles, style.cross_handle("a run did not learn", "+")] if runs["not_learned"].any() else handles


def _alt(panel: str, table: pd.DataFrame, best: pd.Series) -> str:
    at_best = table[table["lr"] == table["family"].map(best).astype(float)]
    parts = [
        f"{r.family} has its best mean validation accuracy at {r.lr:g}, with a median test error of "
        f"{percent(r.error / 100)}"
        for r in at_best.itertuples()
    ]
    low, high = table["lr"].min(), table["lr"].max()
    return f"Line chart for {panel}: median test error for learning rates from {low:g} to {high:g}. {'; '.join(parts)}."
