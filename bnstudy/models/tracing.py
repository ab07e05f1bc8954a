"""Finds the parts of a network while it runs: its weights, activations, channels and norms, by the flow of its data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bnstudy.models.activations import Call
from bnstudy.models.flow import Tap, Tracer, layer_of
from bnstudy.norms.weight import ReparametrizedLayer
from bnstudy.validation import ConfigError

Mode = Literal["training", "running", "batch"]
"""How the network is run. training: as in the next step, with batch statistics, dropout and other noise. running: as in
evaluation, with running statistics. batch: as in evaluation, but with the statistics of the given batch: modules that
keep statistics are in training mode."""

MODES: tuple[Mode, ...] = ("training", "running", "batch")


def keeps_statistics(module: nn.Module) -> bool:
    """Whether this module, of a copy for probes, keeps statistics of batches."""
    return bool(getattr(module, "keeps_statistics", False))


def set_mode(model: nn.Module, mode: Mode) -> None:
    model.train(mode == "training")
    if mode == "batch":
        for module in model.modules():
            if keeps_statistics(module):
                module.training = True


@dataclass(frozen=True)
class Seen:
    """What there is in a network, in order of execution.

    passes: by mode, the calls of activations in a forward pass; None for a call inside a norm, or not of units.
    weights: the name of each parameter of two or more dimensions, by first use, under the name of its layer.
    parameters: the names of all parameters, in order of first use; those never used come last.
    normalized: the layers whose norm cancels the scale of their weight.
    overwrites: whether operations in place change what the network computed before.
    unseen: sentences that say what probes cannot see.
    """

    output: ClassVar[str] = "out"
    """The name of the output of the network in metrics, whichever layer computes it: claims leave it out by this name.
    No call of an activation has it."""

    passes: Mapping[Mode, tuple[Call | None, ...]]
    weights: dict[str, str]
    parameters: tuple[str, ...]
    normalized: frozenset[str]
    overwrites: bool
    unseen: tuple[str, ...]

    @property
    def activations(self) -> tuple[Call, ...]:
        """The calls of activations in training mode, in nearly all networks the same as in the others."""
        return self.calls("training")

    def calls(self, mode: Mode) -> tuple[Call, ...]:
        return tuple(call for call in self.passes[mode] if call is not None)


NOTHING = Seen(dict.fromkeys(MODES, ()), {}, (), frozenset(), False, ())


def look(model: nn.Module, example: Tensor) -> Seen:
    """Run a copy of the network on small batches [B, ...], twice in each mode. The network itself does not change, nor
    does torch's random generator.

    Raises:
        ConfigError: the output is not a tensor [B, classes].
    """
    model, x = copy.deepcopy(model).cpu(), example.detach().cpu()
    dtype = next((p.dtype for p in model.parameters()), x.dtype)
    x = x.to(dtype) if x.is_floating_point() else x
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        tracers = {mode: _trace(model, x, mode) for mode in MODES}
    passes = {mode: _calls(*both) for mode, both in tracers.items()}
    tracer = tracers["training"][0]
    weights = {layer_of(name): name for name in _matrices(model, tracer)}
    names = [name for name, _ in model.named_parameters()]
    unused = [name for name in names if name not in tracer.used]
    own = {layer_of(f"{path}.weight") for path, m in model.named_modules() if isinstance(m, ReparametrizedLayer)}
    seen = Seen(
        passes=passes,
        weights=weights,
        parameters=(*tracer.used, *unused),
        normalized=frozenset(layer for layer in weights if layer in tracer.normalized | own),
        overwrites=tracer.overwrites,
        unseen=(),
    )
    return replace(seen, unseen=tuple(_unseen(seen, tracer, unused)))


def _trace(model: nn.Module, x: Tensor, mode: Mode) -> tuple[Tracer, Tracer]:
    """Run the model on x, and on one sample more: the dimensions that differ are those of the samples."""
    set_mode(model, mode)
    tracers = []
    for batch in (x, torch.cat([x, x[:1]])):
        with Tracer(model, batch) as tracer:
            out = model(batch)
        check_output(out, len(batch))
        tracer.forget()
        tracers.append(tracer)
    return tracers[0], tracers[1]


def check_output(out: Any, samples: int) -> None:
    """Raises ConfigError if the output of a network is not [samples, classes]."""
    if isinstance(out, Tensor) and out.ndim == 2 and len(out) == samples:
        return
    shape = f"a tensor {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    raise ConfigError(
        f"This network is not allowed: for {samples} images it returns {shape}; it must return a tensor "
        f"[{samples}, classes]. A module that calls it and returns only the logits makes it one."
    )


def _matrices(model: nn.Module, tracer: Tracer) -> Iterator[str]:
    """The parameters of two or more dimensions, in order of first use, without those that only scale a weight."""
    sizes = {name: p.ndim for name, p in model.named_parameters()}
    scales = {
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, ReparametrizedLayer)
        for name, _ in module.named_parameters()
        if name != "weight"
    }
    return (name for name in tracer.used if sizes[name] >= 2 and name not in scales)


def _calls(first: Tracer, second: Tracer) -> tuple[Call | None, ...]:
    """The calls of a mode, from a run on B and one on B + 1 samples."""
    calls: list[Call | None] = []
    names = {Seen.output}
    for tap, other in zip(first.taps, second.taps, strict=False):
        differ = [d for d, (n, m) in enumerate(zip(tap.shape, other.shape, strict=False)) if n != m]
        if not differ or tap.is_hidden:
            calls.append(None)
            continue
        samples, layer = differ[0], tap.flow.layer or "input"
        name = layer
        for number in count(2):
            if name not in names and (name == layer or name not in first.layers):
                break
            name = f"{layer}.{number}"
        names.add(name)
        calls.append(Call(name, tap.kind, _channel(tap, samples), samples))
    return tuple(calls)


def _channel(tap: Tap, samples: int) -> int:
    """The dimension of the channels, which is not that of the samples."""
    channel = min(tap.flow.channel, len(tap.shape) - 1)
    if channel == samples and len(tap.shape) > 1:
        return len(tap.shape) - 1 if samples == 0 else 0
    return channel


def _unseen(seen: Seen, tracer: Tracer, unused: Sequence[str]) -> Iterator[str]:
    calls, others = seen.activations, seen.calls("running")
    for layer, function in tracer.fused.items():
        yield (
            f"{layer} ({function}) computes its activations inside a single call: there are no dead units, "
            "pre-activations or backprop of them."
        )
    if [(call.name, call.kind) for call in calls] != [(call.name, call.kind) for call in others]:
        yield (
            "In evaluation the network calls other activations than in training: dead units and pre-activations are "
            "those of evaluation, backprop is that of training."
        )
    if not calls and not tracer.fused and len(seen.weights) > 1:
        yield "The network calls no activation that probes know: there are no dead units or backprop."
    if unused:
        named = ", ".join(unused[:3]) + (f" and {len(unused) - 3} more" if len(unused) > 3 else "")
        yield f"The forward pass never uses {named}: these parameters have no layer in the metrics, and no gradient."
