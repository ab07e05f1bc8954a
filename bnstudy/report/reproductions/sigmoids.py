"""Ioffe & Szegedy 2015, Fig. 1: a small network of sigmoids on MNIST."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look
from bnstudy.report.reproductions.checks import Check, Expected, against
from bnstudy.report.transforms import MeanBand
from bnstudy.stats.intervals import mean_interval, paired_difference

NOTE = (
    "Three hidden layers of 100 sigmoids, batches of 60, plain SGD. The paper gives no numbers, learning rate or "
    "standard deviation: 0.01 and 0.05 are those of a notebook by others, and so are the two accuracies, each of one "
    "run. Anything is compared only where the data are MNIST and the updates 50,000."
)
NOTEBOOK = "a notebook by others, one run"
ACCURACIES = {"NoNorm": 0.809, "BatchNorm": 0.973}
TOLERANCE = 0.02
UPDATES = 50_000
PERCENTILES = (15, 50, 85)
LOOKS = {"NoNorm": Look(style.BASELINE_COLOUR), "BatchNorm": Look(style.COLOURS[0])}


def checks(study: StudyData) -> list[Check]:
    study = at_one_rate(study)
    rows = [_accuracy(study.runs[study.runs["norm"] == norm], norm, value) for norm, value in ACCURACIES.items()]
    moved = study.runs.assign(moved=study.runs["run_id"].map(movement(study)).astype(float)).dropna(subset=["moved"])
    batch, plain = (moved[moved["norm"] == norm].set_index("seed")["moved"] for norm in ("BatchNorm", "NoNorm"))
    expected = Expected("below 0", "m", "Ioffe & Szegedy 2015, Fig. 1: the distribution is more stable")
    quantity = "movement of the median input of the last sigmoids' first unit, over its q85 - q15"
    difference = paired_difference(batch, plain)
    rows.append(against(quantity, "BatchNorm minus NoNorm", expected, difference, (float("-inf"), 0.0), "below 0"))
    return [row if row.met == "not there" or as_published(study.runs) else differs(row) for row in rows]


def at_one_rate(study: StudyData) -> StudyData:
    """The study with the runs at the published learning rate only, or the smallest tried: rates are never pooled."""
    rates = study.runs["lr"].unique()
    runs = study.runs[study.runs["lr"] == (0.01 if 0.01 in rates else min(rates))]
    return replace(study, runs=runs, metrics=study.metrics[study.metrics["run_id"].isin(runs["run_id"])])


def as_published(runs: pd.DataFrame) -> bool:
    setting = {"data": "MNIST", "steps": UPDATES, "lr": 0.01, "batch_size": 60, "init": "Normal", "init.std": 0.05}
    return all(name in runs and bool((runs[name] == value).all()) for name, value in setting.items())


def differs(row: Check) -> Check:
    return replace(row, met="not comparable")


def _accuracy(runs: pd.DataFrame, norm: str, value: float) -> Check:
    here = mean_interval(runs["test_accuracy"])
    bounds = value - TOLERANCE, value + TOLERANCE
    tolerance = f"within {100 * TOLERANCE:g} points"
    return against("final test accuracy", norm, Expected(f"{value}", "n", NOTEBOOK), here, bounds, tolerance)


def tracks(study: StudyData) -> pd.DataFrame:
    """Percentiles of the inputs of the last hidden layer's first unit: `run_id` `step` `metric` `value`."""
    rows = study.metrics[study.metrics["metric"].isin([f"unit_q{p}" for p in PERCENTILES])]
    layers = list(dict.fromkeys(rows["layer"]))
    hidden = [layer for layer in layers if layer != "out"]
    return rows[rows["layer"] == hidden[-1]] if hidden else rows[:0]


def movement(study: StudyData) -> pd.Series:
    """By run_id, the sum over measurements of the change of the median, over the mean distance from q15 to q85."""
    wide = tracks(study).pivot(index=["run_id", "step"], columns="metric", values="value")
    if wide.empty:
        return pd.Series(dtype=float)
    wide = wide.assign(width=wide["unit_q85"] - wide["unit_q15"])
    by_run = wide.groupby("run_id", observed=True)
    return by_run["unit_q50"].agg(lambda q: q.diff().abs().sum()) / by_run["width"].mean()


def draw(study: StudyData) -> Drawn | None:
    """Test accuracy over training, then the percentiles of one seed for each norm, on one axis."""
    study = at_one_rate(study)
    inputs, m = tracks(study), study.metrics
    accuracy = m[(m["metric"] == "accuracy") & (m["split"] == "test")].merge(
        study.runs[["run_id", "norm"]], on="run_id"
    )
    if inputs.empty or accuracy.empty:
        return None
    title = "A network of sigmoids: accuracy, and what the last sigmoids are given"
    figure, axes = style.canvas(1, 3, 3.2, title)
    for norm, own in MeanBand(("norm", "step"))(accuracy).groupby("norm"):
        style.band(axes[0, 0], own, "step", _look(norm), scale=100)
    axes[0, 0].set(title="test accuracy (%)", xlabel="updates")
    seed = int(study.runs["seed"].min())
    for ax, norm in zip(axes[0, 1:], LOOKS, strict=True):
        runs = study.runs[(study.runs["norm"] == norm) & (study.runs["seed"] == seed)]
        _percentiles(ax, inputs[inputs["run_id"].isin(runs["run_id"][:1])], _look(norm))
        ax.set(title=f"inputs, {norm}", xlabel="updates")
    axes[0, 2].sharey(axes[0, 1])
    style.legend(figure, style.line_handles({n: _look(n) for n in LOOKS}, {n: n for n in LOOKS}))
    caption = (
        f"{NOTE} Left: means over seeds with 95% t intervals. Middle and right: the 15th, 50th and 85th percentiles of "
        "the pre-activations of the last hidden layer's first unit on fixed training samples, of seed "
        f"{seed}; their axis is shared."
    )
    alt = "; ".join(f"{c.arm}: {c.quantity} {c.here}" for c in checks(study))
    return Drawn("sigmoids", title, caption, f"Line charts over updates. {alt}.", figure)


def _percentiles(ax: style.Axes, rows: pd.DataFrame, look: Look) -> None:
    for metric, own in rows.groupby("metric", observed=True):
        ax.plot(own["step"], own["value"], color=look.colour, linewidth=1.5 if str(metric) == "unit_q50" else 0.9)


def _look(norm: str) -> Look:
    return LOOKS["NoNorm" if norm in BASELINES else "BatchNorm"]
