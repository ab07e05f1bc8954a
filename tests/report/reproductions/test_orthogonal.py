from __future__ import annotations

from tests.report.reproductions.synthetic_study import reproduction, study


def test_orthogonal_networks_are_compared_with_computed_values_and_gaussian_ones_with_theory():
    arms = {
        ("Orthogonal", "linear", 32): 1.02,
        ("Orthogonal", "relu", 32): 1.2,
        ("Orthogonal", "relu", 8): 1.8,
        ("KaimingNormal", "linear", 8): 1.2,
    }
    runs = [
        {"norm": "BatchNorm", "init": init, "model.activation": activation, "batch_size": batch, "model.width": 64}
        for init, activation, batch in arms
        for _ in range(3)
    ]
    growths = [growth + 0.001 * i for growth in arms.values() for i in range(3)]
    rows = [
        (f"r{i}", 0, "", "backprop_rms", f"h{d}", growth ** (-d / 2)) for i, growth in enumerate(growths)
        for d in range(12)
    ]  # fmt: skip
    result = reproduction(study("orthogonal_linear", runs, rows))
    assert [(c.arm, c.expected.label, c.result) for c in result.checks] == [
        ("KaimingNormal, linear, batch 8", "1.200 (c)", "met"),
        ("Orthogonal, linear, batch 32", "1.020 (c)", "met"),
        ("Orthogonal, relu, batch 32", "1.530 (c)", "not met"),
    ]
    drawn = result.draw()
    assert drawn is not None
    assert "batches of 32: 1.02x (linear) and 1.20x (relu)" in drawn.title
