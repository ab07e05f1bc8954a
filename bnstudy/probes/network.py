"""What a probe can do with a run's network: differentiate its loss, look inside, and change nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from bnstudy.data.dataset import Dataset
from bnstudy.losses import LossSpec
from bnstudy.models.structure import activations
from bnstudy.norms.explicit import ExplicitNorm, make_explicit

Params = Mapping[str, Tensor]


def value_and_grad(function: Callable[[Any], Tensor]) -> Callable[[Any], tuple[Tensor, Any]]:
    """As `torch.func.grad_and_value`, the value first; that imports torch's compiler with its first call, which takes
    two seconds."""

    def both(at: Any) -> tuple[Tensor, Any]:
        value, back = vjp(function, at)[:2]
        return value, back(torch.ones_like(value))[0]

    return both


def grad(function: Callable[[Any], Tensor]) -> Callable[[Any], Any]:
    """As `torch.func.grad`: see `value_and_grad`."""
    return lambda at: value_and_grad(function)(at)[1]


Batch = tuple[Tensor, Tensor]

Mode = Literal["training", "running", "batch"]
"""How the network is run: as in the next update, with batch statistics, dropout and what other noise there is; as in
evaluation, with running statistics; or as in evaluation but with the statistics of the batch it is given."""

PART = 256
"""Images that are run through the network at once: more would take a stack's memory, and fall out of a CPU's cache,
with which a ResNet takes twice as long."""


def in_parts(x: Tensor) -> tuple[Tensor, ...]:
    """`x` [N, ...] in nearly equal parts of at most PART: none is so small that a norm that takes its statistics from
    the batch in evaluation too would have nothing to take them from."""
    return x.tensor_split(-(-len(x) // PART))


def still(model: nn.Module) -> nn.Module:
    """A copy of the model for probes: its norms written out, which can be differentiated again and again, and not
    moving their running statistics."""
    model = copy.deepcopy(model)
    make_explicit(model)
    for module in model.modules():
        if isinstance(module, ExplicitNorm):
            module.tracks = False
    return model.requires_grad_(False)


@contextmanager
def mode_of(model: nn.Module, mode: Mode) -> Iterator[None]:
    """Have the model in this mode, and in training mode after it."""
    model.train(mode == "training")
    if mode == "batch":
        for module in model.modules():
            if isinstance(module, ExplicitNorm):
                module.train()
    try:
        yield
    finally:
        model.train()


@dataclass(frozen=True)
class Network:
    """One run's network as pure functions of its parameters, at the run's present buffers.

    model: a `still` copy of the run's.
    batch: the training batch of the next update: x [B, C, H, W] and y [B].
    probe_index: which training images are the run's probe batch, [N].
    lr: the learning rate of the next update, a scalar tensor.
    """

    model: nn.Module
    loss_spec: LossSpec
    dataset: Dataset
    buffers: Params
    batch: Batch
    probe_index: Tensor
    lr: Tensor

    def __call__(self, params: Params, x: Tensor, mode: Mode = "training", buffers: Params | None = None) -> Tensor:
        """The outputs [N, classes] for x [N, C, H, W]; with other `buffers` in place of the run's where given."""
        # Cloned, as a module that counts batches does so in place.
        own = {name: b.clone() for name, b in (self.buffers if buffers is None else buffers).items()}
        with mode_of(self.model, mode):
            return functional_call(self.model, (dict(params), own), (x,))

    def loss(self, params: Params, batch: Batch | None = None, mode: Mode = "training") -> Tensor:
        """The mean loss of a batch, that of the next update if none is given: a scalar."""
        x, y = self.batch if batch is None else batch
        return self.loss_spec.each(self(params, x, mode), y).mean()

    def inside(
        self, params: Params, x: Tensor, mode: Mode = "training", shifts: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs and the pre-activations by layer, [N, units] or [N, channels, H, W].

        shifts: added to the pre-activations. The gradient with regard to shifts of zero is that with regard to the
        pre-activations.
        """
        seen: dict[str, Tensor] = {}

        def tap(layer: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
            def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001
                z = inputs[0] if shifts is None else inputs[0] + shifts[layer]
                seen[layer] = z
                return (z, *inputs[1:])

            return hook

        with ExitStack() as hooks:
            for layer, module in activations(self.model).items():
                hooks.callback(module.register_forward_pre_hook(tap(layer)).remove)
            return self(params, x, mode), seen

    def probe_batch(self, samples: int | None = None) -> Batch:
        """The first so many images of the run's probe batch, and their labels."""
        chosen = self.probe_index[:samples]
        return self.dataset.train.x[chosen], self.dataset.train.y[chosen]

    def held_out(self, samples: int | None = None) -> Batch:
        """The first so many images of the validation split, a stratified sample, and their labels; in a fixed random
        order, since in a batch that holds all classes in equal parts statistics are better than in any other."""
        n = len(self.dataset.val.y[:samples])
        order = torch.from_numpy(np.random.default_rng(0).permutation(n)).to(self.dataset.val.x.device)
        return self.dataset.val.x[order], self.dataset.val.y[order]
