from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy.norms.rms import RMSNorm

X = torch.randn(6, 8, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5
GAMMA = torch.linspace(0.5, 2, 8, dtype=torch.float64)


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scaled(spec: RMSNorm, layout: str) -> nn.Module:
    layer = spec.build(8, layout)
    layer.weight.data.copy_(GAMMA)
    return layer


def test_each_sample_is_divided_by_the_root_mean_square_of_its_features():
    out = scaled(RMSNorm(eps=0.1), "maps")(X)
    for image in range(len(X)):
        size = (sum(float(value) ** 2 for value in X[image].flatten()) / X[image].numel() + 0.1) ** 0.5
        torch.testing.assert_close(out[image], X[image] / size * GAMMA.view(8, 1, 1))


@pytest.mark.parametrize("layout", ["units", "tokens"])
def test_units_and_tokens_are_normalized_as_by_torch(layout):
    x = X[..., 0, 0] if layout == "units" else X[..., 0].mT  # [6, 8] or [6, 5, 8]
    ours, theirs = scaled(RMSNorm(eps=0.1), layout), nn.RMSNorm(8, eps=0.1)
    theirs.weight.data.copy_(GAMMA)
    torch.testing.assert_close(ours(x), theirs(x))
    grads = [torch.autograd.grad(norm(x).pow(3).sum(), [norm.weight])[0] for norm in (ours, theirs)]
    torch.testing.assert_close(*grads)


def test_maps_are_normalized_as_by_torch_over_channels_and_positions():
    torch.testing.assert_close(RMSNorm(affine=False).build(8, "maps")(X), F.rms_norm(X, X.shape[1:], eps=1e-5))


def test_a_shift_in_front_of_the_norm_has_an_effect_so_biases_stay():
    layer = RMSNorm().build(8, "units")
    assert not torch.allclose(layer(X[..., 0, 0] + 1), layer(X[..., 0, 0]))
    assert RMSNorm().keeps_bias
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert list(RMSNorm(affine=False).build(8, "units").parameters()) == []


def test_zeros_stay_zeros():
    layer, x = RMSNorm().build(8, "units"), torch.zeros(2, 8, requires_grad=True)
    [grad] = torch.autograd.grad(layer(x).sum(), [x])
    assert layer(x).abs().max() == 0
    assert grad.isfinite().all()
