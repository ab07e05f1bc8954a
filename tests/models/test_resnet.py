"""The orders of a residual block's layers, and what a norm may do to its branch."""

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
from bnstudy.models.structure import activations, norm_parameters, weight_layers
from bnstudy.norms.base import NormSpec
from bnstudy.norms.batch import BatchNorm
from bnstudy.norms.none import NoNorm
from bnstudy.norms.skipinit import SkipInit
from bnstudy.probes.network import still
from bnstudy.probes.normalization import is_normalized
from bnstudy.train.state import network_of
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

ORDERS = get_args(BlockOrder)
SHAPE = (1, 8, 8)
X = torch.randn(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def network(*overrides: str) -> nn.Module:
    """A small ResNet-8 with drawn weights, in float64."""
    spec = spec_of("model=resnet", "model.width=4", *overrides)
    model = network_of(spec, SHAPE, 10)
    initialize(model, spec.init, seed=3)
    return model.double()


def by_hand(order: str, model: nn.Module, x: Tensor) -> Tensor:
    """The network as its paper draws it: norm and activation in front of the weights, for the pre-activation."""
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
def test_each_order_is_that_of_its_figure(order):
    model = network(f"model.block={order}").train()
    torch.testing.assert_close(model(X.double()), by_hand(order, model, X.double()))


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_the_orders_begin_with_the_same_weights_by_name(norm):
    one, *others = ({**dict(network(f"model.block={o}", f"norm={norm}").named_parameters())} for o in ORDERS)
    for other in others:
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("order", ORDERS)
def test_probes_find_each_layer_and_its_activation_by_the_same_name(order):
    model = network(f"model.block={order}")
    hidden = [name for name in weight_layers(model) if name != "out"]
    assert list(activations(model)) == hidden
    seen = []
    for name, act in activations(model).items():
        act.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(X.double())
    assert seen == hidden


@pytest.mark.parametrize("order", ORDERS)
def test_a_weight_in_front_of_an_addition_is_not_directly_normalized(order):
    model = still(network(f"model.block={order}"))
    found = {name: is_normalized(module) for name, module in model.named_modules() if name in weight_layers(model)}
    assert found == {name: name != "out" and (order == "original" or "conv2" not in name) for name in found}


@pytest.mark.parametrize("order", ["preactivation", "after_addition"])
def test_where_the_order_says_where_norms_stand_they_have_no_position(order):
    with pytest.raises(ConfigError, match=f"norm.position=after is not allowed with model.block={order}"):
        network(f"model.block={order}", "norm.position=after")
    network(f"model.block={order}", "norm=none", "norm.position=after")


def test_dropout_stands_before_the_classifier():
    assert not any(isinstance(module, Dropout) for module in network().modules())
    model, dropped = network("model.dropout=0.5").train(), []
    model.out.register_forward_hook(lambda _, inputs, __: dropped.append((inputs[0] == 0).double().mean()))
    model(X.double().repeat(20, 1, 1, 1))
    assert 0.4 < dropped[0] < 0.7
    with pytest.raises(ConfigError, match=r"model\.dropout=1 is not allowed"):
        ResNet(dropout=1.0)


# --------------------------------------------------------------------------------------------------- its branch


@pytest.mark.parametrize("scale", [0.0, 0.3])
@pytest.mark.parametrize("order", ORDERS)
def test_skipinit_scales_the_branches(order, scale):
    model = network(f"model.block={order}", "norm=skipinit", f"norm.initial={scale}")
    plain = network(f"model.block={order}", "norm=none")
    for layer, module in weight_layers(plain).items():
        if layer.endswith("conv2"):
            module.weight.data *= scale
    torch.testing.assert_close(model(X.double()), plain(X.double()))
    assert norm_parameters(model) == {f"stage{i}.block1.conv2.norm_act.branch.scale" for i in (1, 2, 3)}
    assert weight_layers(model)["stem"].bias is not None


def test_with_skipinit_branches_begin_to_learn_with_the_second_update():
    model = network("norm=skipinit")
    conv, scale = model.stage1.block1.conv1.weight.weight, model.stage1.block1.conv2.norm_act.branch.scale

    def gradients() -> list[Tensor]:
        return list(torch.autograd.grad(model(X.double()).square().sum(), [conv, scale]))

    assert [bool(g.any()) for g in gradients()] == [False, True]
    scale.data += 0.1
    assert all(g.any() for g in gradients())


@pytest.mark.parametrize("model", ["mlp", "vgg"])
def test_skipinit_needs_branches(model):
    spec = spec_of(f"model={model}", "norm=skipinit")
    with pytest.raises(ConfigError, match="norm=skipinit is not allowed with a network without residual branches"):
        network_of(spec, SHAPE, 10)


def test_skipinit_is_not_the_baseline():
    assert not SkipInit().is_none
    assert SkipInit().label != NoNorm().label
    assert SkipInit(position="after") == SkipInit()


@dataclass(frozen=True)
class Halved(BatchNorm):
    """A norm from elsewhere that has its say about branches too."""

    def branch(self) -> nn.Module:
        return nn.Softplus()


def test_a_norm_from_elsewhere_may_have_its_say_about_branches():
    block = ResNet(width=4).build(Halved(), SHAPE, 10).stage1.block1
    x, norms = torch.randn(5, 4, 8, 8), [block.conv1.norm_act.norm, block.conv2.norm_act.norm]
    branch = norms[1](block.conv2.weight(norms[0](block.conv1.weight(x)).relu()))
    torch.testing.assert_close(block(x, x)[0], (F.softplus(branch) + x).relu())
    assert NormSpec.branch(BatchNorm()) is None
