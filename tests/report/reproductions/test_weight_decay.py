from __future__ import annotations

from bnstudy.store.thin import kept_steps
from tests.report.reproductions.synthetic_study import reproduction, results_by_arm, study


def test_losses_that_agree_to_rounding_are_met_with_a_norm_and_not_without():
    arms = [(norm, decay, schedule) for norm in ("NoNorm", "BatchNorm") for decay, schedule in
            ((0.01, "Constant"), (0.0, "Exponential"))]  # fmt: skip
    runs = [
        {"norm": norm, "data": "Digits", "optim.weight_decay": decay, "schedule": schedule, "seed": seed}
        for seed in range(3)
        for norm, decay, schedule in arms
    ]
    rows = [
        (f"r{i}", t, "train", "loss", "", 1 + (i % 2) * (1e-15 if run["norm"] == "BatchNorm" else 1) * (1 + i / 10) * t)
        for i, run in enumerate(runs)
        for t in range(3)
    ]
    assert results_by_arm(study("weight_decay", runs, rows)) == {"NoNorm, Digits": "met", "BatchNorm, Digits": "met"}
    same = [(*row[:-1], 1.0) for row in rows]
    assert results_by_arm(study("weight_decay", runs, same))["NoNorm, Digits"] == "not met"


def test_the_difference_is_that_of_the_steps_that_a_thin_store_has():
    """Losses of 700 steps that differ most, by 2, in step 600, which a thin store leaves out."""
    assert 600 not in kept_steps(700)
    sides = [(0.01, "Constant"), (0.0, "Exponential")]
    runs = [
        {"norm": "NoNorm", "data": "Digits", "optim.weight_decay": decay, "schedule": schedule, "seed": seed}
        for seed in range(3)
        for decay, schedule in sides
    ]
    rows = [
        (f"r{i}", t, "train", "loss", "", 1 + (i % 2) * (2.0 if t == 600 else 0.5 + i / 100))
        for i in range(len(runs))
        for t in range(700)
    ]
    thin = [row for row in rows if row[1] in kept_steps(700)]
    full, some = (reproduction(study("weight_decay", runs, of)).checks for of in (rows, thin))
    assert full == some
    assert full[0].measured.startswith("-0.27")
