"""The serial engine: one run, plain autograd. The reference that every other engine is tested against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.data.batches import BatchStream
from bnstudy.data.dataset import Dataset
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.network import Mode, in_parts
from bnstudy.run import RunSpec
from bnstudy.train.loop import Engine, Probed, Tensors
from bnstudy.train.state import are_trained, build_model, evaluate, flatten_, joined, observe, probe_choice, views


class SerialRun(Engine):
    """One run in training; its parameters are a flat tensor [P], or two: those that are trained, and the others."""

    name = "serial"

    def __init__(self, spec: RunSpec, dataset: Dataset, device: torch.device, compiled: bool = False) -> None:
        """Raises ConfigError where spec and data do not fit."""
        super().__init__([spec], dataset, device)
        self.spec = spec
        self.batches = BatchStream(dataset, spec.data.augment, spec.batch_size, spec.seed)
        self.model = build_model(spec, dataset).to(device).train()
        self._parts = parts_of(spec, self.model)
        self.params = [flatten_(part) for part in self._parts]
        self.slots = [{name: torch.zeros_like(self.params[0]) for name in spec.optim.slots()}]
        if any(probe.needs_start for probe in spec.probe.values()):
            self.start = [piece.clone() for piece in self.params]
        self._probe_index = probe_choice(spec.seed, dataset)
        self._probe_x = dataset.train.x[self._probe_index]
        self._loss = self._compiled_loss() if compiled else self._plain_loss

    def _plain_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return self.spec.loss.mean(self.model(x), y)

    def _compiled_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        # Dynamo keeps a few compilations of one function and then falls back to eager without a word.
        torch.compiler.reset()
        return torch.compile(self._plain_loss)

    def _update(self, whole: bool = True) -> tuple[Tensor, Tensors]:
        x, y = self.batches(self.step)
        if self.spec.precision == "bf16":
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self._loss(x, y)
        else:
            loss = self._loss(x, y)
        grads = self._gradients(loss, self._parts if whole else self._parts[:1])
        self.spec.optim.update_(self.params[0], grads[0], self.slots[0], self._rate(), self.step + 1)
        return loss.detach(), grads

    def _gradients(self, loss: Tensor, parts: list[list[nn.Parameter]]) -> Tensors:
        """Of the loss with regard to each of the parts, flat."""
        found = iter(torch.autograd.grad(loss, [p for part in parts for p in part]))
        return [torch.cat([next(found).reshape(-1) for _ in part]) for part in parts]

    def _rate(self) -> float:
        """Of the next update; after the last one, where probes still look, that of the last."""
        return self.spec.lr * self.spec.schedule.factor(min(self.step, self.total - 1), self.total)

    def _lr(self) -> Tensor:
        return torch.tensor([self._rate()], device=self.device)

    def _evaluated(self, split: str, images: int | None) -> Mapping[str, Tensor]:
        return evaluate(self.model, getattr(self.dataset, split), self.spec.loss, images)

    def _observed(self, probes: Mapping[str, ProbeSpec], mode: Mode) -> Mapping[str, Mapping[str, Tensor]]:
        params, buffers = self._named(self.params), self._buffers()
        return joined([observe(self._still, params, buffers, probes, x, mode) for x in in_parts(self._probe_x)])

    def _inputs_of_network(self) -> dict[str, Any]:
        return {
            "buffers": {name: b.clone() for name, b in self._buffers().items()},
            "batch": self.batches(self.step),
            "probe_index": self._probe_index,
            "lr": self._lr()[0],
        }

    def _probed(self, probe: ProbeSpec, seen: Mapping[str, Any]) -> Probed:
        return self._use(probe, seen)

    def _named(self, pieces: Tensors) -> dict[str, Tensor]:
        found = {
            id(p): view
            for piece, part in zip(pieces, self._parts, strict=True)
            for p, view in zip(part, views(piece, part), strict=True)
        }
        return {name: found[id(p)] for name, p in self.model.named_parameters()}

    def _buffers(self) -> Mapping[str, Tensor]:
        return dict(self.model.named_buffers())

    def _keep(self, runs: Sequence[int]) -> None:
        """There is one run, and it stays."""

    def state(self, run: int = 0) -> dict[str, Any]:
        params = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])
        return self._state(run, params, self.slots[0], self._buffers(), self.memory)

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        [state] = states
        parameters = list(self.model.parameters())
        for p, value in zip(parameters, views(state["params"], parameters), strict=True):
            p.detach().copy_(value)
        for name, slot in self.slots[0].items():
            slot.copy_(state["slots"][name])
        for name, buffer in self._buffers().items():
            buffer.copy_(state["buffers"][name])
        self.memory = state["memory"]
        self._load(states)


def parts_of(spec: RunSpec, model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters that are trained and, if there are any, the others."""
    trained = are_trained(spec, model)
    both = [[p for p, own in zip(model.parameters(), trained, strict=True) if own is kind] for kind in (True, False)]
    return [part for part in both if part]
