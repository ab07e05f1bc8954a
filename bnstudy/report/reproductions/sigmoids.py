"""Ioffe & Szegedy 2015, Fig. 1: a small network of sigmoids on MNIST."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.figures.titles import by_arm, percent
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.report.reproductions.pixel_scale import scales_of
from bnstudy.report.transforms import mean_band
from bnstudy.stats.intervals import mean_interval, paired_difference

NOTEBOOK = "a notebook by others, one run"
ACCURACIES = {"NoNorm": 0.809, "BatchNorm": 0.973}
TOLERANCE = 0.02
PUBLISHED = {"data": "MNIST", "steps": 50_000, "lr": 0.01, "batch_size": 60, "init": "Normal", "init.std": 0.05}
PERCENTILES = (15, 50, 85)
STYLES = {"NoNorm": LineStyle(style.BASELINE_COLOUR), "BatchNorm": LineStyle(style.COLOURS[0])}


class IoffeSigmoids(Reproduction):
    """Of several learning rates only the published one is used, or the smallest: rates are never pooled. Nor are scales
    of the pixels: each has its own checks, and the figure shows the one from 0 to 1 if there are several."""

    note = (
        "Three hidden layers of 100 sigmoids, batches of 60, plain SGD. The paper gives no numbers, learning rate or "
        "standard deviation: 0.01 and 0.05 come from a notebook by others, and so do the two accuracies, each of one "
        "run. The scale of its pixels is not known; notebooks mostly use 0 to 1 (scale=unit). Values are compared only "
        "if the data are MNIST and the runs have 50,000 steps."
    )

    def __init__(self, study: StudyData) -> None:
        rates = study.runs["lr"].unique()
        runs = study.runs[study.runs["lr"] == (PUBLISHED["lr"] if PUBLISHED["lr"] in rates else min(rates))]
        super().__init__(replace(study, runs=runs, metrics=study.metrics[study.metrics["run_id"].isin(runs["run_id"])]))

    def checks(self) -> list[Check]:
        scales = scales_of(self.study.runs)
        runs, several = self.study.runs, scales.nunique() > 1
        found = [self._checks_of(runs[scales == scale], f", scale={scale}" * several) for scale in sorted({*scales})]
        checks = [check for of_scale in found for check in of_scale]
        if all(name in runs and bool((runs[name] == value).all()) for name, value in PUBLISHED.items()):
            return checks
        return [c if c.result == "no data" else replace(c, result="not comparable") for c in checks]

    def _checks_of(self, runs: pd.DataFrame, scale: str) -> list[Check]:
        """The checks of the runs with one scale of the pixels, which `scale` names if there are several."""
        checks = [
            make_check(
                "final test accuracy", f"{norm}{scale}", Expected(f"{value}", "n", NOTEBOOK),
                mean_interval(runs.loc[runs["norm"] == norm, "test_accuracy"], (0.0, 1.0)),
                (value - TOLERANCE, value + TOLERANCE), f"within {100 * TOLERANCE:g} points",
            )
            for norm, value in ACCURACIES.items()
        ]  # fmt: skip
        moved = runs.assign(movement=runs["run_id"].map(self.movement()).astype(float)).dropna(subset=["movement"])
        batch, plain = (moved[moved["norm"] == norm].set_index("seed")["movement"] for norm in ("BatchNorm", "NoNorm"))
        expected = Expected("below 0", "m", "Ioffe & Szegedy 2015, Fig. 1: the distribution is more stable")
        quantity = "movement of the median input of the last sigmoids' first unit, over its q85 - q15"
        difference, bounds = paired_difference(batch, plain), (float("-inf"), 0.0)
        arm = f"BatchNorm minus NoNorm{scale}"
        return [*checks, make_check(quantity, arm, expected, difference, bounds, "below 0")]

    def percentiles(self) -> pd.DataFrame:
        """Percentiles of the inputs of the last hidden layer's first unit: `run_id` `step` `metric` `value`."""
        metrics = self.study.metrics
        rows = metrics[metrics["metric"].isin([f"unit_q{p}" for p in PERCENTILES])]
        hidden = [layer for layer in dict.fromkeys(rows["layer"]) if layer != "out"]
        return rows[rows["layer"] == hidden[-1]] if hidden else rows[:0]

    def movement(self) -> pd.Series:
        """By run_id, the sum of the absolute changes of the median, divided by the mean distance from q15 to q85."""
        table = self.percentiles().pivot(index=["run_id", "step"], columns="metric", values="value")
        if table.empty:
            return pd.Series(dtype=float)
        table = table.assign(width=table["unit_q85"] - table["unit_q15"])
        by_run = table.groupby("run_id", observed=True)
        return by_run["unit_q50"].agg(lambda q: q.diff().abs().sum()) / by_run["width"].mean()

    def draw(self) -> ReportFigure | None:
        """Test accuracy over training, then the percentiles of one seed for each norm, on one scale."""
        percentiles, metrics, runs = self.percentiles(), self.study.metrics, self.study.runs
        scales = scales_of(runs)
        shown = max(scales, key=lambda scale: scale == "unit")
        runs = runs[scales == shown]
        accuracy = metrics[(metrics["metric"] == "accuracy") & (metrics["split"] == "test")]
        if percentiles.empty or accuracy.empty:
            return None
        ends = {str(norm): share for norm, share in runs.groupby("norm")["test_accuracy"].mean().items()}
        title = f"Test accuracy of a network of sigmoids: {by_arm(ends, percent)}"
        figure, ((left, middle, right),) = style.new_figure(1, 3, 3.2, title)
        table = mean_band(accuracy.merge(runs[["run_id", "norm"]], on="run_id"), ["norm", "step"])
        for norm, rows in table.groupby("norm"):
            line = STYLES["NoNorm" if norm in BASELINES else "BatchNorm"]
            style.draw_band(left, rows, "step", line, scale=100)
        left.set(title="test accuracy (%)", xlabel="step")
        seed = int(runs["seed"].min())
        for ax, norm in ((middle, "NoNorm"), (right, "BatchNorm")):
            run_ids = runs.loc[(runs["norm"] == norm) & (runs["seed"] == seed), "run_id"]
            for metric, rows in percentiles[percentiles["run_id"].isin(run_ids[:1])].groupby("metric", observed=True):
                width = 1.5 if str(metric) == "unit_q50" else 0.9
                ax.plot(rows["step"], rows["value"], color=STYLES[norm].colour, linewidth=width)
            ax.set(title=f"inputs, {norm}", xlabel="step")
        right.sharey(middle)
        style.add_legend(figure, style.line_handles(STYLES))
        caption = (
            f"{self.note} Left: means over seeds with 95% t intervals. Middle and right, on one scale: the 15th, 50th "
            "and 85th percentiles of the pre-activations of the last hidden layer's first unit on fixed training "
            f"samples, for seed {seed}. Pixels: {shown}."
        )
        return ReportFigure(title, caption, f"Line charts over training. {self.describe_checks()}.", figure)
