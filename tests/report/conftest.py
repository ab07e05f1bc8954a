"""Panels with made-up measurements of all probes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.frames import StudyData
from bnstudy.report.figures import Palette
from bnstudy.report.panels import Panel, panels
from bnstudy.report.report import write_report
from bnstudy.report.result import ReportResult

STEPS = (0, 1, 3, 10, 30, 100, 400)
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


def replace_metrics(panel: Panel, hidden_layers: tuple[str, ...]) -> Panel:
    """The panel with made-up measurements of all probes instead of its own."""
    draw = np.random.default_rng(0)
    rows = []
    for run in panel.arm_runs.itertuples():
        for step in STEPS:
            rows += [(run.run_id, run.arm, step, m, "", f(step, 0, draw)) for m, f in NETWORK.items()]
            layers = [(layer, depth) for depth, layer in enumerate((*hidden_layers, "out"), 1)]
            rows += [(run.run_id, run.arm, step, m, n, f(step, d, draw)) for m, f in LAYERS.items() for n, d in layers]
    table = pd.DataFrame(rows, columns=["run_id", "arm", "step", "metric", "layer", "value"]).assign(split="")
    arm = pd.Categorical(table["arm"], categories=panel.runs["arm"].cat.categories, ordered=True)
    return replace(panel, metrics=table.assign(arm=arm))


@pytest.fixture(scope="session")
def probed_panel(two_models: StudyData) -> Panel:
    return replace_metrics(panels(two_models)[0], ("hidden1", "hidden2", "hidden3"))


@pytest.fixture(scope="session")
def palette(two_models: StudyData) -> Palette:
    return Palette.of(two_models.runs)


@pytest.fixture(scope="session")
def result(sweep_dir: Path) -> ReportResult:
    return write_report(sweep_dir, "lr_tolerance")


@pytest.fixture(params=["index.html", "report.md"])
def text(result: ReportResult, request: pytest.FixtureRequest) -> str:
    return (result.folder / request.param).read_text()
