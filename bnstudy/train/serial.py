"""The serial engine: one run, plain autograd. The stacked engine is tested against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, compress, groupby
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.data.batches import BatchStream
from bnstudy.data.dataset import Dataset
from bnstudy.models.trial import trial
from bnstudy.run import RunSpec
from bnstudy.train.build import build_model, trained_mask
from bnstudy.train.engine import Tensors, in_precision, needs_start, training_loss
from bnstudy.train.probing import draw_probe_index

LARGE = 2**15
"""Elements of a parameter that is updated by itself: copying its gradient would take longer than a call."""


class SerialEngine:
    """One run. Its parameters are a flat tensor [P], or two: the trained parameters and the others."""

    name = "serial"
    batch: Callable[[int], tuple[Tensor, Tensor]]
    probe_index: Tensor

    def __init__(self, spec: RunSpec, dataset: Dataset, device: torch.device) -> None:
        """Raises ConfigError: spec and data do not fit together."""
        dataset = in_precision(dataset, spec)
        self._begin(spec, dataset, device, build_model(spec, dataset).to(dataset.train.x.dtype))
        self.batch = BatchStream(dataset, spec.data.augment, spec.batch_size, spec.seed, spec.data.length)
        self.probe_index = draw_probe_index(spec.seed, dataset)

    def _begin(self, spec: RunSpec, dataset: Dataset, device: torch.device, model: nn.Module) -> None:
        """Start with this network."""
        self.spec, self.device = spec, device
        self.total = spec.total_steps(len(dataset.train))
        self.model = model.to(device).train()
        self._assigned = assigned_buffers(self.model, dataset.train.x[:2])
        self._parts = trained_and_others(spec, self.model)
        self.model.requires_grad_(True)  # probes measure gradients of all parameters
        self.params = [flatten_(part) for part in self._parts]
        self.slots = [{name: torch.zeros_like(self.params[0]) for name in spec.optim.slots()}]
        self._pieces = pieces(self._parts[0], self.params[0], self.slots[0])
        self.start = [piece.clone() for piece in self.params] if needs_start(spec) else []
        self.memory: dict[str, dict[str, Tensor]] = {}
        self._hyper = spec.optim.hyper()

    def step(self, t: int) -> Tensor:
        return self._step(t, self._parts[0])[0]

    def step_with_grads(self, t: int) -> tuple[Tensor, Tensors]:
        loss, grads = self._step(t, [p for part in self._parts for p in part])
        sizes = [len(part) for part in self._parts]
        ends = list(accumulate(sizes))
        return loss, [flatten(grads[end - size : end]) for size, end in zip(sizes, ends, strict=True)]

    def _step(self, t: int, parameters: list[nn.Parameter]) -> tuple[Tensor, Sequence[Tensor]]:
        """Make a step; returns the loss and the gradients of these parameters, the trained ones first."""
        x, y = self.batch(t)
        loss = self._loss(x, y)
        for module, name, buffer in self._assigned:
            module._buffers[name] = buffer.copy_(getattr(module, name).detach())
        grads = torch.autograd.grad(loss, parameters, materialize_grads=True)
        rate = self._rate(t)
        for places, params, slots in self._pieces:
            own = grads[places]
            self.spec.optim.update_(params, own[0] if len(own) == 1 else flatten(own), slots, rate, t + 1, self._hyper)
        return loss.detach(), grads

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        return training_loss(self.spec, self.model, x, y, alone=True)

    def _rate(self, t: int) -> float:
        return self.spec.lr_at_batch_size * self.spec.schedule.factor(min(t, self.total - 1), self.total)

    def learning_rate(self, t: int) -> Tensor:
        return torch.tensor(self._rate(t), device=self.device)

    def by_name(self, pieces: Tensors) -> dict[str, Tensor]:
        found: dict[nn.Parameter, Tensor] = {}
        for piece, part in zip(pieces, self._parts, strict=True):
            found |= zip(part, views(piece, part), strict=True)
        return {name: found[p] for name, p in self.model.named_parameters()}

    def buffers(self) -> dict[str, Tensor]:
        return dict(self.model.named_buffers())

    def map(self, function: Callable[..., Any], *tensors: Any) -> Any:
        return function(*tensors)

    def repeat(self, name: str, function: Callable[[], Any]) -> Any:  # noqa: ARG002
        return function()

    def keep(self, runs: Sequence[int]) -> None:
        """The only run stays."""

    def state(self, run: int = 0) -> dict[str, Any]:  # noqa: ARG002
        params = flatten([p.detach() for p in self.model.parameters()])
        return {"params": params, "slots": dict(self.slots[0]), "buffers": self.buffers(), "memory": dict(self.memory)}

    def load(self, states: Sequence[Mapping[str, Any]]) -> None:
        [state] = states
        parameters = list(self.model.parameters())
        for p, value in zip(parameters, views(state["params"], parameters), strict=True):
            p.detach().copy_(value)
        for name, slot in self.slots[0].items():
            slot.copy_(state["slots"][name])
        for name, buffer in self.buffers().items():
            buffer.copy_(state["buffers"][name])
        self.memory = state["memory"]


@torch.no_grad()
def assigned_buffers(model: nn.Module, example: Tensor) -> list[tuple[nn.Module, str, Tensor]]:
    """The module, name and tensor of each buffer that a forward pass replaces by another of its shape, instead of
    changing it in place: the state of a run consists of the same tensors at all steps."""
    with torch.random.fork_rng([example.device] if example.is_cuda else []), trial(model):
        own = [(m, name, b) for m in model.modules() for name, b in m._buffers.items() if b is not None]
        if own:
            model(example)
        found = []
        for module, name, b in own:
            now = module._buffers[name]
            if now is not None and now is not b and now.shape == b.shape:
                found.append((module, name, b))
        return found


def trained_and_others(spec: RunSpec, model: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters that training changes and, if there are any, the others."""
    mask = trained_mask(spec, model)
    both = [list(compress(model.parameters(), chosen)) for chosen in (mask, [not trained for trained in mask])]
    return [part for part in both if part]


def pieces(
    parameters: list[nn.Parameter], flat: Tensor, slots: Mapping[str, Tensor]
) -> list[tuple[slice, Tensor, dict[str, Tensor]]]:
    """Divide `flat` [P] and the optimizer state for updates: each large parameter alone and in its shape, small
    neighbours together and flat. Each piece begins with its places among the parameters."""
    found, begin = [], 0
    for _, group in groupby(enumerate(parameters), lambda item: item[0] if item[1].numel() >= LARGE else -1):
        places, own = zip(*group, strict=True)
        end, shape = begin + sum(p.numel() for p in own), own[0].shape if len(own) == 1 else (-1,)
        params, *state = (tensor[begin:end].view(shape) for tensor in (flat, *slots.values()))
        found.append((slice(places[0], places[-1] + 1), params, dict(zip(slots, state, strict=True))))
        begin = end
    return found


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors in one flat tensor [P]."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def flatten_(parameters: list[nn.Parameter]) -> Tensor:
    """Move parameters into one flat tensor [P], in their order, and make them views of it; returns it."""
    flat = flatten([p.detach() for p in parameters])
    for p, view in zip(parameters, views(flat, parameters), strict=True):
        p.data = view
    return flat


def views(flat: Tensor, like: list[nn.Parameter]) -> list[Tensor]:
    """Views of `flat` [P] in the shapes of the parameters `like`."""
    parts = flat.split([p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]
