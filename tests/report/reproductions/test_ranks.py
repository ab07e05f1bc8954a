from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.report.reproductions.synthetic_study import reproduction, results_by_arm, study

NORMS = ("NoNorm", "BatchNorm", "LayerNorm")


def test_ranks_of_the_last_hidden_layer_before_training_are_compared():
    runs = [{"norm": norm} for norm in NORMS for _ in range(3)]
    last = {"NoNorm": 5.4, "BatchNorm": 46.0, "LayerNorm": 10.0}
    rows = [
        (f"r{i}", step, "", "effective_rank", layer, rank + 0.01 * i)
        for i, run in enumerate(runs)
        for step, ranks in ((0, (60.0, last[run["norm"]], 9.0)), (1, (1.0, 1.0, 1.0)))
        for layer, rank in zip(("hidden1", "hidden2", "out"), ranks, strict=True)
    ]
    about = study("rank_collapse", runs, rows)
    assert results_by_arm(about) == {"NoNorm": "met", "BatchNorm": "not met"}
    drawn = reproduction(about).draw()
    assert drawn is not None
    assert "layer 2, before training: 46.0 (BatchNorm), 10.1 (LayerNorm) and 5.4 (NoNorm)" in drawn.title


def test_without_measurements_there_is_no_figure():
    about = study("rank_collapse", [{"norm": "NoNorm"}], [])
    assert results_by_arm(about) == {"NoNorm": "no data", "BatchNorm": "no data"}
    assert reproduction(about).draw() is None


def effective_rank(x: np.ndarray) -> float:
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)
    share = values[values > 0] / values.sum()
    return math.exp(-(share * np.log(share)).sum())


def simulate_ranks(rng: np.random.Generator, batch_norm: bool) -> tuple[float, float]:
    """The effective rank of the inputs and of the outputs of the last of 50 layers of 64 ReLUs."""
    images = load_digits().data
    x = rng.permutation((images - images.mean()) / images.std())[:256]
    for _ in range(50):
        z = x @ rng.standard_normal((x.shape[1], 64)) * math.sqrt(2 / x.shape[1])
        z = (z - z.mean(0)) / z.std(0) if batch_norm else z
        x = np.maximum(z, 0)
    return effective_rank(z), effective_rank(x)


@pytest.mark.parametrize(("batch_norm", "inputs", "outputs"), [(True, 40, 47), (False, 5, 5)])
def test_the_expected_rank_is_that_of_the_inputs_of_relus(batch_norm, inputs, outputs):
    rng = np.random.default_rng(0)
    found = np.mean([simulate_ranks(rng, batch_norm) for _ in range(12)], axis=0)
    assert found == pytest.approx((inputs, outputs), rel=0.04 if batch_norm else 0.3)
