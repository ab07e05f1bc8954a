from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bnstudy.report.reproductions.explosion import LIMIT, growth_of, relu_growth, theory
from tests.report.reproductions.synthetic_study import reproduction, study


def test_the_theory_of_growth_has_the_published_limits():
    assert relu_growth(10**7) == pytest.approx(math.pi / (math.pi - 1), rel=1e-6) == pytest.approx(LIMIT)
    assert (relu_growth(32), relu_growth(16)) == (pytest.approx(1.52, abs=0.005), pytest.approx(1.59, abs=0.005))
    assert theory("BatchNorm", "linear", 8) == 6 / 5
    assert (theory("NoNorm", "relu", 8), theory("NoNorm", "linear", 8)) == (1, 2)
    assert math.isnan(theory("LayerNorm", "relu", 8))


def test_growth_is_measured_in_the_middle_layers():
    rms = pd.Series(1.5 ** (-np.arange(24) / 2))
    rms.iloc[[0, 1, 22, 23]] = 100.0
    assert growth_of(rms) == pytest.approx(1.5)
    rms.iloc[10] = 0.0
    assert math.isnan(growth_of(rms))


def test_growth_as_in_theory_is_met_and_missing_arms_are_listed():
    runs = [{"norm": "BatchNorm", "model.activation": "relu", "batch_size": 16} for _ in range(3)]
    runs.append({"norm": "NoNorm", "model.activation": "relu", "batch_size": 16, "finished": False})
    rows = [
        (f"r{i}", step, "", "backprop_rms", f"hidden{d}", (1.59 + 0.001 * i) ** (-d / 2) if step == 0 else 1.0)
        for i in range(3)
        for step in (0, 1)
        for d in range(12)
    ]
    about = study("yang_explosion", runs, rows)
    result = reproduction(about)
    assert result.draw() is not None
    table = {(check.arm, check.quantity): check.result for check in result.checks}
    assert table["BatchNorm, relu, batch 16", "growth per layer"] == "met"
    assert table["BatchNorm, relu, batch 16", "growth per layer, the largest batch"] == "not met"
    assert table["NoNorm, relu, batch 16", "growth per layer"] == "no data"


def simulate_growth(rng: np.random.Generator, batch: int, width: int, depth: int, relu: bool) -> float:
    """The growth in one network of BN layers, with the backward pass by hand."""
    x, layers = rng.standard_normal((batch, width)), []
    for _ in range(depth):
        weight = rng.standard_normal((width, width)) / math.sqrt(width)
        z = x @ weight
        sd = z.std(0)
        normed = (z - z.mean(0)) / sd
        x = np.maximum(normed, 0) if relu else normed
        layers.append((weight, normed, sd))
    delta, sizes = rng.standard_normal((batch, width)), []
    for weight, normed, sd in reversed(layers):
        delta = delta * (normed > 0) if relu else delta
        delta = (delta - delta.mean(0) - normed * (delta * normed).mean(0)) / sd
        sizes.append(math.sqrt((delta**2).mean()))
        delta = delta @ weight.T
    return growth_of(pd.Series(sizes[::-1]))


@pytest.mark.parametrize(("batch", "relu"), [(8, True), (16, True), (32, True), (8, False)])
def test_the_theory_of_growth_matches_simulated_networks(batch, relu):
    rng = np.random.default_rng(0)
    growths = [simulate_growth(rng, batch, width=200, depth=32, relu=relu) for _ in range(16)]
    assert np.mean(growths) == pytest.approx(theory("BatchNorm", "relu" if relu else "linear", batch), rel=0.02)


def test_the_largest_batch_is_compared_with_the_limit_of_large_batches():
    runs = [{"norm": "BatchNorm", "model.activation": "relu", "batch_size": b} for b in (8, 8, 128, 128)]
    growths = (1.78, 1.79, 1.470, 1.472)
    rows = [
        (f"r{i}", 0, "", "backprop_rms", f"h{d:02}", g ** (-d / 2)) for i, g in enumerate(growths) for d in range(9)
    ]
    checks = reproduction(study("yang_explosion", runs, rows)).checks
    assert [(c.arm, c.expected.label, c.measured[:5]) for c in checks] == [
        ("BatchNorm, relu, batch 128", "1.480 (c)", "1.471"),
        ("BatchNorm, relu, batch 8", "1.788 (c)", "1.785"),
        ("BatchNorm, relu, batch 128", "1.467 (v)", "1.471"),
    ]
