from __future__ import annotations

import pytest
import torch
from torch import nn

from bnstudy.probes import Snapshot
from bnstudy.probes.network import still
from bnstudy.probes.units import DeadUnits
from bnstudy.train.state import observe, probe_choice
from tests.conftest import spec_of


def measured(model: nn.Module, x: torch.Tensor) -> dict[str, float]:
    quiet = still(model)
    observed = observe(
        quiet, dict(model.named_parameters()), dict(model.named_buffers()), {"dead": DeadUnits()}, x, "running"
    )["dead"]
    shares = DeadUnits().measure(Snapshot(params={}, layers={}, observed=observed))
    return {layer: share.item() for layer, share in shares.get("dead_share", {}).items()}


def network(*overrides: str, shape=(1, 8, 8)) -> nn.Module:
    spec = spec_of("norm=none", *overrides)
    return spec.model.build(spec.norm, shape, 10)


def test_units_built_dead_are_counted():
    model = network("model=mlp", "model.depth=2", "model.width=10")
    with torch.no_grad():
        model.hidden1.weight.bias.fill_(100)  # nobody is dead ...
        model.hidden1.weight.bias[:3] = -100  # ... but these
        model.hidden2.weight.bias.fill_(1000)
        model.hidden2.weight.bias[:5] = -1000
    assert measured(model, torch.rand(50, 1, 8, 8)) == pytest.approx({"": 0.4, "hidden1": 0.3, "hidden2": 0.5})


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_a_loop_over_units_samples_and_positions_agrees(model, digits):
    torch.manual_seed(0)
    net, x = network(f"model={model}", "init.gain=2"), digits.train.x[:12]
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                p.uniform_(-1.5, 0.5)
    outputs: dict[str, torch.Tensor] = {}
    for name, module in net.named_modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda _m, _i, out, name=name: outputs.__setitem__(name, out))
    shares = measured(net, x)
    slow = [
        sum(all(v == 0 for v in out[:, unit].flatten().tolist()) for unit in range(out.shape[1])) / out.shape[1]
        for out in outputs.values()
    ]
    assert list(shares.values())[1:] == pytest.approx(slow)
    assert 0 < shares[""] < 1


def test_other_activations_have_no_dead_units():
    assert measured(network("model=mlp", "model.activation=leaky_relu"), torch.rand(5, 1, 8, 8)) == {}


def test_observing_changes_nothing(digits):
    model = network("model=mlp").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    measured(model, digits.train.x[:10])
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_probe_batch_depends_on_the_seed_alone(digits):
    chosen = probe_choice(4, digits)
    assert torch.equal(chosen, probe_choice(4, digits))
    assert len(chosen.unique()) == 1024
    assert not torch.equal(chosen, probe_choice(5, digits))
