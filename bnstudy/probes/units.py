"""Dead units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bnstudy.models.activations import RECTIFIERS, Call
from bnstudy.probes.base import ProbeSpec, Snapshot

Units = Mapping[str, Tensor]
"""A flag for each unit of a layer: [units] by layer."""


@dataclass(frozen=True)
class DeadUnits(ProbeSpec):
    """A ReLU unit is dead if its output is 0 for every sample of the probe batch in evaluation mode. A unit of a
    convolution, or of tokens, is a channel, dead if it is 0 at all positions. Each call of a ReLU, a ReLU6 or
    clamp(min=0) has units of its own. Shares are of the units of a call, by the name of its layer, and under "" of all
    units of the network.

    `dead_share`: dead now.
    `born_dead_share`: dead at the first measurement, which is before training by default; constant over a run.
    `died_share`: alive at the first measurement, dead now. `dead_share - died_share` is the share dead then and now.
    `revived_share`: dead at some earlier measurement, alive now.
    `network_dead`: 1 if the network's outputs are equal for all samples up to rounding, else 0.

    At the first measurement no unit has died or revived: both shares are 0. Changes between two measurements are not
    observed.

    Only ReLU has dead units in this sense: neither signal nor gradient passes them. A network without ReLU has none of
    these metrics; the closest one is the saturated share of the `Activations` probe.

    Running statistics that lag early in training can make units of deep networks dead for a while. They count as died,
    and as revived later.

    statistics: norms use `running` statistics, or those of the `batch`, of each part of at most 256.
    """

    statistics: Literal["running", "batch"] = "running"  # type: ignore[misc]  # a field instead of a constant

    def observe(self, call: Call, z: Tensor, a: Tensor) -> Tensor | None:  # noqa: ARG002
        """The largest output of each unit, [1, units]; of the network, the smallest and largest, [1, 2, classes]."""
        if call.kind == "output":
            return torch.stack([a.amin(0), a.amax(0)]).unsqueeze(0)
        if call.kind not in RECTIFIERS:
            return None
        return a.amax([0, *range(2, a.ndim)]).unsqueeze(0)  # outputs of ReLU are 0 or more

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        dead, born, ever = self._units(snapshot)
        if not dead:
            return {}
        return {
            "dead_share": shares(dead),
            "born_dead_share": shares(born),
            "died_share": shares({layer: units & ~born[layer] for layer, units in dead.items()}),
            "revived_share": shares({layer: ever[layer] & ~units for layer, units in dead.items()}),
            "network_dead": {"": same_for_all(snapshot.observed[snapshot.seen.output])},
        }

    def remember(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        """The units dead at the first measurement, and at any measurement: LAYER.born and LAYER.ever, [units]."""
        _, born, ever = self._units(snapshot)
        return {f"{layer}.{when}": units[layer] for when, units in (("born", born), ("ever", ever)) for layer in units}

    def _units(self, snapshot: Snapshot) -> tuple[Units, Units, Units]:
        """The units dead now, at the first measurement, and at any measurement until now."""
        memory, last = snapshot.memory, snapshot.seen.output
        dead = {layer: largest.amax(0) == 0 for layer, largest in snapshot.observed.items() if layer != last}
        born = {layer: memory.get(f"{layer}.born", units) for layer, units in dead.items()}
        ever = {layer: memory.get(f"{layer}.ever", units) | units for layer, units in dead.items()}
        return dead, born, ever


def shares(units: Units) -> dict[str, Tensor]:
    """The share of flagged units of the network, under "", and of each layer."""
    return {"": torch.cat(list(units.values())).float().mean(), **{name: u.float().mean() for name, u in units.items()}}


def same_for_all(extremes: Tensor) -> Tensor:
    """1 if smallest and largest outputs [parts, 2, classes] are equal up to rounding, else 0."""
    least, largest = extremes[:, 0].amin(0), extremes[:, 1].amax(0)
    return ((largest - least).amax() <= rounding(extremes).amax()).float()


def rounding(values: Tensor) -> Tensor:
    """The largest difference by rounding between values of this size: about 8 units in the last place."""
    return 8 * torch.finfo(values.dtype).eps * values.abs()
