from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims.arms import best_arms
from bnstudy.claims.frames import StudyData
from bnstudy.report.endings import divergence_points, hold_at_chance, until_divergence, with_last_step
from bnstudy.report.panels import join_calls, panels
from bnstudy.report.transforms import MOMENTS, Clock, Moment, bin_losses, mean_band
from bnstudy.stats import intervals


def runs(*rows: tuple) -> pd.DataFrame:
    """run_id, arm, diverged_step; 100 steps each."""
    table = pd.DataFrame(rows, columns=["run_id", "arm", "diverged_step"])
    lost = table["diverged_step"].notna()
    return table.assign(steps=100, chance=0.1, diverged=lost, counts_as_guessing=lost)


def measurements(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["run_id", "arm", "step", "value"])


def test_panels_never_pool_models(two_models: StudyData) -> None:
    found = panels(two_models)
    assert [p.name for p in found] == ["MLP on MNIST", "VGG on MNIST"]
    for panel in found:
        assert set(panel.metrics["run_id"]) == set(panel.runs["run_id"])


def test_a_family_with_many_rates_is_drawn_at_its_best_rate(sweep: StudyData) -> None:
    (panel,) = panels(sweep)
    assert panel.arms["label"].tolist() == ["NoNorm (best lr=0.1)", "BatchNorm (best lr=0.3)"]
    assert set(panel.arms["arm"]) == set(best_arms(sweep.runs)["arm"])
    assert set(panel.metrics["arm"]) == set(panel.arms["arm"])


def test_layers_are_numbered_in_order_of_depth(two_models: StudyData) -> None:
    rows = panels(two_models)[1].layer_rows("grad_norm")
    order = rows.drop_duplicates("depth").sort_values("depth")["layer"].tolist()
    assert order == [*(f"conv{i}" for i in range(1, 11)), "out"]
    assert rows.groupby("depth")["layer"].nunique().eq(1).all()


def test_the_calls_of_a_layer_are_joined_and_other_names_with_numbers_are_not() -> None:
    layers = ["net.1", "cell", "cell.2", "net.2", "cell.10", "out"]
    rows = [(run, step, layer, float(i + step)) for run in "ab" for step in (0, 9) for i, layer in enumerate(layers)]
    frame = pd.DataFrame(rows, columns=["run_id", "step", "layer", "value"]).astype({"layer": "category"})
    joined = join_calls(frame)
    assert joined[:4].to_numpy().tolist() == [
        ["a", 0, "net.1", 0.0],
        ["a", 0, "cell", (1 + 2 + 4) / 3],
        ["a", 0, "net.2", 3.0],
        ["a", 0, "out", 5.0],
    ]
    assert joined.groupby(["run_id", "step"]).size().tolist() == [4] * 4


def test_mean_band_on_a_log_axis_is_geometric() -> None:
    frame = measurements(("a", "x", 1, 1.0), ("b", "x", 1, 100.0), ("c", "x", 1, 0.0))
    (row,) = mean_band(frame, ["arm", "step"], log=True).itertuples()
    naive = intervals.mean_interval(pd.Series(np.log([1.0, 100.0])))
    assert (row.mean, row.low, row.high, row.n) == pytest.approx((10, np.exp(naive.low), np.exp(naive.high), 2))


def test_binned_losses_are_means_of_each_run_over_all_rows() -> None:
    steps = np.arange(1000)
    frame = pd.DataFrame({"run_id": "a", "arm": "x", "step": steps, "value": np.sqrt(steps + 1)})
    table = bin_losses(frame, 20)
    starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
    assert starts[0] == 1
    assert ends[-1] == 1000
    assert (starts[1:] == ends[:-1] + 1).all()
    naive = [np.sqrt(np.arange(a, b + 1)).mean() for a, b in zip(starts, ends, strict=True)]
    assert table["value"].to_numpy() == pytest.approx(np.array(naive))


def test_an_arm_ends_before_its_first_divergence() -> None:
    frame = measurements(
        ("a", "x", 1, 1.0), ("a", "x", 5, np.nan), ("b", "x", 1, 1.0), ("b", "x", 5, 1.0), ("c", "y", 9, 1.0)
    )
    kept = until_divergence(frame, runs(("a", "x", 5), ("b", "x", None), ("c", "y", None)))
    assert kept[["run_id", "step"]].to_numpy().tolist() == [["a", 1], ["b", 1], ["c", 9]]


def test_an_arm_goes_on_where_a_run_did_not_learn() -> None:
    frame = measurements(("a", "x", 1, 1.0), ("a", "x", 100, 2.0))
    dull = runs(("a", "x", None)).assign(counts_as_guessing=True)
    assert len(until_divergence(frame, dull)) == 2
    assert hold_at_chance(frame, dull).set_index("step")["value"].to_dict() == {1: 1.0, 100: 0.1}


def test_diverged_runs_are_held_at_chance_to_the_end() -> None:
    whole = [("b", "x", step, 0.9) for step in (0, 10, 50, 100)]
    frame = measurements(("a", "x", 0, 0.2), ("a", "x", 10, 0.5), *whole)
    held = hold_at_chance(frame, runs(("a", "x", 10), ("b", "x", None)))
    diverged = held[held["run_id"] == "a"].set_index("step")["value"]
    assert diverged.to_dict() == {0: 0.2, 10: 0.1, 50: 0.1, 100: 0.1}
    assert held[held["run_id"] == "b"]["value"].eq(0.9).all()
    assert mean_band(held, ["arm", "step"])["n"].eq(2).all()


def test_a_single_diverged_run_is_held_at_chance_to_its_last_step() -> None:
    held = hold_at_chance(measurements(("a", "x", 0, 0.2)), runs(("a", "x", 7)))
    assert held.set_index("step")["value"].to_dict() == {0: 0.2, 100: 0.1}


def test_the_clock_interpolates_and_follows_the_longest_runs() -> None:
    timing = pd.DataFrame(
        {"run_id": ["a", "a", "b", "b"], "arm": "x", "step": [0, 10, 0, 2], "seconds": [0, 5, 0, 90.0]}
    )
    frame = Clock(timing)(measurements(("a", "x", 4, 1.0), ("a", "x", 20, 1.0)))
    assert frame["seconds"].tolist() == pytest.approx([2.0, np.nan], nan_ok=True)


def test_a_moment_selects_the_nearest_measured_step() -> None:
    frame = measurements(*(("a", "x", step, 0.0) for step in (0, 40, 55, 100)), ("b", "x", 0, 0.0)).assign(steps=100)
    at = Moment("half-way", 0.5, 0.3, 0.7)(frame)
    assert at[["run_id", "step"]].to_numpy().tolist() == [["a", 55]]
    assert [m(frame)["step"].tolist() for m in (MOMENTS[0], MOMENTS[-1])] == [[0, 0], [100]]


def test_a_divergence_point_has_the_last_finite_loss(two_models: StudyData) -> None:
    panel = panels(two_models)[1]
    points = divergence_points(panel, bin_losses(panel.network_rows("loss", "train")))
    assert points["step"].tolist() == [37]
    assert np.isfinite(points["value"]).all()


def test_curves_of_an_arm_end_where_its_first_run_stops_early() -> None:
    frame = measurements(*[("a", "x", s, 0.5) for s in (0, 10)], *[("b", "x", s, 0.9) for s in (0, 10, 50, 100)])
    stopped = runs(("a", "x", None), ("b", "x", None)).assign(stopped_step=[10, None])
    for kept in (until_divergence(frame, stopped), hold_at_chance(frame, stopped)):
        assert sorted(kept["step"]) == [0, 0, 10, 10]
    dull = stopped.assign(counts_as_guessing=[True, False])
    held = hold_at_chance(frame, dull).set_index(["run_id", "step"])["value"]
    assert held.to_dict() == {("a", 0): 0.5, ("a", 10): 0.1, ("b", 0): 0.9, ("b", 10): 0.9}


def test_the_end_of_a_run_that_stopped_early_is_its_last_step() -> None:
    frame = measurements(("a", "x", 10, 1.0), ("b", "x", 10, 2.0), ("b", "x", 100, 3.0))
    stopped = runs(("a", "x", None), ("b", "x", None)).assign(stopped_step=[10, None])
    at_end = MOMENTS[-1](with_last_step(frame, stopped))
    assert at_end["value"].tolist() == [1.0, 3.0]
