"""Lu et al. 2019: deep narrow ReLU networks may be born dead."""

from __future__ import annotations

import pandas as pd

from bnstudy.claims.arms import BASELINES
from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look
from bnstudy.report.reproductions.checks import Check, Expected, Met, met, share_interval, shown
from bnstudy.stats.intervals import Estimate

NOTE = (
    "Share of the networks whose output is the same for all inputs before training; one input, nine hidden ReLU "
    "layers, He initialization, no bias. What is expected without normalization was computed from two million "
    "simulated networks a width. Lu et al. 2019 report more than 90%, 60%, more than 10% and less than 1% for widths "
    "2, 3, 5 and 10 in a setting of their own (n)."
)
COMPUTED = {2: 0.8803, 3: 0.5786, 5: 0.1281, 10: 0.0013}
"""By width, for nine hidden layers. Their standard errors are at most .0004."""
DEPTH = 9
TOLERANCE = 0.05
NONE = 0.01
LOOKS = {"NoNorm": Look(style.BASELINE_COLOUR), "BatchNorm": Look(style.COLOURS[0], "-", "s")}


def shares(study: StudyData) -> pd.DataFrame:
    """`norm` `width` `depth` and the `share` of dead networks, an `Estimate`."""
    rows = study.metrics[(study.metrics["metric"] == "network_dead") & (study.metrics["step"] == 0)]
    dead = study.runs["run_id"].map(rows.set_index("run_id")["value"]).astype(float)
    known = study.runs.assign(dead=dead).dropna(subset=["dead"])
    groups = known.groupby(["norm", "model.width", "model.depth"])["dead"].agg(["sum", "count"]).reset_index()
    estimates = [share_interval(round(k), n) for k, n in zip(groups["sum"], groups["count"], strict=True)]
    return pd.DataFrame(
        {
            "norm": groups["norm"],
            "width": groups["model.width"],
            "depth": groups["model.depth"],
            "share": pd.Series(estimates, dtype=object),
        }
    )


def checks(study: StudyData) -> list[Check]:
    rows = []
    for row in shares(study).itertuples():
        arm, here = f"{row.norm}, width {row.width}", row.share
        if row.norm in BASELINES and row.depth == DEPTH and row.width in COMPUTED:
            value = COMPUTED[row.width]
            expected = Expected(f"{value:.4f}".rstrip("0"), "c", "simulated; see the note")
            settled = met(here, (value - TOLERANCE, value + TOLERANCE))
            rows.append(_row(arm, expected, here, f"within {100 * TOLERANCE:g} points", settled))
        elif row.norm == "BatchNorm":
            expected = Expected("0", "c", "a normalized unit is above 0 for some sample of its batch")
            rows.append(_row(arm, expected, here, f"below {100 * NONE:g}%", met(here, (0.0, NONE))))
    there = {row.arm for row in rows}
    lacking = [f"{norm}, width {width}" for norm in LOOKS for width in COMPUTED]
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0)
    empty = Expected("-", "c", "see the note")
    return [*rows, *(_row(arm, empty, nothing, "", "not there") for arm in lacking if arm not in there)]


def _row(arm: str, expected: Expected, here: Estimate, tolerance: str, met: Met) -> Check:
    return Check("share of networks born dead", arm, expected, shown(here), tolerance, met)


def draw(study: StudyData) -> Drawn | None:
    table = shares(study)
    if table.empty:
        return None
    title = "Networks born dead"
    figure, axes = style.canvas(1, 1, 3.4, title)
    ax, looks = axes[0, 0], {}
    for i, (norm, own) in enumerate(table.groupby("norm")):
        look = looks[str(norm)] = LOOKS.get(str(norm), Look(style.COLOURS[1 + i], "-", "^"))
        mean = [100 * s.mean for s in own["share"]]
        spread = [[100 * (s.mean - s.low) for s in own["share"]], [100 * (s.high - s.mean) for s in own["share"]]]
        ax.errorbar(own["width"], mean, spread, color=look.colour, fmt=look.marker, elinewidth=1, capsize=3)
    ax.plot(list(COMPUTED), [100 * p for p in COMPUTED.values()], color=style.NEUTRAL, linewidth=0.8, zorder=1)
    ax.set(xlabel="units in each of the hidden layers", ylabel="networks (%)", ylim=(-3, 103))
    style.legend(figure, style.line_handles(looks, {norm: norm for norm in looks}, marker=True))
    parts = [f"{r.norm} width {r.width}: {100 * r.share.mean:.1f}%" for r in table.itertuples()]
    caption = f"{NOTE} Points are shares with 95% Clopper-Pearson intervals, the line what is expected."
    return Drawn("born-dead", title, caption, f"Chart of dead networks by width. {'; '.join(parts)}.", figure)
