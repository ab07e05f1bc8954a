from __future__ import annotations

from tests.report.reproductions.synthetic_study import results_by_arm, study


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
