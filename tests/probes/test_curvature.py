from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.func import functional_call, vmap

from bnstudy.data.dataset import Dataset, Split
from bnstudy.probes.curvature import Sharpness, lanczos
from bnstudy.train.build import build_model
from tests.conftest import spec_of
from tests.probes.conftest import TINY, snapshot_of

VGG = (*TINY, "model=vgg", "model.depth=8", "model.width=0.02")
"""Convolutions and max pooling."""


@pytest.fixture
def double(digits: Dataset) -> Dataset:
    """The digits in float64."""
    return replace(digits, train=Split(digits.train.x.double(), digits.train.y))


def dense_hessian(spec, dataset, samples):
    """The Hessian [P, P] of the loss on the first samples of the probe batch, over all parameters in order."""
    model = build_model(spec, dataset).double()
    x, y = snapshot_of(spec, dataset).network.probe_batch(samples)
    shapes = {name: p.shape for name, p in model.named_parameters()}

    def loss(w):
        pieces = w.split([math.prod(shape) for shape in shapes.values()])
        params = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        return torch.nn.functional.cross_entropy(functional_call(model, params, (x,)), y)

    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    return torch.autograd.functional.hessian(loss, w)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
def test_sharpness_agrees_with_the_dense_hessian(norm, activation, double):
    spec = spec_of(*TINY, f"model.activation={activation}", f"norm={norm}", "lr=0.2")
    values = torch.linalg.eigvalsh(dense_hessian(spec, double, 32))
    measured = Sharpness(samples=32, iterations=50).measure(snapshot_of(spec, double))
    assert measured["sharpness"][""].item() == pytest.approx(values[-1].item())
    assert measured["sharpness_magnitude"][""].item() == pytest.approx(values.abs().max().item())
    assert measured["lr_sharpness"][""].item() == pytest.approx(0.2 * values[-1].item())
    assert measured["sharpness_residual"][""] < 1e-3


def test_sharpness_of_a_convolutional_network_agrees_with_the_dense_hessian(double):
    spec = spec_of(*VGG, "norm=batch")
    values = torch.linalg.eigvalsh(dense_hessian(spec, double, 16))
    measured = Sharpness(samples=16, iterations=60).measure(snapshot_of(spec, double))
    assert measured["sharpness"][""].item() == pytest.approx(values[-1].item())


def test_too_few_iterations_show_in_the_residual(double):
    spec = spec_of(*TINY, "norm=batch")
    snapshot = snapshot_of(spec, double)
    values = torch.linalg.eigvalsh(dense_hessian(spec, double, 32))
    for iterations in (2, 4, 8, 16):
        measured = Sharpness(samples=32, iterations=iterations).measure(snapshot)
        found, residual = (measured[metric][""].item() for metric in ("sharpness", "sharpness_residual"))
        assert found <= values[-1] + 1e-9
        assert (values - found).abs().min() <= residual * found
        assert (residual > 0.1) == (iterations < 8)


def matrix(*values: float) -> torch.Tensor:
    """A symmetric matrix with these eigenvalues."""
    draw = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis = torch.linalg.qr(draw).Q
    return basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T


@pytest.mark.parametrize("values", [(1, 2, 3, 4, 5), (-7, 0, 0, 1, 1), (0, 0, 0, 0, 0)])
def test_lanczos_finds_the_whole_spectrum_in_as_many_iterations_as_rows(values):
    a = matrix(*values)
    found, residuals = lanczos(lambda v: a @ v, torch.ones(5, dtype=torch.float64), 5)
    distinct = sorted(set(values))
    assert torch.stack([(found - value).abs().min() for value in distinct]).max() < 1e-9
    assert found[-1].item() == pytest.approx(values[-1])
    assert residuals.max() < 1e-9


def test_lanczos_of_a_diverged_run_does_not_change_the_others():
    both = torch.stack([matrix(1, 2, 3), torch.full((3, 3), math.nan, dtype=torch.float64)])
    start = torch.ones(3, dtype=torch.float64)
    values, _ = vmap(lambda a: lanczos(lambda v: a @ v, start, 3))(both)
    assert values[0].tolist() == pytest.approx([1, 2, 3])
    assert values[1].isnan().all()
