from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from bnstudy.norms import BatchNorm, GroupNorm, InstanceNorm, LayerNorm, NoNorm
from bnstudy.spec import ConfigError
from tests.conftest import spec_of

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0))


def test_no_norm_changes_nothing():
    assert torch.equal(NoNorm().build(8, spatial=True)(X), X)


def test_batch_norm_in_training_is_the_formula():
    mean, var = X.mean((0, 2, 3), keepdim=True), X.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(BatchNorm(eps=1e-3).build(8, spatial=True)(X), (X - mean) / (var + 1e-3).sqrt())


def test_running_statistics_move_by_momentum_with_the_unbiased_variance():
    layer = BatchNorm(momentum=0.3).build(8, spatial=True)
    layer(X)
    torch.testing.assert_close(layer.running_mean, 0.3 * X.mean((0, 2, 3)))
    torch.testing.assert_close(layer.running_var, 0.7 + 0.3 * X.var((0, 2, 3)))


def test_without_running_statistics_evaluation_uses_the_batch():
    layer = BatchNorm(track_running_stats=False).build(8, spatial=True)
    torch.testing.assert_close(layer.eval()(X), layer.train()(X))


def test_batch_norm_of_two_maps_a_unit_to_plus_and_minus_one():
    out = BatchNorm(eps=1e-12).build(3, spatial=False)(torch.tensor([[1.0, 5.0, -2.0], [3.0, 4.0, 7.0]]))
    torch.testing.assert_close(out, torch.tensor([[-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]))


def test_batch_norm_ignores_the_scale_of_its_input():
    layer = BatchNorm(eps=1e-12).build(8, spatial=True)
    torch.testing.assert_close(layer(7.5 * X), layer(X))


def test_layer_norm_is_over_all_features_of_a_sample():
    torch.testing.assert_close(LayerNorm().build(8, spatial=True)(X), F.layer_norm(X, X.shape[1:]))
    flat = X[:, :, 0, 0]
    torch.testing.assert_close(LayerNorm().build(8, spatial=False)(flat), F.layer_norm(flat, (8,)))


def test_group_norm_lies_between_layer_and_instance_norm():
    torch.testing.assert_close(GroupNorm(groups=1).build(8, spatial=True)(X), LayerNorm().build(8, spatial=True)(X))
    torch.testing.assert_close(GroupNorm(groups=8).build(8, spatial=True)(X), InstanceNorm().build(8, spatial=True)(X))


@pytest.mark.parametrize("norm", [BatchNorm, LayerNorm, InstanceNorm, GroupNorm])
def test_affine_is_a_scale_and_shift_per_channel(norm):
    assert [p.shape for p in norm().build(8, spatial=True).parameters()] == [(8,), (8,)]
    assert list(norm(affine=False).build(8, spatial=True).parameters()) == []


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: GroupNorm(groups=3).build(8, True),
            r"norm.groups=3 .* a divisor of the layer's 8 channels \(1, 2, 4, 8\)",
        ),
        (lambda: GroupNorm(groups=8).build(8, False), "norm.groups=8 is not allowed"),
        (lambda: InstanceNorm().build(8, False), "norm=instance is not allowed with fully connected layers"),
        (lambda: spec_of("norm=batch", "batch_size=1"), "batch_size=1 is not allowed with norm=batch"),
        (lambda: BatchNorm(momentum=0), "norm.momentum=0 is not allowed"),
        (lambda: LayerNorm(eps=0), "norm.eps=0 is not allowed"),
    ],
)
def test_what_is_not_defined_is_refused(make, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make()
