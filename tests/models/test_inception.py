from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from bnstudy.models.inception import BLOCKS, STAGES
from bnstudy.models.structure import weight_layers
from bnstudy.models.tracing import look
from bnstudy.train.build import network_of
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

NORMS = ("none", "batch", "layer", "instance", "group", "ghost", "noisy_batch", "weight")


def network(*overrides: str, shape=(3, 32, 32)) -> nn.Module:
    return network_of(spec_of("model=inception", *overrides), shape, 10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("depth", BLOCKS)
def test_networks_accept_images_of_all_sizes(shape, depth):
    assert network(f"model.depth={depth}", "model.width=0.05", shape=shape)(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_fits(norm, position):
    model = network(f"norm={norm}", f"norm.position={position}", "norm.groups=8" if norm == "group" else "seed=0")
    assert torch.isfinite(model(torch.randn(2, 3, 32, 32))).all()


def test_nine_blocks_have_the_channels_and_weights_of_the_table():
    """Szegedy et al. 2015, Table 1: 3a has 159K weights, where K is 1024."""
    with torch.device("meta"):
        model = network("model.depth=9", "model.width=1", "norm=batch")
    blocks = [getattr(model, f"block{i}") for i in range(1, 10)]
    outputs = [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert [block.channels for block in blocks] == outputs
    weights = [sum(m.weight.numel() for m in weight_layers(block).values()) for block in blocks]
    inputs = [192, *outputs[:-1]]
    for n_in, (c1, r3, c3, r5, c5, pool), count in zip(inputs, itertools.chain(*STAGES), weights, strict=True):
        assert count == n_in * (c1 + r3 + r5 + pool) + 9 * r3 * c3 + 25 * r5 * c5
    assert weights[0] // 1024 == 159


def test_the_block_puts_its_four_branches_side_by_side():
    block = network("norm=none", "model.width=0.125").block1
    x = torch.randn(2, 24, 8, 8)
    layers = weight_layers(block)
    pooled = nn.functional.max_pool2d(x, 3, 1, 1)

    def convolved(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = layers[name]
        return nn.functional.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2).relu()

    expected = [
        convolved("conv1x1", x),
        convolved("conv3x3", convolved("reduce3x3", x)),
        convolved("conv5x5", convolved("reduce5x5", x)),
        convolved("project", pooled),
    ]
    torch.testing.assert_close(block(x), torch.cat(expected, 1))
    assert [layer.kernel_size[0] for layer in layers.values()] == [1, 1, 3, 1, 5, 1]


def test_each_convolution_has_a_norm_and_an_activation_and_channels_in_multiples_of_8():
    model = network("norm=batch", "model.depth=6")
    seen = look(model, torch.randn(2, 3, 32, 32))
    assert [call.name for call in seen.activations] == list(weight_layers(model))[:-1]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 1 + 6 * 6
    assert all(norm.num_features % 8 == 0 for norm in norms)
    assert all(channels % 8 == 0 for stage in STAGES for block in stage for channels in block)


@pytest.mark.parametrize(
    ("overrides", "shape", "sentence"),
    [
        (("model.depth=4",), (3, 32, 32), "model.depth=4 is not allowed: it must be one of 3, 6, 9"),
        (("model.width=0",), (3, 32, 32), "model.width=0 is not allowed"),
        ((), (1, 3, 3), "model=inception is not allowed with images of 3x3"),
    ],
)
def test_values_that_do_not_fit_are_refused(overrides, shape, sentence):
    with pytest.raises(ConfigError, match=sentence):
        network(*overrides, shape=shape)
