"""What happens in the layers: gradients over depth, units that do nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bnstudy.report.figures import style
from bnstudy.report.figures.style import Drawn, Look, Palette
from bnstudy.report.transforms import MOMENTS, MeanBand, Panel

GRADIENTS = (
    "Euclidean norm of the gradient of each layer's weights on a training batch. Points are geometric means over "
    "seeds, bands 95% t intervals on the log axis; gradients that are zero or not finite are left out. Norms of arms "
    "with and without normalization are not on one scale: behind a normalization the gradient goes as 1/||W||."
)
ARRIVING = (
    "Root mean square, over samples and units, of the derivative of the training batch's loss with regard to what each "
    "hidden layer's activation function is given. A level line is a gradient that neither vanishes nor explodes on its "
    "way back. Points are geometric means over seeds, bands 95% t intervals on the log axis."
)
DEAD = (
    "Share of ReLU units whose output is zero for every sample of the probe batch (a convolution's unit is a channel). "
    "Means over seeds with 95% t intervals; runs that diverged are in the mean only until they did."
)
ROOM = 3.0
"""Factor by which the axis of gradients may reach beyond the means."""

NAMED = 8
"""Up to so many layers are named on the axis, more are numbered."""


@dataclass(frozen=True)
class Profile:
    """A metric of the layers that is drawn against depth. name: of its axis; layer: of what there is one value each."""

    kind: str
    metric: str
    name: str
    title: str
    layer: str
    caption: str


GRADIENT_NORM = Profile("gradients", "grad_norm", "gradient norm", "gradient norm by layer", "weight layer", GRADIENTS)
BACKPROP = Profile(
    "backprop", "backprop_rms", "RMS of dL/dz", "size of the gradient that reaches each layer", "hidden layer", ARRIVING
)


def draw_gradients(panel: Panel, palette: Palette) -> Drawn | None:
    return _draw_profile(GRADIENT_NORM, panel, palette)


def draw_backprop(panel: Panel, palette: Palette) -> Drawn | None:
    return _draw_profile(BACKPROP, panel, palette)


def _draw_profile(profile: Profile, panel: Panel, palette: Palette) -> Drawn | None:
    """A metric against depth at each of `MOMENTS` that was measured, on a log axis."""
    rows = panel.by_layer(profile.metric).merge(panel.shown_runs[["run_id", "steps"]], on="run_id")
    found = [(m.title, at) for m in MOMENTS if not (at := m(rows)).empty]
    if not found:
        return None
    looks, title = palette.of_arms(panel.shown), f"{panel.name}: {profile.title}"
    columns = min(2, len(found))
    height = 0.8 + 2.3 * -(-len(found) // columns)
    figure, axes = style.canvas(-(-len(found) // columns), columns, height, title, sharex=True, sharey=True)
    for ax, (moment, at) in zip(axes.flat, found, strict=False):
        for arm, table in MeanBand(("arm", "depth"), log=True)(at).groupby("arm", observed=True):
            style.band(ax, table, "depth", looks[str(arm)], marker=looks[str(arm)].marker)
        ax.set_title(_when(moment, at))
        ax.set_yscale("log")
    for ax in axes.flat[len(found) :]:
        ax.set_visible(False)
    _limit_to_means(axes[0, 0])
    style.log_ticks(axes[0, 0].yaxis)
    for ax in axes[-1]:
        _depth_axis(ax, rows, profile.layer)
    for ax in axes[:, 0]:
        ax.set_ylabel(profile.name)
    style.legend(figure, style.line_handles(looks, _labels(panel), marker=True))
    return Drawn(profile.kind, title, profile.caption, _profile_alt(profile, panel, *found[-1]), figure)


def draw_dead_units(panel: Panel, palette: Palette) -> Drawn | None:
    """Share of dead units by layer at the end of training, and of the whole network over training."""
    over_time = panel.measured("dead_share")
    rows = panel.by_layer("dead_share").merge(panel.shown_runs[["run_id", "steps"]], on="run_id")
    at_end = MOMENTS[-1](rows)
    if over_time.empty or at_end.empty:
        return None
    looks, title = palette.of_arms(panel.shown), f"{panel.name}: dead units"
    figure, axes = style.canvas(1, 2, 3.2, title, sharey=True)
    course = MeanBand(("arm", "step"))(over_time)
    for arm, table in course[course["step"] > 0].groupby("arm", observed=True):
        style.band(axes[0, 1], table, "step", looks[str(arm)], scale=100)
    _dots(axes[0, 0], MeanBand(("arm", "depth"))(at_end), looks)
    axes[0, 0].set_title("by layer, at the end of training")
    axes[0, 0].set_ylabel("dead units (%)")
    top = max(5.0, *(1.1 * ax.get_ylim()[1] for ax in axes.flat))
    axes[0, 0].set_ylim(-0.02 * top, top)
    axes[0, 0].yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    _depth_axis(axes[0, 0], rows, "layer")
    axes[0, 1].set_title("whole network, over training")
    axes[0, 1].set(xscale="log", xlabel="updates")
    style.log_ticks(axes[0, 1].xaxis)
    style.legend(figure, style.line_handles(looks, _labels(panel), marker=True))
    return Drawn("dead-units", title, DEAD, _dead_alt(panel, over_time), figure)


def _limit_to_means(ax: Axes) -> None:
    """Let no interval of a few seeds stretch the axis far beyond the points."""
    means = np.concatenate([line.get_ydata() for other in ax.figure.axes for line in other.lines])
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, means.min() / ROOM), min(high, means.max() * ROOM))


def _dots(ax: Axes, table: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Points with intervals, the arms side by side."""
    for i, (arm, rows) in enumerate(table.groupby("arm", observed=True)):
        look, shift = looks[str(arm)], 0.5 * ((i + 0.5) / len(looks) - 0.5)
        spread = 100 * (rows["mean"] - rows["low"]).fillna(0)
        ax.errorbar(
            rows["depth"] + shift, 100 * rows["mean"], spread, color=look.colour, linestyle="",
            marker=look.marker, elinewidth=1, capsize=2,
        )  # fmt: skip


def _depth_axis(ax: Axes, rows: pd.DataFrame, what: str) -> None:
    """Layers by name where they are few and every arm has the same, else by number."""
    names = rows.drop_duplicates(["depth", "layer"]).sort_values("depth")
    if len(names) <= NAMED and not names["depth"].duplicated().any():
        long = sum(len(n) for n in names["layer"]) > 40
        ax.set_xticks(
            names["depth"], names["layer"].astype(str), rotation=30 if long else 0, ha="right" if long else "center"
        )
        ax.set_xlim(0.5, len(names) + 0.5)
        ax.set_xlabel(f"{what}, from input to output")
        return
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(f"{what}, counted from the input")


def _when(title: str, at: pd.DataFrame) -> str:
    steps = at["step"].unique()
    return f"{title}: update {steps[0]}" if len(steps) == 1 and steps[0] > 0 else title


def _labels(panel: Panel) -> dict[str, str]:
    return dict(zip(panel.shown["arm"], panel.shown["label"], strict=True))


def _profile_alt(profile: Profile, panel: Panel, moment: str, at: pd.DataFrame) -> str:
    ends = MeanBand(("arm", "depth"), log=True)(at).groupby("arm", observed=True)["mean"].agg(["first", "last"])
    parts = [
        f"{_labels(panel)[str(a)]} {r['first']:.2g} in the first and {r['last']:.2g} in the last"
        for a, r in ends.iterrows()
    ]
    return f"Line charts for {panel.name}: {profile.name} of each layer. At the {moment}: {'; '.join(parts)}."


def _dead_alt(panel: Panel, over_time: pd.DataFrame) -> str:
    last = over_time.sort_values("step").drop_duplicates("run_id", keep="last")
    shares = last.groupby("arm", observed=True)["value"].mean()
    parts = [f"{_labels(panel)[str(arm)]} {100 * share:.1f}%" for arm, share in shares.items()]
    return f"Charts for {panel.name}: share of dead units by layer and over training. At the end: {'; '.join(parts)}."
