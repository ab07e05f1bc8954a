"""The base of all probes, and what a probe is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor, nn

from bnstudy.probes.network import Network
from bnstudy.validation import Spec
from bnstudy.when import LogThenRegular, When


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


@dataclass(frozen=True)
class ProbeSpec(Spec):
    """A measurement of one run's state, made at the updates of `when`.

    What it needs it declares, and finds in the snapshot:

    needs_update: the gradient of the training batch in use and the change of the parameters that follows from it.
    needs_start: the parameters at update 0.
    needs_network: the network as functions of its parameters, with the run's batches.

    By having an `observe` it asks to be shown what each activation makes of the probe batch, by having a `remember` to
    be told at each measurement what it noted at the one before. The engine provides no more than that, and knows no
    probe by name.
    """

    group: ClassVar[str] = "probe"
    needs_update: ClassVar[bool] = False
    needs_start: ClassVar[bool] = False
    needs_network: ClassVar[bool] = False
    copies: ClassVar[int] = 4
    """About how many tensors of all parameters' size it holds at once: what a stack needs memory for."""
    statistics: ClassVar[Literal["running", "batch", "training"]] = "running"
    """What norms use while it observes: running statistics, or those of the `batch` they are shown, and in `training`
    with dropout and other noise, as in the next update. Before the first update there are no running statistics, and
    it is those of the batch."""

    when: When = field(default_factory=LogThenRegular, kw_only=True)

    @property
    def needs_activations(self) -> bool:
        return type(self).observe is not ProbeSpec.observe

    @property
    def remembers(self) -> bool:
        return type(self).remember is not ProbeSpec.remember

    def observe(self, activation: nn.Module, z: Tensor, a: Tensor) -> Tensor | None:
        """What to keep of one layer: `activation` maps z to a, both [N, units] or [N, channels, H, W].

        Called in evaluation mode, without gradients, on parts of the probe batch of at most 256 samples. Returns
        [N, ...], or [1, ...] where one value can stand for the part, since the parts are put together; None where the
        layer does not concern the probe. The outputs of the network come last, under the name of the last weight
        layer, with an `nn.Identity`.
        """
        raise NotImplementedError

    def remember(self, snapshot: Snapshot) -> Mapping[str, Tensor]:
        """What to be given as `snapshot.memory` at the next measurement; called after `measure`, always with the same
        names and shapes. It is part of the run's checkpoints."""
        raise NotImplementedError

    def measure(self, snapshot: Snapshot) -> Mapping[str, Mapping[str, Tensor]]:
        """Scalar tensors by metric and layer; layer "" is the whole network. A pure function of the snapshot."""
        raise NotImplementedError
