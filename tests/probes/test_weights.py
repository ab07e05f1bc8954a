from __future__ import annotations

import pytest
import torch

from bnstudy.probes.base import Snapshot
from bnstudy.probes.weights import WeightSize
from tests.probes.test_gradients import LAYERS, slow_norm, tensors


def test_weight_norms_update_ratios_and_distances_equal_slow_norms():
    now, update, start = tensors(1.0), tensors(-0.01), {name: torch.ones_like(t) for name, t in tensors(1.0).items()}
    measured = WeightSize().measure(Snapshot(params=now, layers=LAYERS, update=update, start=start))
    assert measured["weight_norm"][""].item() == pytest.approx(slow_norm(*now.values()), rel=1e-6)
    assert [v.item() for v in measured["update_ratio"].values()] == pytest.approx([0.01] * 3, rel=1e-5)
    for layer, weight in LAYERS.items():
        moved = slow_norm(now[weight] - start[weight])
        assert measured["init_distance"][layer].item() == pytest.approx(moved, rel=1e-6)
