from __future__ import annotations

import pytest
import torch
from torch import nn

from bnstudy.models.structure import weight_layers
from bnstudy.models.tracing import look
from bnstudy.validation import ConfigError
from tests.conftest import spec_of


def build(*overrides: str, shape=(3, 32, 32), classes=10) -> nn.Module:
    spec = spec_of(*overrides)
    return spec.model.build(spec.norm, shape, classes)


def activations(model: nn.Module) -> list[str]:
    """The names of the calls of activations."""
    return [call.name for call in look(model, torch.randn(2, 3, 32, 32)).activations]


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
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
