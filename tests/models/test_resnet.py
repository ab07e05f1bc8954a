"""The order of a residual block's layers, and norms that change its branch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.inits import initialize
from bnstudy.models.layers import Dropout
from bnstudy.models.resnet import BlockOrder, ResNet
from bnstudy.models.structure import norm_parameters, weight_layers
from bnstudy.models.tracing import look
from bnstudy.norms.batch import BatchNorm
from bnstudy.probes.network import copy_for_probes
from bnstudy.train.build import network_of
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

ORDERS = get_args(BlockOrder)
SHAPE = (1, 8, 8)
X = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def network(*overrides: str) -> nn.Module:
    """A small ResNet-8 with initial weights, in float64."""
    spec = spec_of("model=resnet", "model.width=4", *overrides)
    model = network_of(spec, SHAPE, 10)
    initialize(model, spec.init, seed=3)
    return model.double()


def reference(order: str, model: nn.Module, x: Tensor) -> Tensor:
    """The network as its paper draws it: for preactivation, with norm and activation in front of the weights."""
    layers = weight_layers(model)

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(x, layers[name].weight, stride=layers[name].stride, padding=1)

    def norm(x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)

    x = norm(conv("stem", x)).relu()
    for stage in (1, 2, 3):
        first, second = (f"stage{stage}.block1.conv{i}" for i in (1, 2))
        before = norm(x).relu() if order == "preactivation" and stage > 1 else x
        branch = conv(second, norm(conv(first, before)).relu())
        skip = x if stage == 1 else F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, x.shape[1]))
        if order == "original":
            x = (norm(branch) + skip).relu()
        elif order == "after_addition":
            x = norm(branch + skip).relu()
        else:
            x = branch + skip
    x = norm(x).relu() if order == "preactivation" else x
    return F.linear(x.mean((2, 3)), layers["out"].weight, layers["out"].bias)


@pytest.mark.parametrize("order", ORDERS)
def test_each_block_order_is_that_of_the_papers_figure(order):
    model = network(f"model.block={order}").train()
    torch.testing.assert_close(model(X.double()), reference(order, model, X.double()))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_networks_of_all_block_orders_start_with_the_same_weights(norm):
    first, *others = (dict(network(f"model.block={o}", f"norm={norm}").named_parameters()) for o in ORDERS)
    for other in others:
        assert list(first) == list(other)
        assert all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("order", ORDERS)
def test_each_hidden_layer_has_an_activation_of_its_name_in_order_of_the_forward_pass(order):
    model = network(f"model.block={order}")
    hidden = [name for name in weight_layers(model) if name != "out"]
    assert [call.name for call in look(model, X).activations] == hidden


@pytest.mark.parametrize("order", ORDERS)
def test_a_weight_layer_in_front_of_an_addition_does_not_count_as_normalized(order):
    model = copy_for_probes(network(f"model.block={order}"))
    hidden = [name for name in weight_layers(model) if name != "out"]
    assert look(model, X).normalized == {name for name in hidden if order == "original" or "conv2" not in name}


@pytest.mark.parametrize("order", ["preactivation", "after_addition"])
def test_position_after_is_refused_with_block_orders_that_place_the_norms(order):
    with pytest.raises(ConfigError, match=f"norm.position=after is not allowed with model.block={order}"):
        network(f"model.block={order}", "norm.position=after")
    network(f"model.block={order}", "norm=none", "norm.position=after")


def test_resnet_drops_features_before_the_classifier():
    assert not any(isinstance(module, Dropout) for module in network().modules())
    model, fractions = network("model.dropout=0.5").train(), []
    model.out.register_forward_hook(lambda _, inputs, __: fractions.append((inputs[0] == 0).double().mean()))
    model(X.double().repeat(20, 1, 1, 1))
    assert 0.4 < fractions[0] < 0.7
    with pytest.raises(ConfigError, match=r"model\.dropout=1 is not allowed"):
        ResNet(dropout=1.0)


@pytest.mark.parametrize("scale", [0.0, 0.3])
@pytest.mark.parametrize("order", ORDERS)
def test_skipinit_multiplies_the_branches_by_its_scalars(order, scale):
    model = network(f"model.block={order}", "norm=skipinit", f"norm.initial={scale}")
    plain = network(f"model.block={order}", "norm=none")
    for layer, module in weight_layers(plain).items():
        if layer.endswith("conv2"):
            module.weight.data *= scale
    torch.testing.assert_close(model(X.double()), plain(X.double()))
    assert norm_parameters(model) == {f"stage{i}.block1.conv2.norm_act.branch.scale" for i in (1, 2, 3)}
    assert weight_layers(model)["stem"].bias is not None


def test_with_skipinit_the_weights_of_branches_change_from_the_second_step_on():
    model = network("norm=skipinit")
    conv, scale = model.stage1.block1.conv1.weight.weight, model.stage1.block1.conv2.norm_act.branch.scale

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(model(X.double()).square().sum(), [conv, scale]))

    assert [bool(g.any()) for g in gradients()] == [False, True]
    scale.data += 0.1
    assert all(g.any() for g in gradients())


@pytest.mark.parametrize("model", ["mlp", "vgg"])
def test_skipinit_is_refused_for_networks_without_branches(model):
    spec = spec_of(f"model={model}", "norm=skipinit")
    with pytest.raises(ConfigError, match="norm=skipinit is not allowed with a network without residual branches"):
        network_of(spec, SHAPE, 10)


@dataclass(frozen=True)
class SoftplusBranch(BatchNorm):
    """A user's norm with a module for branches."""

    def branch(self) -> nn.Module:
        return nn.Softplus()


def test_a_users_norm_can_add_a_module_to_branches():
    block = ResNet(width=4).build(SoftplusBranch(), SHAPE, 10).stage1.block1
    x, norms = torch.randn(5, 4, 8, 8), [block.conv1.norm_act.norm, block.conv2.norm_act.norm]
    branch = norms[1](block.conv2.weight(norms[0](block.conv1.weight(x)).relu()))
    torch.testing.assert_close(block(x, x)[0], (F.softplus(branch) + x).relu())
