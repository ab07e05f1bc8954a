"""The metrics of probes of the user's own: over training, and by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bnstudy.claims.numbers import two_digits
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.depth_profiles import FROM_INPUT, set_depth_axis
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, listed
from bnstudy.report.known_metrics import own_metrics
from bnstudy.report.layer_series import layer_series, network_series
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import mean_band, split_by_arm

CAPTION = (
    "Metrics of your own probes: those of the whole network over training, those of layers at each run's last "
    "measurement. Means over seeds with 95% t intervals, before the first divergence in each arm."
    f"{FROM_INPUT}"
)
GEOMETRIC = " Metrics on a log axis have geometric means."
MOST = 9
"""Axes of a figure."""
LOG_RANGE = 100.0
"""Positive means that differ by a larger factor are on a log axis."""


@dataclass(frozen=True)
class Quantity:
    """A metric and its rows: of the network over the steps, or of the layers at the last measurement of each run."""

    metric: str
    x: Literal["step", "depth"]
    rows: pd.DataFrame

    @property
    def is_log(self) -> bool:
        means = self.rows.groupby(["arm", self.x], observed=True)["value"].mean()
        return bool((self.rows["value"] > 0).all() and means.max() > LOG_RANGE * means.min())

    @property
    def table(self) -> pd.DataFrame:
        return mean_band(self.rows, ["arm", self.x], log=self.is_log)


def draw_own_metrics(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Axes for each metric that bnstudy does not record itself."""
    found = list(own_quantities(panel))
    if not found:
        return None
    drawn, rest = found[:MOST], dict.fromkeys(quantity.metric for quantity in found[MOST:])
    title = f"{panel.name}: {_result(panel, found)}"
    figure, axes = layout.make_grid(len(drawn), title, row=2.0)
    styles = palette.of_arms(panel.arms)
    for quantity, ax in zip(drawn, axes, strict=True):
        _draw(ax, quantity, styles)
    style.add_legend(figure, style.line_handles(styles, panel.labels, marker=True))
    caption = CAPTION + GEOMETRIC * any(quantity.is_log for quantity in drawn)
    if rest:
        caption += f" Not shown: {listed(rest)}; they are in metrics.parquet of each run."
    return ReportFigure(title, caption, _alt(panel, drawn), figure)


def own_quantities(panel: Panel) -> Iterator[Quantity]:
    for metric in own_metrics(panel.metrics):
        network, layers = network_series(panel, metric), layer_series(panel, metric)
        if len(network):
            yield Quantity(metric, "step", network)
        if len(layers):
            last = layers.groupby("run_id", observed=True)["step"].transform("max")
            yield Quantity(metric, "depth", layers[layers["step"] == last])


def _draw(ax: Axes, quantity: Quantity, styles: dict[str, LineStyle]) -> None:
    for arm, rows in split_by_arm(quantity.table):
        style.draw_band(ax, rows, quantity.x, styles[arm])
    ax.set_title(quantity.metric)
    if quantity.is_log:
        ax.set_yscale("log")
        layout.limit_to_means([ax])
        layout.set_log_ticks(ax.yaxis, most=6)
    if quantity.x == "step":
        layout.set_step_axis(ax, float(quantity.rows["step"].max()))
        ax.set_xlabel("step")
    else:
        set_depth_axis(ax, quantity.rows, "layer")


def _result(panel: Panel, found: list[Quantity]) -> str:
    """The last values of a single metric; of several, their names."""
    if len(found) == 1:
        last = "last measurement" if found[0].x == "step" else "last measurement, mean over layers"
        return f"{found[0].metric}, {last}: {by_arm(_ends(panel, found[0]), two_digits)}"
    names = list(dict.fromkeys(quantity.metric for quantity in found))
    return listed(names if len(names) < 4 else [*names[:3], f"{len(names) - 3} more metrics of your own probes"])


def _ends(panel: Panel, quantity: Quantity) -> dict[str, float]:
    """By name of the arm, the mean over seeds at the last measurement, over all layers."""
    rows = quantity.rows
    last = rows[rows["step"] == rows.groupby("run_id", observed=True)["step"].transform("max")]
    means = last.groupby("arm", observed=True)["value"].mean()
    return {panel.names[str(arm)]: value for arm, value in means.items() if np.isfinite(value)}


def _alt(panel: Panel, drawn: list[Quantity]) -> str:
    parts = [f"{q.metric} {'over training' if q.x == 'step' else 'by layer'}, {by_arm(_ends(panel, q))}" for q in drawn]
    return f"Line charts for {panel.name}, with the last means: {'; '.join(parts)}."
