from __future__ import annotations

import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.inits import initialize
from bnstudy.models.mlp import MLP
from bnstudy.models.structure import weight_layers
from bnstudy.norms.base import NormSpec
from bnstudy.norms.weight import ReparametrizedLayer, WeightNorm
from tests.conftest import spec_of

LAYERS = [nn.Linear(6, 8), nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Linear(6, 8, bias=False)]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_weight_norm_equals_that_of_torch(layer):
    ours, theirs = WeightNorm().wrap(layer), copy.deepcopy(layer)
    ours.load_state_dict({**ours.state_dict(), **layer.state_dict()})
    ours.start_()
    nn.utils.parametrizations.weight_norm(theirs)
    g, v = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    factors = torch.linspace(0.5, 2, 8).view(g.shape)
    with torch.no_grad():
        for scale in (ours.g, g):
            scale.mul_(factors)
    x = torch.randn(4, 6) if isinstance(layer, nn.Linear) else torch.randn(4, 3, 8, 8)
    torch.testing.assert_close(ours(x), theirs(x))
    grads = torch.autograd.grad(ours(x).pow(3).sum(), [ours.g, ours.weight])
    expected = torch.autograd.grad(theirs(x).pow(3).sum(), [g, v])
    torch.testing.assert_close(grads, expected, rtol=1e-4, atol=1e-4)
    assert abs((grads[1] * ours.weight).sum()) < 1e-3 * grads[1].norm() * ours.weight.norm()


def build(norm: str, *overrides: str) -> nn.Module:
    spec = spec_of(f"norm={norm}", *overrides)
    model = spec.model.build(spec.norm, (1, 8, 8), 10)
    initialize(model, spec.init, 3)
    return model


@pytest.mark.parametrize("init", ["kaiming_normal", "torch_default", "orthogonal"])
@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
def test_a_network_with_weight_norm_starts_as_the_one_without(model, init):
    x = torch.randn(4, 1, 8, 8)
    plain, normalized = (build(norm, f"model={model}", f"init={init}") for norm in ("none", "weight"))
    assert torch.equal(normalized(x), plain(x))
    assert list(weight_layers(normalized)) == list(weight_layers(plain))
    parameters = dict(normalized.named_parameters())
    assert all(torch.equal(p, parameters[name]) for name, p in plain.named_parameters())
    hidden = [name for name in weight_layers(plain) if name != "out"]
    assert parameters.keys() - dict(plain.named_parameters()).keys() == {f"{name}.weight.g" for name in hidden}


def test_weight_norm_ignores_the_length_of_v():
    layer = WeightNorm().wrap(nn.Linear(6, 8))
    before = layer.effective_weight().detach()
    with torch.no_grad():
        layer.weight.mul_(7.5)
    torch.testing.assert_close(layer.effective_weight(), before)


def test_weight_norm_of_zero_weights_has_finite_outputs_and_gradients():
    zero = build("weight", "init.gain=0")
    out = zero(torch.randn(4, 1, 8, 8))
    assert out.abs().max() == 0
    grads = torch.autograd.grad(out.sum(), list(zero.parameters()))
    assert all(g.isfinite().all() for g in grads)


class UnitRows(ReparametrizedLayer, nn.Linear):
    """A layer whose units have weights of length 1."""

    def effective_weight(self):
        return F.normalize(self.weight, dim=1)

    def forward(self, x):
        return F.linear(x, self.effective_weight(), self.bias)


@dataclass(frozen=True)
class UnitNorm(NormSpec):
    """A user's norm of weights."""

    def wrap(self, layer):
        return UnitRows(layer.in_features, layer.out_features, layer.bias is not None)

    def build(self, channels, layout):  # noqa: ARG002
        return nn.Identity()


def test_a_users_norm_of_weights_replaces_hidden_layers():
    model = MLP(depth=1, width=8).build(UnitNorm(), (1, 1, 6), 3)
    initialize(model, spec_of().init, 0)
    x = torch.randn(4, 1, 1, 6)
    v = model.hidden1.weight.weight
    hidden = (x.flatten(1) @ (v / v.norm(dim=1, keepdim=True)).T).relu()
    torch.testing.assert_close(model(x), model.out(hidden))
    assert list(weight_layers(model)) == ["hidden1", "out"]
    assert model.hidden1.weight.bias is None


@pytest.mark.parametrize("build", [lambda: nn.Linear(8, 4), lambda: nn.Conv2d(8, 4, 3)])
def test_the_effective_weight_is_in_float32_under_autocast(build):
    layer = WeightNorm().wrap(build())
    nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    wide, g = layer.weight.double(), layer.g.double()
    with torch.autocast("cpu", torch.bfloat16):
        effective = layer.effective_weight()
    assert effective.dtype == torch.float32
    expected = g * wide / wide.flatten(1).square().sum(1).sqrt().view(g.shape)
    torch.testing.assert_close(effective.double(), expected, rtol=1e-6, atol=0)
