from __future__ import annotations

from itertools import product

from tests.report.reproductions.synthetic_study import results_by_arm, study

SIDES = ((0.01, "Constant"), (0.0, "Exponential"))


def make_runs(rates=(0.1,)):
    """Three seeds of pairs with and without a norm."""
    return [
        {
            "norm": norm, "data": "Digits", "optim.weight_decay": decay, "schedule": schedule, "lr": lr,
            "seed": seed, "diverged": False,
        }
        for seed, lr, norm, (decay, schedule) in product(range(3), rates, ("NoNorm", "BatchNorm"), SIDES)
    ]  # fmt: skip


def make_losses(runs, distance):
    """Losses of three steps; the second run of a pair is `distance(run)` away from the first."""
    return [
        (f"r{i}", t, "train", "loss", "", 1 + (i % 2) * distance(run) * t)
        for i, run in enumerate(runs)
        for t in range(3)
    ]


def test_losses_that_agree_to_rounding_are_met_with_a_norm_and_not_without():
    runs = make_runs()
    rows = make_losses(runs, lambda run: 1e-15 if run["norm"] == "BatchNorm" else 1 + run["seed"] / 10)
    found = results_by_arm(study("weight_decay", runs, rows))
    assert found == {"NoNorm, Digits, lr 0.1": "met", "BatchNorm, Digits, lr 0.1": "met"}
    same = make_losses(runs, lambda run: 0)
    assert results_by_arm(study("weight_decay", runs, same))["NoNorm, Digits, lr 0.1"] == "not met"


def test_pairs_of_each_learning_rate_are_compared_by_themselves():
    runs = make_runs(rates=(0.05, 0.1))
    rows = make_losses(runs, lambda run: 1e-15 if run["lr"] == 0.1 else 1 + run["seed"] / 10)
    found = results_by_arm(study("weight_decay", runs, rows))
    assert found["BatchNorm, Digits, lr 0.1"] == "met"
    assert found["BatchNorm, Digits, lr 0.05"] == "not met"
