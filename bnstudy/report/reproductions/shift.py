"""Santurkar et al. 2018: how the layers before it change a layer's gradient, in a deep linear network."""

from __future__ import annotations

import math

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, format_estimate, make_check
from bnstudy.report.transforms import mean_band
from bnstudy.stats.intervals import Estimate, mean_interval, paired_difference

SANTURKAR = "notes on Santurkar et al. 2018, 25-layer linear network, 10,000 steps at learning rate 1e-6"
LEAST_NEAR_ONE, MOST_NEAR_ZERO = 0.9, 0.1
MOMENTS = {"start": 0.0, "middle": 0.5, "end": 1.0}
"""Share of the steps after which a cosine is compared."""

SCALES_OF_LOSS = {
    1e-7: "mean over samples and outputs",
    1e-6: "mean over samples, sum over outputs",
    1e-4: "sum over samples, mean over outputs",
    1e-3: "sum over samples and outputs",
}
"""By learning rate here: the scale of the paper's loss for which it equals 1e-6 there; 1,000 samples, 10 outputs."""

RANGES = {"cosine.": (-1.0, 1.0), "absolute.": (0.0, 1.0)}
"""Of values, by the beginning of their columns' names."""


def scale_of_loss(lr: float) -> str:
    return next((text for rate, text in SCALES_OF_LOSS.items() if math.isclose(rate, lr)), "of no scale of the loss")


class RateResult:
    """What was found at one learning rate. Diverged runs are left out, and the text says how many.

    runs: the runs with the columns of `SanturkarShift.runs`.
    """

    def __init__(self, runs: pd.DataFrame, lr: float) -> None:
        self.lr = lr
        self.steps = " or ".join(f"{steps:.0f}" for steps in sorted(runs["steps"].unique()))
        self.arms = {"NoNorm": runs[runs["norm"].isin(BASELINES)], "BatchNorm": runs[runs["norm"] == "BatchNorm"]}

    def estimate(self, arm: str, column: str) -> Estimate:
        runs = self.arms[arm]
        possible = next((ends for kind, ends in RANGES.items() if column.startswith(kind)), (-math.inf, math.inf))
        return mean_interval(runs.loc[~runs["diverged"], column].astype(float), possible)

    def loss_difference(self) -> Estimate:
        plain, batch = (
            runs[~runs["diverged"]].set_index("seed")["final.train_loss"].astype(float) for runs in self.arms.values()
        )
        return paired_difference(batch, plain)

    def label(self, arm: str) -> str:
        """The arm, the learning rate and the scale of the loss, the steps, and how many runs diverged."""
        runs = self.arms.get(arm, pd.concat(self.arms.values()))
        n = int(runs["diverged"].sum())
        diverged = f" ({n} of {len(runs)} diverged, left out)" if n else ""
        return f"{arm}, lr={self.lr:g} ({scale_of_loss(self.lr)}), {self.steps} steps{diverged}"

    def checks(self) -> list[Check]:
        return [*self.plain_checks(), *self.batch_checks(), self.loss_check()]

    def plain_checks(self) -> list[Check]:
        expected, bounds = Expected("near 1", "n", SANTURKAR), (LEAST_NEAR_ONE, 1.001)
        return [
            make_check(
                f"mean cos(G, G'), {moment}", self.label("NoNorm"), expected,
                self.estimate("NoNorm", f"cosine.{moment}"), bounds, f"above {LEAST_NEAR_ONE}",
            )
            for moment in MOMENTS
        ]  # fmt: skip

    def batch_checks(self) -> list[Check]:
        expected, most, arm = Expected("near 0", "n", SANTURKAR), MOST_NEAR_ZERO, "BatchNorm"
        cosines = [
            make_check(
                f"mean cos(G, G'), {moment}", self.label(arm), expected,
                self.estimate(arm, f"cosine.{moment}"), (-most, most), f"within {most} of 0",
            )
            for moment in MOMENTS
        ]  # fmt: skip
        absolute = self.estimate(arm, "absolute.end")
        quantity = "mean |cos(G, G')|, end"
        return [*cosines, make_check(quantity, self.label(arm), expected, absolute, (0.0, most), f"below {most}")]

    def loss_check(self) -> Check:
        expected, arm = Expected("below 0", "n", SANTURKAR), self.label("BatchNorm minus NoNorm")
        bounds = (-math.inf, 0.0)
        return make_check("final training loss", arm, expected, self.loss_difference(), bounds, "below 0")

    def conclusion(self) -> str:
        """The cosines and losses with and without batch normalization, and which parts of the pattern they show."""
        parts = {
            "near 1 without BN": self.plain_checks(),
            "near 0 with BN": self.batch_checks(),
            "a lower loss with BN": [self.loss_check()],
        }
        results = {part: combine({check.result for check in checks}) for part, checks in parts.items()}
        verdict = {"met": "Reproduced", "not met": "Not reproduced"}.get(combine(set(results.values())), "Undecided")
        losses = {arm: format_estimate(self.estimate(arm, "final.train_loss")) for arm in self.arms}
        return (
            f"Learning rate {self.lr:g} ({scale_of_loss(self.lr)}), {self.steps} steps. {verdict}: "
            f"{'; '.join(f'{part}: {result}' for part, result in results.items())}. "
            f"Mean cos(G, G') at the {', '.join(MOMENTS)}: {self.cosine_list('NoNorm')} without BN, "
            f"{self.cosine_list('BatchNorm')} with BN. "
            f"Final training loss: {losses['NoNorm']} without BN, {losses['BatchNorm']} with BN."
        )

    def cosine_list(self, arm: str) -> str:
        """The mean cosine at each moment, and the mean absolute one at the end."""
        means = (f"{self.estimate(arm, f'cosine.{moment}').mean:.2f}" for moment in MOMENTS)
        return f"{', '.join(means)} (|cos| at the end {self.estimate(arm, 'absolute.end').mean:.2f})"


def combine(results: set[str]) -> str:
    """The result of several checks: the first that occurs of not met, no data, undecided and met."""
    return next(result for result in ("not met", "no data", "undecided", "met") if result in results)


class SanturkarShift(Reproduction):
    note = (
        "cos(G, G') by layer: G is the gradient of a layer, and G' the same gradient after the layers before it have "
        "been updated. Values are means over layers, at the first step, after half of the steps and at the end. "
        "Cosines of both signs cancel in the mean, so the table also has the mean of |cos(G, G')|, which is small only "
        "if the cosines are near 0. The paper's text does not say whether its loss is a sum or a mean. The loss here "
        "is the mean over the 1,000 samples of the full batch of the sum over the 10 outputs, so each scale of the "
        "paper's loss makes its learning rate of 1e-6 another rate here, which names the scale. Without normalization "
        "the layers here have biases, which start at zero. The expected values are from notes of others, not from the "
        "paper's text."
    )

    def cosines(self) -> pd.DataFrame:
        """The mean cosine and absolute cosine over layers, by run and step: `run_id` `step` `value` `absolute`."""
        rows = self.study.metrics[self.study.metrics["metric"] == "ics_cosine"]
        rows = rows.assign(absolute=rows["value"].abs())
        return rows.groupby(["run_id", "step"], observed=True)[["value", "absolute"]].mean().reset_index()

    def losses(self) -> pd.DataFrame:
        """The training loss at the steps at which the cosine was measured."""
        metrics = self.study.metrics
        rows = metrics[(metrics["metric"] == "loss") & (metrics["split"] == "train")]
        return rows.loc[rows["step"].isin(self.cosines()["step"]), ["run_id", "step", "value"]]

    def runs(self) -> pd.DataFrame:
        """The runs with `cosine.MOMENT` and `absolute.MOMENT`: NaN where it was not measured at that step."""
        runs, cosines = self.study.runs, self.cosines()
        for moment, share in MOMENTS.items():
            step = (share * runs["steps"].astype(float)).round()
            found = runs[["run_id"]].assign(step=step).merge(cosines, on=["run_id", "step"], how="left")
            found = found.set_index("run_id").loc[runs["run_id"]]
            names = {f"cosine.{moment}": "value", f"absolute.{moment}": "absolute"}
            runs = runs.assign(**{name: found[column].astype(float).to_numpy() for name, column in names.items()})
        return runs

    def rates(self) -> list[RateResult]:
        runs = self.runs()
        rates = sorted(self.study.specs["lr"].unique())
        return [RateResult(runs[runs["lr"] == lr], float(lr)) for lr in rates]

    def checks(self) -> list[Check]:
        return [check for rate in self.rates() for check in rate.checks()]

    def conclusions(self) -> list[str]:
        return [rate.conclusion() for rate in self.rates()]

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
        axes[0, 0].set(ylabel="mean cos(G, G')", ylim=(-1.0, 1.0))
        axes[1, 0].set_ylabel("training loss")
        style.set_log_ticks(axes[1, 0].yaxis)
        style.add_legend(figure, style.line_handles(styles))
        caption = f"{self.note} Means over seeds with 95% t intervals; the means of the loss are geometric."
        alt = f"Line charts of cosine and loss over training. {' '.join(self.conclusions())}"
        return ReportFigure(title, caption, alt, figure)
