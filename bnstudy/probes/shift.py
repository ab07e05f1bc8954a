"""Internal covariate shift: how the update of earlier layers changes a layer's gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import Network, Params, grad


@dataclass(frozen=True)
class CovariateShift(ProbeSpec):
    """Santurkar et al. 2018, Definition 2.1, by weight layer, on the next training batch in training mode.

    G is the gradient with respect to the weight of the layer at the current parameters, G' the same after the
    optimizer's update of all parameters that the forward pass uses before it, including those of norms:

    `ics_norm`: ||G - G'||_2.
    `ics_relative`: ||G - G'|| / ||G||, comparable between arms: with batch normalization G scales as 1/||W||.
    `ics_cosine`: cos(G, G'); NaN if a gradient is 0.

    The first layer is left out: nothing precedes it, so G' = G. Costs a forward and a backward pass for each layer.
    """

    needs_update: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        # Not snapshot.grads: in bf16 they are too coarse for the difference.
        now = grad(network.loss)(dict(snapshot.params))
        shift: dict[str, dict[str, Tensor]] = {"ics_norm": {}, "ics_relative": {}, "ics_cosine": {}}
        for layer, weight, params in update_before(snapshot):
            g, then = now[weight].flatten(), gradient(network, params, weight).flatten()
            size, change = torch.linalg.vector_norm(g), torch.linalg.vector_norm(g - then)
            shift["ics_norm"][layer] = change
            shift["ics_relative"][layer] = change / size
            shift["ics_cosine"][layer] = (g @ then) / (size * torch.linalg.vector_norm(then))
        return shift


def gradient(network: Network, params: Params, weight: str) -> Tensor:
    """The gradient of the loss of the next training batch with respect to this one parameter."""
    return grad(lambda value: network.loss({**params, weight: value}))(params[weight])


def update_before(snapshot: Snapshot) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    """Yield each layer that has parameters before it, the name of its weight, and all parameters with those before the
    weight updated."""
    names = snapshot.seen.parameters
    for layer, weight in snapshot.layers.items():
        before = names[: names.index(weight)]
        if before:
            yield layer, weight, {**snapshot.params, **{n: snapshot.params[n] + snapshot.update[n] for n in before}}
