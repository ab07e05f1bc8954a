from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.frames import StudyData
from bnstudy.report.layer_series import (
    first_seed,
    last_hidden_layer,
    layer_grid,
    layer_names,
    layer_series,
    mean_range,
    network_series,
    spread_layers,
    stability_limits,
)
from bnstudy.report.panels import Panel, panels
from tests.report.conftest import STEPS, replace_metrics


def test_the_bounds_of_a_range_are_geometric_means_over_runs(probed_panel: Panel) -> None:
    low, high = (network_series(probed_panel, f"loss_{end}") for end in ("min", "max"))
    table = mean_range(low, low, high, log=True).set_index(["arm", "step"])
    for (arm, step), row in table.iterrows():
        at = [f[(f["arm"] == arm) & (f["step"] == step)]["value"] for f in (low, high)]
        assert (row["low"], row["high"]) == pytest.approx(tuple(np.exp(np.log(v).mean()) for v in at))
    assert len(table) == 3 * len(STEPS)


def test_the_last_hidden_layer_is_not_the_output(probed_panel: Panel) -> None:
    assert set(last_hidden_layer(probed_panel.layer_rows("z_q50"))["layer"]) == {"hidden3"}


def test_spread_layers_include_both_ends() -> None:
    rows = pd.DataFrame({"depth": np.repeat(np.arange(2, 27), 2)})
    depths = spread_layers(rows, 9)["depth"]
    assert sorted(depths.unique()) == [2, 5, 8, 11, 14, 17, 20, 23, 26]
    assert len(depths) == 18
    assert spread_layers(rows, 30).equals(rows)


def test_the_first_seed_of_each_arm_is_the_smallest(probed_panel: Panel) -> None:
    rows = first_seed(probed_panel.layer_rows("unit_q50"), probed_panel.arm_runs)
    naive = {min(r.seed for r in runs.itertuples()) for _, runs in probed_panel.arm_runs.groupby("arm", observed=True)}
    seeds = probed_panel.arm_runs.set_index("run_id")["seed"]
    assert set(rows["run_id"].map(seeds)) == naive
    assert rows.groupby("arm", observed=True)["run_id"].nunique().eq(1).all()


def test_a_layer_grid_has_the_means_over_seeds(probed_panel: Panel) -> None:
    rows = layer_series(probed_panel, "dead_share")
    rows = rows[rows["arm"] == rows["arm"].iloc[0]]
    grid = layer_grid(rows)
    assert list(grid.columns) == list(STEPS)
    for depth, step in ((1, 10), (3, 400)):
        seeds = rows[(rows["depth"] == depth) & (rows["step"] == step)]["value"]
        assert grid.loc[depth, step] == pytest.approx(sum(seeds) / len(seeds))


def test_layers_that_differ_among_arms_are_numbered() -> None:
    rows = pd.DataFrame({"depth": [1, 1, 2, 2], "layer": ["hidden1", "hidden1", "hidden2", "out"]})
    assert layer_names(rows) == {1: "hidden1", 2: "layer 2"}


def test_the_stability_limit_follows_the_learning_rate_schedule(probed_panel: Panel) -> None:
    decaying = probed_panel.metrics.copy()
    is_lr = decaying["metric"] == "lr"
    decaying.loc[is_lr, "value"] = 0.1 * (1 - decaying.loc[is_lr, "step"] / 400)
    limits = stability_limits(replace(probed_panel, metrics=decaying))
    of_one = limits[limits["arm"] == limits["arm"].iloc[0]].set_index("step")["value"]
    assert of_one.to_dict() == pytest.approx({s: 2 * (1 + 0.9) / (0.1 * (1 - s / 400)) for s in STEPS if s < 400})


def test_a_series_ends_before_the_first_divergence_of_its_arm(two_models: StudyData) -> None:
    vgg = replace_metrics(panels(two_models)[1], ("conv1", "conv2"))
    last = layer_series(vgg, "ics_cosine").groupby("arm", observed=True)["step"].max()
    has_diverged = vgg.arm_runs.groupby("arm", observed=True)["diverged"].any()
    assert {arm: step == 400 for arm, step in last.items()} == (~has_diverged).to_dict()
    assert last.min() == 30
