"""The size and the movement of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.gradients import norms


@dataclass(frozen=True)
class WeightSize(ProbeSpec):
    """Of each weight and of all parameters together:

    `weight_norm`: ||W||_2.
    `update_ratio`: ||change of W by the next step|| / ||W||.
    `init_distance`: ||W - W_0||, where W_0 are the initial weights.
    """

    needs_update: ClassVar[bool] = True
    needs_start: ClassVar[bool] = True

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        layers = snapshot.layers
        sizes, changes = norms(snapshot.params, layers), norms(snapshot.update, layers)
        moved = {name: now - snapshot.start[name] for name, now in snapshot.params.items()}
        return {
            "weight_norm": sizes,
            "update_ratio": {layer: change / sizes[layer] for layer, change in changes.items()},
            "init_distance": norms(moved, layers),
        }
