from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.models.structure import refuse_single_values
from bnstudy.norms.explicit import make_explicit
from bnstudy.norms.group import GroupNorm, InstanceNorm, LayerNorm
from bnstudy.sweep.plan import try_network
from bnstudy.validation import ConfigError
from tests.conftest import spec_of

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


def test_layer_norm_normalizes_over_all_features_of_a_sample():
    torch.testing.assert_close(LayerNorm().build(8, layout="maps")(X), F.layer_norm(X, X.shape[1:]))
    flat = X[:, :, 0, 0]
    torch.testing.assert_close(LayerNorm().build(8, layout="units")(flat), F.layer_norm(flat, (8,)))


def test_group_norm_with_one_group_is_layer_norm_and_with_all_groups_instance_norm():
    torch.testing.assert_close(GroupNorm(groups=1).build(8, layout="maps")(X), LayerNorm().build(8, layout="maps")(X))
    torch.testing.assert_close(
        GroupNorm(groups=8).build(8, layout="maps")(X), InstanceNorm().build(8, layout="maps")(X)
    )


@pytest.mark.parametrize("spec", [LayerNorm(), GroupNorm(groups=1), GroupNorm(groups=8)])
def test_a_layer_of_one_unit_is_refused_since_its_value_would_become_0(spec):
    with pytest.raises(ConfigError, match="a fully connected layer of one unit"):
        spec.build(1, layout="units")
    assert spec.build(8, layout="maps")(X).std() > 0.9


@pytest.mark.parametrize("shape", [(4, 1), (4, 8), (4, 8, 1, 1), (4, 8, 2, 1), (4, 1, 1, 1)])
@pytest.mark.parametrize("explicit", [False, True])
def test_norms_whose_outputs_would_all_be_0_are_refused(shape, explicit):
    x, channels = torch.randn(shape), shape[1]
    norms = [nn.GroupNorm(1, channels), nn.GroupNorm(channels, channels)]
    norms += [nn.LayerNorm(shape[1:]), nn.LayerNorm(shape[-1])] if not explicit else []
    for norm in norms:
        network = nn.Sequential(norm)
        if explicit:
            make_explicit(network)
        becomes_zero = network(x).abs().max() < 1e-3  # up to rounding
        refuse_single_values(LayerNorm(), network)
        with pytest.raises(ConfigError, match="single value") if becomes_zero else nullcontext():
            network(x)


def test_modules_that_take_keywords_only_are_not_looked_at():
    class Scale(nn.Module):
        def forward(self, *, x):
            return 2 * x

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = Scale()

        def forward(self, x):
            return self.scale(x=x)

    network = Network()
    refuse_single_values(LayerNorm(), network)
    assert network(torch.ones(2, 1)).tolist() == [[2], [2]]


def test_instance_norm_on_a_feature_map_of_one_position_is_refused():
    run = spec_of("norm=instance", "model=vgg", "model.depth=11")
    with pytest.raises(ConfigError, match=r"norm=InstanceNorm is not allowed .* in conv7 it has a single value"):
        try_network(run, (1, 16, 16), 10)
    assert try_network(run, (1, 32, 32), 10).convolves
