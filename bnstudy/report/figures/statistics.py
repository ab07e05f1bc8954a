"""Accuracy with running, batch and precise statistics."""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bnstudy.claims.numbers import two_digits
from bnstudy.report.figures import layout, style
from bnstudy.report.figures.style import LineStyle, Palette, ReportFigure
from bnstudy.report.figures.titles import by_arm, percent
from bnstudy.report.layer_series import network_series
from bnstudy.report.panels import Panel
from bnstudy.report.transforms import last_means, mean_band

CAPTION = (
    "Accuracy on held-out images with running statistics, as in evaluation; with the statistics of the batch; and with "
    "precise statistics, recomputed over many training batches (Wu and Johnson 2021). If only the accuracy with "
    "running statistics is low, the statistics lag behind and the weights are fine. Means over seeds with 95% t "
    "intervals."
)
LINES = " Lines end where the arm's first run diverges."
KINDS = {
    "running": LineStyle("#d55e00"),
    "batch": LineStyle("#0072b2", (0, (4, 1.5)), "s"),
    "precise": LineStyle("#009e73", (0, (1, 1.2)), "^"),
}


def draw_statistics(panel: Panel, palette: Palette) -> ReportFigure | None:  # noqa: ARG001
    """Accuracy with each kind of statistics: over training, axes for each arm; or points, if it was measured once."""
    tables = {kind: mean_band(network_series(panel, f"accuracy_{kind}"), ["arm", "step"]) for kind in KINDS}
    tables = {kind: table for kind, table in tables.items() if len(table)}
    if len(tables) < 2:
        return None
    title = f"{panel.name}: {_result(panel, tables)}"
    every = pd.concat(tables.values())
    is_once = every.groupby("arm", observed=True)["step"].nunique().max() == 1
    figure = (_draw_points if is_once else _draw_lines)(panel, tables, every, title)
    styles = {f"{kind} statistics": KINDS[kind] for kind in tables}
    style.add_legend(figure, style.line_handles(styles, marker=True))
    return ReportFigure(title, CAPTION + LINES * (not is_once), _alt(panel, title, tables), figure)


def _draw_lines(panel: Panel, tables: dict[str, pd.DataFrame], every: pd.DataFrame, title: str) -> Figure:
    figure, arm_axes = layout.make_arm_axes(panel, every, title, sharex=True, sharey=True)
    for arm, ax in arm_axes.items():
        for kind, table in tables.items():
            style.draw_band(ax, table[table["arm"] == arm], "step", KINDS[kind], scale=100)
        layout.set_step_axis(ax, float(every["step"].max()))
    axes = list(arm_axes.values())
    style.limit_accuracies(axes[0], 100 * every["mean"].min(), 100 * every["mean"].max())
    layout.label_outer_axes(axes, "accuracy (%)")
    return figure


def _draw_points(panel: Panel, tables: dict[str, pd.DataFrame], every: pd.DataFrame, title: str) -> Figure:
    """A row for each arm, with a point and an interval for each kind."""
    labels = {arm: label for arm, label in panel.labels.items() if (every["arm"] == arm).any()}
    letters = style.fit(layout.TITLE_LETTERS) // 3
    names = [textwrap.fill(label, letters) for label in labels.values()]
    row = max(0.5, 0.1 + layout.TITLE_LINE * max(name.count("\n") + 1 for name in names))
    figure, axes = style.new_figure(1, 1, 0.9 + row * len(labels), title)
    ax, rows = axes[0, 0], {arm: len(labels) - i for i, arm in enumerate(labels)}
    for i, (kind, table) in enumerate(tables.items()):
        y = table["arm"].astype(str).map(rows) + 0.2 * (1 - i)
        half = 100 * (table["mean"] - table["low"]).fillna(0)
        line: dict[str, Any] = {"color": KINDS[kind].colour, "fmt": KINDS[kind].marker, "capsize": 2, "elinewidth": 1}
        ax.errorbar(100 * table["mean"], y, xerr=half, **line)
    ax.set_yticks(list(rows.values()), names)
    ax.set(ylim=(0.5, len(rows) + 0.5), xlabel="accuracy (%)")
    return figure


def _ends(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The last mean of each arm with each kind of statistics."""
    return pd.DataFrame({kind: last_means(table) for kind, table in tables.items()})


def _result(panel: Panel, tables: dict[str, pd.DataFrame]) -> str:
    """What is gained over running statistics, by the arms that have both."""
    gains = _gains(panel, _ends(tables))
    if not gains:
        return "accuracy by the statistics of the normalization"
    kind = max(gains, key=lambda kind: max(map(abs, gains[kind].values())))
    return f"points gained with {kind} instead of running statistics: {by_arm(gains[kind], _signed)}"


def _gains(panel: Panel, ends: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By kind and name of the arm, the accuracy beyond that with running statistics."""
    if "running" not in ends:
        return {}
    others = {str(kind): (ends[kind] - ends["running"]).dropna() for kind in ends if kind != "running"}
    return {kind: {panel.names[str(a)]: v for a, v in gain.items()} for kind, gain in others.items() if len(gain)}


def _signed(share: float) -> str:
    """`"+0.3"` points."""
    text = two_digits(100 * share)
    return text if share <= 0 else f"+{text}"


def _alt(panel: Panel, title: str, tables: dict[str, pd.DataFrame]) -> str:
    parts = [
        f"{panel.labels[str(arm)]} {', '.join(f'{kind} {percent(end)}' for kind, end in row.dropna().items())}"
        for arm, row in _ends(tables).iterrows()
    ]
    return f"Charts. {title}. Last accuracies: {'; '.join(parts)}."
