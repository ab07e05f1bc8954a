"""The curvature of the loss: extreme eigenvalues of its Hessian."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import vjp

from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.landscape import unit
from bnstudy.probes.network import Network, Params, grad
from bnstudy.rng import uniform


@dataclass(frozen=True)
class Sharpness(ProbeSpec):
    """Extreme eigenvalues of the Hessian, with respect to all parameters, of the training-mode loss on the first
    `samples` of the probe batch.

    `sharpness`: the largest, lambda_max.
    `sharpness_residual`: ||H v - lambda v|| / |lambda| of the eigenpair. An eigenvalue lies within this relative
    distance; the largest one may be higher, not lower. Above about 0.1, increase `iterations`.
    `lr_sharpness`: learning rate times lambda_max. Plain gradient descent is stable below 2; Cohen et al. 2021.
    `sharpness_magnitude`: the largest |lambda|, the spectral norm of the Hessian.

    Computed by the Lanczos iteration with full reorthogonalization (Golub & Van Loan 2013, section 10.3), started at
    the sum of the gradient and fixed noise, both of length 1. NaN if a parameter is NaN.
    """

    needs_network: ClassVar[bool] = True
    copies: ClassVar[int] = 16

    samples: int = 128
    iterations: int = 12

    def check(self) -> None:
        self.require(self.samples >= 2, "samples", "at least 2")
        self.require(2 <= self.iterations <= 1000, "iterations", "from 2 to 1000")  # it holds as many vectors

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        w = torch.cat([p.flatten() for p in snapshot.params.values()])
        gradient = grad(loss_of_flat(network, snapshot.params, self.samples))
        # Linearized once: each product is then one backward pass.
        g, product = vjp(gradient, w)[:2]
        # The gradient lies mostly along the first eigenvectors; the noise adds all others.
        start = unit(g) + unit(noise(w))
        values, residuals = lanczos(lambda v: product(v)[0], start, min(self.iterations, len(w)))
        largest = values[-1]
        return {
            "sharpness": {"": largest},
            "sharpness_residual": {"": residuals[-1] / largest.abs()},
            "lr_sharpness": {"": network.lr * largest},
            "sharpness_magnitude": {"": values.abs().amax()},
        }


def loss_of_flat(network: Network, params: Params, samples: int) -> Callable[[Tensor], Tensor]:
    """The training-mode loss on the first `samples` of the probe batch, as a function of all parameters [P]."""
    batch, shapes = network.probe_batch(samples), {name: p.shape for name, p in params.items()}
    sizes = [math.prod(shape) for shape in shapes.values()]

    def loss(w: Tensor) -> Tensor:
        parts = zip(shapes.items(), w.split(sizes), strict=True)
        return network.loss({name: part.view(shape) for (name, shape), part in parts}, batch)

    return loss


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The Ritz values, ascending, of the symmetric matrix that `product` multiplies vectors [P] by, and the residual
    norm of each pair, beta_k |last entry of the eigenvector of T|: both [iterations]."""
    q = unit(start)
    basis, alphas, betas = [], [], []
    for _ in range(iterations):
        basis.append(q)
        w = product(q)
        alphas.append(q @ w)
        for _ in range(2):  # twice, because of rounding
            for b in basis:
                w = w - (b @ w) * b
        betas.append(torch.linalg.vector_norm(w))
        q = unit(w)
    alpha, beta = torch.stack(alphas), torch.stack(betas)
    t = alpha.diag() + beta[:-1].diag(1) + beta[:-1].diag(-1)
    values, vectors = eigh(t)
    return values, betas[-1] * vectors[-1].abs()


def eigh(t: Tensor) -> tuple[Tensor, Tensor]:
    """Like `torch.linalg.eigh`, but all NaN if an entry is not finite: torch raises, and one diverged run would stop
    its stack."""
    sound = t.isfinite().all()
    values, vectors = torch.linalg.eigh(t.where(sound, 0.0))
    return values.where(sound, math.nan), vectors.where(sound, math.nan)


def noise(like: Tensor) -> Tensor:
    """A fixed vector of uniform noise in [-1/2, 1/2)."""
    zero = torch.zeros((), dtype=torch.int64, device=like.device)
    return uniform(zero, zero, like.shape).to(like.dtype) - 0.5
