"""Training loss and validation accuracy over training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy.claims.contrasts import Contrast
from bnstudy.claims.numbers import two_digits
from bnstudy.report.endings import divergence_points, hold_at_chance, until_divergence
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.facets import Block, lowest, make_blocks, share_limits, split_arms
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, listed, percent
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import Clock, bin_losses, mean_band, split_by_arm

CAPTION = (
    "Lines are means over seeds, bands their 95% t intervals. The loss is each run's mean in 24 bins of steps, and its "
    "mean over seeds is geometric. If a run diverges (x), the mean loss of its arm ends there, the run has chance "
    "accuracy from there on, and thin lines of single seeds replace the band. A run that did not learn has chance "
    "accuracy at the end. Training time is without evaluation."
)
TARGET = (
    " Dashed: {targets} on validation images, the target of the claim on speed: {share:.0%} of the baseline's mean "
    "accuracy at the end of training at the learning rate where that is highest. A run reaches it when the mean of "
    "three successive evaluations does. Each arm is shown at the learning rate at which the claim evaluates most of "
    "its seeds."
)
CLOCKS = {"step": "step", "seconds": "training time (s)"}
TARGET_LINE = (0, (6, 3))


def draw_curves(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Loss above accuracy: against steps and seconds, or against steps for each setting."""
    shown = panel.speed.panel if panel.speed else panel
    loss, accuracy = shown.network_rows("loss", "train"), shown.network_rows("accuracy", "val")
    if loss.empty or accuracy.empty:
        return None
    facets, title = split_arms(shown, palette), f"{panel.name}: {_result(panel, shown)}"
    arms = [arms for arms in facets.groups.values() for _ in (["step"] if facets.is_split else CLOCKS)]
    clocks = ["step"] * len(arms) if facets.is_split else [*CLOCKS]
    columns = 1 if style.is_narrow() and not facets.is_split else layout.count_columns(len(arms))
    titles = list(facets.groups) if facets.is_split else [f"against {name}" for name in ("steps", "training time")]
    heights = [1.25, 1.45] if facets.is_split else [1.8, 2.0]
    figure, blocks = make_blocks(titles, heights, columns, title)
    clock = Clock(shown.timing)
    for block, names, x in zip(blocks, arms, clocks, strict=True):
        part = {name: facets.styles[name] for name in names}
        _draw_losses(block[0], shown, loss, clock, x, part)
        _draw_accuracies(block[1], shown, accuracy, clock, x, part)
        _draw_targets(block[1], panel, shown.families(names))
    _label(blocks, clocks, columns)
    handles = style.line_handles(facets.legend)
    if shown.arm_runs["diverged"].any():
        handles.append(style.cross_handle("a run diverged"))
    style.add_legend(figure, handles)
    return ReportFigure(title, CAPTION + _describe_targets(panel) + facets.note, _alt(shown, title), figure)


def _result(panel: Panel, shown: Panel) -> str:
    """When each arm reaches the target, as the claim on speed says; without such a claim the accuracy at the end."""
    contrasts = panel.speed.contrasts if panel.speed else []
    targets = {percent(c.target) for c in contrasts}
    if len(targets) == 1 and len({c.claim.metric for c in contrasts}) == 1 and not _is_crowded(contrasts):
        return f"{targets.pop()} validation accuracy after {_times(contrasts)}"
    ends = shown.arm_runs.groupby("arm", observed=True)["val_accuracy"].mean()
    values = {shown.names[str(arm)]: end for arm, end in ends.items()}
    return f"validation accuracy at the end: {by_arm(values, percent)}"


def _is_crowded(contrasts: Sequence[Contrast]) -> bool:
    return len({family for c in contrasts for family in c.case.families}) > 3


def _times(contrasts: Sequence[Contrast]) -> str:
    """`"16 steps with BatchNorm and 43 with NoNorm"`, the means that the claim compares."""
    times: dict[str, str] = {}
    for c in contrasts:
        for side, families, mean in zip(("with", "without"), (c.case.with_, c.case.without), c.means, strict=True):
            at_least = "at least " * any(bound == (side, "at least") for bound in c.bounds)
            times |= {family: at_least + two_digits(mean) for family in families}
    unit = "s" if contrasts[0].claim.metric.startswith("seconds") else "steps"
    (first, time), *others = times.items()
    return listed([f"{time} {unit} with {first}", *(f"{time} with {family}" for family, time in others)])


def _draw_losses(
    ax: Axes, panel: Panel, loss: pd.DataFrame, clock: Clock, x: str, styles: Mapping[str, LineStyle]
) -> None:
    binned = bin_losses(until_divergence(loss, panel.arm_runs))
    table = clock(mean_band(binned, ["arm", "step"], log=True))
    points = clock(divergence_points(panel, bin_losses(loss)))
    for arm, line in styles.items():
        of_arm, at = table[table["arm"] == arm], points[points["arm"] == arm]
        style.draw_band(ax, of_arm, x, line)
        style.draw_crosses(ax, at[x], at["value"], line)
    ax.set_yscale("log")


def _draw_accuracies(
    ax: Axes, panel: Panel, accuracy: pd.DataFrame, clock: Clock, x: str, styles: Mapping[str, LineStyle]
) -> None:
    """Draw bands, and single seeds after an arm's first divergence: no interval describes a mix of both outcomes."""
    runs = panel.arm_runs.assign(chance=panel.arm_runs["dataset.guessing.val"].astype(float))
    later, chance = hold_at_chance(accuracy, runs).query("step > 0"), float(runs["chance"].mean())
    for arm, rows in split_by_arm(later[later["arm"].isin([*styles])]):
        table, seeds = clock(mean_band(rows, ["arm", "step"])), clock(rows)
        divergence = runs.loc[(runs["arm"] == arm) & runs["diverged"], "diverged_step"].astype(float).min()
        table.loc[table["step"] >= divergence, ["low", "high"]] = float("nan")
        style.draw_band(ax, table, x, styles[arm], scale=100)
        if not np.isnan(divergence):
            _draw_seeds(ax, seeds, x, styles[arm])
    style.draw_chance_level(ax, chance, "right")
    style.limit_accuracies(ax, 100 * min(chance, later["value"].min()), 100 * later["value"].max())


def _draw_seeds(ax: Axes, rows: pd.DataFrame, x: str, line: LineStyle) -> None:
    for _, run in rows.sort_values("step").groupby("run_id", observed=True):
        ax.plot(run[x], 100 * run["value"], color=line.colour, linewidth=0.6, alpha=0.5)


def _draw_targets(ax: Axes, panel: Panel, families: list[str]) -> None:
    """A dashed line at each target, and one label above the highest."""
    targets = sorted(panel.speed.targets(families)) if panel.speed else []
    for target in targets:
        ax.axhline(100 * target, color=style.NEUTRAL, linewidth=0.8, linestyle=TARGET_LINE, zorder=1)
    if targets:
        place: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "ha": "left", "va": "bottom"}
        label = f"target {' and '.join(dict.fromkeys(map(percent, targets)))}"
        ax.text(0.01, 100 * targets[-1], label, fontsize=8, color=style.NEUTRAL, **place)


def _label(blocks: list[Block], clocks: list[str], columns: int) -> None:
    for i, name in enumerate(("training loss", "validation accuracy (%)")):
        axes = [block[i] for block in blocks]
        share_limits(axes)
        for ax in axes:
            if i == 0:
                style.set_log_ticks(ax.yaxis)
        for ax in layout.leftmost(axes):
            ax.set_ylabel(name)
    for block, x in zip(blocks, clocks, strict=True):
        block[1].set_xscale("log")
        layout.set_log_ticks(block[1].xaxis, layout.count_ticks(columns))
        if block in lowest(blocks) or len({*clocks}) > 1:
            block[1].set_xlabel(CLOCKS[x])


def _describe_targets(panel: Panel) -> str:
    if not panel.speed:
        return ""
    of = {f"{100 * c.target:.1f}%": " or ".join(c.case.without) for c in panel.speed.contrasts}
    targets = [f"{target} ({of[target]})" if len(of) > 1 and of[target] else target for target in sorted(of)]
    return TARGET.format(targets=" and ".join(targets), share=panel.speed.contrasts[0].claim.share_of_target)


def _alt(panel: Panel, title: str) -> str:
    means = panel.arm_runs.groupby("arm", observed=True)["val_accuracy"].mean()
    parts = [f"{label} ends at {two_digits(100 * means[arm])}%" for arm, label in panel.labels.items()]
    return (
        f"Line charts of training loss and validation accuracy. {title}. Mean validation accuracy: {'; '.join(parts)}."
    )
