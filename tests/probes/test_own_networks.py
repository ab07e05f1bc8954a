"""Probes measure networks that someone else wrote as loops by hand do, one by one and in a stack."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from bnstudy.losses import CrossEntropy
from bnstudy.models.tracing import look
from bnstudy.probes.activations import Activations
from bnstudy.probes.base import Snapshot
from bnstudy.probes.gradients import Backprop
from bnstudy.probes.network import Network, copy_for_probes, grad
from bnstudy.probes.shift import CovariateShift
from bnstudy.probes.units import DeadUnits
from bnstudy.train.probing import observe
from tests.own_networks import SMALL, ResNet18, SharedActivation

Measured = dict[str, dict[str, Tensor]]


def two_networks(kind: type[nn.Module]) -> list[nn.Module]:
    """Two of a kind with different weights, in float64, some of their units dead."""
    torch.manual_seed(0)
    nets = [kind().double() for _ in range(2)]
    with torch.no_grad():
        for net in nets:
            for p in net.parameters():
                if p.ndim == 1:
                    p.add_(0.5 * torch.randn_like(p))
                    p[::3] -= 3
    return nets


def measure_all(net: nn.Module, x: Tensor, y: Tensor) -> Any:
    """A function of a network's parameters and buffers: what probes measure, with the statistics of the batch."""
    quiet = copy_for_probes(net)
    seen = look(quiet, x[:4])

    def measure(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> Measured:
        probes = {"dead": DeadUnits(), "activations": Activations()}
        observed = observe(quiet, seen, "batch", probes, params, buffers, x)
        network = Network(quiet, seen, CrossEntropy(), None, buffers, (x, y), None, torch.tensor(0.1))
        measured: Measured = {}
        for name, probe in {**probes, "backprop": Backprop()}.items():
            parts = {"observed": observed.get(name), "network": network, "memory": {}, "seen": seen, "params": params}
            measured |= {metric: dict(of) for metric, of in probe.measure(Snapshot(**parts)).items()}
        return measured

    return measure


def by_hand(net: nn.Module, x: Tensor, y: Tensor) -> Measured:
    """The same by loops: a unit is a channel, at all samples and positions or tokens."""
    out, z = net.train().by_hand(x)
    for values in z.values():
        values.retain_grad()
    F.cross_entropy(out, y).backward()
    dead: dict[str, list[bool]] = {}
    for name, values in z.items():
        units = values.movedim(-1, 1) if values.ndim == 3 else values  # tokens have their channels last
        dead[name] = [all(v <= 0 for v in units[:, unit].flatten().tolist()) for unit in range(units.shape[1])]
    every = [flag for flags in dead.values() for flag in flags]
    shares = {"": sum(every) / len(every), **{name: sum(flags) / len(flags) for name, flags in dead.items()}}
    rms = {name: math.sqrt(sum(g * g for g in v.grad.flatten().tolist()) / v.numel()) for name, v in z.items()}
    first, *_, last = rms.values()
    return {"dead_share": shares, "backprop_rms": rms, "backprop_ratio": {"": first / last}}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of clamp_ under vmap
@pytest.mark.parametrize("kind", SMALL)
def test_dead_units_and_backprop_equal_loops_by_hand_alone_and_stacked(kind, digits):
    nets, x, y = two_networks(kind), digits.train.x[:8].double(), digits.train.y[:8]
    expected = [by_hand(net, x, y) for net in nets]
    measure = measure_all(nets[0], x, y)
    states = [(dict(net.named_parameters()), dict(net.named_buffers())) for net in nets]
    states = [({k: v.detach() for k, v in params.items()}, buffers) for params, buffers in states]
    alone = [measure(*state) for state in states]
    stacked = vmap(measure)(*tree_map(lambda *of_runs: torch.stack(of_runs), *states))
    for run, correct in enumerate(expected):
        assert 0 < correct["dead_share"][""] < 1
        for metric, by_layer in correct.items():
            assert {k: v.item() for k, v in alone[run][metric].items()} == pytest.approx(by_layer, rel=1e-6), metric
            assert list(alone[run][metric]) == list(by_layer)
            assert {k: v[run].item() for k, v in stacked[metric].items()} == pytest.approx(by_layer, rel=1e-6), metric


@pytest.mark.parametrize("kind", [kind for kind in SMALL if kind.__name__ != "Tokens"])
def test_the_distribution_of_pre_activations_is_that_before_changes_in_place(kind, digits):
    net, x, y = two_networks(kind)[0], digits.train.x[:8].double(), digits.train.y[:8]
    seen = measure_all(net, x, y)({k: v.detach() for k, v in net.named_parameters()}, dict(net.named_buffers()))
    _, z = net.by_hand(x)
    assert list(seen["z_mean"]) == [*z, "out"]
    for name, values in z.items():
        if values.ndim == 2:
            assert seen["z_mean"][name].item() == pytest.approx(values.mean().item())
            assert seen["z_std"][name].item() == pytest.approx(values.std(correction=0).item())
        assert min(v.item() for k, v in seen["z_q15"].items() if k in z) < 0


def test_the_seventeen_relus_of_resnet18_are_seventeen_calls_named_by_the_layers_before_them(digits):
    seen = look(ResNet18(), digits.train.x[:3])
    assert [call.name for call in seen.activations] == list(ResNet18().by_hand(digits.train.x[:3])[1])
    assert {call.kind for call in seen.activations} == {"relu"}
    assert len(seen.activations) == 17


def test_a_classifier_that_is_defined_first_comes_last(digits):
    seen = look(SharedActivation(), digits.train.x[:3])
    assert list(seen.weights) == ["hidden1", "hidden2", "head"]
    assert [call.name for call in seen.activations] == ["hidden1", "hidden2"]


def test_the_shift_of_a_layer_is_by_the_update_of_the_layers_that_run_before_it(digits):
    net, x, y = SharedActivation().double(), digits.train.x[:8].double(), digits.train.y[:8]
    quiet = copy_for_probes(net)
    seen = look(quiet, x)
    params = {name: p.detach() for name, p in net.named_parameters()}
    update = {name: 0.1 * torch.randn_like(p) for name, p in params.items()}
    network = Network(quiet, seen, CrossEntropy(), None, {}, (x, y), None, torch.tensor(0.1))
    found = CovariateShift().measure(Snapshot(params=params, update=update, network=network, seen=seen))["ics_norm"]
    assert list(found) == ["hidden2", "head"]
    grads = []
    for before in ((), ("hidden1.weight", "hidden1.bias", "hidden2.weight", "hidden2.bias")):
        changed = SharedActivation().double()
        changed.load_state_dict({k: p + update[k] if k in before else p for k, p in params.items()})
        F.cross_entropy(changed(x), y).backward()
        grads.append(changed.head.weight.grad)
    assert found["head"].item() == pytest.approx((grads[0] - grads[1]).norm().item())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v).mean((1, 2)))


def test_losses_behind_torchs_attention_are_differentiated_twice_alone_and_stacked(digits):
    torch.manual_seed(0)
    nets, x, y = [Attention() for _ in range(2)], digits.train.x[:8], digits.train.y[:8]
    quiet = copy_for_probes(nets[0])
    seen = look(quiet, x)

    def measure(params: dict[str, Tensor]) -> Tensor:
        network = Network(quiet, seen, CrossEntropy(), None, {}, (x, y), None, torch.tensor(0.1))
        loss = lambda weight: network.loss({**params, "qkv.weight": weight})  # noqa: E731
        return grad(lambda weight: grad(loss)(weight).sum())(params["qkv.weight"])

    def by_hand(net: Attention) -> Tensor:
        q, k, v = net.qkv(x).chunk(3, -1)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ v
        loss = F.cross_entropy(net.out(mixed.mean((1, 2))), y)
        [g] = torch.autograd.grad(loss, net.qkv.weight, create_graph=True)
        return torch.autograd.grad(g.sum(), net.qkv.weight)[0]

    states = [{name: p.detach() for name, p in net.named_parameters()} for net in nets]
    stacked = vmap(measure)(tree_map(lambda *of_runs: torch.stack(of_runs), *states))
    for run, net in enumerate(nets):
        torch.testing.assert_close(measure(states[run]), by_hand(net), atol=1e-6, rtol=1e-3)
        torch.testing.assert_close(stacked[run], by_hand(net), atol=1e-6, rtol=1e-3)
