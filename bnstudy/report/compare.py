"""Two arms picked by hand, side by side: the differences and no verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from bnstudy.claims import metrics as m
from bnstudy.claims.frames import StudyData, describe_damages, load_study
from bnstudy.claims.metrics import TARGET_SHARE, Metric
from bnstudy.claims.numbers import round_together, same_decimals
from bnstudy.claims.verdicts import or_none
from bnstudy.report.all_studies import EVERY_STUDY
from bnstudy.report.arm_names import find_arm, split_names
from bnstudy.report.arm_tables import diverged_lines
from bnstudy.report.cautions import THIN
from bnstudy.report.commands import report_command
from bnstudy.report.figures import Palette, load_figures
from bnstudy.report.images import Image, panel_images, slug
from bnstudy.report.panels import panels
from bnstudy.report.rendering import publish
from bnstudy.report.result import ReportResult
from bnstudy.report.summary import facts
from bnstudy.report.tables import as_csv, as_json
from bnstudy.stats.intervals import effect_size
from bnstudy.stats.method import LOOKED_AT_ONCE
from bnstudy.validation import ConfigError

NO_VERDICT = (
    "No verdict: these two arms and their learning rates were picked by hand, after their results were known, and no "
    "smallest effect of interest was fixed in advance. The p-values are not corrected for the choice."
)
DIFFERENT_PANELS = "The two arms differ in their network or data: runs of one seed share little but the number."


@dataclass(frozen=True)
class Quantity:
    """A quantity to compare. ratio: by the geometric mean of the ratios, not by the mean difference."""

    name: str
    metric: Metric
    unit: str
    ratio: bool = False


QUANTITIES = (
    Quantity("test accuracy at the end", m.test_accuracy, "percentage points"),
    Quantity("mean training loss over all steps", m.mean_training_loss, "nats"),
    Quantity("steps to the target", m.updates_to_target, "times", ratio=True),
    Quantity("dead units at the end", m.dead_units, "percentage points"),
    Quantity("milliseconds per step", m.ms_per_update, "times", ratio=True),
)


@dataclass(frozen=True)
class Comparison:
    """A quantity of the two arms over their shared seeds: means (geometric ones for ratios), the paired difference or
    ratio with its 95% interval, and the p of its test."""

    quantity: str
    unit: str
    first: float | None
    second: float | None
    effect: float | None
    low: float | None
    high: float | None
    d_z: float | None
    p: float
    n: int

    @property
    def bounds(self) -> str:
        if self.effect is None:
            return "-"
        known = [] if self.low is None or self.high is None else [self.low, self.high]
        effect, *ends = round_together(self.effect, *known)
        unit = "x" if self.unit == "times" else ""
        return f"{effect}{unit} ({' to '.join(ends)})" if ends else f"{effect}{unit}"

    def describe(self, arms: Sequence[str]) -> str:
        """`"test accuracy at the end: BatchNorm 97.10, NoNorm 95.94; paired difference ..."`."""
        texts = same_decimals([math.nan if mean is None else mean for mean in (self.first, self.second)], most=4)
        means = ", ".join(f"{arm} {text}" for arm, text in zip(arms, texts, strict=True))
        word = "ratio" if self.unit == "times" else "difference"
        seeds = "1 seed" if self.n == 1 else f"{self.n} seeds"
        unit = "" if self.unit == "times" else f" {self.unit}"
        return f"{self.quantity}: {means}; paired {word} {self.bounds}{unit}, p = {self.p:.2g}, {seeds}."


def write_comparison(
    results_dir: Path,
    names: str,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
) -> ReportResult:
    """Write `<results_dir>/reports/compare-<names>/`: the first arm against the second one.

    Args:
        names: "A vs B", or "A,B" where no name has a comma. Each is the name of an arm in the report on the study, or
            those parts of it that distinguish it from the others, or the id of one of its runs. Where only the learning
            rate is left open, the best one on validation data is compared.

    Raises:
        ConfigError: as `load_study`; there are not two such arms; they share no seed; it cannot be written.
    """
    if study == EVERY_STUDY:
        raise ConfigError("compare is not allowed with study=all: name one study, or none for every run of the store.")
    about = load_study(results_dir, study, scale, picked)
    chosen = [find_arm(about, name) for name in split_names(names)]
    arms = [arm for arm, _ in chosen]
    if arms[0] == arms[1]:
        raise ConfigError(f"compare={names}: both are the arm {arms[0]}.")
    both = restrict_to(about, arms)
    first, second = (both.runs[both.runs["arm"] == arm] for arm in arms)
    if not {*first["seed"]} & {*second["seed"]}:
        seeds = [", ".join(map(str, sorted(runs["seed"]))) for runs in (first, second)]
        raise ConfigError(
            f"compare={names}: the two arms share no seed, so that nothing is paired: {arms[0]} has {seeds[0]}, "
            f"{arms[1]} has {seeds[1]}."
        )
    rows, images = compare(first, second, both.metrics), _curves(both)
    run_ids = sorted(both.runs["run_id"])
    name = slug(f"compare-{arms[0]}-vs-{arms[1]}-in-{about.name}")
    command = report_command(results_dir, study, about.scale if study else None, picked, compare=names)
    cautions = [NO_VERDICT, *(how for _, how in chosen if how)]
    cautions += [*([DIFFERENT_PANELS] if first["panel"].iloc[0] != second["panel"].iloc[0] else [])]
    cautions += [*about.mixed_images, *describe_damages(about.damages), *([THIN] if about.is_thin else [])]
    content = {
        "name": f"comparison in {about.name}", "title": f"{arms[0]} against {arms[1]}", "scale": about.scale,
        "arms": arms, "rows": rows, "cautions": cautions, "facts": facts(both), "command": command,
        "commands": about.commands, "target": f"{TARGET_SHARE:.0%}", "diverged": diverged_lines(both),
        "images": images, "run_ids": run_ids,
    }  # fmt: skip
    data = {"study": about.name, "scale": about.scale, "arms": arms, "quantities": [*map(asdict, rows)]}
    files = {"runs.csv": as_csv(both.runs), "comparison.json": as_json({**data, "run_ids": run_ids})}
    index = publish(results_dir, name, "compare", content, images, files)
    sentences, lost = tuple(row.describe(arms) for row in rows), int(both.runs["diverged"].sum())
    return ReportResult(index.parent, index, (), sentences, tuple(cautions), lost, missing=0)


def restrict_to(study: StudyData, arms: Sequence[str]) -> StudyData:
    """The study with the runs of these arms alone."""
    specs, runs = (frame[frame["arm"].isin(arms)].reset_index(drop=True) for frame in (study.specs, study.runs))
    metrics, timing = (frame[frame["run_id"].isin(runs["run_id"])] for frame in (study.metrics, study.timing))
    planned = tuple(specs["run_id"])
    return replace(study, specs=specs, runs=runs, metrics=metrics, timing=timing, planned=planned, repeats=())


def compare(first: pd.DataFrame, second: pd.DataFrame, metrics: pd.DataFrame) -> list[Comparison]:
    """The quantities that every run of both arms has. first, second: runs of an arm, as in `StudyData`."""
    target = TARGET_SHARE * float(second["val_accuracy"].mean())
    found = []
    for quantity in QUANTITIES:
        values = [
            quantity.metric(runs, metrics[metrics["run_id"].isin(runs["run_id"])], target)["value"]
            for runs in (first, second)
        ]
        both = pd.concat(values, axis=1, keys=["first", "second"], join="inner").sort_index()
        if len(both) and np.isfinite(both.to_numpy(float)).all() and not (both == 0).to_numpy().all():
            found.append(_compare(quantity, both))
    return found


def _compare(quantity: Quantity, both: pd.DataFrame) -> Comparison:
    table = np.log(both) if quantity.ratio else both
    d = (table["first"] - table["second"]).to_numpy(float)
    in_unit: Callable[[float], float] = math.exp if quantity.ratio else float
    means = [in_unit(float(table[side].mean())) for side in ("first", "second")]
    most = quantity.metric.most_apart
    bounds = [None if math.isnan(v) else in_unit(float(np.clip(v, -most, most))) for v in LOOKED_AT_ONCE.interval(d)]
    return Comparison(
        quantity.name, quantity.unit, means[0], means[1], in_unit(float(d.mean())), bounds[0], bounds[1],
        or_none(effect_size(d)), min(LOOKED_AT_ONCE.p_above(d, 0), LOOKED_AT_ONCE.p_above(-d, 0)), len(d),
    )  # fmt: skip


def _curves(both: StudyData) -> list[Image]:
    taken, palette, figures = set[str](), Palette.of(both.runs), {"curves": load_figures()["curves"]}
    return [image for panel in panels(both) for image in panel_images(panel, palette, figures, taken)]
