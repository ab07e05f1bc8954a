from __future__ import annotations

from tests.report.reproductions.synthetic_study import reproduction, study


def test_the_sharpness_at_the_edge_is_met_and_far_below_it_not():
    runs = [{"norm": norm, "data": "Digits", "seed": seed} for norm in ("NoNorm", "BatchNorm") for seed in range(3)]
    runs = [{**run, "diverged": False} for run in runs]
    rows = [
        (f"r{i}", step, "", "lr_sharpness", "", (2.03 if run["norm"] == "NoNorm" else 1.0) + 0.001 * i)
        for i, run in enumerate(runs)
        for step in (50, 100)
    ]
    checks = reproduction(study("edge_of_stability", runs, rows)).checks
    assert [(check.arm, check.result) for check in checks] == [
        ("BatchNorm, Digits", "not met"), ("BatchNorm, Digits", "not met"),
        ("NoNorm, Digits", "met"), ("NoNorm, Digits", "met"),
    ]  # fmt: skip
