"""Santurkar et al. 2018: what the layers before do to a layer's gradient, in a deep linear network."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look
from bnstudy.report.reproductions.checks import Check, Expected, against
from bnstudy.report.transforms import MeanBand
from bnstudy.stats.intervals import mean_interval, paired_difference

NOTE = (
    "cos(G, G') by layer, G being the gradient of a layer and G' the same once the layers before have made their "
    "update; the mean over layers, and in the table over the second half of the updates measured. As cosines of both "
    "signs cancel in it, the mean of |cos(G, G')| is told, too: cosines near 0 make it small. The loss here is the "
    "mean over the samples of the full batch: with their sum over 1,000 samples, a learning rate of 1e-6 is the 1e-3 "
    "here. Without normalization the layers here have biases, which begin at zero."
)
SANTURKAR = "Santurkar et al. 2018, 25-layer linear network, 10,000 steps at learning rate 1e-6"
NEAR_ONE, NEAR_ZERO = 0.9, 0.1


def cosines(study: StudyData) -> pd.DataFrame:
    """The mean cosine over layers, of each run and update measured: `run_id` `step` `value`."""
    rows = study.metrics[study.metrics["metric"] == "ics_cosine"]
    return rows.groupby(["run_id", "step"], observed=True)["value"].mean().reset_index()


def settled_cosine(study: StudyData, absolute: bool = False) -> pd.Series:
    """By run_id, the mean over the second half of the updates and the layers, of the cosine or of its size."""
    rows = study.metrics[study.metrics["metric"] == "ics_cosine"]
    rows = rows.assign(value=rows["value"].abs()) if absolute else rows
    half = rows["run_id"].map(study.runs.set_index("run_id")["steps"]).astype(float) / 2
    return rows[rows["step"] >= half].groupby("run_id", observed=True)["value"].mean()


def checks(study: StudyData) -> list[Check]:
    ids = study.runs["run_id"]
    runs = study.runs.assign(
        cosine=ids.map(settled_cosine(study)).astype(float), size=ids.map(settled_cosine(study, True)).astype(float)
    )
    rows = []
    for lr in sorted(study.specs["lr"].unique()):
        own = runs[runs["lr"] == lr]
        where = f"lr={lr:g}, {_updates(study)} updates"
        plain, batch = own[own["norm"].isin(BASELINES)], own[own["norm"] == "BatchNorm"]
        one = Expected("near 1", "n", SANTURKAR)
        rows.append(_cosine(f"NoNorm, {where}{_lost(plain)}", one, plain, (NEAR_ONE, 1.001), f"above {NEAR_ONE}"))
        zero = Expected("near 0", "n", SANTURKAR)
        bounds = (-NEAR_ZERO, NEAR_ZERO)
        rows.append(_cosine(f"BatchNorm, {where}{_lost(batch)}", zero, batch, bounds, f"within {NEAR_ZERO} of 0"))
        size, arm = mean_interval(batch["size"]), f"BatchNorm, {where}{_lost(batch)}"
        rows.append(against("mean |cos(G, G')|", arm, zero, size, (0.0, NEAR_ZERO), f"below {NEAR_ZERO}"))
        kept = [part[~part["diverged"]] for part in (batch, plain)]
        losses = [part.set_index("seed")["final.train_loss"].astype(float) for part in kept]
        lower = Expected("below 0", "n", SANTURKAR)
        difference = paired_difference(*losses)
        arm = f"BatchNorm minus NoNorm, {where}{_lost(own)}"
        rows.append(against("final training loss", arm, lower, difference, (float("-inf"), 0.0), "below 0"))
    return rows


def _lost(runs: pd.DataFrame) -> str:
    """Of diverged runs nothing is compared, which has to be said."""
    lost = int(runs["diverged"].sum())
    return f" ({lost} of {len(runs)} diverged, left out)" if lost else ""


def _updates(study: StudyData) -> str:
    """How long the runs are: a number, or several."""
    return " or ".join(f"{steps:.0f}" for steps in sorted(study.runs["steps"].unique()))


def _cosine(arm: str, expected: Expected, runs: pd.DataFrame, bounds: tuple[float, float], tolerance: str) -> Check:
    return against("mean cos(G, G')", arm, expected, mean_interval(runs["cosine"]), bounds, tolerance)


def draw(study: StudyData) -> Drawn | None:
    """Cosine above, training loss below; one column a learning rate."""
    parts = {"cosine": cosines(study), "loss": losses(study)}
    if parts["cosine"].empty:
        return None
    title, rates = "Internal covariate shift of a deep linear network", sorted(study.runs["lr"].unique())
    figure, axes = style.canvas(2, len(rates), 4.6, title, sharex=True, sharey="row")
    looks = {
        norm: Look(style.BASELINE_COLOUR if norm in BASELINES else style.COLOURS[i], "-")
        for i, norm in enumerate(sorted(study.runs["norm"].unique()))
    }
    runs = study.runs[["run_id", "norm", "lr"]]
    for row, (name, frame) in enumerate(parts.items()):
        for column, lr in enumerate(rates):
            table = MeanBand(("norm", "step"), log=name == "loss")(frame.merge(runs[runs["lr"] == lr], on="run_id"))
            for norm, own in table.groupby("norm"):
                style.band(axes[row, column], own, "step", looks[str(norm)])
            axes[0, column].set_title(f"learning rate {lr:g}")
            axes[1, column].set(xlabel="updates", yscale="log")
    axes[0, 0].set(ylabel="mean cos(G, G')", ylim=(-1.05, 1.05))
    axes[1, 0].set_ylabel("training loss")
    style.log_ticks(axes[1, 0].yaxis)
    style.legend(figure, style.line_handles(looks, {norm: norm for norm in looks}))
    alt = "; ".join(f"{c.arm}: {c.quantity} {c.here}" for c in checks(study))
    caption = f"{NOTE} Means over seeds with 95% t intervals, of the loss geometric ones."
    return Drawn("shift", title, caption, f"Line charts of cosine and loss over updates. {alt}.", figure)


def losses(study: StudyData) -> pd.DataFrame:
    """The training loss at the updates at which the cosine was measured."""
    m = study.metrics
    rows = m[(m["metric"] == "loss") & (m["split"] == "train")]
    return rows[rows["step"].isin(m.loc[m["metric"] == "ics_cosine", "step"])][["run_id", "step", "value"]]
