"""Probes: measurements of one run's state. One file a family; a new one is one class, one YAML entry, one test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from bnstudy.probes.network import Network


@dataclass(frozen=True)
class Snapshot:
    """A run's state between two updates, as far as the probes due have asked for it.

    Tensors by layer hold the layer's weight matrix or kernel; those by parameter all parameters, norms' included.

    params: the parameters by name.
    grads: gradient of the loss of the training batch in use, by parameter name.
    update: the change of the parameters by the update with that gradient, by parameter name.
    layers: name of each weight layer, in order of depth, and of its weight parameter.
    observed: what the probe's own `observe` kept of the probe batch, [N, ...] by layer, in order of depth.
    start: the parameters at update 0, by name.
    memory: what the probe's own `remember` gave at its last measurement; empty at the first.
    network: the network as functions of its parameters, with the run's batches.
    """

    params: Mapping[str, Tensor]
    layers: Mapping[str, str]
    grads: Mapping[str, Tensor] = field(default_factory=dict)
    update: Mapping[str, Tensor] = field(default_factory=dict)
    observed: Mapping[str, Tensor] = field(default_factory=dict)
    start: Mapping[str, Tensor] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    network: Network | None = None
