"""Figures of what probes measured."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import Palette, ReportFigure, load_figures, style
from bnstudy.report.figures.layout import can_share_scale, limit_to_means
from bnstudy.report.layer_series import network_series
from bnstudy.report.panels import Panel, panels
from bnstudy.stats import intervals
from tests.report.conftest import replace_metrics

METRICS = {
    "backprop": "backprop_rms",
    "dead-map": "dead_share",
    "percentiles": "z_q15",
    "unit-percentiles": "unit_q50",
    "percentiles-by-layer": "z_q85",
    "cosines": "ics_cosine",
    "landscape": "loss_min",
    "sharpness": "sharpness",
    "statistics": "accuracy_running",
}
"""A metric that each kind of figure needs."""


def draw(kind: str, panel: Panel, palette: Palette) -> ReportFigure | None:
    with style.report_style():
        return load_figures()[kind](panel, palette)


def test_every_probe_has_its_figure(probed_panel: Panel, palette: Palette) -> None:
    drawn = {kind: draw(kind, probed_panel, palette) for kind in load_figures()}
    figures = {kind: figure for kind, figure in drawn.items() if figure}
    assert list(figures) == list(METRICS)
    assert all(f.alt and f.caption and f.title.startswith("MLP on MNIST: ") for f in figures.values())


ONCE = ("backprop", "percentiles", "unit-percentiles", "percentiles-by-layer", "cosines", "landscape", "sharpness")


@pytest.mark.parametrize("kind", [*ONCE, "statistics", "dead-units"])
def test_a_single_measurement_leaves_no_axes_empty(probed_panel: Panel, palette: Palette, kind: str) -> None:
    metrics = pd.concat([probed_panel.metrics.query("step == 400"), whole_network_dead(probed_panel)])
    figure = draw(kind, replace(probed_panel, metrics=metrics), palette)
    for ax in figure.figure.axes:
        marked = [line for line in ax.lines if len(line.get_xdata()) and line.get_marker() not in ("", "None", None)]
        assert marked or not ax.get_visible()


def whole_network_dead(panel: Panel) -> pd.DataFrame:
    """The share of dead units of the whole network at the end."""
    rows = panel.metrics.query("step == 400 and metric == 'dead_share' and layer == 'hidden1'")
    return rows.assign(layer="")


def test_a_map_of_few_steps_is_not_drawn(probed_panel: Panel, palette: Palette) -> None:
    few = replace(probed_panel, metrics=probed_panel.metrics.query("step in (0, 10, 400)"))
    assert draw("dead-map", few, palette) is None


@pytest.mark.parametrize("kind", METRICS)
def test_a_figure_without_measurements_is_left_out(probed_panel: Panel, palette: Palette, kind: str) -> None:
    is_gone = probed_panel.metrics["metric"].isin({"accuracy_batch", METRICS[kind]})
    assert draw(kind, replace(probed_panel, metrics=probed_panel.metrics[~is_gone]), palette) is None


def test_figures_of_deep_networks_show_some_layers_and_say_so(two_models: StudyData, palette: Palette) -> None:
    deep = replace_metrics(panels(two_models)[0], tuple(f"hidden{i}" for i in range(1, 14)))
    figure = draw("cosines", deep, palette)
    titles = [ax.get_title("left") for ax in figure.figure.axes]
    assert (titles[0], titles[-1], len(titles)) == ("hidden1", "out", 9)
    assert "9 of 14 layers are shown." in figure.caption


@pytest.mark.parametrize("kind", ["dead-map", "landscape"])
def test_a_figure_drawn_twice_has_the_same_bytes(probed_panel: Panel, palette: Palette, kind: str) -> None:
    with style.report_style():
        first, second = (style.render(draw(kind, probed_panel, palette).figure, "svg") for _ in range(2))
    assert first == second
    assert b"data:image" not in first  # an SVG without bitmaps


def test_sharpness_that_has_not_converged_is_an_open_circle(probed_panel: Panel, palette: Palette) -> None:
    figure = draw("sharpness", probed_panel, palette)
    for ax in figure.figure.axes:
        open_circles = [line.get_xdata() for line in ax.lines if line.get_markerfacecolor() == "white"]
        assert [x.tolist() for x in open_circles] == [[10]]
    assert "Open circles" in figure.caption


def test_accuracies_by_statistics_are_means_over_seeds(probed_panel: Panel, palette: Palette) -> None:
    figure = draw("statistics", probed_panel, palette)
    means = intervals.summarize(network_series(probed_panel, "accuracy_running"), ["arm", "step"], "value")
    for arm, ax in zip(probed_panel.arms["arm"], figure.figure.axes, strict=True):
        expected = 100 * means[means["arm"] == arm].sort_values("step")["mean"]
        assert ax.lines[0].get_ydata() == pytest.approx(expected.to_numpy())


def test_arms_without_one_kind_of_statistics_are_not_in_the_title(probed_panel: Panel, palette: Palette) -> None:
    first, *others = probed_panel.arms["arm"]
    gone = (probed_panel.metrics["arm"] == first) & (probed_panel.metrics["metric"] != "accuracy_running")
    title = draw("statistics", replace(probed_panel, metrics=probed_panel.metrics[~gone]), palette).title
    assert probed_panel.names[str(first)] not in title
    assert all(probed_panel.names[str(arm)] in title for arm in others)
    assert "+-" not in title


def test_axes_share_a_scale_if_no_range_becomes_unreadable() -> None:
    assert can_share_scale({"a": 1.0, "b": 7.0})
    assert not can_share_scale({"a": 1.0, "b": 9.0})
    assert can_share_scale({"a": 0.0, "b": 9.0})


def test_wide_intervals_do_not_stretch_the_axis() -> None:
    _, axes = style.new_figure(1, 1, 3, "wide")
    table = pd.DataFrame({"step": [1, 2], "mean": [1.0, 2.0], "low": [-90.0, 0.0], "high": [90.0, 4.0]})
    style.draw_band(axes[0, 0], table, "step", style.LineStyle("#000000"))
    limit_to_means(axes.flat)
    assert axes[0, 0].get_ylim() == pytest.approx((0.65, 2.35))
