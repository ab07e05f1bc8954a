from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from bnstudy.models.construction import construct_under


def constructed(seed: int, make) -> dict[str, torch.Tensor]:
    with construct_under(seed):
        return dict(make().named_parameters())


def network(bias: bool = True) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8, bias=bias), nn.Linear(8, 8, bias=bias), nn.Linear(8, 8), nn.GRU(8, 5))
    model.pos = nn.Parameter(torch.randn(3, 4))
    model.free = nn.Parameter(torch.tensor([random.random(), np.random.rand()]))  # noqa: NPY002
    nn.init.orthogonal_(model[1].weight)
    nn.init.trunc_normal_(model[2].weight)
    return model


def test_all_parameters_follow_from_the_seed():
    first, second = constructed(1, network), constructed(1, network)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = constructed(2, network)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_the_initial_values_are_the_networks_own():
    weight = constructed(1, network)["1.weight"]
    torch.testing.assert_close(weight @ weight.T, torch.eye(8))


def test_equal_tensors_differ():
    with construct_under(0):
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    assert not torch.equal(a.weight, b.weight)
    assert not torch.equal(a.bias, b.bias)


def test_networks_that_differ_in_biases_share_all_weights():
    with_bias, without = constructed(1, network), constructed(1, lambda: network(bias=False))
    assert with_bias.keys() - without.keys() == {"0.bias", "1.bias"}
    assert all(torch.equal(with_bias[name], value) for name, value in without.items())


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), random.random, lambda: np.random.rand()])  # noqa: NPY002
def test_the_global_generators_stay_as_they_are(draw):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    expected = draw()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)  # noqa: NPY002
    constructed(1, network)
    assert draw() == expected
