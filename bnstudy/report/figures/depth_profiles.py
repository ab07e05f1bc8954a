"""A metric of the layers against depth, at several moments of training: gradient norms, backpropagated gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bnstudy.claims.metrics import OUTPUT
from bnstudy.claims.numbers import two_digits
from bnstudy.report.endings import with_last_step
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.facets import Facets, split_arms
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, times
from bnstudy.report.layer_series import layer_names
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import MOMENTS, mean_band
from bnstudy.validation import printable

MOMENT_LINES: tuple[Any, ...] = ((0, (2, 1.5)), "-")
"""Of the first and the last moment, where both are in the same axes."""
MAX_NAMES = 8
"""A vertical axis with more layers has numbers instead of names."""
LETTERS_PER_INCH = 13
"""Of the names below an axis."""
HIDDEN = "hidden layer"
FROM_INPUT = " Layers are in the order of the network, from the input."


@dataclass(frozen=True)
class DepthProfile:
    """axis: label of the y axis; layer: what the x axis counts; at_end: the title has the last layer's value, not the
    first layer's relative to it."""

    metric: str
    axis: str
    title: str
    layer: str
    caption: str
    at_end: bool = False


GRADIENT_NORM = DepthProfile(
    "grad_norm", "gradient norm", "gradient norm", "weight layer",
    "Euclidean norm of the gradient of each layer's weights on a training batch. Points are geometric means over "
    "seeds, bands 95% t intervals on the log axis; gradients that are zero or not finite are left out. Arms with and "
    "without normalization are not on one scale: a normalized layer's gradient is proportional to 1/||W||.",
)  # fmt: skip
BACKPROP = DepthProfile(
    "backprop_rms", "RMS of dL/dz", "gradient dL/dz", HIDDEN,
    "Root mean square, over samples and units, of the derivative of the training batch's loss with respect to each "
    "hidden layer's pre-activations. A flat line is a gradient that neither vanishes nor explodes on its way back. "
    "Points are geometric means over seeds, bands 95% t intervals on the log axis.",
)  # fmt: skip

RANK = DepthProfile(
    "effective_rank", "effective rank", "effective rank of the outputs", HIDDEN,
    "Effective rank of each hidden layer's outputs on the probe batch: exp of the entropy of the singular values, "
    "divided by their sum, of the centred matrix [samples, units]. At most the number of units. Points are geometric "
    "means over seeds, bands 95% t intervals on the log axis.",
    at_end=True,
)  # fmt: skip


def draw_gradients(panel: Panel, palette: Palette) -> ReportFigure | None:
    return _draw_profile(GRADIENT_NORM, panel, palette)


def draw_backprop(panel: Panel, palette: Palette) -> ReportFigure | None:
    return _draw_profile(BACKPROP, panel, palette)


def draw_ranks(panel: Panel, palette: Palette) -> ReportFigure | None:
    return _draw_profile(RANK, panel, palette)


def _draw_profile(profile: DepthProfile, panel: Panel, palette: Palette) -> ReportFigure | None:
    """Draw a metric against depth on a log axis: axes for each of `MOMENTS`, or for each setting."""
    rows = with_last_step(panel.layer_rows(profile.metric), panel.arm_runs)
    rows = rows[np.isfinite(rows["value"]) & (rows["value"] > 0)]
    if profile.layer == HIDDEN:
        rows = rows[rows["layer"] != OUTPUT]
    measured = {m.title: at for m in MOMENTS if not (at := m(rows)).empty}
    if not measured:
        return None
    facets, moment = split_arms(panel, palette), [*measured][-1]
    title = f"{panel.name}: {_result(profile, panel, moment, measured[moment])}"
    draw = _draw_settings if facets.is_split else _draw_moments
    figure, axes = draw(facets, measured, title)
    layout.limit_to_means(axes)
    layout.set_log_ticks(axes[0].yaxis, most=6)
    for ax in layout.lowest(axes):
        set_depth_axis(ax, rows, profile.layer)
    for ax in layout.leftmost(axes):
        ax.set_ylabel(profile.axis)
    return ReportFigure(
        title, profile.caption + FROM_INPUT + facets.note, _alt(profile, panel, moment, measured[moment]), figure
    )


def _draw_moments(facets: Facets, measured: Mapping[str, pd.DataFrame], title: str) -> tuple[Figure, list[Axes]]:
    """Axes for each moment, lines for each arm."""
    figure, axes = layout.make_grid(len(measured), title, row=2.1, sharex=True, sharey=True)
    for ax, (moment, at) in zip(axes, measured.items(), strict=True):
        _draw_lines(ax, at, facets.styles)
        ax.set(title=_name_moment(moment, at), yscale="log")
    style.add_legend(figure, style.line_handles(facets.legend, marker=True))
    return figure, axes


def _draw_settings(facets: Facets, measured: Mapping[str, pd.DataFrame], title: str) -> tuple[Figure, list[Axes]]:
    """Axes for each setting, lines for each norm at the first moment, which is dashed, and at the last."""
    figure, axes = layout.make_grid(len(facets.groups), title, sharex=True, sharey=True)
    layout.title_axes(axes, facets.groups)
    moments = dict.fromkeys((next(iter(measured)), next(reversed(list(measured)))))
    for ax, arms in zip(axes, facets.groups.values(), strict=True):
        for moment, line in zip(moments, MOMENT_LINES[-len(moments) :], strict=True):
            styles = {arm: replace(facets.styles[arm], line=line) for arm in arms}
            _draw_lines(ax, measured[moment], styles, markersize=2.5, linewidth=1.2)
        ax.set_yscale("log")
    lines = {m: LineStyle(style.NEUTRAL, line) for m, line in zip(moments, MOMENT_LINES[-len(moments) :], strict=True)}
    handles = style.line_handles(facets.legend, marker=True) + style.line_handles(lines)
    style.add_legend(figure, handles)
    return figure, axes


def _draw_lines(ax: Axes, at: pd.DataFrame, styles: Mapping[str, LineStyle], **line: Any) -> None:
    table = mean_band(at, ["arm", "depth"], log=True)
    for arm, own in styles.items():
        style.draw_band(ax, table[table["arm"] == arm], "depth", own, marker=own.marker, **line)


def _result(profile: DepthProfile, panel: Panel, moment: str, at: pd.DataFrame) -> str:
    """By which factor the metric of the first layer differs from that of the last, or the last layer's."""
    ends = mean_band(at, ["arm", "depth"], log=True).groupby("arm", observed=True)["mean"].agg(["first", "last"])
    if profile.at_end:
        last = {panel.names[str(arm)]: end["last"] for arm, end in ends.iterrows()}
        return f"{profile.title}, last {profile.layer}, {moment}: {by_arm(last, two_digits)}"
    factors = {panel.names[str(arm)]: end["first"] / end["last"] for arm, end in ends.iterrows()}
    return f"{profile.title}, first over last layer, {moment}: {by_arm(factors, times)}"


def set_depth_axis(ax: Axes, rows: pd.DataFrame, layer: str) -> None:
    """Name the layers on the x axis if they are the same in every arm and the names fit, else number them."""
    names, is_common = layer_names(rows), not rows.drop_duplicates(["depth", "layer"])["depth"].duplicated().any()
    spec = ax.get_subplotspec()
    inches = style.width() / (spec.get_gridspec().ncols if spec else 1) - 0.4
    ax.set_xlabel(layer)
    if is_common and len(names) * (max(map(len, names.values())) + 1) <= LETTERS_PER_INCH * inches:
        ax.set_xticks(list(names), [printable(name) for name in names.values()])
        ax.set_xlim(min(names) - 0.5, max(names) + 0.5)
        return
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=max(2, int(inches / 0.35))))


def _name_moment(title: str, at: pd.DataFrame) -> str:
    steps = at["step"].unique()
    return f"{title}: step {steps[0]}" if len(steps) == 1 and steps[0] > 0 else title


def _alt(profile: DepthProfile, panel: Panel, moment: str, at: pd.DataFrame) -> str:
    ends = mean_band(at, ["arm", "depth"], log=True).groupby("arm", observed=True)["mean"].agg(["first", "last"])
    parts = [
        f"{panel.labels[str(arm)]} {two_digits(end['first'])} in the first and {two_digits(end['last'])} in the last"
        for arm, end in ends.iterrows()
    ]
    return f"Line charts for {panel.name}: {profile.axis} of each layer. {moment.capitalize()}: {'; '.join(parts)}."
