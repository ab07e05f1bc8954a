"""The figure of the metrics of a user's own probes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import bnstudy
from bnstudy.report.figures import Palette, style
from bnstudy.report.figures.own_metrics import MOST, draw_own_metrics
from bnstudy.report.known_metrics import EVALUATION, PROBES, own_metrics
from bnstudy.report.panels import Panel
from bnstudy.store.files import conf_dir


def with_own(panel: Panel, names: dict[str, str]) -> Panel:
    """The panel with metrics of these names, the layer "" or one of a network, and values that grow with the step."""
    rows = []
    for metric, layers in names.items():
        for layer in layers.split("+"):
            base = panel.metrics.query("metric == 'lr'")
            rows.append(base.assign(metric=metric, layer=layer, value=base["step"] + len(layer)))
    return replace(panel, metrics=pd.concat([panel.metrics, *rows], ignore_index=True))


def draw(panel: Panel, palette: Palette):
    with style.report_style():
        return draw_own_metrics(panel, palette)


def test_without_own_probes_there_is_no_figure(probed_panel: Panel, palette: Palette) -> None:
    assert draw(probed_panel, palette) is None


def test_an_own_metric_is_drawn_over_training_and_by_layer(probed_panel: Panel, palette: Palette) -> None:
    figure = draw(with_own(probed_panel, {"my_share": "+hidden1+out"}), palette)
    over_time, by_layer = figure.figure.axes
    assert (over_time.get_xlabel(), by_layer.get_xlabel()) == ("step", "layer")
    assert list(over_time.lines[0].get_ydata()) == [0, 1, 3, 10, 30, 100, 400]
    assert list(by_layer.lines[0].get_ydata()) == [407, 403]  # the last measurement of each layer
    assert "my_share" in figure.title
    assert "my_share over training" in figure.alt


def test_what_does_not_fit_is_named_in_the_caption(probed_panel: Panel, palette: Palette) -> None:
    names = {f"mine{i:02d}": "" for i in range(MOST + 2)}
    figure = draw(with_own(probed_panel, names), palette)
    assert len(figure.figure.axes) == MOST
    assert "Not shown: mine09 and mine10" in figure.caption
    assert "mine00, mine01, mine02 and 8 more metrics of your own probes" in figure.title


@pytest.mark.parametrize("preset", sorted(path.stem for path in (conf_dir() / "probe").glob("*.yaml")))
def test_metrics_of_the_built_in_probes_are_known(preset: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    found = bnstudy.measure(module, torch.randn(16, 12), torch.arange(16) % 3, preset)
    assert not own_metrics(found)
    assert {*found["metric"]} <= {*PROBES}


def test_every_known_metric_is_named_in_the_code_of_bnstudy() -> None:
    folder = Path(bnstudy.__file__).parent
    code = "".join(path.read_text() for part in ("probes", "train", "store") for path in (folder / part).glob("*.py"))
    ends = ("_scaled", "_batch", "_running", "_precise", "_q15", "_q50", "_q85", "_mean", "_std", "_min")
    for name in (*PROBES, *EVALUATION):
        stem = next((name.removesuffix(end) for end in ends if name.endswith(end)), name)
        assert name in code or stem in code
