"""De & Smith 2020: batch normalization raises the best learning rate, but not where batches are small."""

from __future__ import annotations

import math

import pandas as pd

from bnstudy.claims.arms import BASELINES, tried_with_all_seeds
from bnstudy.claims.metrics import best_learning_rate
from bnstudy.report.figures.style import ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.stats.intervals import mean_interval

DE_SMITH = "De & Smith 2020, residual networks; no numbers"
SAME = 2.0
"""Best rates that differ by at most this factor are about the same; a larger ratio is higher."""


class DeSmithRates(Reproduction):
    note = (
        "The best learning rate with batch normalization divided by that without, by each seed's final validation "
        "accuracy, as its logarithm to base 2: 0 for equal rates, 1 for twice the rate. At equal epochs. The networks "
        "here are not residual."
    )

    def ratios(self, data: str, size: int) -> pd.Series:
        """The logarithm of the ratio of the best rates, by seed."""
        runs = self.study.runs[(self.study.runs["data"] == data) & (self.study.runs["batch_size"] == size)]
        plain = runs["norm"].isin(BASELINES)
        if plain.all() or not plain.any():
            return pd.Series(dtype=float)
        without, with_ = (
            best_learning_rate(tried_with_all_seeds(own), self.study.metrics)["value"]
            for own in (runs[plain], runs[runs["norm"] == "BatchNorm"])
        )
        return (with_ / without).dropna().map(math.log2)

    def checks(self) -> list[Check]:
        quantity, checks, limit = "log2 of the ratio of the best learning rates", [], math.log2(SAME)
        for data, of_data in self.study.specs.groupby("data", observed=True):
            sizes = of_data["batch_size"]
            for size, text, bounds, tolerance in (
                (sizes.min(), "about 0, at small batches", (-limit, limit), f"within {limit:g} of 0"),
                (sizes.max(), "above 0, at large batches", (limit, math.inf), f"above {limit:g}"),
            ):
                measured = mean_interval(self.ratios(str(data), size))
                expected = Expected(text, "m", DE_SMITH)
                checks.append(make_check(quantity, f"{data}, batch {size}", expected, measured, bounds, tolerance))
        return checks

    def draw(self) -> ReportFigure | None:
        """The report's figure `best-rates` shows it."""
        return None
