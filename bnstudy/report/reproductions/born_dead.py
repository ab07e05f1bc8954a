"""Lu et al. 2019: deep narrow ReLU networks may be born dead."""

from __future__ import annotations

import math

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.figures.titles import percent
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check, share_interval
from bnstudy.stats.intervals import Estimate

COMPUTED = {2: 0.8803, 3: 0.5786, 5: 0.1281, 10: 0.0013}
"""Shares of dead networks by width, with nine hidden layers. Their standard errors are at most .0004."""
SIMULATION = "own simulation of two million networks a width, confirmed independently"
DEPTH = 9
TOLERANCE = 0.05
NEAR_ZERO = 0.01
STYLES = {"NoNorm": LineStyle(style.BASELINE_COLOUR), "BatchNorm": LineStyle(style.COLOURS[0], "-", "s")}


class LuBornDead(Reproduction):
    note = (
        "Share of networks whose output is the same for all inputs before training; one input, nine hidden ReLU "
        "layers, He initialization, no bias. The expected shares without normalization are from our own simulation of "
        "two million networks a width, confirmed by an independent simulation. Lu et al. 2019 report more than 90%, "
        "60%, more than 10% and less than 1% for widths 2, 3, 5 and 10 in a different setting (n)."
    )

    def shares(self) -> pd.DataFrame:
        """`norm` `width` `depth` and the `share` of dead networks, an `Estimate`."""
        metrics = self.study.metrics
        rows = metrics[(metrics["metric"] == "network_dead") & (metrics["step"] == 0)]
        dead = self.study.runs["run_id"].map(rows.set_index("run_id")["value"]).astype(float)
        runs = self.study.runs.assign(dead=dead).dropna(subset=["dead"])
        runs = runs.rename(columns={"model.width": "width", "model.depth": "depth"})
        groups = runs.groupby(["norm", "width", "depth"])["dead"].agg(["sum", "count"]).reset_index()
        shares = [share_interval(round(k), n) for k, n in zip(groups["sum"], groups["count"], strict=True)]
        return groups[["norm", "width", "depth"]].assign(share=pd.Series(shares, dtype=object))

    def checks(self) -> list[Check]:
        quantity, checks = "share of networks born dead", []
        for row in self.shares().itertuples():
            arm = f"{row.norm}, width {row.width}"
            if row.norm in BASELINES and row.depth == DEPTH and row.width in COMPUTED:
                value = COMPUTED[row.width]
                expected = Expected(f"{value:.4f}".rstrip("0"), "c", SIMULATION)
                bounds, tolerance = (value - TOLERANCE, value + TOLERANCE), f"within {100 * TOLERANCE:g} points"
            elif row.norm == "BatchNorm":
                expected = Expected("0", "c", "a normalized unit is above 0 for some sample of its batch")
                bounds, tolerance = (0.0, NEAR_ZERO), f"below {100 * NEAR_ZERO:g}%"
            else:
                continue
            checks.append(make_check(quantity, arm, expected, row.share, bounds, tolerance))
        arms = [f"{norm}, width {width}" for norm in STYLES for width in COMPUTED]
        missing = [arm for arm in arms if arm not in {check.arm for check in checks}]
        unknown, none = Expected("-", "c", "see the note"), Estimate(math.nan, math.nan, math.nan, 0)
        return [*checks, *(make_check(quantity, arm, unknown, none, (math.nan, math.nan), "") for arm in missing)]

    def draw(self) -> ReportFigure | None:
        table = self.shares()
        if table.empty:
            return None
        title = f"Networks born dead: {_ends(table)}"
        figure, axes = style.new_figure(1, 1, 3.4, title)
        ax, styles = axes[0, 0], {}
        for i, (norm, rows) in enumerate(table.groupby("norm")):
            line = styles[str(norm)] = STYLES.get(str(norm), LineStyle(style.COLOURS[1 + i], "-", "^"))
            mean, low, high = (100 * rows["share"].map(lambda s, k=k: getattr(s, k)) for k in ("mean", "low", "high"))
            bars = {"color": line.colour, "fmt": line.marker, "elinewidth": 1, "capsize": 3}
            ax.errorbar(rows["width"], mean, [mean - low, high - mean], **bars)
        ax.plot(list(COMPUTED), [100 * p for p in COMPUTED.values()], color=style.NEUTRAL, linewidth=0.8, zorder=1)
        ax.set(xlabel="units in each hidden layer", ylabel="networks born dead (%)", ylim=(-3, 103))
        style.add_legend(figure, style.line_handles(styles, marker=True))
        parts = [f"{r.norm} width {r.width}: {percent(r.share.mean)}" for r in table.itertuples()]
        caption = f"{self.note} Points are shares with 95% Clopper-Pearson intervals, the line is the expected share."
        return ReportFigure(title, caption, f"Chart of dead networks by width. {'; '.join(parts)}.", figure)


def _ends(table: pd.DataFrame) -> str:
    """By norm, the shares of the narrowest and the widest network."""
    parts = []
    for norm, rows in table.sort_values("width").groupby("norm"):
        ends = dict.fromkeys(percent(rows["share"].iloc[i].mean) for i in (0, -1))
        widths = f" from width {rows['width'].iloc[0]} to {rows['width'].iloc[-1]}" if len(ends) > 1 else ""
        parts.append(f"{' to '.join(ends)}{widths} ({norm})")
    return ", ".join(parts)
