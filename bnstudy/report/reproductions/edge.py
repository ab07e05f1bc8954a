"""Cohen et al. 2021: gradient descent trains at the edge of stability."""

from __future__ import annotations

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.metrics import late_lr_sharpness
from bnstudy.report.figures.sharpness import EDGE
from bnstudy.report.figures.style import ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.stats.intervals import mean_interval

COHEN = Expected("just above 2", "m", "Cohen et al. 2021, for several networks, with batch normalization too")
COMPUTED = {True: (2.01, 2.05), False: (2.03, 2.04)}
"""The range in steps 1000 to 3000, without a norm and with batch normalization."""
OWN = "our own computation on digits, steps 1000 to 3000 at a learning rate of 0.3; which squared error was not noted"
NEAR, NEAR_OWN = 0.2, 0.1
"""Distances from 2, and from the computed range, that count as met."""


class CohenEdge(Reproduction):
    note = (
        "The learning rate times the largest eigenvalue of the Hessian of the training loss: the mean of what is "
        "measured after a third of the training; gradient descent on the whole training set, tanh, squared error. The "
        "loss here is ||out - target||^2, the sum over the outputs, so lr=0.15 makes the same steps as 0.3 for half of "
        "it, which is the loss in the code of Cohen et al."
    )

    def checks(self) -> list[Check]:
        quantity, runs, checks = "learning rate times sharpness", self.study.runs, []
        for data, norm in sorted({*self.study.specs[["data", "norm"]].itertuples(index=False, name=None)}):
            own, arm = runs[(runs["data"] == data) & (runs["norm"] == norm)], f"{norm}, {data}"
            measured = mean_interval(late_lr_sharpness(own, self.study.metrics)["value"])
            low, high = COMPUTED[norm in BASELINES]
            of_own = Expected(f"{low:g} to {high:g}", "c", OWN)
            near = make_check(quantity, arm, COHEN, measured, (EDGE - NEAR, EDGE + NEAR), f"within {NEAR:g} of 2")
            bounds, tolerance = (low - NEAR_OWN, high + NEAR_OWN), f"within {NEAR_OWN:g} of the range"
            checks += [near, make_check(quantity, arm, of_own, measured, bounds, tolerance)]
        return checks

    def draw(self) -> ReportFigure | None:
        """The report's figure `edge` shows it."""
        return None
