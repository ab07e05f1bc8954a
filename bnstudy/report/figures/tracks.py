"""How pre-activations and gradients of the layers move in training."""

from __future__ import annotations

import pandas as pd

from bnstudy.report.figures import parts, style
from bnstudy.report.figures.style import Drawn, Palette
from bnstudy.report.layer_series import Between, Picked, first_seed, last_hidden, layer_names, layers_over_time
from bnstudy.report.transforms import MeanBand, Panel

QUANTILES = {"q15": "15%", "q50": "median", "q85": "85%"}

POOLED = (
    "15th, 50th and 85th percentile of the last hidden layer's pre-activations, what its activation function is given, "
    "over all units and the samples of the probe batch. Means over seeds with 95% t intervals. Flat lines are a "
    "distribution that keeps its place while the layers below are trained."
)
ONE_UNIT = (
    "15th, 50th and 85th percentile over the probe batch of what the activation function of one unit, the first of the "
    "last hidden layer, is given, as in Figure 1 of Ioffe and Szegedy (2015). One seed: units of several have no mean."
)
BY_LAYER = (
    "Lines are medians of a layer's pre-activations over all units and the samples of the probe batch, bands reach "
    "from the 15th to the 85th percentile; means over seeds. Each layer has its own scale."
)
COSINE = (
    "Cosine of the angle between G, the gradient of a layer's weights, and G', the same gradient after the layers "
    "before it have made their update: 1 where their update does not change where the layer is to go, the internal "
    "covariate shift of Santurkar et al. (2018), Definition 2.1. Means over seeds with 95% t intervals."
)
SOME = " Of {n} layers {shown} are shown."


def draw_pooled_percentiles(panel: Panel, palette: Palette) -> Drawn | None:
    """Of all units of the last hidden layer, axes for each arm."""
    tracks = {q: last_hidden(layers_over_time(panel, f"z_{q}")) for q in QUANTILES}
    title = f"{panel.name}: pre-activations of the last hidden layer, percentiles"
    return _percentiles(panel, palette, tracks, "percentiles", title, POOLED)


def draw_unit_percentiles(panel: Panel, palette: Palette) -> Drawn | None:
    """Of one unit of the last hidden layer, for one seed, axes for each arm."""
    tracks = {q: last_hidden(layers_over_time(panel, f"unit_{q}")) for q in QUANTILES}
    tracks = {q: first_seed(rows, panel.shown_runs) for q, rows in tracks.items()}
    seed = panel.shown_runs["seed"].min()
    title = f"{panel.name}: pre-activations of one unit, percentiles, seed {seed}"
    return _percentiles(panel, palette, tracks, "unit-percentiles", title, ONE_UNIT)


def _percentiles(
    panel: Panel, palette: Palette, tracks: dict[str, pd.DataFrame], kind: str, title: str, caption: str
) -> Drawn | None:
    if any(rows.empty for rows in tracks.values()):
        return None
    tables = {q: MeanBand(("arm", "step"))(rows) for q, rows in tracks.items()}
    low, high = (tables[q].groupby("arm", observed=True)["mean"].agg(f) for q, f in (("q15", "min"), ("q85", "max")))
    shared = parts.is_alike((high - low).to_dict())
    figure, axes = parts.arm_axes(panel, tracks["q50"], title, sharex=True, sharey=shared)
    looks, last = palette.of_arms(panel.shown), float(tracks["q50"]["step"].max())
    for arm, ax in axes.items():
        for table in tables.values():
            style.band(ax, table[table["arm"] == arm], "step", looks[arm])
        parts.updates(ax, last, named=False)
    for together in [list(axes.values())] if shared else [[ax] for ax in axes.values()]:
        parts.limit_to_means(together)
    for arm, ax in axes.items():
        ends = [(QUANTILES[q], _end(table, arm), looks[arm].colour) for q, table in tables.items()]
        parts.end_names(ax, ends)
    parts.outer_labels(list(axes.values()), "pre-activation")
    return Drawn(kind, title, caption if shared else f"{caption} {OWN}", _track_alt(panel, title, tables), figure)


OWN = "The arms have scales of their own."


def draw_percentiles_by_layer(panel: Panel, palette: Palette) -> Drawn | None:
    """Medians with the range from the 15th to the 85th percentile, axes for each of up to nine layers."""
    tracks = {q: layers_over_time(panel, f"z_{q}") for q in QUANTILES}
    if any(rows.empty for rows in tracks.values()) or tracks["q50"]["depth"].nunique() < 2:
        return None
    middle = Picked()(tracks["q50"])
    table = Between()(middle, tracks["q15"], tracks["q85"])
    title = f"{panel.name}: pre-activations by layer, middle 70%"
    figure = _by_layer(panel, palette, table, layer_names(middle), title, "pre-activation", False)
    caption = BY_LAYER + _some(tracks["q50"], middle)
    return Drawn("percentiles-by-layer", title, caption, f"Line charts: {title}.", figure)


def draw_cosines(panel: Panel, palette: Palette) -> Drawn | None:
    """cos(G, G') over time, axes for each of up to nine layers."""
    rows = layers_over_time(panel, "ics_cosine")
    if rows.empty:
        return None
    shown = Picked()(rows)
    table = MeanBand(("arm", "depth", "step"))(shown)
    title = f"{panel.name}: does a gradient keep its direction when layers below move?"
    figure = _by_layer(panel, palette, table, layer_names(shown), title, "cosine of G and G'", True)
    for ax in figure.axes:
        ax.set_ylim(min(-0.1, table["mean"].min() - 0.1), 1.08)
        ax.axhline(0, color=style.NEUTRAL, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    means = table.groupby("arm", observed=True)["mean"].mean()
    told = "; ".join(f"{parts.labels(panel)[str(arm)]} {mean:.2f}" for arm, mean in means.items())
    alt = f"Line charts for {panel.name}: cosine of G and G' by layer over training. Mean: {told}."
    return Drawn("cosines", title, COSINE + _some(rows, shown), alt, figure)


def _by_layer(
    panel: Panel, palette: Palette, table: pd.DataFrame, names: dict[int, str], title: str, axis: str, shared: bool
) -> style.Figure:
    looks = palette.of_arms(panel.shown)
    figure, axes = parts.grid(len(names), title, sharex=True, sharey=shared)
    for (depth, name), ax in zip(names.items(), axes, strict=True):
        for arm, rows in parts.by_arm(table[table["depth"] == depth]):
            style.band(ax, rows, "step", looks[arm])
        ax.set_title(name)
        parts.updates(ax, float(table["step"].max()), named=False)
    parts.outer_labels(axes, axis)
    drawn = {arm: look for arm, look in looks.items() if (table["arm"] == arm).any()}
    note = "means over seeds, with 95% intervals" if shared else "median, and from the 15th to the 85th percentile"
    style.legend(figure, style.line_handles(drawn, parts.labels(panel)), note)
    return figure


def _some(rows: pd.DataFrame, shown: pd.DataFrame) -> str:
    n, n_shown = rows["depth"].nunique(), shown["depth"].nunique()
    return SOME.format(n=n, shown=n_shown) if n_shown < n else ""


def _end(table: pd.DataFrame, arm: str) -> float:
    rows = table[table["arm"] == arm].sort_values("step")
    return float(rows["mean"].iloc[-1])


def _track_alt(panel: Panel, title: str, tables: dict[str, pd.DataFrame]) -> str:
    names = parts.labels(panel)
    arms = [a for a in names if (tables["q50"]["arm"] == a).any()]
    told = [f"{names[a]} {', '.join(f'{n} {_end(tables[q], a):.2g}' for q, n in QUANTILES.items())}" for a in arms]
    return f"Line charts. {title}. At the end: {'; '.join(told)}."
