from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bnstudy.analysis.metrics import METRICS, coarseness, first_reached

COLUMNS = ["run_id", "step", "split", "metric", "layer", "value"]


def arm(*diverged: bool, steps: int = 100) -> pd.DataFrame:
    """Runs r0, r1, ... of seeds 0, 1, ..."""
    n = len(diverged)
    return pd.DataFrame(
        {
            "run_id": [f"r{i}" for i in range(n)], "seed": range(n), "lr": 0.1, "steps": steps, "diverged": diverged,
            "diverged_step": [7.0 if lost else np.nan for lost in diverged],
            "test_accuracy": [0.1 if lost else 0.9 for lost in diverged],
        }
    )  # fmt: skip


def measured(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"run_id": "category"})


def read(name: str, runs: pd.DataFrame, metrics: pd.DataFrame, target: float = math.nan) -> tuple[list, list]:
    found = METRICS[name].read(runs, metrics, target)
    assert found.index.tolist() == sorted(set(runs["seed"]))
    return found["value"].tolist(), found["capped"].tolist()


def curve(*values: float, step: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"step": np.arange(len(values)) * step, "value": values})


@pytest.mark.parametrize(
    ("values", "target", "step"),
    [
        ((0.0, 0.3, 0.6, 0.9), 0.3, 10.0),  # averages of three: 0.15, 0.3, 0.6, 0.75
        ((0.0, 0.3, 0.6, 0.9), 0.45, 15.0),
        ((0.0, 0.3, 0.6, 0.9), 0.75, 30.0),
        ((0.0, 0.3, 0.6, 0.9), 0.8, math.inf),
        ((0.9, 0.9), 0.5, 1.0),
        ((0.0, 0.0, 0.9, 0.0, 0.0), 0.5, math.inf),  # one lucky evaluation
    ],
)
def test_the_first_update_at_which_a_smoothed_curve_reaches_its_target(values, target, step):
    assert first_reached(curve(*values), target) == pytest.approx(step)


def test_runs_that_diverged_or_never_reach_the_target_count_with_the_length_of_training():
    values = {"r0": (0.5, 0.9, 0.9), "r1": (0.5, 0.9, 0.9), "r2": (0.1, 0.1, 0.1)}
    rows = [(r, 10 * i, "val", "accuracy", "", v) for r, accuracies in values.items() for i, v in enumerate(accuracies)]
    value, capped = read("updates_to_target", arm(False, True, False), measured(*rows), 0.8)
    assert value == [pytest.approx(12.5), 100.0, 100.0]  # averages of r0: 0.7, 0.77, 0.9
    assert capped == [False, True, True]


def test_a_run_whose_accuracy_was_not_measured_has_no_value():
    value, capped = read("updates_to_target", arm(False), measured(), 0.8)
    assert math.isnan(value[0])
    assert capped == [False]


def test_the_training_loss_of_a_diverged_run_is_ten_times_the_initial_one():
    rows = [("r0", 0, "train", "loss", "", 2.0), ("r0", 1, "train", "loss", "", 1.0)]
    rows += [("r1", 0, "train", "loss", "", 3.0), ("r1", 1, "train", "loss", "", math.inf)]
    assert read("mean_training_loss", arm(False, True), measured(*rows)) == ([1.5, 30.0], [False, True])


def test_accuracies_and_dead_units_are_in_percentage_points():
    assert read("test_accuracy", arm(False, True), measured()) == ([90.0, 10.0], [False, True])
    rows = [("r0", 0, "", "dead_share", "", 0.1), ("r0", 100, "", "dead_share", "", 0.2)]
    assert read("dead_units", arm(False, True), measured(*rows)) == ([20.0, 100.0], [False, True])


def test_the_slope_of_gradients_is_a_size_and_that_before_training():
    rows = [("r0", 0, "", "backprop_slope", "", -0.4), ("r0", 100, "", "backprop_slope", "", 3.0)]
    assert read("gradient_slope", arm(False), measured(*rows)) == ([0.4], [False])


# ------------------------------------------------------------------------------------------------- learning rates

RATES = [0.01, 0.1, 1.0, 10.0]


def family(outcomes: str, accuracies: tuple[float, ...] = (0.5,) * 4) -> pd.DataFrame:
    """One seed at four rates: `o` learned, `x` diverged, `-` ended near guessing."""
    ends = {"o": np.nan, "x": 7.0, "-": 100.0}
    return pd.DataFrame(
        {
            "run_id": [f"r{lr}" for lr in RATES], "seed": 3, "lr": RATES, "steps": 100,
            "diverged": [o != "o" for o in outcomes], "diverged_step": [ends[o] for o in outcomes],
            "test_accuracy": accuracies,
        }
    ).sample(frac=1, random_state=0)  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "largest", "capped"),
    [
        ("ooxx", 0.1, False),
        ("oxox", 0.01, False),
        ("oooo", 10.0, True),
        ("xxxx", 0.001, True),
        ("-oox", 1.0, False),  # too small a rate to learn anything is not too large
        ("xoox", 0.001, True),
        ("oo-x", 0.1, False),
        ("----", 0.001, True),
    ],
)
def test_the_largest_rate_that_with_all_smaller_ones_does_not_diverge(outcomes, largest, capped):
    value, at_bound = read("largest_tolerated_rate", family(outcomes), measured())
    assert value == [pytest.approx(largest)]
    assert at_bound == [capped]


@pytest.mark.parametrize(
    ("accuracies", "decades", "capped"),
    [
        ((0.5, 0.89, 0.9, 0.5), 1.0, False),
        ((0.9, 0.5, 0.9, 0.9), 0.0, True),
        ((0.5, 0.891, 0.9, 0.9), 2.0, True),
        ((0.1, 0.9, 0.8, 0.1), 0.0, False),
    ],
)
def test_the_width_of_the_rates_within_a_point_of_the_best(accuracies, decades, capped):
    value, at_bound = read("width_of_good_rates", family("oooo", accuracies), measured())
    assert value == [pytest.approx(decades)]
    assert at_bound == [capped]


def test_how_coarse_a_grid_is():
    assert coarseness(np.array([1.0, 0.1, 0.5, 0.5])) == pytest.approx(5)
    assert coarseness(np.array([0.1])) == math.inf


@pytest.mark.parametrize("name", METRICS)
def test_no_runs_have_no_values(name):
    assert len(METRICS[name].read(arm(), measured(), 0.5)) == 0
