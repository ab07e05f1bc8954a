"""The base class of probes, and the snapshot of a run that they measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, NoReturn

from torch import Tensor

from bnstudy.models.activations import Call
from bnstudy.models.tracing import Seen
from bnstudy.probes.network import Network
from bnstudy.validation import Spec
from bnstudy.when import LogThenRegular, When

Tensors = Mapping[str, Tensor]


NEEDS = {
    "grads": "needs_update",
    "update": "needs_update",
    "start": "needs_start",
    "network": "needs_network",
    "observed": "observe",
    "memory": "remember",
}
"""What a probe defines if it needs a part of the snapshot. Every snapshot has `params` and `seen`."""


class Snapshot:
    """One run's state between two steps: the parts that a probe declares that it needs.

    params: all parameters by name.
    seen: what there is in the network: its activations, weights and output.
    grads: the gradient of the loss of the next training batch, by parameter name.
    update: the change of each parameter by the next step, by parameter name.
    start: the parameters before training, by name.
    network: the network as functions of its parameters, with the run's batches.
    observed: what the probe's `observe` kept of the probe batch, [N, ...] by layer, in order of execution.
    memory: what the probe's `remember` returned at its previous measurement; empty at the first.

    Raises:
        AttributeError: at access to a part that the probe does not declare.
    """

    params: Tensors
    seen: Seen
    grads: Tensors
    update: Tensors
    start: Tensors
    network: Network
    observed: Tensors
    memory: Tensors

    def __init__(self, **parts: Any) -> None:
        vars(self).update(parts)

    @cached_property
    def layers(self) -> Mapping[str, str]:
        """The weights, which are all parameters of two or more dimensions, by layer, in order of execution."""
        return self.seen.weights

    def __getattr__(self, name: str) -> NoReturn:
        if name not in NEEDS:
            raise AttributeError(f"A snapshot has no {name}.")
        need = f"{NEEDS[name]} = True" if NEEDS[name].startswith("needs_") else f"a method `{NEEDS[name]}`"
        raise AttributeError(f"snapshot.{name} is not available: the probe must declare {need}.")


@dataclass(frozen=True)
class ProbeSpec(Spec):
    """A measurement of one run's state, made when the steps of `when` are done.

    A probe declares the parts of the snapshot that it needs: `needs_update` for `grads` and `update`, `needs_start` for
    `start`, `needs_network` for `network`, a method `observe` for `observed`, a method `remember` for `memory`.
    """

    group: ClassVar[str] = "probe"
    needs_update: ClassVar[bool] = False
    needs_start: ClassVar[bool] = False
    needs_network: ClassVar[bool] = False
    copies: ClassVar[int] = 4
    """About how many tensors of the size of all parameters it holds at once. The memory of a stack is planned by it."""
    statistics: ClassVar[Literal["running", "batch", "training"]] = "running"
    """The mode of the network while the probe observes: evaluation with `running` statistics or with those of the
    `batch`, or `training`: batch statistics, dropout and other noise, as in the next step. Before the first step there
    are no running statistics: those of the batch replace them."""

    when: When = field(default_factory=LogThenRegular, kw_only=True)

    @property
    def parts(self) -> set[str]:
        """The parts of a snapshot that the probe declares."""
        declared = {part for part, need in NEEDS.items() if getattr(type(self), need) is not getattr(ProbeSpec, need)}
        return {"params", *declared}

    def observe(self, call: Call, z: Tensor, a: Tensor) -> Tensor | None:
        """What to keep of one call of an activation, which maps z to a: both [N, units] or [N, channels, positions,
        ...]. Tokens are positions.

        Called without gradients, on parts of the probe batch of at most 256 samples. The output of the network comes
        last, as both z and a, with `call.kind` "output" and the name `seen.output`.

        Returns:
            [N, ...], or [1, ...] if one value can stand for the part, as the parts are concatenated. None if the call
            does not concern the probe.
        """
        raise NotImplementedError

    def remember(self, snapshot: Snapshot) -> Tensors:
        """`snapshot.memory` of the next measurement, with the same names and shapes at each. Called after `measure`.
        Part of the run's checkpoints."""
        raise NotImplementedError

    def measure(self, snapshot: Snapshot) -> Mapping[str, Tensors]:
        """Scalar tensors by metric and layer; layer "" is the whole network. A pure function of the snapshot."""
        raise NotImplementedError
