"""How much the loss and its gradient vary along the gradient."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm
from bnstudy.report.layer_series import mean_range, network_series
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import SMALLEST_LOSS, mean_band, split_by_arm

CAPTION = (
    "As in Figure 4 of Santurkar et al. (2018), for steps of several sizes along the gradient of a training batch: the "
    "range of the loss; the range of the distance between the gradients at both ends; and beta, the largest such "
    "distance divided by the length of the step, which is small where the loss is smooth. The first two bands extend "
    "from the geometric mean over seeds of the smallest value to that of the largest; the third is a 95% interval."
)
SCALED = " The lower row uses the coordinates W/||W|| of each weight, which do not depend on the size of the weights."
ROWS = {"": "steps in units of lr", "_scaled": "steps in units of ||W||"}
WHERE = {"": "", "_scaled": ", steps in units of ||W||"}
COLUMNS = ("loss", "change of the gradient", "beta (low is smooth)")


def draw_landscape(panel: Panel, palette: Palette) -> ReportFigure | None:
    """Columns: range of the loss, range of the gradient's change, beta. Rows: kinds of steps."""
    kinds = [kind for kind in ROWS if not network_series(panel, f"loss_min{kind}").empty]
    if not kinds:
        return None
    title = f"{panel.name}: beta along the gradient{WHERE[kinds[-1]]} (low is smooth): {_betas(panel, kinds[-1])}"
    styles = palette.of_arms(panel.arms)
    figure, axes = style.new_figure(len(kinds), 3, 0.7 + 2.1 * len(kinds), title, sharex=True)
    for kind, row in zip(kinds, axes, strict=True):
        _draw_range(row[0], panel, f"loss_min{kind}", f"loss_max{kind}", styles)
        _draw_range(row[1], panel, f"grad_change_min{kind}", f"grad_change_max{kind}", styles)
        beta = mean_band(network_series(panel, f"beta_eff{kind}"), ["arm", "step"], log=True)
        for arm, table in split_by_arm(beta):
            style.draw_band(row[2], table, "step", styles[arm])
        row[2].set_yscale("log")
        layout.limit_to_means([row[2]])
        if len(kinds) > 1:
            row[0].set_ylabel(ROWS[kind])
    for ax, name in zip(axes[0], COLUMNS, strict=True):
        ax.set_title(name)
    last = float(network_series(panel, f"loss_min{kinds[0]}")["step"].max())
    for ax in axes.flat:
        ax.set_yscale("log")
        style.set_log_ticks(ax.yaxis)
        layout.set_step_axis(ax, last)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    style.add_legend(figure, style.line_handles(styles, panel.labels), "means over seeds")
    alt = f"Charts of the loss, the gradient and the smoothness over training. {title}."
    return ReportFigure(title, CAPTION + SCALED * ("_scaled" in kinds), alt, figure)


def _draw_range(ax: Axes, panel: Panel, lowest: str, highest: str, styles: dict[str, LineStyle]) -> None:
    """Draw a band between two metrics with visible edges, which separate overlapping bands."""
    low, high = (network_series(panel, metric) for metric in (lowest, highest))
    low, high = (rows.assign(value=rows["value"].clip(lower=SMALLEST_LOSS)) for rows in (low, high))
    for arm, table in split_by_arm(mean_range(low, low, high, log=True)):
        rows, line = table.sort_values("step"), styles[arm]
        ax.fill_between(rows["step"], rows["low"], rows["high"], color=line.colour, alpha=0.25, linewidth=0)
        if len(rows) == 1:
            ax.vlines(rows["step"], rows["low"], rows["high"], color=line.colour, linewidth=1)
        marker: dict[str, Any] = {"marker": line.marker if len(rows) <= style.FEW else "", "markersize": 2.5}
        for edge in ("low", "high"):
            ax.plot(rows["step"], rows[edge], color=line.colour, linestyle=line.line, linewidth=0.8, **marker)


def _betas(panel: Panel, kind: str) -> str:
    """The geometric mean over seeds and measurements, by arm."""
    means = mean_band(network_series(panel, f"beta_eff{kind}"), ["arm"], log=True).set_index("arm")["mean"]
    return by_arm({panel.names[str(arm)]: mean for arm, mean in means.items()})
