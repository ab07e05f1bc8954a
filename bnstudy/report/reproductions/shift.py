"""Santurkar et al. 2018: how the layers before it change a layer's gradient, in a deep linear network."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.reproductions.base import Bounds, Check, Expected, Reproduction, make_check
from bnstudy.report.transforms import mean_band
from bnstudy.stats.intervals import mean_interval, paired_difference

SANTURKAR = "Santurkar et al. 2018, 25-layer linear network, 10,000 steps at learning rate 1e-6"
NEAR_ONE = Expected("near 1", "n", SANTURKAR)
NEAR_ZERO = Expected("near 0", "n", SANTURKAR)
BELOW_ZERO = Expected("below 0", "n", SANTURKAR)
LEAST_NEAR_ONE, MOST_NEAR_ZERO = 0.9, 0.1


class SanturkarShift(Reproduction):
    note = (
        "cos(G, G') by layer: G is the gradient of a layer, and G' the same gradient after the layers before it have "
        "been updated. The mean over layers, in the table also over the second half of the measured steps. Cosines of "
        "both signs cancel in it, so the table also has the mean of |cos(G, G')|, which is small only if the cosines "
        "are near 0. The loss here is the mean over the samples of the full batch: a learning rate of 1e-6 for their "
        "sum over 1,000 samples equals 1e-3 here. Without normalization the layers here have biases, which start at "
        "zero."
    )

    def cosines(self) -> pd.DataFrame:
        """The mean cosine over layers at each measured step of each run: `run_id` `step` `value`."""
        return self._cosine_rows().groupby(["run_id", "step"], observed=True)["value"].mean().reset_index()

    def settled_cosines(self, absolute: bool = False) -> pd.Series:
        """By run_id, the mean cosine, or absolute cosine, over layers and the second half of the steps."""
        rows = self._cosine_rows()
        rows = rows.assign(value=rows["value"].abs()) if absolute else rows
        half = rows["run_id"].map(self.study.runs.set_index("run_id")["steps"]).astype(float) / 2
        return rows[rows["step"] >= half].groupby("run_id", observed=True)["value"].mean()

    def losses(self) -> pd.DataFrame:
        """The training loss at the steps at which the cosine was measured."""
        metrics = self.study.metrics
        rows = metrics[(metrics["metric"] == "loss") & (metrics["split"] == "train")]
        return rows.loc[rows["step"].isin(self._cosine_rows()["step"]), ["run_id", "step", "value"]]

    def checks(self) -> list[Check]:
        ids = self.study.runs["run_id"]
        runs = self.study.runs.assign(
            cosine=ids.map(self.settled_cosines()).astype(float),
            absolute=ids.map(self.settled_cosines(absolute=True)).astype(float),
        )
        length = " or ".join(f"{steps:.0f}" for steps in sorted(runs["steps"].unique()))
        rates = sorted(self.study.specs["lr"].unique())
        return [c for lr in rates for c in _checks_at(runs[runs["lr"] == lr], f"lr={lr:g}, {length} steps")]

    def draw(self) -> ReportFigure | None:
        """Cosine above, training loss below; one column per learning rate."""
        frames = {"cosine": self.cosines(), "loss": self.losses()}
        if frames["cosine"].empty:
            return None
        runs = self.study.runs[["run_id", "norm", "lr"]]
        title, rates = "Internal covariate shift of a deep linear network", sorted(runs["lr"].unique())
        figure, axes = style.new_figure(2, len(rates), 4.6, title, sharex=True, sharey="row")
        styles = {
            norm: LineStyle(style.BASELINE_COLOUR if norm in BASELINES else style.COLOURS[i])
            for i, norm in enumerate(sorted(runs["norm"].unique()))
        }
        for row, (name, frame) in zip(axes, frames.items(), strict=True):
            for ax, lr in zip(row, rates, strict=True):
                rows = frame.merge(runs[runs["lr"] == lr], on="run_id")
                for norm, table in mean_band(rows, ["norm", "step"], log=name == "loss").groupby("norm"):
                    style.draw_band(ax, table, "step", styles[str(norm)])
        for (above, below), lr in zip(axes.T, rates, strict=True):
            above.set_title(f"learning rate {lr:g}")
            below.set(xlabel="step", yscale="log")
        axes[0, 0].set(ylabel="mean cos(G, G')", ylim=(-1.05, 1.05))
        axes[1, 0].set_ylabel("training loss")
        style.set_log_ticks(axes[1, 0].yaxis)
        style.add_legend(figure, style.line_handles(styles))
        caption = f"{self.note} Means over seeds with 95% t intervals; the means of the loss are geometric."
        alt = f"Line charts of cosine and loss over training. {self.describe_checks()}."
        return ReportFigure(title, caption, alt, figure)

    def _cosine_rows(self) -> pd.DataFrame:
        return self.study.metrics[self.study.metrics["metric"] == "ics_cosine"]


def _checks_at(runs: pd.DataFrame, setting: str) -> list[Check]:
    """The checks at one learning rate."""
    plain, batch = runs[runs["norm"].isin(BASELINES)], runs[runs["norm"] == "BatchNorm"]

    def check(quantity: str, column: str, arm: pd.DataFrame, expected: Expected, bounds: Bounds, within: str) -> Check:
        name = "BatchNorm" if arm is batch else "NoNorm"
        text = f"{name}, {setting}{_count_diverged(arm)}"
        return make_check(quantity, text, expected, mean_interval(arm[column]), bounds, within)

    cosine, near_zero = "mean cos(G, G')", MOST_NEAR_ZERO
    batch_loss, plain_loss = (
        arm[~arm["diverged"]].set_index("seed")["final.train_loss"].astype(float) for arm in (batch, plain)
    )
    difference = f"BatchNorm minus NoNorm, {setting}{_count_diverged(runs)}"
    return [
        check(cosine, "cosine", plain, NEAR_ONE, (LEAST_NEAR_ONE, 1.001), f"above {LEAST_NEAR_ONE}"),
        check(cosine, "cosine", batch, NEAR_ZERO, (-near_zero, near_zero), f"within {near_zero} of 0"),
        check("mean |cos(G, G')|", "absolute", batch, NEAR_ZERO, (0.0, near_zero), f"below {near_zero}"),
        make_check(
            "final training loss", difference, BELOW_ZERO, paired_difference(batch_loss, plain_loss),
            (float("-inf"), 0.0), "below 0",
        ),
    ]  # fmt: skip


def _count_diverged(runs: pd.DataFrame) -> str:
    """Diverged runs are left out of every comparison, and the arm's name says how many."""
    n = int(runs["diverged"].sum())
    return f" ({n} of {len(runs)} diverged, left out)" if n else ""
