from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from bnstudy.models.structure import weight_layers
from bnstudy.probes.shift import CovariateShift
from bnstudy.train.build import build_model
from tests.conftest import spec_of
from tests.probes.conftest import TINY, changed, snapshot_of


def gradients(model, x, y):
    """Gradients of the weights by layer, by plain autograd."""
    model = copy.deepcopy(model)
    F.cross_entropy(model(x), y).backward()
    return {layer: module.weight.grad.flatten() for layer, module in weight_layers(model).items()}


def after_step(model, x, y):
    """A copy of the model after a step of torch's own SGD."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.1)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    return model


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_the_shift_equals_that_of_a_network_updated_layer_by_layer(norm, digits):
    spec = spec_of(*TINY, "model.depth=3", f"norm={norm}")
    model, snapshot = build_model(spec, digits).double(), snapshot_of(spec, digits)
    x, y = snapshot.network.batch
    after = after_step(model, x, y)
    update = {name: p.detach() - snapshot.params[name] for name, p in after.named_parameters()}
    measured = CovariateShift().measure(changed(snapshot, update=update))

    before = gradients(model, x, y)
    assert list(measured["ics_norm"]) == ["hidden2", "hidden3", "out"]
    mixed = copy.deepcopy(model)
    for previous, layer in pairwise(before):
        getattr(mixed, previous).load_state_dict(getattr(after, previous).state_dict())  # including its norm
        g, then = before[layer], gradients(mixed, x, y)[layer]
        change = (g - then).norm().item()
        assert change > 1e-3
        assert measured["ics_norm"][layer].item() == pytest.approx(change)
        assert measured["ics_relative"][layer].item() == pytest.approx(change / g.norm().item())
        assert measured["ics_cosine"][layer].item() == pytest.approx(F.cosine_similarity(g, then, dim=0).item())


def test_without_an_update_there_is_no_shift(tiny):
    update = {name: torch.zeros_like(p) for name, p in tiny.params.items()}
    measured = CovariateShift().measure(changed(tiny, update=update))
    assert [v.item() for v in measured["ics_norm"].values()] == [0, 0]
    assert [v.item() for v in measured["ics_cosine"].values()] == pytest.approx([1, 1])
