"""The loss around the weights: how much it and its gradient vary along the gradient."""

from __future__ import annotations

from matplotlib.axes import Axes

from bnstudy.report.figures import parts, style
from bnstudy.report.figures.style import Drawn, Look, Palette
from bnstudy.report.layer_series import Between, over_time
from bnstudy.report.transforms import SMALLEST_LOSS, MeanBand, Panel

LANDSCAPE = (
    "As in Figure 4 of Santurkar et al. (2018), with steps of several sizes along the gradient of a training batch: "
    "the range of the loss; the range of the distance between the gradients at both ends; the largest such distance "
    "over the length of the step, beta, which is low where the loss is smooth. The first two bands reach from the "
    "geometric mean over seeds of the smallest to that of the largest value; the third is a 95% interval."
)
SCALED = " The lower row is in the coordinates W/||W|| of each weight, so that its size does not count."
ROWS = {"": "steps in units of lr", "_scaled": "steps in units of ||W||"}


def draw_landscape(panel: Panel, palette: Palette) -> Drawn | None:
    """Columns: range of the loss, range of the change of the gradient, beta_eff; a row for each kind of step."""
    kinds = [kind for kind in ROWS if not over_time(panel, f"loss_min{kind}").empty]
    if not kinds:
        return None
    title = f"{panel.name}: how smooth is the loss along the gradient?"
    looks = palette.of_arms(panel.shown)
    figure, axes = style.canvas(len(kinds), 3, 0.7 + 2.1 * len(kinds), title, sharex=True)
    for kind, row in zip(kinds, axes, strict=True):
        _range(row[0], panel, f"loss_min{kind}", f"loss_max{kind}", looks)
        _range(row[1], panel, f"grad_change_min{kind}", f"grad_change_max{kind}", looks)
        for arm, table in parts.by_arm(MeanBand(("arm", "step"), log=True)(over_time(panel, f"beta_eff{kind}"))):
            style.band(row[2], table, "step", looks[arm])
        row[2].set_yscale("log")
        parts.limit_to_means([row[2]])
        if len(kinds) > 1:
            row[0].set_ylabel(ROWS[kind])
    for ax, name in zip(axes[0], ("loss", "change of the gradient", "beta (low is smooth)"), strict=True):
        ax.set_title(name)
    last = float(over_time(panel, f"loss_min{kinds[0]}")["step"].max())
    for ax in axes.flat:
        _log(ax)
        parts.updates(ax, last, named=ax in list(axes[-1]))
    style.legend(figure, style.line_handles(looks, parts.labels(panel)), "means over seeds")
    caption = LANDSCAPE + (SCALED if "_scaled" in kinds else "")
    return Drawn("landscape", title, caption, _alt(panel, title, kinds[0]), figure)


def _range(ax: Axes, panel: Panel, lowest: str, highest: str, looks: dict[str, Look]) -> None:
    """A band between two metrics, its edges drawn out so that bands upon one another can be told apart."""
    low, high = (over_time(panel, metric) for metric in (lowest, highest))
    low, high = (rows.assign(value=rows["value"].clip(lower=SMALLEST_LOSS)) for rows in (low, high))
    for arm, table in parts.by_arm(Between(log=True)(low, low, high)):
        rows, look = table.sort_values("step"), looks[arm]
        ax.fill_between(rows["step"], rows["low"], rows["high"], color=look.colour, alpha=0.25, linewidth=0)
        for edge in ("low", "high"):
            ax.plot(rows["step"], rows[edge], color=look.colour, linestyle=look.line, linewidth=0.8)


def _log(ax: Axes) -> None:
    ax.set_yscale("log")
    style.log_ticks(ax.yaxis)


def _alt(panel: Panel, title: str, kind: str) -> str:
    means = MeanBand(("arm",), log=True)(over_time(panel, f"beta_eff{kind}"))
    told = [f"{parts.labels(panel)[arm]} {float(rows['mean'].iloc[0]):.2g}" for arm, rows in parts.by_arm(means)]
    return (
        f"Charts of the loss, the gradient and the smoothness over training. {title} Mean of beta: {'; '.join(told)}."
    )
