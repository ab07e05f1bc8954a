from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from bnstudy.inits import fans, initialize
from bnstudy.models.structure import weight_layers
from tests.conftest import spec_of


def initialized(*overrides: str, norm: str = "none", seed: int = 0) -> nn.Module:
    spec = spec_of(f"norm={norm}", *overrides)
    model = spec.model.build(spec.norm, (1, 28, 28), 10)
    initialize(model, spec.init, seed)
    return model


@pytest.mark.parametrize(
    ("scheme", "variance"),
    [
        ("kaiming_normal", lambda n_in, n_out: 2 / n_in),
        ("kaiming_uniform", lambda n_in, n_out: 2 / n_in),
        ("xavier_normal", lambda n_in, n_out: 2 / (n_in + n_out)),
        ("xavier_uniform", lambda n_in, n_out: 2 / (n_in + n_out)),
        ("lecun_normal", lambda n_in, n_out: 1 / n_in),
        ("torch_default", lambda n_in, n_out: 1 / (3 * n_in)),
        ("normal", lambda n_in, n_out: 0.01**2),
    ],
)
def test_the_variance_of_weights_is_that_of_the_scheme(scheme, variance):
    for layer in weight_layers(initialized(f"init={scheme}", "model.width=300")).values():
        n_out, n_in = layer.weight.shape
        expected = math.sqrt(variance(n_in, n_out))
        assert layer.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(layer.weight.numel()))


def test_uniform_schemes_stay_within_their_bound():
    weight = initialized("init=kaiming_uniform").hidden1.weight.weight
    assert weight.abs().max() <= math.sqrt(6 / 784)


def test_fan_out_counts_outputs():
    weight = torch.empty(16, 3, 3, 3)
    assert fans(weight) == (27, 144)
    conv = initialized("init=kaiming_normal", "init.mode=fan_out", "model=vgg").conv1.weight
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (16 * 9)), rel=0.3)


def test_orthogonal_rows_are_orthonormal():
    weight = initialized("init=orthogonal").hidden1.weight.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(128), atol=1e-5, rtol=0)


def test_the_gain_multiplies_the_weights():
    base, scaled = (initialized(f"init.gain={gain}").hidden1.weight.weight for gain in (1, 3))
    torch.testing.assert_close(scaled, 3 * base)


def test_biases_are_zero_except_with_torch_default():
    assert initialized("init=kaiming_normal").hidden1.weight.bias.abs().max() == 0
    bias = initialized("init=torch_default").hidden1.weight.bias
    assert 0 < bias.abs().max() <= 1 / math.sqrt(784)


@pytest.mark.parametrize("model", ["mlp", "vgg", "resnet"])
@pytest.mark.parametrize("norm", ["batch", "layer", "group"])
def test_arms_of_a_seed_share_identical_weights(model, norm):
    plain, normalized = (weight_layers(initialized(f"model={model}", norm=n, seed=3)) for n in ("none", norm))
    assert list(plain) == list(normalized)
    for name, layer in plain.items():
        assert torch.equal(layer.weight, normalized[name].weight)


def test_initial_weights_never_change_between_releases():
    """Otherwise the run_ids of stored runs would stand for other trainings."""
    weight = initialized("init=kaiming_normal", seed=5).out.weight.weight
    assert weight[0, :3].tolist() == pytest.approx([-0.0492826, 0.1038932, 0.0175903], rel=1e-4)


def test_seeds_give_different_weights():
    first, second = (initialized(seed=seed).out.weight.weight for seed in (0, 1))
    assert not torch.equal(first, second)


def test_a_layers_weights_do_not_depend_on_the_other_layers():
    shallow, deep = (initialized(f"model.depth={depth}").hidden1.weight.weight for depth in (1, 4))
    assert torch.equal(shallow, deep)
