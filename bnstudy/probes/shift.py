"""Internal covariate shift: what the update of the layers before does to a layer's gradient."""

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
    """Santurkar et al. 2018, Definition 2.1, by weight layer, on the training batch in use and in training mode.

    G is the gradient with regard to the weight of the layer at the present parameters, G' the same once all parameters
    before it, those of the norms included, have made the optimizer's update:

    `ics_norm`: ||G - G'||_2.
    `ics_relative`: ||G - G'|| / ||G||; with batch normalization G scales as 1/||W||, so that this one can be compared.
    `ics_cosine`: cos(G, G'); not a number where a gradient is 0.

    The first layer, which nothing precedes, would have G' = G and is left out. A pass forth and back a layer.
    """

    needs_update: ClassVar[bool] = True
    needs_network: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        network = snapshot.network
        # Not snapshot.grads: in bf16 these are too coarse for the difference.
        now = grad(network.loss)(dict(snapshot.params))
        shift: dict[str, dict[str, Tensor]] = {"ics_norm": {}, "ics_relative": {}, "ics_cosine": {}}
        for layer, weight, params in moved_before(snapshot):
            g, then = now[weight].flatten(), gradient(network, params, weight).flatten()
            size, change = torch.linalg.vector_norm(g), torch.linalg.vector_norm(g - then)
            shift["ics_norm"][layer] = change
            shift["ics_relative"][layer] = change / size
            shift["ics_cosine"][layer] = (g @ then) / (size * torch.linalg.vector_norm(then))
        return shift


def gradient(network: Network, params: Params, weight: str) -> Tensor:
    """Of the loss of the training batch in use, with regard to this one parameter."""
    return grad(lambda value: network.loss({**params, weight: value}))(params[weight])


def moved_before(snapshot: Snapshot) -> Iterator[tuple[str, str, dict[str, Tensor]]]:
    """Each layer that parameters precede, the name of its weight, and all parameters with those before the weight
    updated."""
    names = list(snapshot.params)
    for layer, weight in snapshot.layers.items():
        before = names[: names.index(weight)]
        if before:
            yield layer, weight, {**snapshot.params, **{n: snapshot.params[n] + snapshot.update[n] for n in before}}
