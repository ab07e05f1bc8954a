from __future__ import annotations

import torch

from bnstudy.norms.weighted import StandardizeEach, WeightedStandardize


def plain_weighted(x, share, scale, shift, eps):
    mean = (share * x).sum(-2, keepdim=True)
    var = (share * (x - mean) ** 2).sum(-2, keepdim=True)
    return (x - mean) / (var + eps).sqrt() * scale + shift


def plain_each(x, eps):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()


def gradients(function, *inputs):
    """The gradient of a function of the result, and a second derivative."""
    leaves = [x for x in inputs if x.requires_grad]
    first = torch.autograd.grad(function(*inputs).sin().sum(), leaves, create_graph=True)
    second = torch.autograd.grad(sum(g.cos().sum() for g in first), leaves)
    return [*first, *second]


def test_weighted_standardization_has_the_derivatives_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    weights = torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64)
    for shape in ((5, 3), (2, 5, 3)):
        x, scale, shift = (
            torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in (shape, (3,), (3,))
        )
        share = (weights / weights.sum()).unsqueeze(1).expand(*shape[:-1], 1)
        args = x, share, scale, shift, torch.tensor(0.1, dtype=torch.float64)
        torch.testing.assert_close(WeightedStandardize.apply(*args)[0], plain_weighted(*args))
        ours = gradients(lambda *inputs: WeightedStandardize.apply(*inputs)[0], *args)
        torch.testing.assert_close(ours, gradients(plain_weighted, *args))


def test_standardization_of_each_sample_has_the_derivatives_of_its_formula():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 5, generator=generator, dtype=torch.float64).requires_grad_()
    args = x, torch.tensor(0.1, dtype=torch.float64)
    torch.testing.assert_close(StandardizeEach.apply(*args), plain_each(*args))
    torch.testing.assert_close(gradients(StandardizeEach.apply, *args), gradients(plain_each, *args))
