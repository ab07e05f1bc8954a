"""The serial engine: one run, plain autograd. The reference that every other engine is tested against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.data import BatchStream, Dataset
from bnstudy.probes import Snapshot
from bnstudy.spec import ProbeSpec, RunSpec
from bnstudy.train.engine import Engine, Tensors
from bnstudy.train.state import build_model, evaluate, flatten_, layer_weights, observe, probe_choice, views


class SerialRun(Engine):
    """One run in training; its parameters are one flat tensor [P]."""

    name = "serial"

    def __init__(self, spec: RunSpec, dataset: Dataset, device: torch.device, compiled: bool = False) -> None:
        """Raises ConfigError where spec and data do not fit."""
        super().__init__([spec], dataset, device)
        self.spec = spec
        self.batches = BatchStream(dataset, spec.data.augment, spec.batch_size, spec.seed)
        self.model = build_model(spec, dataset).to(device).train()
        self.params = [flatten_(self.model)]
        self.slots = [{name: torch.zeros_like(self.params[0]) for name in spec.optim.slots()}]
        self._parameters = list(self.model.parameters())
        self._layers = layer_weights(self.model)
        self._probe_x = dataset.train.x[probe_choice(spec.seed, dataset)]
        self._loss = self._compiled_loss() if compiled else self._plain_loss

    def _plain_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y)

    def _compiled_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        # Dynamo keeps a few compilations of one function and then falls back to eager without a word.
        torch.compiler.reset()
        return torch.compile(self._plain_loss)

    def _update(self) -> tuple[Tensor, Tensors]:
        x, y = self.batches(self.step)
        if self.spec.precision == "bf16":
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self._loss(x, y)
        else:
            loss = self._loss(x, y)
        grads = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, self._parameters)])
        self.spec.optim.update_(self.params[0], grads, self.slots[0], self._rate(), self.step + 1)
        return loss.detach(), [grads]

    def _rate(self) -> float:
        return self.spec.lr * self.spec.schedule.factor(self.step, self.total)

    def _lr(self) -> Tensor:
        return torch.tensor([self._rate()], device=self.device)

    def _evaluated(self, split: str, pictures: int | None) -> tuple[Tensor, Tensor]:
        return evaluate(self.model, getattr(self.dataset, split), pictures)

    def _observed(self, probes: Mapping[str, ProbeSpec]) -> Mapping[str, Mapping[str, Tensor]]:
        return observe(self.model, probes, self._probe_x)

    def _probed(self, probe: ProbeSpec, seen: Mapping[str, Any]) -> Mapping[str, Mapping[str, Tensor]]:
        return probe.measure(Snapshot(**seen, layers=self._layers))

    def _named(self, pieces: Tensors) -> dict[str, Tensor]:
        names = [name for name, _ in self.model.named_parameters()]
        return dict(zip(names, views(pieces[0], self._parameters), strict=True))

    def _buffers(self) -> Mapping[str, Tensor]:
        return dict(self.model.named_buffers())

    def _keep(self, runs: Sequence[int]) -> None:
        """There is one run, and it stays."""

    def state(self, run: int = 0) -> dict[str, Any]:
        return self._state(run, self.params[0], self.slots[0], self._buffers())

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        [state] = states
        self.params[0].copy_(state["params"])
        for name, slot in self.slots[0].items():
            slot.copy_(state["slots"][name])
        for name, buffer in self._buffers().items():
            buffer.copy_(state["buffers"][name])
        self._load(states)
