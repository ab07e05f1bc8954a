"""What every engine shares: a run's state, its loss, its evaluation and the verdict on divergence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnstudy.data.dataset import Dataset, Split
from bnstudy.inits import initialize
from bnstudy.losses import LossSpec
from bnstudy.models.structure import (
    activations,
    check_norm_has_effect,
    check_norm_is_trainable,
    has_branches,
    norm_parameters,
    weight_layers,
)
from bnstudy.probes.base import ProbeSpec
from bnstudy.probes.network import Mode, Params, in_parts, mode_of
from bnstudy.rng import stream
from bnstudy.run import RunSpec

PROBE_BATCH = 1024
CHANCE_MARGIN = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    seconds, probe_seconds: by purpose, and by probe.
    """

    status: str
    diverged_step: int | None
    diverged_because: str | None
    metrics: pa.Table
    timing: pa.Table
    final: dict[str, float]
    best: dict[str, float]
    seconds: dict[str, float]
    probe_seconds: dict[str, float] = field(default_factory=dict)


def build_model(spec: RunSpec, dataset: Dataset) -> nn.Module:
    """The run's network with its initial weights, on the CPU."""
    model = network_of(spec, dataset.shape, dataset.classes)
    initialize(model, spec.init, spec.seed)
    return model


def network_of(spec: RunSpec, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The run's network, its weights not drawn yet.

    Raises:
        ConfigError: the images, the network, its norm and what is to be trained do not go together.
    """
    model = spec.model.build(spec.norm, shape, classes)
    spec.norm.check_network(has_branches(model))
    check_norm_has_effect(spec.norm, model)
    if spec.trained == "norm":
        check_norm_is_trainable(model)
    return model


def are_trained(spec: RunSpec, model: nn.Module) -> list[bool]:
    """Of each parameter in order, whether updates change it."""
    names = [name for name, _ in model.named_parameters()]
    chosen = set(names) if spec.trained == "all" else norm_parameters(model)
    return [name in chosen for name in names]


def flatten_(parameters: list[nn.Parameter]) -> Tensor:
    """Move parameters into one flat tensor [P], in their order, and make them views of it; returns it."""
    flat = torch.cat([p.detach().reshape(-1) for p in parameters])
    for p, view in zip(parameters, views(flat, parameters), strict=True):
        p.data = view
    return flat


def views(flat: Tensor, like: list[nn.Parameter]) -> list[Tensor]:
    """`flat` [P] cut into tensors shaped as `like`, without a copy."""
    parts = flat.split([p.numel() for p in like])
    return [part.view(p.shape) for part, p in zip(parts, like, strict=True)]


def layer_weights(model: nn.Module) -> dict[str, str]:
    """Name of each weight layer, in order of depth, and of its weight parameter."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {layer: names[id(m.weight)] for layer, m in weight_layers(model).items()}


@torch.no_grad()
def evaluate(model: nn.Module, split: Split, loss: LossSpec, images: int | None = None) -> dict[str, Tensor]:
    """Mean `loss` and, where there are labels, `accuracy` (share) of the first `images` in evaluation mode: scalar
    tensors."""
    model.eval()
    chosen_x, chosen_y = split.x[:images], split.y[:images]
    outs = zip(in_parts(chosen_x), in_parts(chosen_y), strict=True)
    scores = [score(model(x), y, loss) for x, y in outs]
    model.train()
    return mean_scores(scores, len(chosen_y))


def score(out: Tensor, y: Tensor, loss: LossSpec) -> dict[str, Tensor]:
    """Sums over the samples of the loss and, where there are labels, of the right answers."""
    total = {"loss": loss.each(out, y).sum()}
    return total if y.is_floating_point() else {**total, "accuracy": (out.argmax(1) == y).sum()}


def mean_scores(parts: Sequence[Mapping[str, Tensor]], samples: int) -> dict[str, Tensor]:
    return {name: torch.stack([part[name] for part in parts]).sum(0) / samples for name in parts[0]}


def probe_choice(seed: int, dataset: Dataset) -> Tensor:
    """Which training images a run's probe batch holds, up to 1024: indices drawn once, the same for all arms of a
    seed."""
    chosen = torch.randperm(len(dataset.train), generator=stream(seed, "probe"))[:PROBE_BATCH]
    return chosen.to(dataset.train.x.device)


@torch.no_grad()
def observe(
    model: nn.Module, params: Params, buffers: Params, probes: Mapping[str, ProbeSpec], x: Tensor, mode: Mode
) -> dict[str, dict[str, Tensor]]:
    """What each probe keeps of each layer when the network, a `still` one, sees x: by probe, by layer."""
    own = {name: b.clone() for name, b in buffers.items()}  # as a module that counts batches does so in place
    with mode_of(model, mode), tapped(model, probes) as seen:
        out = functional_call(model, (dict(params), own), (x,))
    last = list(weight_layers(model))[-1]
    for name, probe in probes.items():
        kept = probe.observe(nn.Identity(), out, out)
        if kept is not None:
            seen[name][last] = kept
    return seen


@contextmanager
def tapped(model: nn.Module, probes: Mapping[str, ProbeSpec]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Gives a mapping that a forward pass inside fills with what each probe keeps of each layer."""
    kept: dict[str, dict[str, Tensor]] = {name: {} for name in probes}

    def tap(layer: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            for name, probe in probes.items():
                seen = probe.observe(module, inputs[0], output)
                if seen is not None:
                    kept[name][layer] = seen

        return hook

    handles = [module.register_forward_hook(tap(layer)) for layer, module in activations(model).items()]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def joined(parts: Sequence[Mapping[str, Mapping[str, Tensor]]], dim: int = 0) -> dict[str, dict[str, Tensor]]:
    """What was kept of the parts of a batch, put together along the images' dimension."""
    return {
        name: {layer: torch.cat([part[name][layer] for part in parts], dim) for layer in layers}
        for name, layers in parts[0].items()
    }


class Stopwatch:
    """A run's seconds by purpose: its equal share where `shared_by` runs are trained at once. On a GPU a purpose ends
    only when its work is done."""

    def __init__(self, device: torch.device, shared_by: int = 1) -> None:
        self.seconds = {"starting": 0.0, "training": 0.0, "evaluation": 0.0, "probes": 0.0}
        self.shared_by = shared_by
        self._cuda = device if device.type == "cuda" else None

    def now(self) -> float:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter()

    def add(self, purpose: str, begin: float) -> None:
        """What has passed since `begin`."""
        self.seconds[purpose] += (self.now() - begin) / self.shared_by

    @contextmanager
    def __call__(self, purpose: str) -> Iterator[None]:
        begin = self.now()
        try:
            yield
        finally:
            self.add(purpose, begin)
