"""Refuse arms that are the same network: a verdict on them would compare a network with itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnstudy.data.base import DataSpec
from bnstudy.norms.base import NormSpec
from bnstudy.norms.keep import KeepNorm
from bnstudy.norms.none import NoNorm
from bnstudy.run import RunSpec
from bnstudy.sweep.request import PlannedRun, naming
from bnstudy.train.build import network_of
from bnstudy.validation import ConfigError, show, to_dict

FEW = 4
"""Images of the first comparison."""

SCALES = (1.0, 10.0, 0.1)
"""Scales of the images in the second comparison: a norm may limit its statistics."""


class Inputs(NamedTuple):
    """What a network is built for: the shape of the images, and the number of classes, or of values in a target."""

    shape: tuple[int, int, int]
    classes: int
    is_labelled: bool = True

    def targets(self, *shape: int) -> Tensor:
        """Labels of this shape, or targets, all 0."""
        return torch.zeros(shape, dtype=torch.int64) if self.is_labelled else torch.zeros(*shape, self.classes)


def refuse_same_networks(runs: Sequence[PlannedRun], inputs: Mapping[DataSpec, Inputs]) -> None:
    """Compare the networks of runs whose models are the same and whose norms differ.

    Raises:
        ConfigError: two of them are the same network, a norm leaves a network with hidden layers as it is without
            norms, or the network is the same with either norm.position.
    """
    networks = Networks()
    distinct: dict[str, dict[str, PlannedRun]] = {}
    for run in runs:
        of_model = distinct.setdefault(json.dumps([to_dict(run.spec.model), inputs[run.spec.data]]), {})
        of_model.setdefault(json.dumps(to_dict(run.spec.norm)), run)
    for of_model in distinct.values():
        for run in of_model.values():
            with naming(run.name):
                refuse_ignored_norm(run.spec, inputs[run.spec.data], networks)
        refuse_equal_norms([run.spec for run in of_model.values()], inputs, networks)


def refuse_ignored_norm(run: RunSpec, inputs: Inputs, networks: Networks) -> None:
    """Raises ConfigError if the network ignores the norm, or its position."""
    norm, model = run.norm, run.model.label
    place = "call norm.build where the norm belongs (docs/how-to/own-model.md)"
    if not leaves_all(norm) and networks.are_same(run, replace(run, norm=NoNorm()), inputs):
        if networks.has_hidden_layers(run, inputs):
            raise ConfigError(
                f"norm={norm.label} is not allowed with model={model}, which ignores it: the network is the same as "
                f"with norm=none; {place}, or choose norm=none."
            )
        return
    before = replace(run, norm=replace(norm, position="before"))
    if norm.position == "after" and networks.are_same(run, before, inputs):
        raise ConfigError(
            f"norm.position=after is not allowed with model={model}, which ignores it: the network is the same as with "
            "norm.position=before; read norm.position in the model, or leave it out."
        )


def refuse_equal_norms(runs: Sequence[RunSpec], inputs: Mapping[DataSpec, Inputs], networks: Networks) -> None:
    """Raises ConfigError if two of these runs, which differ in norms, have the same network."""
    seen: dict[str, list[RunSpec]] = {}
    for run in runs if len(runs) > 1 else ():
        others = seen.setdefault(networks.sketch(run, inputs[run.data]), [])
        for other in others:
            if networks.are_same(other, run, inputs[run.data]):
                first, second = differing(other.norm, run.norm)
                raise ConfigError(
                    f"{first} and {second} are not allowed together with model={run.model.label}: they are the same "
                    "network, so that there is nothing to compare; leave one of them out."
                )
        others.append(run)


def leaves_all(norm: NormSpec) -> bool:
    """Whether the norm adds nothing to a network, as none and keep do not."""
    return isinstance(norm, NoNorm | KeepNorm)


def differing(first: NormSpec, second: NormSpec) -> tuple[str, str]:
    """How two norms are told apart: by their names, or by the keys in which they differ."""
    if type(first) is not type(second):
        return f"norm={first.label}", f"norm={second.label}"
    keys = [f.name for f in fields(first) if getattr(first, f.name) != getattr(second, f.name)]
    texts = [" ".join(f"norm.{key}={show(getattr(norm, key))}" for key in keys) for norm in (first, second)]
    return texts[0], texts[1]


class Networks:
    """Compares networks, each built once: by a sketch, and if sketches are equal, thoroughly."""

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def are_same(self, first: RunSpec, second: RunSpec, inputs: Inputs) -> bool:
        """Whether two runs have the same network, as far as training steps and evaluations on random images show."""
        if self.sketch(first, inputs) != self.sketch(second, inputs):
            return False
        images = max(first.batch_size, second.batch_size, FEW)
        return self._thorough(first, inputs, images) == self._thorough(second, inputs, images)

    def sketch(self, run: RunSpec, inputs: Inputs) -> str:
        return self._once(run, inputs, FEW, lambda: fingerprint(run, inputs, FEW))

    def _thorough(self, run: RunSpec, inputs: Inputs, images: int) -> str:
        """As in training, with batches as large, and in float64 if the network allows it, so that small differences in
        eps are seen."""

        def in_double() -> str:
            try:
                return fingerprint(run, inputs, images, torch.float64, SCALES)
            except Exception:  # such as a tensor of float32 that the network makes itself
                return fingerprint(run, inputs, images, scales=SCALES)

        return self._once(run, inputs, -images, in_double)

    def _once(self, run: RunSpec, inputs: Inputs, images: int, make: Callable[[], str]) -> str:
        key = json.dumps([to_dict(run.model), to_dict(run.norm), inputs, images])
        if key not in self._made:
            try:
                self._made[key] = make()
            except Exception:  # what cannot be compared is not refused here
                self._made[key] = key
        return self._made[key]

    def has_hidden_layers(self, run: RunSpec, inputs: Inputs) -> bool:
        """Whether the network has more weights than those of a classifier."""
        weights = [p for p in network_of(run, inputs.shape, inputs.classes).parameters() if p.ndim > 1]
        return len(weights) > 1


def fingerprint(
    run: RunSpec,
    inputs: Inputs,
    images: int,
    dtype: torch.dtype = torch.float32,
    scales: Sequence[float] = (1.0,),
) -> str:
    """A digest of a network: its parameters and buffers, and what it computes in training and then in evaluation.

    Weights are replaced by fixed noise, and noise is added to all other parameters: a scale of 0 would hide what it
    scales.

    scales: of the images of successive training batches.
    """
    digest = hashlib.sha256()
    generator = torch.Generator().manual_seed(0)

    def note(name: str, tensor: Tensor | None) -> None:
        digest.update(f"{name}{'' if tensor is None else tuple(tensor.shape)}".encode())
        if tensor is not None:
            digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = network_of(run, inputs.shape, inputs.classes).to(dtype).train()
        fill_with_noise(network, generator, note)
        x = torch.randn(images, *inputs.shape, generator=generator).to(dtype)
        for scale in scales:
            out = network(scale * x)
            note("output", out)
            leaves = [p for p in network.parameters() if p.requires_grad]
            for grad in torch.autograd.grad(out.square().mean(), leaves, allow_unused=True):
                note("gradient", grad)
            for name, buffer in network.named_buffers():
                note(name, buffer)
        with torch.no_grad():
            note("evaluation", network.eval()(x))
    return digest.hexdigest()


@torch.no_grad()
def fill_with_noise(network: nn.Module, generator: torch.Generator, note: Callable[[str, Tensor | None], None]) -> None:
    """Replace weights by noise, and add noise to the other parameters, whose initial values are noted."""
    for name, p in network.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim > 1:
            note(f"{name}{tuple(p.shape)}", None)
            p.copy_(noise / p[0].numel() ** 0.5)
        else:
            note(name, p)
            p.add_(0.1 * noise)
    for name, buffer in network.named_buffers():
        note(name, buffer)
