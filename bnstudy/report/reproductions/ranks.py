"""Daneshmand et al. 2020: the rank of activations collapses with depth, unless they are normalized by the batch."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.metrics import OUTPUT
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.figures.titles import listed
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.report.transforms import mean_band
from bnstudy.stats.intervals import mean_interval

COMPUTED = {"NoNorm": (5.4, 0.5), "BatchNorm": (38.8, 0.1)}
"""Effective ranks of the last of 50 layers of 64 ReLUs, and relative tolerances: without normalization, the standard
deviation of a network's rank is two thirds of the mean."""
SOURCE = "our own computation on digits; its matrix was not recorded"
STYLES = {"NoNorm": LineStyle(style.BASELINE_COLOUR), "BatchNorm": LineStyle(style.COLOURS[0], "-", "s")}


class RankCollapse(Reproduction):
    note = (
        "Effective rank of each hidden layer's outputs before training: exp of the entropy of the singular values, "
        "divided by their sum, of the centred matrix [256 images, units]. Daneshmand et al. 2020 bound another rank, "
        "the number of singular values above a threshold; the expected values are our own. The rank of the inputs of "
        "the ReLUs, behind batch normalization, is lower than that of their outputs: 40 in a simulation where the "
        "outputs have 47."
    )

    def ranks(self) -> pd.DataFrame:
        """The effective ranks before training: `run_id` `norm` `depth` `value`."""
        m = self.study.metrics
        rows = m[(m["metric"] == "effective_rank") & (m["step"] == 0) & (m["layer"] != OUTPUT)]
        depth = rows.groupby("run_id", observed=True).cumcount() + 1
        norms = self.study.runs.set_index("run_id")["norm"].astype(str)
        return rows.assign(depth=depth, norm=rows["run_id"].astype(str).map(norms)).dropna(subset=["norm"])

    def checks(self) -> list[Check]:
        last = self.ranks().sort_values("depth").groupby("run_id", observed=True).last()
        norm = last["norm"].where(~last["norm"].isin(BASELINES), "NoNorm")
        return [
            make_check(
                "effective rank of the last hidden layer, arithmetic mean", arm, Expected(f"{value:g}", "c", SOURCE),
                mean_interval(last.loc[norm == arm, "value"].astype(float)),
                ((1 - tolerance) * value, (1 + tolerance) * value), f"within {tolerance:.0%}",
            )
            for arm, (value, tolerance) in COMPUTED.items()
        ]  # fmt: skip

    def draw(self) -> ReportFigure | None:
        ranks = self.ranks()
        if ranks.empty:
            return None
        table = mean_band(ranks, ["norm", "depth"], log=True)
        ends = [f"{rows['mean'].iloc[-1]:.1f} ({norm})" for norm, rows in table.groupby("norm")]
        title = f"Effective rank of the outputs of layer {table['depth'].max()}, before training: {listed(ends)}"
        figure, axes = style.new_figure(1, 1, 3.4, title)
        ax, styles = axes[0, 0], {}
        for i, (norm, rows) in enumerate(table.groupby("norm")):
            styles[str(norm)] = line = STYLES.get(str(norm), LineStyle(style.COLOURS[1 + i], style.LINES[1], "^"))
            style.draw_band(ax, rows, "depth", line)
        for arm, (value, _) in COMPUTED.items():
            ax.plot(table["depth"].max(), value, color=STYLES[arm].colour, marker="x", linestyle="")
        ax.set(yscale="log", xlabel="hidden layer", ylabel="effective rank")
        style.set_log_ticks(ax.yaxis)
        style.add_legend(figure, style.line_handles(styles))
        caption = (
            f"{self.note} Lines are geometric means over seeds, bands 95% t intervals on the log axis, crosses the "
            "expected values."
        )
        return ReportFigure(title, caption, f"Chart of the effective rank against depth. {title}.", figure)
