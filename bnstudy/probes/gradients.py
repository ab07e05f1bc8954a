"""Gradients of the weights and of the pre-activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import grad


@dataclass(frozen=True)
class GradientNorm(ProbeSpec):
    """`grad_norm`: ||g||_2 of each weight, and of all parameters together.
    `grad_weight_product`: ||g|| ||W|| of each weight, and the root of the sum of their squares.

    With batch normalization the gradient of a weight scales as 1/||W||, so only the product is comparable between arms.
    """

    needs_update: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        grads, weights = norms(snapshot.grads, snapshot.layers), norms(snapshot.params, snapshot.layers)
        products = {layer: grads[layer] * weights[layer] for layer in snapshot.layers}
        together = torch.linalg.vector_norm(torch.stack(list(products.values())))
        return {"grad_norm": grads, "grad_weight_product": {"": together, **products}}


@dataclass(frozen=True)
class Backprop(ProbeSpec):
    """Gradients at the pre-activations of each hidden layer, from the next training batch, in training mode. A layer
    whose activation is called several times has one value for each call.

    `backprop_rms`: root mean square of dL/dz over samples, units and positions, by layer.
    `backprop_ratio`: the value of the first hidden layer over that of the last. Above 1 gradients explode on the
    backward pass, below 1 they vanish.
    `backprop_slope`: slope of the least-squares line of log(rms) over depth. 0 is ideal; below 0 gradients explode.
    """

    needs_network: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        x, y = network.batch
        _, z = network.inside(snapshot.params, x)

        def loss(at: tuple[Mapping[str, Tensor], Tensor]) -> Tensor:
            shifts, images = at
            out, _ = network.inside(snapshot.params, images, shifts=shifts)
            return network.loss_spec.mean(out, y)

        zeros = {layer: torch.zeros_like(value) for layer, value in z.items()}
        # Operations in place may overwrite only what is differentiated too: hence with respect to the images.
        arriving = grad(loss)((zeros, x))[0] if snapshot.seen.overwrites else grad(lambda at: loss((at, x)))(zeros)
        rms = {layer: g.double().square().mean().sqrt() for layer, g in arriving.items()}
        if not rms:
            return {}
        sizes = torch.stack(list(rms.values()))
        return {
            "backprop_rms": rms,
            "backprop_ratio": {"": sizes[0] / sizes[-1]},
            "backprop_slope": {"": slope(sizes.log())} if len(rms) > 1 else {},
        }


def norms(tensors: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """The Euclidean norm of all tensors together, under "", and of each layer's weight. In float64: in float32 the
    square of a number below 1e-22 is 0."""
    each = {name: torch.linalg.vector_norm(t, dtype=torch.float64) for name, t in tensors.items()}
    total = torch.linalg.vector_norm(torch.stack(list(each.values())))
    return {"": total, **{layer: each[weight] for layer, weight in layers.items()}}


def slope(y: Tensor) -> Tensor:
    """The slope of the least-squares line through (1, y_1), (2, y_2), ...: y [n] -> a scalar."""
    x = torch.arange(len(y), dtype=y.dtype, device=y.device)
    x = x - x.mean()
    return (x * y).sum() / x.square().sum()
