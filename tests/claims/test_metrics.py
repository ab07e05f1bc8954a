from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bnstudy.claims import metrics as m
from bnstudy.claims.metrics import Metric, Target, coarseness, find_metric, first_reached
from bnstudy.store.thin import MEAN

COLUMNS = ["run_id", "step", "split", "metric", "layer", "value"]


def arm(*diverged: bool, steps: int = 100) -> pd.DataFrame:
    """Runs r0, r1, ... of seeds 0, 1, ..."""
    n = len(diverged)
    return pd.DataFrame(
        {
            "run_id": [f"r{i}" for i in range(n)], "seed": range(n), "lr": 0.1, "steps": steps, "diverged": diverged,
            "counts_as_guessing": diverged,
            "test_accuracy": [0.1 if lost else 0.9 for lost in diverged], "chance": 0.1, "step_ms": 2.0,
            "engine": "serial", "final.test_accuracy": 0.9, "optim.weight_decay": 0.0, "schedule": "Constant",
            "best_accuracy": [0.1 if lost else 0.9 for lost in diverged],
        }
    )  # fmt: skip


def measured(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"run_id": "category", "value": float, "step": int})


def at_the_end(metric: str, *values: float, layer: str = "") -> pd.DataFrame:
    """Values of runs r0, r1, ... at the end; other values before."""
    rows = [(f"r{i}", step, "", metric, layer, v - 100 + step) for i, v in enumerate(values) for step in (0, 100)]
    return measured(*rows)


def read(name: str, runs: pd.DataFrame, metrics: pd.DataFrame, target: Target = math.nan) -> tuple[list, list]:
    """Values and bounds."""
    found = find_metric(name)(runs, metrics, target)
    assert found.index.tolist() == sorted(set(runs["seed"]))
    return found["value"].tolist(), found["bound"].tolist()


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
def test_the_step_to_a_target_is_that_of_the_smoothed_curve(values, target, step):
    assert first_reached(10 * np.arange(len(values)), np.array(values), target) == pytest.approx(step)


def test_smoothing_is_a_centred_rolling_mean():
    values = np.random.default_rng(0).normal(size=9)
    for n in (1, 2, 3, 9):
        expected = pd.Series(values[:n]).rolling(3, center=True, min_periods=1).mean()
        assert m.smoothed(values[:n]).tolist() == pytest.approx(expected.tolist())


def test_runs_that_diverged_or_never_reach_the_target_count_with_the_length_of_training():
    values = {"r0": (0.5, 0.9, 0.9), "r1": (0.5, 0.9, 0.9), "r2": (0.1, 0.1, 0.1)}
    rows = [(r, 10 * i, "val", "accuracy", "", v) for r, accuracies in values.items() for i, v in enumerate(accuracies)]
    value, bound = read("updates_to_target", arm(False, True, False), measured(*rows), 0.8)
    assert value == [pytest.approx(12.5), 100.0, 100.0]  # averages of r0: 0.7, 0.77, 0.9
    assert bound == ["", "at least", "at least"]


def test_a_run_whose_accuracy_was_not_measured_has_no_value():
    value, bound = read("updates_to_target", arm(False), measured(), 0.8)
    assert math.isnan(value[0])
    assert bound == [""]


def test_the_mean_training_loss_of_a_diverged_run_is_ten_times_the_larger_of_the_initial_and_guessing():
    rows = [("r0", 0, "train", "loss", "", 2.0), ("r0", 1, "train", "loss", "", 1.0), ("r0", 1, "val", "loss", "", 9.0)]
    rows += [("r1", 0, "train", "loss", "", 3.0), ("r1", 1, "train", "loss", "", math.inf)]
    assert read("mean_training_loss", arm(False, True), measured(*rows)) == ([1.5, 30.0], ["", "worst"])
    for guessing, worst in ((2.3, 30.0), (4.0, 40.0), (None, 30.0)):  # none is recorded by earlier versions
        runs = arm(False, True).assign(**{"dataset.guessing.loss": guessing})
        assert read("mean_training_loss", runs, measured(*rows))[0] == [1.5, worst]


def test_accuracies_and_dead_units_are_in_percentage_points():
    assert read("test_accuracy", arm(False, True), measured()) == ([90.0, 10.0], ["", "worst"])
    rows = [("r0", 0, "", "dead_share", "", 0.1), ("r0", 100, "", "dead_share", "", 0.2)]
    rows += [("r0", 0, "", "died_share", "", 0.0), ("r0", 100, "", "died_share", "", 0.15)]
    assert read("dead_units", arm(False, True), measured(*rows)) == ([20.0, 100.0], ["", "worst"])
    assert read("units_that_died", arm(False, True), measured(*rows)) == ([15.0, 100.0], ["", "worst"])


def test_the_slope_of_gradients_is_absolute_and_before_training():
    rows = [("r0", 0, "", "backprop_slope", "", -0.4), ("r0", 100, "", "backprop_slope", "", 3.0)]
    assert read("gradient_slope", arm(False), measured(*rows)) == ([0.4], [""])
    assert read("signed_gradient_slope", arm(False), measured(*rows)) == ([-0.4], [""])


def test_the_rank_of_the_last_layer_is_that_of_the_last_hidden_one_before_training():
    layers = {"hidden1": 40.0, "hidden2": 20.0, "hidden10": 5.0, "out": 9.0}
    rows = [
        ("r0", step, "", "effective_rank", layer, rank + step) for step in (0, 100) for layer, rank in layers.items()
    ]
    assert read("rank_of_last_layer", arm(False), measured(*rows)) == ([5.0], [""])


RATES = [0.01, 0.1, 1.0, 10.0]


def family(outcomes: str, accuracies: tuple[float, ...] = (0.5,) * 4) -> pd.DataFrame:
    """One seed at four rates: `o` learned, `x` diverged, `-` did not learn."""
    return pd.DataFrame(
        {
            "run_id": [f"r{lr}" for lr in RATES], "seed": 3, "lr": RATES, "steps": 100,
            "diverged": [o == "x" for o in outcomes], "counts_as_guessing": [o != "o" for o in outcomes],
            "test_accuracy": accuracies,
        }
    ).sample(frac=1, random_state=0)  # fmt: skip


@pytest.mark.parametrize(
    ("outcomes", "largest", "bound"),
    [
        ("ooxx", 0.1, ""),
        ("oxox", 0.01, ""),
        ("oooo", 10.0, "at least"),
        ("xxxx", 0.001, "at most"),
        ("-oox", 1.0, ""),  # a run that only did not learn did not diverge
        ("xoox", 0.001, "at most"),
        ("oo-x", 1.0, ""),
        ("----", 10.0, "at least"),
    ],
)
def test_no_smaller_rate_diverges_than_the_largest_tolerated_one(outcomes, largest, bound):
    assert read("largest_tolerated_rate", family(outcomes), measured()) == ([pytest.approx(largest)], [bound])


@pytest.mark.parametrize(
    ("metric", "accuracies", "expected", "bound"),
    [
        ("width_of_good_rates", (0.5, 0.89, 0.9, 0.5), 1.0, ""),
        ("width_of_good_rates", (0.9, 0.5, 0.9, 0.9), 0.0, "at least"),
        ("width_of_good_rates", (0.5, 0.891, 0.9, 0.9), 2.0, "at least"),
        ("width_of_good_rates", (0.1, 0.9, 0.8, 0.1), 0.0, ""),
        ("best_learning_rate", (0.1, 0.9, 0.8, 0.7), 0.1, ""),
        ("best_learning_rate", (0.9, 0.9, 0.8, 0.7), 0.01, "at most"),
        ("best_learning_rate", (0.1, 0.2, 0.3, 0.9), 10.0, "at least"),
    ],
)
def test_the_metrics_of_a_grid_follow_from_its_accuracies(metric, accuracies, expected, bound):
    runs = family("oooo", accuracies)
    assert read(metric, runs.assign(score=runs["test_accuracy"]), measured()) == ([pytest.approx(expected)], [bound])


def test_the_seconds_to_a_target_are_its_steps_times_the_time_per_step():
    rows = [("r0", 10 * i, "val", "accuracy", "", v) for i, v in enumerate((0.5, 0.9, 0.9))]
    assert read("seconds_to_target", arm(False), measured(*rows), 0.8) == ([pytest.approx(0.002 * 12.5)], [""])
    assert read("ms_per_update", arm(False), measured()) == ([2.0], [""])


def test_runs_of_a_stack_have_no_time_per_step():
    value, _ = read("ms_per_update", arm(False, False).assign(engine=["serial", "stacked"]), measured())
    assert value == [2.0, pytest.approx(math.nan, nan_ok=True)]


def test_accuracy_above_chance_is_zero_for_diverged_runs():
    assert read("accuracy_above_chance", arm(False, True), measured()) == ([pytest.approx(80.0), 0.0], ["", ""])


def test_a_run_that_did_not_learn_has_its_own_units_and_the_accuracy_of_guessing():
    late = arm(True).assign(diverged=False)
    assert read("test_accuracy", late, measured()) == ([10.0], ["worst"])
    assert read("dead_units", late, at_the_end("dead_share", 0.2)) == ([pytest.approx(20.0)], [""])
    assert read("dead_units", arm(True), at_the_end("dead_share", 0.2)) == ([100.0], ["worst"])


@pytest.mark.parametrize(
    ("error", "gap"),
    [
        (0.1, 90 - 75),  # half-way between the measurements at 50 and 100
        (0.2, 80 - 70),
        (0.4, 60 - 50),
        (0.01, math.nan),
    ],
)
def test_the_gap_is_taken_where_the_training_error_is_matched(error, gap):
    train = [("r0", step, "", "train_accuracy", "", v) for step, v in ((0, 0.1), (25, 0.6), (50, 0.8), (100, 1.0))]
    test = [("r0", step, "test", "accuracy", "", v) for step, v in ((0, 0.1), (25, 0.5), (50, 0.7), (100, 0.8))]
    if error == 0.01:
        train = train[:-1]
    target = pd.Series({0: error, 1: error})
    value, bound = read("gap_at_training_accuracy", arm(False, True), measured(*train, *test), target)
    assert value == [pytest.approx(gap, nan_ok=True), 0.0]
    assert bound == ["", "worst"]


def test_the_training_error_at_the_end_is_missing_for_diverged_runs():
    rows = at_the_end("train_accuracy", 0.97, 0.2)
    assert m.final_training_error(arm(False, True), rows).tolist() == [
        pytest.approx(0.03), pytest.approx(math.nan, nan_ok=True),
    ]  # fmt: skip


def test_drift_is_a_geometric_mean_over_hidden_layers_and_measurements():
    values = {("hidden1", 1): 0.2, ("hidden1", 2): 0.4, ("hidden2", 1): 0.6, ("hidden2", 2): math.nan, ("out", 1): 9.0}
    rows = [("r0", step, "", "z_drift_relative", layer, v) for (layer, step), v in values.items()]
    assert read("distribution_drift", arm(False), measured(*rows))[0] == [pytest.approx((0.2 * 0.4 * 0.6) ** (1 / 3))]


def test_gradient_shift_is_one_minus_the_cosine():
    rows = [("r0", 1, "", "ics_cosine", layer, v) for layer, v in (("a", 1.0), ("b", 0.5), ("c", math.nan))]
    assert read("gradient_shift", arm(False, True), measured(*rows)) == ([pytest.approx(0.25), 2.0], ["", "worst"])


def test_roughness_is_a_geometric_mean_and_has_no_worst_value():
    rows = [("r0", step, "", "beta_eff_scaled", "", v) for step, v in enumerate((1, 4))]
    value, bound = read("roughness", arm(False, True), measured(*rows))
    assert (value, bound) == ([2.0, pytest.approx(math.nan, nan_ok=True)], ["", "worst"])


def test_late_sharpness_is_the_mean_after_a_third_of_the_training():
    rows = [
        ("r0", step, "", "lr_sharpness", "", value) for step, value in ((0, 9), (33, 9), (34, 1), (70, 2), (100, 3))
    ]
    values, bounds = read("late_lr_sharpness", arm(False, True), measured(*rows))
    assert values[0] == 2
    assert math.isnan(values[1])
    assert bounds == ["", "worst"]


def decaying(*losses: tuple[float, ...], diverged: int = -1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two runs of each seed, with weight decay and with a growing rate, and a run with neither."""
    arms = [(0.01, "Constant"), (0.0, "Exponential"), (0.0, "Constant")]
    runs = arm(*(i == diverged for i in range(len(losses)))).assign(seed=[i // 3 for i in range(len(losses))])
    runs["optim.weight_decay"], runs["schedule"] = zip(*(arms[i % 3] for i in range(len(losses))), strict=True)
    rows = [(f"r{i}", t, "train", "loss", "", v) for i, values in enumerate(losses) for t, v in enumerate(values)]
    return runs, measured(*rows)


def test_the_mismatch_of_weight_decay_is_the_mean_relative_distance_of_the_losses():
    runs, metrics = decaying((2.0, 1.0), (2.0, 0.75), (9.0, 9.0), (1.0, 2.0), (1.0, 2.0), (9.0, 9.0))
    assert read("weight_decay_mismatch", runs, metrics) == ([12.5, 0], ["", ""])


def test_the_mismatch_of_weight_decay_is_whole_where_a_run_diverged():
    runs, metrics = decaying((2.0, 1.0), (2.0, math.nan), (9.0, 9.0), diverged=1)
    assert read("weight_decay_mismatch", runs, metrics) == ([100], ["worst"])


def test_the_mismatch_of_weight_decay_does_not_depend_on_runs_outside_the_pair():
    runs, metrics = decaying((2.0, 1.0), (2.0, 0.75), (9.0, math.nan), diverged=2)
    assert read("weight_decay_mismatch", runs, metrics) == ([12.5], [""])


def test_a_metric_of_a_probe_is_not_taken_for_the_mean_loss_of_a_thin_run():
    rows = [("r0", 0, "train", "loss", "", 2.0), ("r0", 1, "train", "loss", "", 1.0), ("r0", 1, "", MEAN, "", 99.0)]
    assert read("mean_training_loss", arm(False), measured(*rows)) == ([1.5], [""])


def test_a_run_without_one_loss_for_each_step_has_no_mismatch_of_weight_decay():
    runs, metrics = decaying((2.0, 1.0, 1.0), (2.0, 0.75, 1.0), (9.0, 9.0, 9.0))
    thin = metrics[(metrics["run_id"] != "r1") | (metrics["step"] != 1)]
    for rows in (thin, pd.concat([metrics, metrics[-1:].assign(run_id="r0")])):
        assert math.isnan(read("weight_decay_mismatch", runs, rows)[0][0])


def test_saturated_units_are_averaged_over_layers_at_the_end():
    metrics = pd.concat([at_the_end("saturated_share", v, layer=layer) for layer, v in (("a", 0.1), ("b", 0.5))])
    assert read("saturated_units", arm(False), metrics)[0] == [pytest.approx(30.0)]


@pytest.mark.parametrize("kind", ["precise", "batch"])
def test_statistics_are_compared_on_the_same_trained_network(kind):
    metrics = pd.concat([at_the_end("accuracy_running", 0.7, 0.1), at_the_end(f"accuracy_{kind}", 0.8, 0.5)])
    value, _ = read(f"{kind}_less_running", arm(False, True), metrics)
    assert value == [pytest.approx(10.0), 0.0]


@pytest.mark.parametrize(
    ("losses", "target", "accuracy"),
    [
        ((1.0, 1.0, 0.5, 0.5, 0.2, 0.2), 0.5, 60.0),  # means up to the evaluations: 1, 0.5, 0.2
        ((1.0, 1.0, 0.5, 0.5, 0.2, 0.2), 0.75, 50.0),
        ((1.0, 1.0, 0.5, 0.5, 0.2, 0.2), 1.0, 40.0),
        ((1.0, 1.0, 0.5, 0.5, 0.2, 0.2), 0.1, 90.0),  # never: the end
    ],
)
def test_accuracy_at_a_training_loss_is_interpolated_between_evaluations(losses, target, accuracy):
    train = [("r0", i, "train", "loss", "", v) for i, v in enumerate(losses)]
    test = [("r0", 2 * i, "test", "accuracy", "", v) for i, v in enumerate((0.1, 0.4, 0.6, 0.7))]
    metrics = measured(*train, *test)
    value, bound = read("test_accuracy_at_training_loss", arm(False), metrics, pd.Series({0: target}))
    assert (value, bound) == ([pytest.approx(accuracy)], ["worst" if target < 0.2 else ""])
    assert m.final_training_loss(arm(False), metrics).tolist() == pytest.approx([0.2])


def of_arms(accuracies: np.ndarray) -> pd.DataFrame:
    """Runs of a side, with the best validation accuracies [seeds, arms]."""
    cells = np.ndenumerate(accuracies)
    return pd.DataFrame([{"seed": s, "family": f"arm{a}", "best_accuracy": v} for (s, a), v in cells])


def test_best_and_worst_arm_of_a_seed_are_those_of_the_other_seeds():
    accuracies = np.array([[0.5, 0.9, 0.86], [0.9, 0.9, 0.8], [0.6, 0.8, 0.5]])
    found = read("spread_of_accuracy", of_arms(accuracies), measured())[0]
    # Without seed 0 the means are .75 .85 .65, without seed 1 .55 .85 .68, without seed 2 .7 .9 .83.
    assert found == pytest.approx([90 - 86, 90 - 90, 80 - 60])
    assert read("share_near_best", of_arms(accuracies), measured())[0] == pytest.approx([200 / 3, 200 / 3, 100 / 3])


def test_equal_arms_have_no_spread_on_average():
    accuracies = np.random.default_rng(0).normal(0.8, 0.05, size=(2000, 5))
    by_chance = 100 * np.ptp(accuracies, axis=1).mean()
    assert by_chance > 11
    assert abs(np.mean(read("spread_of_accuracy", of_arms(accuracies[:200]), measured())[0])) < 1.5


def test_coarseness_is_the_largest_factor_between_neighbours():
    assert coarseness(np.array([1.0, 0.1, 0.5, 0.5])) == pytest.approx(5)
    assert coarseness(np.array([0.1])) == math.inf


@pytest.mark.parametrize("name", [name for name, value in vars(m).items() if isinstance(value, Metric)])
def test_no_runs_have_no_values(name):
    runs = arm().astype({"diverged": bool, "counts_as_guessing": bool}).assign(family="")
    target = pd.Series(dtype=float) if find_metric(name).target in m.LEVELS else 0.5
    assert len(find_metric(name)(runs, measured(), target)) == 0


def test_dead_units_are_those_of_the_whole_network():
    metrics = pd.concat([at_the_end("dead_share", 0.25), at_the_end("dead_share", 0.9, layer="hidden1")])
    assert read("dead_units", arm(False), metrics)[0] == [pytest.approx(25.0)]
