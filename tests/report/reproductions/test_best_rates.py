from __future__ import annotations

import itertools

from tests.report.reproductions.synthetic_study import results_by_arm, study

BEST = {("NoNorm", 8): 0.1, ("BatchNorm", 8): 0.1, ("NoNorm", 512): 0.1, ("BatchNorm", 512): 1.0}


def test_equal_best_rates_at_small_batches_and_higher_ones_at_large_batches_are_met():
    rates = (0.01, 0.1, 1.0, 10.0)
    runs = [
        {
            "norm": norm, "data": "Digits", "batch_size": size, "lr": lr, "seed": seed, "test_accuracy": 0.9,
            "score": 0.9 if lr == best else 0.5,
        }
        for (norm, size), best in BEST.items()
        for lr, seed in itertools.product(rates, range(3))
    ]  # fmt: skip
    found = results_by_arm(study("best_rates", runs, []))
    assert found == {"Digits, batch 8": "met", "Digits, batch 512": "met"}
    swapped = [{**run, "norm": "NoNorm" if run["norm"] == "BatchNorm" else "BatchNorm"} for run in runs]
    assert results_by_arm(study("best_rates", swapped, []))["Digits, batch 512"] == "not met"
