from __future__ import annotations

import math

import pytest
import torch

from bnstudy.probes.base import Snapshot
from bnstudy.probes.gradients import Backprop, GradientNorm, slope
from tests.conftest import spec_of
from tests.probes.conftest import TINY, snapshot_of

LAYERS = {"hidden1": "hidden1.weight.weight", "out": "out.weight.weight"}


def tensors(scale: float) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"hidden1.weight.weight": (3, 4), "hidden1.weight.bias": (3,), "out.weight.weight": (2, 3)}
    return {name: scale * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def slow_norm(*many: torch.Tensor) -> float:
    return math.sqrt(sum(float(v) ** 2 for t in many for v in t.flatten()))


def test_gradient_norms_are_euclidean():
    snapshot = Snapshot(params=tensors(1.0), layers=LAYERS, grads=tensors(0.1), update=tensors(-0.01))
    measured = GradientNorm().measure(snapshot)
    assert list(measured["grad_norm"]) == ["", "hidden1", "out"]
    assert measured["grad_norm"][""].item() == pytest.approx(slow_norm(*snapshot.grads.values()), rel=1e-6)
    for layer, weight in LAYERS.items():
        g, w = slow_norm(snapshot.grads[weight]), slow_norm(snapshot.params[weight])
        assert measured["grad_norm"][layer].item() == pytest.approx(g, rel=1e-6)
        assert measured["grad_weight_product"][layer].item() == pytest.approx(g * w, rel=1e-6)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_backprop_agrees_with_finite_differences(norm, digits):
    snapshot = snapshot_of(spec_of(*TINY, f"norm={norm}"), digits)
    network, h = snapshot.network, 1e-6
    x, y = network.batch
    _, z = network.inside(snapshot.params, x)

    def loss(layer: str, i: int, j: int, by: float) -> float:
        shifts = {name: torch.zeros_like(value) for name, value in z.items()}
        shifts[layer][i, j] = by
        return network.loss_spec.mean(network.inside(snapshot.params, x, shifts=shifts)[0], y).item()

    measured = Backprop().measure(snapshot)
    rms = []
    for layer, value in z.items():
        slopes = [
            (loss(layer, i, j, h) - loss(layer, i, j, -h)) / (2 * h)
            for i in range(len(value))
            for j in range(value.shape[1])
        ]
        rms.append(math.sqrt(sum(s * s for s in slopes) / len(slopes)))
        assert measured["backprop_rms"][layer].item() == pytest.approx(rms[-1], rel=1e-4)
    assert measured["backprop_ratio"][""].item() == pytest.approx(rms[0] / rms[1], rel=1e-4)
    assert measured["backprop_slope"][""].item() == pytest.approx(math.log(rms[1] / rms[0]), abs=1e-4)


def test_the_slope_is_of_the_least_squares_line():
    assert slope(torch.tensor([1.0, 3.0, 5.0])).item() == pytest.approx(2)
    assert slope(torch.tensor([0.0, 1.0, 0.0])).item() == pytest.approx(0)
