"""What probes saw, from frames of made-up measurements to figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.frames import StudyData
from bnstudy.report import layer_series
from bnstudy.report.figures import Palette, draw_panel, style
from bnstudy.report.figures.heat import draw_dead_map
from bnstudy.report.figures.landscape import draw_landscape
from bnstudy.report.figures.layers import draw_backprop
from bnstudy.report.figures.parts import is_alike, limit_to_means
from bnstudy.report.figures.sharpness import draw_sharpness
from bnstudy.report.figures.statistics import draw_statistics
from bnstudy.report.figures.style import Drawn
from bnstudy.report.figures.tracks import (
    draw_cosines,
    draw_percentiles_by_layer,
    draw_pooled_percentiles,
    draw_unit_percentiles,
)
from bnstudy.report.transforms import Panel, panels
from bnstudy.stats import intervals

STEPS = (0, 1, 3, 10, 30, 100, 400)
DEEP = tuple(f"hidden{i}" for i in range(1, 14))
Draw = Callable[[Panel, Palette], Drawn | None]
Value = Callable[[int, int, np.random.Generator], float]

NETWORK: dict[str, Value] = {
    "loss_min": lambda step, _, draw: 1 / (1 + step) + draw.random(),
    "loss_max": lambda step, _, draw: 3 / (1 + step) + draw.random() + 1,
    "grad_change_min": lambda *_: 0.5,
    "grad_change_max": lambda *_: 2.0,
    "beta_eff": lambda step, _, draw: 10 + draw.random() + step,
    "sharpness": lambda step, _, draw: 5 + step + draw.random(),
    "sharpness_residual": lambda step, *_: 0.5 if step == 10 else 0.01,
    "accuracy_running": lambda _, __, draw: 0.7 + 0.1 * draw.random(),
    "accuracy_batch": lambda *_: 0.9,
    "accuracy_precise": lambda *_: 0.91,
    "lr": lambda *_: 0.1,
}
LAYERS: dict[str, Value] = {
    "backprop_rms": lambda _, depth, draw: 0.5**depth * (1 + draw.random()),
    **{f"{of}_q{q}": lambda _, depth, draw, at=at: at * depth + 0.1 * draw.random()
       for of in ("z", "unit") for q, at in ((15, -1), (50, 0), (85, 1))},
    "ics_cosine": lambda _, depth, draw: draw.random() / depth,
    "dead_share": lambda step, depth, draw: depth * step / 1e4 * draw.random(),
}  # fmt: skip


def probed(panel: Panel, layers: tuple[str, ...]) -> Panel:
    """The panel with made-up measurements of all probes in place of its own."""
    draw = np.random.default_rng(0)
    rows = []
    for run in panel.shown_runs.itertuples():
        for step in STEPS:
            rows += [(run.run_id, run.arm, step, m, "", f(step, 0, draw)) for m, f in NETWORK.items()]
            named = [(layer, depth) for depth, layer in enumerate((*layers, "out"), 1)]
            rows += [(run.run_id, run.arm, step, m, n, f(step, d, draw)) for m, f in LAYERS.items() for n, d in named]
    table = pd.DataFrame(rows, columns=["run_id", "arm", "step", "metric", "layer", "value"]).assign(split="")
    arm = pd.Categorical(table["arm"], categories=panel.runs["arm"].cat.categories, ordered=True)
    return replace(panel, metrics=table.assign(arm=arm))


@pytest.fixture(scope="module")
def panel(two_models: StudyData) -> Panel:
    return probed(panels(two_models)[0], ("hidden1", "hidden2", "hidden3"))


@pytest.fixture(scope="module")
def palette(two_models: StudyData) -> Palette:
    return Palette.of(two_models.runs)


def drawn_by(draw: Draw, panel: Panel, palette: Palette) -> Drawn:
    with style.styled():
        drawn = draw(panel, palette)
    assert drawn is not None
    return drawn


OF_PROBES: dict[str, tuple[Draw, str]] = {
    "backprop": (draw_backprop, "backprop_rms"),
    "dead-map": (draw_dead_map, "dead_share"),
    "percentiles": (draw_pooled_percentiles, "z_q15"),
    "unit-percentiles": (draw_unit_percentiles, "unit_q50"),
    "percentiles-by-layer": (draw_percentiles_by_layer, "z_q85"),
    "cosines": (draw_cosines, "ics_cosine"),
    "landscape": (draw_landscape, "loss_min"),
    "sharpness": (draw_sharpness, "sharpness"),
    "statistics": (draw_statistics, "accuracy_running"),
}


def test_each_family_has_its_figure(panel: Panel, palette: Palette) -> None:
    with style.styled():
        drawn = list(draw_panel(panel, palette))
    assert [d.kind for d in drawn] == list(OF_PROBES)
    assert all(d.alt and d.caption and d.title.startswith("MLP on MNIST: ") for d in drawn)


@pytest.mark.parametrize("kind", OF_PROBES)
def test_what_was_not_measured_is_not_drawn(panel: Panel, palette: Palette, kind: str) -> None:
    draw, metric = OF_PROBES[kind]
    gone = {"accuracy_batch", metric}
    assert draw(replace(panel, metrics=panel.metrics[~panel.metrics["metric"].isin(gone)]), palette) is None


def test_figures_of_deep_networks_show_some_layers_and_say_so(two_models: StudyData, palette: Palette) -> None:
    deep = probed(panels(two_models)[0], DEEP)
    drawn = drawn_by(draw_cosines, deep, palette)
    titles = [ax.get_title("left") for ax in drawn.figure.axes]
    assert (titles[0], titles[-1], len(titles)) == ("hidden1", "out", 9)
    assert "Of 14 layers 9 are shown." in drawn.caption


@pytest.mark.parametrize("draw", [draw_dead_map, draw_landscape])
def test_drawn_again_the_bytes_are_the_same(panel: Panel, palette: Palette, draw: Draw) -> None:
    with style.styled():
        first, second = (style.render(drawn_by(draw, panel, palette).figure, "svg") for _ in range(2))
    assert first == second
    assert b"data:image" not in first  # which would be no drawing


def test_a_range_is_between_the_means_of_its_bounds(panel: Panel) -> None:
    low, high = (layer_series.over_time(panel, f"loss_{end}") for end in ("min", "max"))
    table = layer_series.Between(log=True)(low, low, high).set_index(["arm", "step"])
    for (arm, step), row in table.iterrows():
        at = [f[(f["arm"] == arm) & (f["step"] == step)]["value"] for f in (low, high)]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.exp(np.log(v).mean()) for v in at))
    assert len(table) == 3 * len(STEPS)


def test_the_last_hidden_layer_is_not_the_output(panel: Panel) -> None:
    assert set(layer_series.last_hidden(panel.by_layer("z_q50"))["layer"]) == {"hidden3"}


def test_picked_layers_have_both_ends() -> None:
    rows = pd.DataFrame({"depth": np.repeat(np.arange(2, 27), 2)})
    picked = layer_series.Picked(9)(rows)["depth"]
    assert sorted(picked.unique()) == [2, 5, 8, 11, 14, 17, 20, 23, 26]
    assert len(picked) == 18
    assert layer_series.Picked(30)(rows).equals(rows)


def test_one_seed_stands_for_what_has_no_mean(panel: Panel) -> None:
    rows = layer_series.first_seed(panel.by_layer("unit_q50"), panel.shown_runs)
    naive = {min(r.seed for r in runs.itertuples()) for _, runs in panel.shown_runs.groupby("arm", observed=True)}
    seeds = panel.shown_runs.set_index("run_id")["seed"]
    assert set(rows["run_id"].map(seeds)) == naive
    assert rows.groupby("arm", observed=True)["run_id"].nunique().eq(1).all()


def test_a_map_has_the_means_over_seeds(panel: Panel) -> None:
    rows = layer_series.layers_over_time(panel, "dead_share")
    arm = rows["arm"].iloc[0]
    grid = layer_series.layers_by_time(rows[rows["arm"] == arm])
    assert list(grid.columns) == list(STEPS)
    for depth, step in ((1, 10), (3, 400)):
        seeds = rows[(rows["arm"] == arm) & (rows["depth"] == depth) & (rows["step"] == step)]["value"]
        assert grid.loc[depth, step] == pytest.approx(sum(seeds) / len(seeds))


def test_layers_that_differ_among_arms_are_numbered() -> None:
    rows = pd.DataFrame({"depth": [1, 1, 2, 2], "layer": ["hidden1", "hidden1", "hidden2", "out"]})
    assert layer_series.layer_names(rows) == {1: "hidden1", 2: "layer 2"}


def test_the_limit_of_stability_follows_the_schedule(panel: Panel) -> None:
    decaying = panel.metrics.copy()
    is_lr = decaying["metric"] == "lr"
    decaying.loc[is_lr, "value"] = 0.1 * (1 - decaying.loc[is_lr, "step"] / 400)
    limit = layer_series.stability_limit(replace(panel, metrics=decaying))
    of_one = limit[limit["arm"] == limit["arm"].iloc[0]].set_index("step")["value"]
    assert of_one.to_dict() == pytest.approx({s: 2 * (1 + 0.9) / (0.1 * (1 - s / 400)) for s in STEPS if s < 400})


def test_sharpness_that_has_not_converged_is_marked(panel: Panel, palette: Palette) -> None:
    drawn = drawn_by(draw_sharpness, panel, palette)
    for ax in drawn.figure.axes:
        hollow = [line.get_xdata() for line in ax.lines if line.get_markerfacecolor() == "white"]
        assert [x.tolist() for x in hollow] == [[10]]
    assert "Open circles" in drawn.caption


def test_an_arm_is_drawn_until_its_first_divergence(two_models: StudyData) -> None:
    vgg = probed(panels(two_models)[1], ("conv1", "conv2"))
    rows = layer_series.layers_over_time(vgg, "ics_cosine")
    last = rows.groupby("arm", observed=True)["step"].max()
    lost = vgg.shown_runs.groupby("arm", observed=True)["diverged"].any()
    assert {arm: step == 400 for arm, step in last.items()} == (~lost).to_dict()
    assert last.min() == 30


def test_axes_are_shared_where_nothing_is_hidden_by_it() -> None:
    assert is_alike({"a": 1.0, "b": 7.0})
    assert not is_alike({"a": 1.0, "b": 9.0})
    assert is_alike({"a": 0.0, "b": 9.0})


def test_wide_intervals_do_not_stretch_the_axis() -> None:
    _, axes = style.canvas(1, 1, 3, "wide")
    table = pd.DataFrame({"step": [1, 2], "mean": [1.0, 2.0], "low": [-90.0, 0.0], "high": [90.0, 4.0]})
    style.band(axes[0, 0], table, "step", style.Look("#000000"))
    limit_to_means(axes.flat)
    assert axes[0, 0].get_ylim() == pytest.approx((0.65, 2.35))


def test_means_are_those_of_the_other_figures(panel: Panel, palette: Palette) -> None:
    drawn = drawn_by(draw_statistics, panel, palette)
    rows = layer_series.over_time(panel, "accuracy_running")
    naive = intervals.summarize(rows, ["arm", "step"], "value")
    (arm,) = {str(a) for a in naive["arm"]} & {"MLP, NoNorm"} or {str(naive["arm"].iloc[0])}
    line = drawn.figure.axes[list(panel.shown["arm"].astype(str)).index(arm)].lines[0]
    expected = 100 * naive[naive["arm"] == arm].sort_values("step")["mean"]
    assert line.get_ydata() == pytest.approx(expected.to_numpy())
