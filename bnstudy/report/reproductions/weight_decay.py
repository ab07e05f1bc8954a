"""Li & Arora 2019: for weights in front of a norm, weight decay is a learning rate that grows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.metrics import decay_pairs
from bnstudy.report.figures.style import ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.stats.intervals import mean_interval

WITH, WITHOUT = 4e-16, 1.49
"""Largest difference of the losses in float64, with batch normalization and without."""
COMPUTED = "our own computation on digits, 500 steps, one seed"
KEYS = ["data", "norm", "lr"]
MOST_WITH, LEAST_WITHOUT = -12.0, -1.0
"""Of its logarithm: far above what rounding adds in 500 steps, and a tenth of the loss of guessing."""


class LiAroraRate(Reproduction):
    note = (
        "The largest difference, over all steps, between the training loss with weight decay wd at a constant rate lr "
        "and that without weight decay at the rate lr (1 - lr wd)^(-2t-1), as its logarithm to base 10. All weights "
        "but those of the last layer are trained, by SGD without momentum; the norm has no scale and shift, and its "
        "eps is negligible. Li & Arora 2019 prove that the two are then the same. In fp32 they drift apart."
    )

    def distances(self) -> pd.DataFrame:
        """`data` `norm` `lr` `seed` and the logarithm of the largest `distance` of the two losses."""
        runs, metrics = self.study.runs[~self.study.runs["diverged"]], self.study.metrics
        rows = [
            (*key, seed, np.log10(max(1e-17, np.abs(a - b).max())))
            for key, own in runs.groupby(KEYS, observed=True)
            for seed, a, b in decay_pairs(own, metrics[metrics["run_id"].isin(own["run_id"])])
        ]
        return pd.DataFrame(rows, columns=[*KEYS, "seed", "distance"])

    def checks(self) -> list[Check]:
        table, quantity, checks = self.distances(), "log10 of the largest difference of the losses", []
        for key in sorted({*self.study.specs[KEYS].itertuples(index=False, name=None)}):
            data, norm, lr = key
            is_plain = norm in BASELINES
            value = WITHOUT if is_plain else WITH
            bounds = (LEAST_WITHOUT, np.inf) if is_plain else (-np.inf, MOST_WITH)
            tolerance = f"above {LEAST_WITHOUT:g}" if is_plain else f"below {MOST_WITH:g}"
            expected = Expected(f"{np.log10(value):.2f} ({value:g})", "c", COMPUTED)
            measured = mean_interval(table.loc[(table[KEYS] == [*key]).all(axis=1), "distance"])
            checks.append(make_check(quantity, f"{norm}, {data}, lr {lr:g}", expected, measured, bounds, tolerance))
        return checks

    def draw(self) -> ReportFigure | None:
        """The report's figure `weight-decay` shows it."""
        return None
