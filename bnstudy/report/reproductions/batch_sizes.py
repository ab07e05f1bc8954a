"""Wu & He 2018, Figure 1: the error with batch normalization grows as batches shrink, that with group norm does not."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.stats.intervals import Estimate, paired_difference, summarize

WU_HE = "notes on Wu & He 2018, Figure 1: ResNet-50 on ImageNet"
ERRORS = {
    "BatchNorm": {32: 23.6, 16: 23.7, 8: 24.8, 4: 27.3, 2: 34.7},
    "GroupNorm": {32: 24.1, 16: 24.2, 8: 24.0, 4: 24.2, 2: 24.1},
}
"""Published validation errors in per cent, by norm and batch size."""

REFERENCE = 32
LR = 0.1
ABOVE_ZERO = (0.0, float("inf"))
STYLES = {"GroupNorm": LineStyle(style.COLOURS[1], "-", "s"), "BatchNorm": LineStyle(style.COLOURS[0], "-", "^")}
PUBLISHED = {
    batch: ERRORS["BatchNorm"][batch]
    - ERRORS["GroupNorm"][batch]
    - (ERRORS["BatchNorm"][REFERENCE] - ERRORS["GroupNorm"][REFERENCE])
    for batch in ERRORS["BatchNorm"]
}
"""By batch size what small batches cost batch normalization and not group norm, in points of the error."""


class WuHeBatches(Reproduction):
    """Of several learning rates only the published one is used, or the smallest: rates are never pooled."""

    note = (
        "A small ResNet instead of a ResNet-50, and small images, not ImageNet. The learning rate is 0.1 at batch "
        "size 32 and in proportion at others, with momentum 0.9, for both norms at equal epochs: this setting of the "
        "paper is from memory (m), not checked. Signs and order are compared, not sizes. D(B) is the error with batch "
        "normalization minus that with group normalization at batch size B, less the same difference at batch size 32. "
        "The published errors are from notes of others, not from the paper's text."
    )

    def __init__(self, study: StudyData) -> None:
        rates = study.runs["lr"].unique()
        runs = study.runs[study.runs["lr"] == (LR if LR in rates else min(rates))]
        super().__init__(replace(study, runs=runs.assign(error=100 * (1 - runs["test_accuracy"].astype(float)))))

    def excess(self, batch: int) -> pd.Series:
        """By seed, the error with batch normalization minus that with group normalization."""
        runs = self.study.runs[self.study.runs["batch_size"] == batch]
        norms = [runs[runs["norm"] == norm].set_index("seed")["error"] for norm in ("BatchNorm", "GroupNorm")]
        return (norms[0] - norms[1]).dropna()

    def cost(self, batch: int) -> Estimate:
        """D(B), with the interval of verdicts."""
        return paired_difference(self.excess(batch), self.excess(REFERENCE))

    def batches(self) -> list[int]:
        """The batch sizes below the reference, descending."""
        return sorted((int(b) for b in self.study.specs["batch_size"].unique() if b < REFERENCE), reverse=True)

    def checks(self) -> list[Check]:
        """The sign of each D(B) that is published as other than 0, and the order of neighbours."""
        batches, checks = [b for b in self.batches() if b in PUBLISHED], []
        for batch in (b for b in batches if PUBLISHED[b] > 0.05):
            expected = Expected(f"above 0 (published: {PUBLISHED[batch]:.1f})", "n", WU_HE)
            quantity, arm = "D(B), points of the test error", f"batch size {batch}"
            checks.append(make_check(quantity, arm, expected, self.cost(batch), ABOVE_ZERO, "above 0"))
        for larger, smaller in itertools.pairwise(batches):
            expected = Expected(f"above 0 (published: {PUBLISHED[smaller] - PUBLISHED[larger]:.1f})", "n", WU_HE)
            estimate = paired_difference(self.excess(smaller), self.excess(larger))
            arm = f"batch size {smaller} minus {larger}"
            checks.append(make_check("difference of D(B), points", arm, expected, estimate, ABOVE_ZERO, "above 0"))
        return checks

    def conclusions(self) -> list[str]:
        batches = self.batches()
        if not batches:
            return []
        found = []
        for norm in STYLES:
            runs = self.study.runs[self.study.runs["norm"] == norm]
            ends = [runs.loc[runs["batch_size"] == batch, "error"].mean() for batch in (REFERENCE, batches[-1])]
            published = [ERRORS[norm].get(batch) for batch in (REFERENCE, batches[-1])]
            text = f"{norm}: test error {ends[0]:.1f}% at batch size {REFERENCE}, {ends[1]:.1f}% at {batches[-1]}"
            found.append(text + (f"; published {published[0]}% and {published[1]}%." if all(published) else "."))
        return found

    def draw(self) -> ReportFigure | None:
        """The errors by batch size; and D(B) beside the published one."""
        runs, batches = self.study.runs, self.batches()
        if runs["error"].isna().all() or not batches:
            return None
        title = "Error with small batches, at a learning rate in proportion to the batch size"
        figure, ((left, right),) = style.new_figure(1, 2, 3.2, title)
        for norm, line in STYLES.items():
            table = summarize(runs[runs["norm"] == norm], ["batch_size"], "error")
            half = (table["mean"] - table["low"]).fillna(0)
            bars = {"color": line.colour, "marker": line.marker, "capsize": 2, "linestyle": line.line}
            left.errorbar(table["batch_size"], table["mean"], half, **bars)
        shown = [REFERENCE, *batches]
        costs = [self.cost(batch) for batch in batches]
        means = [0.0, *(cost.mean for cost in costs)]
        bounds = [(cost.mean - cost.low, cost.high - cost.mean) if cost.n > 1 else (0.0, 0.0) for cost in costs]
        lengths = np.maximum(0, np.transpose([(0.0, 0.0), *bounds]))  # equal seeds: -1e-16
        bars = {"color": STYLES["BatchNorm"].colour, "marker": "^", "capsize": 2}
        right.errorbar(shown, means, lengths, **bars)
        published = [b for b in shown if b in PUBLISHED]
        right.plot(published, [PUBLISHED[b] for b in published], "o:", color=style.NEUTRAL, mfc="none")
        style.draw_level(right, 0)
        for ax in (left, right):
            ax.set(xscale="log", xlabel="batch size")
            ax.set_xticks(shown, [str(b) for b in shown])
            ax.minorticks_off()
            ax.invert_xaxis()
        left.set_ylabel("test error (%)")
        right.set_ylabel("D(B) (percentage points)")
        handles = style.line_handles(STYLES, marker=True)
        handles.append(
            Line2D([], [], color=style.NEUTRAL, linestyle=":", marker="o", mfc="none", label="published D(B)")
        )
        style.add_legend(figure, handles)
        caption = (
            f"{self.note} Left: means over seeds with 95% t intervals. Right: D(B), what small batches cost batch "
            "normalization and not group normalization, with the intervals of the table; hollow: published."
        )
        return ReportFigure(title, caption, f"Charts against batch size. {self.describe_checks()}.", figure)
