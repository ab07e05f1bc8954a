"""Sizes of the gradient, the weights and the updates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bnstudy.probes import Snapshot
from bnstudy.spec import ProbeSpec


@dataclass(frozen=True)
class GradientNorm(ProbeSpec):
    """`grad_norm`: ||g||_2 of each weight, and of all parameters together.

    With batch normalization the gradient of a weight scales as 1/||W||: compare arms with `weight_norm` beside it.
    """

    needs_update: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        return {"grad_norm": norms(snapshot.grads, snapshot.layers)}


@dataclass(frozen=True)
class WeightSize(ProbeSpec):
    """`weight_norm`: ||W||_2, and `update_ratio`: ||change of W by one update|| / ||W||, of each weight and of all
    parameters together."""

    needs_update: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        sizes, changes = norms(snapshot.params, snapshot.layers), norms(snapshot.update, snapshot.layers)
        return {
            "weight_norm": sizes,
            "update_ratio": {layer: change / sizes[layer] for layer, change in changes.items()},
        }


def norms(tensors: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """Euclidean norm of all tensors together, under "", and of each layer's weight."""
    each = {name: torch.linalg.vector_norm(t) for name, t in tensors.items()}
    total = torch.linalg.vector_norm(torch.stack(list(each.values())))
    return {"": total, **{layer: each[weight] for layer, weight in layers.items()}}
