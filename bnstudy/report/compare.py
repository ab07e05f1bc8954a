"""Two arms picked by hand, side by side: what differs, by how much, and no verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnstudy.claims.frames import StudyData, load_study
from bnstudy.claims.metrics import METRICS
from bnstudy.claims.verdicts import digits, number
from bnstudy.report import summary
from bnstudy.report.commands import report_command
from bnstudy.report.figures import Palette, draw_panel, load_figures
from bnstudy.report.figures.style import report_style
from bnstudy.report.images import Image, render_image, slug
from bnstudy.report.rendering import publish
from bnstudy.report.report import EVERY_STUDY, ReportResult, as_csv, as_json
from bnstudy.report.transforms import panels
from bnstudy.stats.intervals import bca_interval, effect_size
from bnstudy.stats.tests import sign_flip_p
from bnstudy.validation import ConfigError, nearest

AGAINST = " vs "
TARGET = 0.95
"""Share of the second arm's mean validation accuracy at the end that counts as reached."""

NO_VERDICT = (
    "No verdict: these two arms were picked by hand, learning rates and all, after their results were there, and no "
    "smallest effect of interest was fixed before. The p-values are not corrected for the choice."
)
STRANGERS = "The two arms differ in their network or data: runs of one seed share little more than the number."


@dataclass(frozen=True)
class Quantity:
    """What is compared. ratio: by the mean log of the ratio, told as a ratio, not by the mean difference."""

    name: str
    metric: str
    unit: str
    ratio: bool = False


QUANTITIES = (
    Quantity("test accuracy at the end", "test_accuracy", "percentage points"),
    Quantity("mean training loss over all updates", "mean_training_loss", "nats"),
    Quantity("updates to the target", "updates_to_target", "times", ratio=True),
    Quantity("dead units at the end", "dead_units", "percentage points"),
    Quantity("milliseconds per update", "step_ms", "times", ratio=True),
)


@dataclass(frozen=True)
class Compared:
    """A quantity of the two arms over their shared seeds: means (of ratios geometric ones), the paired difference or
    ratio with its BCa interval, and the sign-flip test of it."""

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
        mean, low, high = (digits(math.nan if v is None else v, 3) for v in (self.effect, self.low, self.high))
        return f"{mean} ({low} to {high})" if self.low is not None else mean

    @property
    def sentence(self) -> str:
        means = " and ".join("-" if v is None else digits(v) for v in (self.first, self.second))
        word = "ratio" if self.unit == "times" else "difference"
        seeds = "1 seed" if self.n == 1 else f"{self.n} seeds"
        return f"{self.quantity}: {means}; paired {word} {self.bounds} {self.unit}, p = {self.p:.2g}, {seeds}."


def write_comparison(
    results_dir: Path,
    asked: str,
    study: str | None = None,
    scale: str | None = None,
    picked: Collection[str] = (),
) -> ReportResult:
    """Write `<results_dir>/reports/compare-<names>/`: the first arm against the second one.

    asked: "A vs B", or "A,B" where no name has a comma. Each is an arm by its name in the report on the study, or by
    those parts of it that tell it from the others, or by the id of one of its runs.

    Raises:
        ConfigError: as `load_study`; there are not two such arms; they share no seed; it cannot be written.
    """
    if study == EVERY_STUDY:
        raise ConfigError("compare is not allowed with study=all: name one study, or none for every run of the store.")
    about = load_study(results_dir, study, scale, picked)
    arms = [find(about, name) for name in split(asked)]
    if arms[0] == arms[1]:
        raise ConfigError(f"compare={asked}: both are the arm {arms[0]}.")
    both = _only(about, arms)
    first, second = (both.runs[both.runs["arm"] == arm] for arm in arms)
    if not {*first["seed"]} & {*second["seed"]}:
        seeds = [", ".join(map(str, sorted(runs["seed"]))) for runs in (first, second)]
        raise ConfigError(
            f"compare={asked}: the two arms share no seed, so that nothing is paired: {arms[0]} has {seeds[0]}, "
            f"{arms[1]} has {seeds[1]}."
        )
    rows, images = compare(first, second, both.metrics), _curves(both)
    run_ids = sorted(both.runs["run_id"])
    name = slug(f"compare-{arms[0]}-vs-{arms[1]}-in-{about.name}")
    command = report_command(results_dir, study, about.scale if study else None, picked, compare=AGAINST.join(arms))
    cautions = [NO_VERDICT, *([STRANGERS] if first["panel"].iloc[0] != second["panel"].iloc[0] else [])]
    content = {
        "name": f"comparison in {about.name}", "title": f"{arms[0]} against {arms[1]}", "scale": about.scale,
        "arms": arms, "rows": rows, "cautions": cautions, "facts": summary.facts(both), "command": command,
        "commands": about.commands, "target": f"{TARGET:.0%}", "diverged": summary.diverged_lines(both),
        "images": images, "run_ids": run_ids,
    }  # fmt: skip
    files = {"runs.csv": as_csv(both.runs), "comparison.json": as_json(_data(about, arms, rows, run_ids))}
    folder = results_dir / "reports" / name
    index = publish(folder, "compare", content, images, files)
    told, lost = tuple(row.sentence for row in rows), int(both.runs["diverged"].sum())
    return ReportResult(folder, index, (), told, tuple(cautions), lost, missing=0)


def split(asked: str) -> tuple[str, str]:
    """The two names."""
    parts = asked.split(AGAINST) if AGAINST in asked else asked.split(",")
    names = [part.strip() for part in parts]
    if len(names) != 2 or not all(names):
        raise ConfigError(
            f"compare={asked} is not allowed: name two arms of the report, with vs between them, such as "
            "compare='BatchNorm, lr=1 vs NoNorm, lr=0.1', or the ids of a run of each, compare=ID1,ID2."
        )
    return names[0], names[1]


def find(study: StudyData, name: str) -> str:
    """The arm with this name, with a run of this id, or the only one that has all these parts in its name."""
    runs = study.runs
    of_run = runs.loc[runs["run_id"] == name, "arm"]
    if len(of_run):
        return str(of_run.iloc[0])
    wanted, arms = _pieces(name), [str(arm) for arm in runs["arm"].unique()]
    exact = [arm for arm in arms if _pieces(arm) == wanted]
    fitting = exact or sorted(arm for arm in arms if wanted <= _pieces(arm))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        some = "; ".join(fitting[:6]) + (f" and {len(fitting) - 6} more" if len(fitting) > 6 else "")
        raise ConfigError(f"compare: {name} may be any of {len(fitting)} arms: {some}. Say more of its name.")
    known = "; ".join(sorted(arms)[:12]) + (f" and {len(arms) - 12} more" if len(arms) > 12 else "")
    raise ConfigError(f"compare: there is no arm {name} in {study.name}{nearest(name, arms) or '.'} Known: {known}.")


def _pieces(name: str) -> set[str]:
    return {piece.strip().lower() for piece in re.split(r",(?![^(\[]*[)\]])", name)} - {""}


def _only(study: StudyData, arms: Sequence[str]) -> StudyData:
    """What there is of the two arms."""
    specs, runs = (frame[frame["arm"].isin(arms)].reset_index(drop=True) for frame in (study.specs, study.runs))
    metrics, timing = (frame[frame["run_id"].isin(runs["run_id"])] for frame in (study.metrics, study.timing))
    planned = tuple(specs["run_id"])
    return replace(study, specs=specs, runs=runs, metrics=metrics, timing=timing, planned=planned, repeats=())


def compare(first: pd.DataFrame, second: pd.DataFrame, metrics: pd.DataFrame) -> list[Compared]:
    """The quantities that every run of both has. first, second: the runs of an arm, as `StudyData` has them."""
    target = TARGET * float(second["val_accuracy"].mean())
    tables = []
    for quantity in QUANTITIES:
        values = [_values(quantity, runs, metrics, target) for runs in (first, second)]
        both = pd.concat(values, axis=1, keys=["first", "second"], join="inner").sort_index()
        if len(both) and np.isfinite(both.to_numpy(float)).all() and not (both == 0).to_numpy().all():
            tables.append(_compared(quantity, both))
    return tables


def _values(quantity: Quantity, runs: pd.DataFrame, metrics: pd.DataFrame, target: float) -> pd.Series:
    """By seed; diverged runs have the worst value."""
    if quantity.metric == "step_ms":
        return runs.set_index("seed")["step_ms"].astype(float)
    of_runs = metrics[metrics["run_id"].isin(runs["run_id"])]
    read = METRICS[quantity.metric].read(runs, of_runs, target)
    return read["value"]


def _compared(quantity: Quantity, both: pd.DataFrame) -> Compared:
    table = np.log(both) if quantity.ratio else both
    d = (table["first"] - table["second"]).to_numpy(float)
    told: Callable[[float], float] = math.exp if quantity.ratio else float
    low, high = bca_interval(d)
    means = [told(float(table[side].mean())) for side in ("first", "second")]
    bounds = [None if math.isnan(v) else told(v) for v in (low, high)]
    return Compared(
        quantity.name, quantity.unit, means[0], means[1], told(float(d.mean())), bounds[0], bounds[1],
        number(effect_size(d)), sign_flip_p(d), len(d),
    )  # fmt: skip


def _curves(both: StudyData) -> list[Image]:
    taken, palette, figures = set[str](), Palette.of(both.runs), load_figures()
    with report_style():
        return [
            render_image(figure, f"{figure.kind}-{panel.name}", taken)
            for panel in panels(both)
            for figure in draw_panel(panel, palette, figures, ("curves",))
        ]


def _data(study: StudyData, arms: Sequence[str], rows: Sequence[Compared], run_ids: Sequence[str]) -> dict[str, Any]:
    table = [asdict(row) for row in rows]
    return {"study": study.name, "scale": study.scale, "arms": list(arms), "quantities": table, "run_ids": run_ids}
