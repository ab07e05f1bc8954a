"""The interface between the training loop and its engines, which are in `serial.py` and `stacked.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec

Tensors = list[Tensor]


class Engine(Protocol):
    """Holds the state of R runs and makes their steps. It counts no steps: `t` is the number of steps done.

    A tensor of the runs has a leading axis for the runs in the stacked engine, and none in the serial one.

    model: the network that the runs share, in training mode.
    params: the parameters in pieces that the optimizer treats alike.
    slots: the optimizer state of each piece; empty for a piece that is not trained.
    start: the parameters before training, if a probe needs them.
    memory: what probes remember of the runs, by probe.
    """

    name: str
    model: nn.Module
    params: Tensors
    slots: list[dict[str, Tensor]]
    start: Tensors
    memory: dict[str, dict[str, Tensor]]

    def step(self, t: int) -> Tensor:
        """Make a step; returns the losses [R]."""

    def step_with_grads(self, t: int) -> tuple[Tensor, Tensors]:
        """Make a step; returns the losses [R] and the gradients of all pieces, those not trained included."""

    def batch(self, t: int) -> tuple[Tensor, Tensor]:
        """The next training batch of the runs: images and labels."""

    def learning_rate(self, t: int) -> Tensor:
        """The learning rate of the next step; after the last step, that of the last."""

    def by_name(self, pieces: Tensors) -> dict[str, Tensor]:
        """Parameters, or tensors in the same pieces, by name."""

    def buffers(self) -> dict[str, Tensor]:
        """The network's buffers by name."""

    @property
    def probe_index(self) -> Tensor:
        """The training images in the probe batch of the runs: indices [N]."""

    def map(self, function: Callable[..., Any], *tensors: Any) -> Any:
        """Apply a function of one run's tensors to each run. May return results for more than R runs."""

    def repeat(self, name: str, function: Callable[[], Any]) -> Any:
        """What a function gives that reads only the state of the runs, and tensors that never change. The engine may
        keep the first function of this name, and evaluate it later instead of an equal one."""

    def keep(self, runs: Sequence[int]) -> None:
        """Drop all but these runs, at least one."""

    def state(self, run: int) -> dict[str, Any]:
        """One run's `params` and `slots`, flat and in the order of the parameters, `buffers` and `memory`."""

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue from the runs' states. Both engines read the states of both.

        Raises:
            KeyError, RuntimeError, ValueError: a state does not fit its run; the state of the runs is then undefined.
        """


@contextmanager
def undone(engine: Engine) -> Iterator[None]:
    """Restore parameters, optimizer state and buffers afterwards."""
    tensors = [*engine.params, *(t for own in engine.slots for t in own.values()), *engine.buffers().values()]
    kept = [t.clone() for t in tensors]
    yield
    for tensor, value in zip(tensors, kept, strict=True):
        tensor.copy_(value)


def in_precision(dataset: Dataset, spec: RunSpec) -> Dataset:
    """The dataset in the run's precision. With bf16 the network's inputs are in float32."""
    return dataset.in_float64 if spec.precision == "fp64" and dataset.train.x.dtype != torch.float64 else dataset


def needs_start(spec: RunSpec) -> bool:
    """Whether a probe needs the parameters before training."""
    return any(probe.needs_start for probe in spec.probe.values())


def training_loss(
    spec: RunSpec, network: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, alone: bool = False
) -> Tensor:
    """The mean loss of a batch. With precision=bf16 the network is under autocast, and the loss is in float32.

    alone: the run is in no stack.
    """
    is_half = spec.precision == "bf16"
    with torch.autocast(x.device.type, torch.bfloat16) if is_half else nullcontext():
        out = network(x)
    mean = spec.loss.mean_alone if alone else spec.loss.mean
    return mean(out.to(torch.promote_types(out.dtype, torch.float32)), y)
