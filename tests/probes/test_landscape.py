from __future__ import annotations

import copy
import math

import pytest
import torch

from bnstudy.probes.landscape import Landscape
from bnstudy.train.build import build_model
from bnstudy.validation import ConfigError
from tests.conftest import spec_of
from tests.probes.conftest import TINY, changed, snapshot_of


def loss_and_gradient(model, batch):
    """The loss and the gradients by parameter name, by plain autograd."""
    model, (x, y) = copy.deepcopy(model), batch
    loss = torch.nn.functional.cross_entropy(model(x), y)
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


def moved(model, changes):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += changes.get(name, 0.0)
    return model


def along(model, batch, steps, way, units, suffix):
    """The metrics at w - step * unit * way, in coordinates w / unit: gradients are multiplied by the unit."""
    _, g = loss_and_gradient(model, batch)
    size = math.sqrt(sum(v.square().sum().item() for v in way.values()))
    losses, changes, betas = [], [], []
    for step in steps:
        loss, there = loss_and_gradient(moved(model, {n: -step * units[n] * v for n, v in way.items()}), batch)
        change = math.sqrt(sum((units[n] * (there[n] - g[n])).square().sum().item() for n in way))
        losses, changes, betas = [*losses, loss], [*changes, change], [*betas, change / (step * size)]
    ranges = {"loss_min": min(losses), "loss_max": max(losses), "grad_change_min": min(changes)}
    found = {**ranges, "grad_change_max": max(changes), "beta_eff": max(betas)}
    return {metric + suffix: value for metric, value in found.items()}


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
def test_the_landscape_agrees_with_a_loop_over_moved_networks(norm, digits):
    groups = ["norm.groups=1"] if norm == "group" else []
    spec = spec_of(*TINY, f"norm={norm}", *groups, "lr=0.3")
    snapshot = snapshot_of(spec, digits)
    model, batch = build_model(spec, digits).double(), snapshot.network.batch
    measured = Landscape(steps=(0.5, 4.0), relative_steps=(0.01, 0.05, 0.1)).measure(snapshot)
    _, g = loss_and_gradient(model, batch)
    sizes = {name: p.detach().norm() for name, p in model.named_parameters() if p.ndim > 1}
    unit_gradients = {name: g[name] / g[name].norm() for name in sizes}
    slow = {
        **along(model, batch, (0.15, 1.2), g, dict.fromkeys(g, 1.0), ""),
        **along(model, batch, (0.01, 0.05, 0.1), unit_gradients, sizes, "_scaled"),
    }
    assert {metric: by_layer[""].item() for metric, by_layer in measured.items()} == pytest.approx(slow, rel=1e-6)


def test_scaled_metrics_do_not_depend_on_the_scale_of_normalized_weights(digits):
    snapshot = snapshot_of(spec_of(*TINY, "norm=batch", "norm.eps=1e-12"), digits)
    normalized = ("hidden1.weight.weight", "hidden2.weight.weight")
    larger = {name: 7 * p if name in normalized else p for name, p in snapshot.params.items()}
    measured, again = Landscape().measure(snapshot), Landscape().measure(changed(snapshot, params=larger))
    for metric, by_layer in measured.items():
        if metric.endswith("_scaled"):
            assert again[metric][""].item() == pytest.approx(by_layer[""].item(), rel=1e-5)
    assert again["beta_eff"][""] != pytest.approx(measured["beta_eff"][""].item(), rel=0.1)


def test_a_layer_with_zero_weights_and_gradient_does_not_move(digits):
    snapshot = snapshot_of(spec_of(*TINY, "norm=none"), digits)
    params = dict(snapshot.params)
    for name, value in (("hidden1.weight.weight", 0.0), ("hidden1.weight.bias", -1.0), ("hidden2.weight.bias", 1.0)):
        params[name] = torch.full_like(params[name], value)
    measured = Landscape().measure(changed(snapshot, params=params))
    assert all(math.isfinite(by_layer[""].item()) for by_layer in measured.values())
    assert measured["loss_max_scaled"][""] > measured["loss_min_scaled"][""]


@pytest.mark.parametrize("steps", [(), (0.5, 0.0)])
def test_steps_of_length_0_are_refused(steps):
    with pytest.raises(ConfigError, match="steps"):
        Landscape(steps=steps)
