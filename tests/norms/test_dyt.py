from __future__ import annotations

import math

import pytest
import torch

from bnstudy.models.flow import is_norm
from bnstudy.models.layers import dense
from bnstudy.norms.dyt import DyT

SHAPES = {"units": (2, 3), "maps": (2, 3, 2, 2), "tokens": (2, 4, 3)}


@pytest.mark.parametrize("layout", SHAPES)
def test_each_value_becomes_gamma_tanh_of_alpha_times_it_plus_beta(layout):
    x, layer = torch.randn(SHAPES[layout], dtype=torch.float64), DyT(alpha=0.7).build(3, layout).double()
    layer.weight.data.copy_(torch.tensor([0.5, 1, 2]))
    layer.bias.data.copy_(torch.tensor([-1, 0, 3]))
    layer.requires_grad_(False)
    out, channel = layer(x), 2 if layout == "tokens" else 1
    alpha = float(layer.alpha)
    assert alpha == pytest.approx(0.7)
    for index in torch.ones(x.shape).nonzero().tolist():
        c = index[channel]
        expected = float(layer.weight[c]) * math.tanh(alpha * float(x[tuple(index)])) + float(layer.bias[c])
        assert float(out[tuple(index)]) == pytest.approx(expected)


def test_alpha_is_learned_and_starts_at_one_half():
    layer, x = DyT().build(8, "units").double(), torch.randn(6, 8, dtype=torch.float64)
    assert {name: p.shape for name, p in layer.named_parameters()} == {"alpha": (), "weight": (8,), "bias": (8,)}
    assert layer.alpha.item() == 0.5
    [grad] = torch.autograd.grad(layer(x).sum(), [layer.alpha])
    torch.testing.assert_close(grad, (x / torch.cosh(0.5 * x) ** 2).sum())


def test_without_affine_only_alpha_is_learned():
    assert [name for name, _ in DyT(affine=False).build(8, "maps").named_parameters()] == ["alpha"]


def test_a_bias_in_front_of_dynamic_tanh_stays():
    """No shift behind the tanh gives the same function as one before it."""
    layer = dense(4, 3, DyT(), "relu")
    assert layer.weight.bias is not None
    x = torch.linspace(-3, 3, 7)
    moved, plain = torch.tanh(0.5 * (x + 1)), torch.tanh(0.5 * x)
    assert (moved - plain).std() > 0.1


def test_the_layer_is_marked_as_a_norm_so_that_its_tanh_is_no_activation():
    assert is_norm(DyT().build(3, "units"))
