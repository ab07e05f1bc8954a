"""Two published examples in which the scale of the pixels decides what batch normalization is worth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import LineStyle, ReportFigure
from bnstudy.report.reproductions.base import Check, Expected, Reproduction, make_check
from bnstudy.stats.intervals import Estimate, mean_interval, paired_difference

STYLES = {"NoNorm": LineStyle(style.BASELINE_COLOUR, "", "o"), "BatchNorm": LineStyle(style.COLOURS[0], "", "^")}
HAND = "a loop written by hand, one run"
JPEG = "CIFAR-10 (JPEG)"
"""The name of the images of CIFAR-10, re-encoded."""


def scales_of(runs: pd.DataFrame) -> pd.Series:
    """The scale of each run's pixels. A run's spec leaves out the usual one."""
    return runs.get("data.scale", pd.Series(None, runs.index, dtype=object)).fillna("standardized")


@dataclass(frozen=True)
class Value:
    """An expected accuracy, a share: of a norm at a scale of the pixels."""

    scale: str
    norm: str
    share: float
    expected: Expected


class PixelScale(Reproduction):
    """Accuracies with and without batch normalization, by scale of the pixels, beside the published ones.

    settings: values of the published runs, or a tuple of those that are comparable; runs with others are not.
    accuracy: the column that is compared.
    """

    settings: ClassVar[Mapping[str, object]]
    values: ClassVar[tuple[Value, ...]]
    title: ClassVar[str]
    quantity: ClassVar[str]

    def __init__(self, study: StudyData) -> None:
        runs = study.runs
        rates = runs["lr"].unique()  # never pooled
        runs = runs[runs["lr"] == (self.settings["lr"] if self.settings["lr"] in rates else min(rates))]
        super().__init__(replace(study, runs=runs.assign(scale=scales_of(runs))))

    @abstractmethod
    def accuracies(self) -> pd.Series:
        """The accuracy of each run, a share, by the index of `runs`."""

    @abstractmethod
    def comparisons(self) -> Iterator[Check]: ...

    @property
    def is_comparable(self) -> bool:
        """Whether all runs have the published settings."""
        runs = self.study.runs
        allowed = ((name, value if isinstance(value, tuple) else (value,)) for name, value in self.settings.items())
        return all(name in runs and bool(runs[name].isin(values).all()) for name, values in allowed)

    def checks(self) -> list[Check]:
        checks = list(self.comparisons())
        if self.is_comparable:
            return checks
        return [c if c.result == "no data" else replace(c, result="not comparable") for c in checks]

    def by_seed(self, scale: str, norm: str) -> pd.Series:
        runs = self.study.runs
        chosen = (runs["scale"] == scale) & (runs["norm"] == norm)
        return self.accuracies()[chosen].set_axis(runs.loc[chosen, "seed"])

    def draw(self) -> ReportFigure | None:
        """Accuracies by scale: measured ones with their intervals, expected ones hollow."""
        if self.accuracies().isna().all():
            return None
        figure, axes = style.new_figure(1, 1, 3.2, self.title)
        scales = sorted(self.study.runs["scale"].unique())
        for i, scale in enumerate(scales):
            for norm, line in STYLES.items():
                _draw_estimate(axes[0, 0], i - 0.06, mean_interval(self.by_seed(scale, norm), (0.0, 1.0)), line)
        expected = self.values if self.is_comparable else ()
        for value in expected:
            if value.scale in scales:
                line = STYLES[value.norm]
                axes[0, 0].plot(
                    scales.index(value.scale) + 0.06, 100 * value.share, line.marker, color=line.colour, mfc="none"
                )
        axes[0, 0].set_xticks(range(len(scales)), scales)
        axes[0, 0].set(xlabel="scale of the pixels", ylabel=f"{self.quantity} (%)", xlim=(-0.5, len(scales) - 0.5))
        handles, caption = (
            style.line_handles(STYLES, marker=True),
            f"{self.note} Means over seeds with 95% t intervals.",
        )
        if expected:
            handles.append(Line2D([], [], color=style.NEUTRAL, linestyle="", marker="o", mfc="none", label="expected"))
            caption += " Hollow: expected values."
        style.add_legend(figure, handles)
        return ReportFigure(self.title, caption, f"Chart of accuracies. {self.describe_checks()}.", figure)


def _draw_estimate(ax: Axes, x: float, found: Estimate, line: LineStyle) -> None:
    """A mean, in per cent, with its interval where there is one."""
    if found.n:
        lengths = np.nan_to_num([[found.mean - found.low], [found.high - found.mean]])
        ax.errorbar(x, 100 * found.mean, 100 * lengths, color=line.colour, fmt=line.marker, capsize=2)


class NotebookRelu(PixelScale):
    """A public notebook's network of ReLUs on MNIST."""

    NOTEBOOK = "a notebook by others, one run"
    note = (
        "Three hidden layers of 100 ReLUs, weights of standard deviation 0.05, batches of 60, plain SGD at 0.01, 2,000 "
        "steps on MNIST. A notebook by others, with pixels in 0 to 1, reports the accuracy without batch "
        "normalization. The other expected values are of loops written by hand, one run each. Values are compared only "
        "if the data are MNIST and the runs have these settings."
    )
    title = "A notebook's network of ReLUs: test accuracy by the scale of the pixels"
    quantity = "test accuracy"
    settings: ClassVar[Mapping[str, object]] = {
        "data": "MNIST", "steps": 2000, "lr": 0.01, "batch_size": 60, "init": "Normal", "init.std": 0.05,
    }  # fmt: skip
    values = (
        Value("unit", "NoNorm", 0.826, Expected("0.826", "n", NOTEBOOK)),
        Value("standardized", "NoNorm", 0.91, Expected("0.91", "c", HAND)),
        Value("unit", "BatchNorm", 0.95, Expected("0.95", "c", HAND)),
        Value("standardized", "BatchNorm", 0.95, Expected("0.95", "c", HAND)),
    )
    tolerance = 0.02

    def accuracies(self) -> pd.Series:
        return self.study.runs["test_accuracy"].astype(float)

    def comparisons(self) -> Iterator[Check]:
        for v in self.values:
            bounds = (v.share - self.tolerance, v.share + self.tolerance)
            measured = mean_interval(self.by_seed(v.scale, v.norm), (0.0, 1.0))
            arm, tolerance = f"{v.norm}, scale={v.scale}", f"within {100 * self.tolerance:g} points"
            yield make_check(f"final {self.quantity}", arm, v.expected, measured, bounds, tolerance)


class CourseMLP(PixelScale):
    """A course's network of five layers on 1,000 images of CIFAR-10."""

    COURSE = "a course's exercise, one run"
    note = (
        "Five hidden layers of 100 ReLUs on 1,000 training images, 10 epochs. Only the gap is taken from the "
        "course's text. The settings are from memory, not checked: weights of standard deviation 0.02, Adam at "
        "0.001, batches of 50, pixels of 0 to 255 minus their mean. The exercise subtracts the mean of each pixel, "
        "this study that of each channel. The second gap, with standardized pixels, is of a loop written by hand. "
        "Values are compared only on CIFAR-10, or JPEG re-encodings of its images, with these settings."
    )
    title = "A course's small MLP on 1,000 images: accuracy on these images by the scale of the pixels"
    quantity = "training accuracy"
    settings: ClassVar[Mapping[str, object]] = {
        "data": ("CIFAR10", JPEG), "data.train_size": 1000, "epochs": 10, "batch_size": 50, "lr": 0.001,
        "init": "Normal", "init.std": 0.02,
    }  # fmt: skip
    values = ()
    gaps: ClassVar[Mapping[str, tuple[float, Expected]]] = {
        "levels": (0.11, Expected("0.11", "n", COURSE)),
        "standardized": (0.53, Expected("0.53", "c", HAND)),
    }
    tolerance = 0.05

    def accuracies(self) -> pd.Series:
        """The last accuracies on the probed training images, in evaluation mode."""
        metrics = self.study.metrics
        rows = metrics[metrics["metric"] == "train_accuracy"].sort_values("step")
        last = rows.groupby(rows["run_id"].astype(str))["value"].last()
        return self.study.runs["run_id"].map(last).astype(float)

    def gap(self, scale: str) -> pd.Series:
        """With minus without batch normalization, by seed."""
        return (self.by_seed(scale, "BatchNorm") - self.by_seed(scale, "NoNorm")).dropna()

    def comparisons(self) -> Iterator[Check]:
        quantity = f"final {self.quantity}, BatchNorm minus NoNorm"
        images = ", images re-encoded as JPEG" if (self.study.runs["data"] == JPEG).any() else ""
        for scale, (gap, expected) in self.gaps.items():
            bounds, tolerance = (gap - self.tolerance, gap + self.tolerance), f"within {100 * self.tolerance:g} points"
            yield make_check(
                quantity, f"scale={scale}{images}", expected, mean_interval(self.gap(scale)), bounds, tolerance
            )
        difference = paired_difference(self.gap("standardized"), self.gap("levels"))
        arm, expected = f"scale=standardized minus scale=levels{images}", Expected("above 0", "c", HAND)
        yield make_check("difference of these gaps", arm, expected, difference, (0.0, float("inf")), "above 0")
