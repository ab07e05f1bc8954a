"""Units that do nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bnstudy.probes import Snapshot
from bnstudy.spec import ProbeSpec


@dataclass(frozen=True)
class DeadUnits(ProbeSpec):
    """`dead_share`: share of ReLU units whose output is 0 for every sample of the probe batch, in evaluation mode.

    For convolutions a unit is a channel, dead if it is 0 at all positions too. Layers with another activation have
    no such units and are left out. Layer "" is the share among all units of the network.
    """

    def observe(self, activation: nn.Module, z: Tensor, a: Tensor) -> Tensor | None:  # noqa: ARG002
        if not isinstance(activation, nn.ReLU):
            return None
        return a.amax([0, *range(2, a.ndim)]).unsqueeze(0)  # as ReLU's output is 0 or more, its largest value tells

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        if not snapshot.observed:
            return {}
        dead = {layer: largest.amax(0) == 0 for layer, largest in snapshot.observed.items()}
        shares = {layer: units.float().mean() for layer, units in dead.items()}
        return {"dead_share": {"": torch.cat(list(dead.values())).float().mean(), **shares}}
