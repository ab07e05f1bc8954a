"""Percentiles of pre-activations over training, and the angle between a layer's gradients."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from bnstudy.claims.numbers import two_digits
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, times
from bnstudy.report.layer_series import (
    first_seed,
    last_hidden_layer,
    layer_names,
    layer_series,
    mean_range,
    spread_layers,
)
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import last_means, mean_band, split_by_arm

QUANTILES = {"q15": "15%", "q50": "median", "q85": "85%"}

POOLED = (
    "15th, 50th and 85th percentile of the last hidden layer's pre-activations, the inputs of its activation function, "
    "over all units and the samples of the probe batch. Means over seeds with 95% t intervals. Flat lines mean that "
    "the distribution stays in place while the layers below are trained. The spread is the distance from the 15th to "
    "the 85th percentile, its growth that at the end over that at the start."
)
ONE_UNIT = (
    "15th, 50th and 85th percentile over the probe batch of the pre-activation of one unit, the first of the last "
    "hidden layer, as in Figure 1 of Ioffe and Szegedy (2015). One seed: units of different seeds have no common mean."
)
OWN_SCALES = "Each arm has its own scale."
BY_LAYER = (
    "Lines are medians of a layer's pre-activations over all units and the samples of the probe batch, bands extend "
    "from the 15th to the 85th percentile; means over seeds. Each layer has its own scale."
)
COSINES = (
    "Cosine of the angle between G, the gradient of a layer's weights, and G', the same gradient after the layers "
    "before it have been updated. It is 1 if their update does not change the direction of the layer's gradient: the "
    "internal covariate shift of Santurkar et al. (2018), Definition 2.1. Means over seeds with 95% t intervals."
)


def draw_pooled_percentiles(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Percentiles over all units of the last hidden layer, axes for each arm."""
    series = {q: last_hidden_layer(layer_series(panel, f"z_{q}")) for q in QUANTILES}
    title = f"{panel.name}: growth of the spread of the last hidden layer"
    return _draw_percentiles(panel, palette, series, title, POOLED)


def draw_unit_percentiles(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Percentiles of one unit of the last hidden layer for one seed, axes for each arm."""
    series = {q: last_hidden_layer(layer_series(panel, f"unit_{q}")) for q in QUANTILES}
    series = {q: first_seed(rows, panel.arm_runs) for q, rows in series.items()}
    title = f"{panel.name}: growth of the spread of one unit, seed {panel.arm_runs['seed'].min()}"
    return _draw_percentiles(panel, palette, series, title, ONE_UNIT)


def _draw_percentiles(
    panel: Panel, palette: Palette, series: dict[str, pd.DataFrame], title: str, caption: str
) -> ReportFigure | None:
    if any(rows.empty for rows in series.values()):
        return None
    tables = {q: mean_band(rows, ["arm", "step"]) for q, rows in series.items()}
    title = f"{title}: {by_arm(_growth(panel, tables), times)}"
    low, high = (tables[q].groupby("arm", observed=True)["mean"].agg(f) for q, f in (("q15", "min"), ("q85", "max")))
    is_shared = layout.can_share_scale((high - low).to_dict())
    figure, axes = layout.make_arm_axes(panel, series["q50"], title, sharex=True, sharey=is_shared)
    styles, last = palette.of_arms(panel.arms), float(series["q50"]["step"].max())
    for arm, ax in axes.items():
        for table in tables.values():
            style.draw_band(ax, table[table["arm"] == arm], "step", styles[arm])
        layout.set_step_axis(ax, last)
    for group in [list(axes.values())] if is_shared else [[ax] for ax in axes.values()]:
        layout.limit_to_means(group)
    ends = {q: last_means(table) for q, table in tables.items()}
    for arm, ax in axes.items():
        layout.label_line_ends(ax, [(QUANTILES[q], float(end[arm]), styles[arm].colour) for q, end in ends.items()])
    layout.label_outer_axes(list(axes.values()), "pre-activation")
    parts = [
        f"{panel.labels[a]} {', '.join(f'{n} {two_digits(ends[q][a])}' for q, n in QUANTILES.items())}" for a in axes
    ]
    alt = f"Line charts. {title}. Where the lines end: {'; '.join(parts)}."
    return ReportFigure(title, caption if is_shared else f"{caption} {OWN_SCALES}", alt, figure)


def _growth(panel: Panel, tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    """By name of the arm, the range from the 15th to the 85th percentile at the last step over that at the first."""
    spread = tables["q85"].set_index(["arm", "step"])["mean"] - tables["q15"].set_index(["arm", "step"])["mean"]
    ends = spread.sort_index().groupby("arm", observed=True).agg(["first", "last"])
    return {panel.names[str(arm)]: end["last"] / end["first"] for arm, end in ends.iterrows() if end["first"] > 0}


def draw_percentiles_by_layer(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Medians and the range from the 15th to the 85th percentile, axes for each of up to nine layers."""
    series = {q: layer_series(panel, f"z_{q}") for q in QUANTILES}
    if any(rows.empty for rows in series.values()) or series["q50"]["depth"].nunique() < 2:
        return None
    medians = spread_layers(series["q50"])
    table = mean_range(medians, series["q15"], series["q85"])
    title = f"{panel.name}: largest shift of a layer's median pre-activation: {by_arm(_shifts(panel, table))}"
    figure = _draw_layers(panel, palette, table, layer_names(medians), title, "pre-activation", sharey=False)
    style.add_legend(figure, _handles(panel, palette, table), "median, and from the 15th to the 85th percentile")
    return ReportFigure(title, BY_LAYER + _count_layers(series["q50"], medians), f"Line charts. {title}.", figure)


def _shifts(panel: Panel, table: pd.DataFrame) -> dict[str, float]:
    """By name of the arm, the largest distance of a layer's median from that at the first step."""
    ordered = table.sort_values("step")
    first = ordered.groupby(["arm", "depth"], observed=True)["mean"].transform("first")
    shifts = (ordered["mean"] - first).abs().groupby(ordered["arm"], observed=True).max()
    return {panel.names[str(arm)]: shift for arm, shift in shifts.items()}


def draw_cosines(panel: Panel, palette: Palette) -> ReportFigure | None:
    """cos(G, G') over training, axes for each of up to nine layers."""
    rows = layer_series(panel, "ics_cosine")
    if rows.empty:
        return None
    drawn = spread_layers(rows)
    table = mean_band(drawn, ["arm", "depth", "step"])
    means = rows.groupby(["arm", "run_id"], observed=True)["value"].mean().groupby("arm", observed=True).mean()
    cosines = by_arm({panel.names[str(arm)]: mean for arm, mean in means.items()})
    title = f"{panel.name}: cosine of a gradient before and after the layers below move, mean: {cosines}"
    figure = _draw_layers(panel, palette, table, layer_names(drawn), title, "cosine of G and G'", sharey=True)
    style.add_legend(figure, _handles(panel, palette, table))
    for ax in figure.axes:
        ax.set_ylim(min(-0.1, table["mean"].min() - 0.1), 1.08)
        style.draw_level(ax, 0)
    alt = f"Line charts by layer over training. {title}."
    return ReportFigure(title, COSINES + _count_layers(rows, drawn), alt, figure)


def _draw_layers(
    panel: Panel, palette: Palette, table: pd.DataFrame, names: dict[int, str], title: str, y: str, sharey: bool
) -> Figure:
    """Axes for each layer, with a band for each arm."""
    styles = palette.of_arms(panel.arms)
    figure, axes = layout.make_grid(len(names), title, sharex=True, sharey=sharey)
    layout.title_axes(axes, names.values())
    for depth, ax in zip(names, axes, strict=True):
        for arm, rows in split_by_arm(table[table["depth"] == depth]):
            style.draw_band(ax, rows, "step", styles[arm])
        layout.set_step_axis(ax, float(table["step"].max()))
    layout.label_outer_axes(axes, y)
    return figure


def _handles(panel: Panel, palette: Palette, table: pd.DataFrame) -> list[style.Line2D]:
    styles = palette.of_arms(panel.arms)
    marked = table.groupby(["arm", "depth"], observed=True).size().max() <= style.FEW
    return style.line_handles({a: s for a, s in styles.items() if (table["arm"] == a).any()}, panel.labels, marked)


def _count_layers(rows: pd.DataFrame, drawn: pd.DataFrame) -> str:
    n, n_drawn = rows["depth"].nunique(), drawn["depth"].nunique()
    return f" {n_drawn} of {n} layers are shown." if n_drawn < n else ""
