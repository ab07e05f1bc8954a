from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bnstudy.models.layers import ACTIVATIONS, Dropout, MaxPool
from bnstudy.models.mlp import MLP
from bnstudy.models.structure import weight_layers
from bnstudy.models.tracing import look
from bnstudy.models.vgg import VGG
from bnstudy.validation import ConfigError, to_dict
from tests.conftest import spec_of


def build(*overrides: str, shape=(3, 32, 32), classes=10) -> nn.Module:
    spec = spec_of(*overrides)
    return spec.model.build(spec.norm, shape, classes)


def activations(model: nn.Module) -> list[str]:
    """The names of the calls of activations."""
    return [call.name for call in look(model, torch.randn(2, 3, 32, 32)).activations]


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet", "transformer"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64)])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_models_accept_images_of_all_sizes(model, shape, norm):
    assert build(f"model={model}", f"norm={norm}", shape=shape, classes=7)(torch.randn(4, *shape)).shape == (4, 7)


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "instance", "group", "ghost", "noisy_batch", "weight"])
@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("model", ["vgg", "resnet"])
def test_every_norm_fits_every_convolutional_model(norm, position, model):
    out = build(f"model={model}", f"norm={norm}", f"norm.position={position}")(torch.randn(2, 3, 32, 32))
    assert torch.isfinite(out).all()


LAYERS = [("vgg", 8, 7), ("vgg", 11, 9), ("vgg", 13, 11), ("vgg", 16, 14), *(("resnet", n, n) for n in (8, 20, 32, 56))]


@pytest.mark.parametrize(("model", "depth", "layers"), LAYERS)
def test_models_have_the_weight_layers_of_their_papers_with_one_linear_layer(model, depth, layers):
    assert len(weight_layers(build(f"model={model}", f"model.depth={depth}"))) == layers


def test_resnet_20_has_the_papers_number_of_parameters():
    model = build("model=resnet", "model.depth=20")
    weights = sum(m.weight.numel() for m in weight_layers(model).values())
    assert weights == 432 + 13824 + 50688 + 202752 + 640  # He et al. 2016, Table 6: 0.27M


def test_layer_names_are_in_order_of_depth_and_do_not_depend_on_the_norm():
    names = list(weight_layers(build("model=mlp", "norm=none")))
    assert names == ["hidden1", "hidden2", "hidden3", "out"]
    assert list(weight_layers(build("model=mlp", "norm=batch"))) == names
    assert activations(build("model=mlp")) == names[:-1]
    resnet = build("model=resnet")
    assert list(weight_layers(resnet))[:3] == ["stem", "stage1.block1.conv1", "stage1.block1.conv2"]
    assert activations(resnet) == list(weight_layers(resnet))[:-1]


@pytest.mark.parametrize(
    ("norm", "position", "bias"),
    [
        ("none", "before", True),
        ("batch", "before", False),
        ("batch", "after", True),
        ("ghost", "before", False),
        ("noisy_batch", "before", False),
        ("weight", "before", True),
    ],
)
def test_a_weight_layer_has_a_bias_unless_a_norm_with_a_shift_follows_directly(norm, position, bias):
    for model in ("mlp", "vgg", "resnet"):
        layers = weight_layers(build(f"model={model}", f"norm={norm}", f"norm.position={position}"))
        assert [m.bias is not None for m in layers.values()] == [bias] * (len(layers) - 1) + [True]


@pytest.mark.parametrize("position", ["before", "after"])
def test_position_decides_the_order_of_norm_and_activation(position):
    model = build("model=mlp", "model.depth=1", f"norm.position={position}").train()
    with torch.no_grad():
        model.out.weight = nn.Identity()
        hidden = model(torch.randn(64, 3, 32, 32))
    assert (hidden.min() >= 0) == (position == "before")
    assert torch.allclose(hidden.mean(0), torch.zeros(128), atol=1e-5) == (position == "after")


def test_a_residual_block_with_a_branch_of_zero_is_the_identity():
    model = build("model=resnet", "norm=none")
    block, x = model.stage1.block1, torch.rand(2, 16, 8, 8)
    nn.init.zeros_(block.conv2.weight.weight)
    nn.init.zeros_(block.conv2.weight.bias)
    torch.testing.assert_close(block(x, x)[0], x)


def test_the_shortcut_halves_the_image_and_fills_new_channels_with_zeros():
    block, x = build("model=resnet").stage2.block1, torch.rand(2, 16, 8, 8)
    shortcut = block.shortcut(x)
    torch.testing.assert_close(shortcut[:, :16], x[:, :, ::2, ::2])
    assert shortcut[:, 16:].abs().max() == 0


@pytest.mark.parametrize(
    ("overrides", "shape", "sentence"),
    [
        (("model=vgg", "model.depth=16"), (1, 8, 8), "model.depth=16 is not allowed with images of 8x8"),
        (("model=vgg",), (1, 3, 3), "needs at least 4x4"),
        (("model=resnet",), (1, 2, 2), "model=resnet is not allowed with images of 2x2"),
        (("model=vgg", "model.depth=9"), (3, 32, 32), "model.depth=9 is not allowed: it must be one of 8, 11, 13, 16"),
        (("model=resnet", "model.depth=18"), (3, 32, 32), "one of 8, 20, 32, 56"),
        (("model=mlp", "model.width=0"), (3, 32, 32), "model.width=0 is not allowed"),
        (("model=mlp", "norm=instance"), (3, 32, 32), "norm=instance is not allowed"),
    ],
)
def test_images_norms_and_sizes_that_do_not_fit_the_model_are_refused(overrides, shape, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(*overrides, shape=shape)


def test_a_linear_activation_differs_from_the_identity_of_no_norm():
    model = build("model=mlp", "model.activation=linear", "norm=none", "model.depth=2")
    assert activations(model) == ["hidden1", "hidden2"]
    assert sum(isinstance(module, nn.Identity) for module in model.modules()) == 2


def test_a_linear_network_is_the_product_of_its_weights():
    model = build("model=mlp", "model.activation=linear", "norm=none", "model.depth=2", shape=(1, 1, 6), classes=3)
    x = torch.randn(4, 1, 1, 6)
    product = x.flatten(1)
    for layer in weight_layers(model).values():
        product = product @ layer.weight.T + layer.bias
    torch.testing.assert_close(model(x), product)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_agree_with_their_formulas(name):
    formulas = {
        "relu": lambda x: max(x, 0),
        "leaky_relu": lambda x: max(x, 0.01 * x),
        "elu": lambda x: x if x > 0 else math.exp(x) - 1,
        "selu": lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * (math.exp(x) - 1)),
        "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
        "silu": lambda x: x / (1 + math.exp(-x)),
        "softplus": lambda x: math.log(1 + math.exp(x)),
        "tanh": math.tanh,
        "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
        "linear": lambda x: x,
    }
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    assert activations(build("model=mlp", "model.depth=1", f"model.activation={name}")) == ["hidden1"]
    torch.testing.assert_close(ACTIVATIONS[name]()(x), torch.tensor([formulas[name](v) for v in x.tolist()]).double())


def sizes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(layer.weight.shape) for name, layer in weight_layers(model).items()}


def test_widths_are_the_units_of_each_hidden_layer():
    model = build("model=mlp", "model.widths=[32,8]", "model.dropout=0.1", shape=(1, 4, 4), classes=3)
    assert sizes(model) == {"hidden1": (32, 16), "hidden2": (8, 32), "out": (3, 8)}
    assert sum(isinstance(m, Dropout) for m in model.modules()) == 2


def test_an_mlp_of_equal_widths_is_the_one_of_that_depth_and_width():
    assert MLP(widths=(16, 16)) == MLP(depth=2, width=16)
    assert MLP(widths=(128, 128, 128)) == MLP()
    assert MLP(widths=()).depth == 0
    unequal = MLP(widths=(64, 16, 8, 8))
    assert (unequal.depth, unequal.width, unequal.widths) == (4, 64, (64, 16, 8, 8))
    assert MLP(depth=4, width=64, widths=(64, 16, 8, 8)) == unequal


def test_new_keys_are_absent_from_the_identity_of_networks_that_do_not_need_them():
    assert to_dict(MLP()).keys() == {"_target_", "depth", "width", "activation", "dropout"}
    assert to_dict(VGG(kernel=3, pooling="max")).keys() == {"_target_", "depth", "width", "activation", "dropout"}


LENET = ("model=vgg", "model.stages=[[6],[16]]", "model.dense=[120,84]", "model.kernel=5", "model.pooling=average")


def test_a_vgg_of_given_stages_kernel_pooling_and_dense_layers_is_a_lenet():
    """LeCun et al. 1998, with padding in both convolutions and ReLUs."""
    model = build(*LENET, "norm=none", shape=(1, 28, 28))
    expected = {"conv1": (6, 1, 5, 5), "conv2": (16, 6, 5, 5), "dense1": (120, 16 * 49), "dense2": (84, 120)}
    assert sizes(model) == {**expected, "out": (10, 84)}
    x = torch.randn(2, 1, 28, 28)
    layers = weight_layers(model)
    maps = x
    for name in ("conv1", "conv2"):
        maps = nn.functional.conv2d(maps, layers[name].weight, layers[name].bias, padding=2).relu()
        maps = nn.functional.avg_pool2d(maps, 2)
    units = maps.flatten(1)
    for name in ("dense1", "dense2"):
        units = layers[name](units).relu()
    torch.testing.assert_close(model(x), layers["out"](units))


def test_vgg_16_with_dense_layers_has_the_papers_number_of_parameters():
    """Simonyan & Zisserman 2015, Table 2: 138 million for 1,000 classes."""
    with torch.device("meta"):
        wide = ("model.depth=16", "model.width=1", "model.dense=[4096,4096]", "norm=none")
        model = build("model=vgg", *wide, shape=(3, 224, 224), classes=1000)
    assert sum(p.numel() for p in model.parameters()) == 138_357_544


@pytest.mark.parametrize("dense", ["null", "[7]"])
@pytest.mark.parametrize("pooling", ["max", "average", "stride"])
def test_each_way_of_pooling_halves_the_image_behind_a_stage(pooling, dense):
    stages = ("model.stages=[[4,4],[8]]", f"model.dense={dense}", f"model.pooling={pooling}")
    model, seen = build("model=vgg", *stages, "norm=batch", shape=(1, 12, 12)), {}
    for name, layer in weight_layers(model).items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[0].shape[1:]}))
    model(torch.randn(2, 1, 12, 12))
    assert seen["conv3"] == (4, 6, 6)
    assert seen.get("dense1", (72,)) == (8 * 3 * 3,)
    assert seen["out"] == ((8,) if dense == "null" else (7,))


def test_dense_layers_of_a_vgg_have_norms_and_dropout():
    model = build("model=vgg", "model.dense=[16,8]", "model.dropout=0.5", "norm=batch")
    assert [type(m).__name__ for m in model[-5:]] == ["Layer", "Dropout", "Layer", "Dropout", "Layer"]
    assert [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm1d)] == [16, 8]


@pytest.mark.parametrize(
    ("overrides", "shape", "sentence"),
    [
        (("model=mlp", "model.widths=[32,8]", "model.depth=4"), (1, 8, 8), r"model.widths=\[32,8\] is not allowed"),
        (("model=mlp", "model.widths=[32,8]", "model.width=4"), (1, 8, 8), "give one or the other"),
        (("model=mlp", "model.widths=[32,0]"), (1, 8, 8), "a list of widths of at least 1"),
        (("model=vgg", "model.stages=[[4],[8]]", "model.depth=11"), (1, 8, 8), "null with model.depth=11"),
        (("model=vgg", "model.stages=[[4],[]]"), (1, 8, 8), "one or more stages"),
        (("model=vgg", "model.stages=[]"), (1, 8, 8), "one or more stages"),
        (("model=vgg", "model.kernel=4"), (1, 8, 8), "model.kernel=4 is not allowed: it must be an odd number"),
        (("model=vgg", "model.dense=[0]"), (1, 8, 8), r"model.dense=\[0\] is not allowed"),
        (("model=vgg", "model.pooling=min"), (1, 8, 8), "one of max, average, stride"),
        (
            ("model=vgg", "model.depth=11", "model.dense=[8]"),
            (1, 28, 28),
            "halves them 5 times and needs at least 32x32",
        ),
        (("model=vgg", "model.stages=[[4],[4],[4]]", "model.dense=[]"), (1, 4, 4), "halves them 3 times"),
        (("model=inception", "model.stride=2"), (1, 4, 4), "halves them 3 times and needs at least 8x8"),
    ],
)
def test_sizes_that_contradict_each_other_or_the_images_are_refused(overrides, shape, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build(*overrides, shape=shape)


def test_the_stride_of_an_inception_is_that_of_its_stem():
    images = torch.zeros(1, 3, 32, 32)
    networks = [build("model=inception", f"model.stride={stride}") for stride in ("null", "1", "2")]
    assert [network.stem(images).shape[-1] for network in networks] == [32, 32, 16]


@pytest.mark.parametrize("arguments", [(2,), (3, 2, 1), (3, 1, 1)])
def test_pooling_is_that_of_torch_with_ties_and_gradients(arguments):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(3, (4, 5, 8, 8), generator=generator).float().requires_grad_()
    expected, found = nn.MaxPool2d(*arguments)(x), MaxPool(*arguments)(x)
    assert torch.equal(found, expected)
    weights = torch.randn(expected.shape, generator=generator)
    grads = [torch.autograd.grad(out, x, weights)[0] for out in (found, expected)]
    torch.testing.assert_close(*grads)
