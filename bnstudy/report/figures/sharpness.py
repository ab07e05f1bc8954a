"""The largest curvature of the loss, against the largest that the learning rate bears."""

from __future__ import annotations

import pandas as pd

from bnstudy.report.figures import parts, style
from bnstudy.report.figures.style import Drawn, Palette
from bnstudy.report.layer_series import over_time, stability_limit
from bnstudy.report.transforms import MeanBand, Panel

CAPTION = (
    "Largest eigenvalue of the Hessian of the training loss, geometric mean over seeds with its 95% interval. Dashed: "
    "2 (1 + momentum) over the learning rate of that update, above which gradient descent on a quadratic would "
    "diverge; it is drawn for plain SGD."
)
OPEN = (
    " Open circles: the Lanczos iteration had not converged, its residual being above 10% of the eigenvalue, so that "
    "the eigenvalue is a lower bound."
)
UNSETTLED = 0.1
LIMIT = "#d55e00"


def draw_sharpness(panel: Panel, palette: Palette) -> Drawn | None:
    """lambda_max and 2/lr over time, axes for each arm."""
    rows = over_time(panel, "sharpness")
    table, limit, unsettled = MeanBand(("arm", "step"), log=True)(rows), stability_limit(panel), _unsettled(panel)
    if table.empty:
        return None
    title = f"{panel.name}: sharpness against the limit of stability"
    figure, axes = parts.arm_axes(panel, table, title, sharex=True, sharey=True)
    looks, drawn = palette.of_arms(panel.shown), {}
    for arm, ax in axes.items():
        mine, bound = _of(table, arm), _of(limit, arm).rename(columns={"value": "mean"})
        drawn[arm] = [("sharpness", mine, looks[arm].colour), ("limit", bound, LIMIT)]
        style.band(ax, mine, "step", looks[arm], marker="o", markersize=3)
        doubtful = mine.merge(unsettled, on=["arm", "step"])
        ax.plot(doubtful["step"], doubtful["mean"], "o", ms=3, color=looks[arm].colour, markerfacecolor="white")
        ax.plot(bound["step"], bound["mean"], color=LIMIT, linestyle="--", linewidth=1)
        ax.set_yscale("log")
    parts.limit_to_means(axes.values())
    for arm, ax in axes.items():
        style.log_ticks(ax.yaxis)
        parts.updates(ax, float(table["step"].max()), named=False)
        parts.end_names(ax, [(n, float(r["mean"].iloc[-1]), c) for n, r, c in drawn[arm] if len(r)])
    parts.outer_labels(list(axes.values()), "largest eigenvalue")
    caption = CAPTION + (OPEN if len(unsettled) else "")
    return Drawn("sharpness", title, caption, _alt(panel, title, table), figure)


def _of(table: pd.DataFrame, arm: str) -> pd.DataFrame:
    return table[table["arm"] == arm].sort_values("step")


def _unsettled(panel: Panel) -> pd.DataFrame:
    """`arm` and `step` where the mean relative residual of the eigenvalue is large."""
    residual = MeanBand(("arm", "step"))(over_time(panel, "sharpness_residual"))
    return residual.loc[residual["mean"] > UNSETTLED, ["arm", "step"]]


def _alt(panel: Panel, title: str, table: pd.DataFrame) -> str:
    last = table.sort_values("step").groupby("arm", observed=True)["mean"].last()
    told = [f"{parts.labels(panel)[str(arm)]} {value:.3g}" for arm, value in last.items()]
    return f"Line charts. {title}. Largest eigenvalue at the end: {'; '.join(told)}."
