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
class WeightNorm(ProbeSpec):
    """`weight_norm`: ||W||_2 of each weight, and of all parameters together."""

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        return {"weight_norm": norms(snapshot.params, snapshot.layers)}


@dataclass(frozen=True)
class UpdateRatio(ProbeSpec):
    """`update_ratio`: ||change of W|| / ||W|| of one update, for each weight and all parameters together."""

    needs_update: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        changes = norms(snapshot.update, snapshot.layers)
        sizes = norms(snapshot.params, snapshot.layers)
        return {"update_ratio": {layer: change / sizes[layer] for layer, change in changes.items()}}


def norms(tensors: Mapping[str, Tensor], layers: Mapping[str, str]) -> dict[str, Tensor]:
    """Euclidean norm of all tensors together, under "", and of each layer's weight."""
    each = {name: torch.linalg.vector_norm(t) for name, t in tensors.items()}
    total = torch.linalg.vector_norm(torch.stack(list(each.values())))
    return {"": total, **{layer: each[weight] for layer, weight in layers.items()}}
