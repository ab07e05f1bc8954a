from __future__ import annotations

import math

import pytest
import torch

from bnstudy.probes import Snapshot
from bnstudy.probes.sizes import GradientNorm, WeightSize

LAYERS = {"hidden1": "hidden1.weight.weight", "out": "out.weight.weight"}


def tensors(scale: float) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {"hidden1.weight.weight": (3, 4), "hidden1.weight.bias": (3,), "out.weight.weight": (2, 3)}
    return {name: scale * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def slow_norm(*many: torch.Tensor) -> float:
    return math.sqrt(sum(float(v) ** 2 for t in many for v in t.flatten()))


SNAPSHOT = Snapshot(params=tensors(1.0), layers=LAYERS, grads=tensors(0.1), update=tensors(-0.01))


@pytest.mark.parametrize(
    ("probe", "metric", "source"),
    [(GradientNorm(), "grad_norm", SNAPSHOT.grads), (WeightSize(), "weight_norm", SNAPSHOT.params)],
)
def test_norms_are_euclidean(probe, metric, source):
    measured = probe.measure(SNAPSHOT)[metric]
    assert list(measured) == ["", "hidden1", "out"]
    assert measured[""].item() == pytest.approx(slow_norm(*source.values()), rel=1e-6)
    for layer, weight in LAYERS.items():
        assert measured[layer].item() == pytest.approx(slow_norm(source[weight]), rel=1e-6)


def test_the_update_ratio_compares_the_change_with_the_weights():
    measured = WeightSize().measure(SNAPSHOT)["update_ratio"]
    assert [v.item() for v in measured.values()] == pytest.approx([0.01] * 3, rel=1e-5)
