"""How probes measure runs in training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bnstudy.data.dataset import Dataset
from bnstudy.models.activations import Call, Taps
from bnstudy.models.tracing import NOTHING, Mode, Seen, look
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import Network, Params, copy_for_probes, in_parts, run_in_mode, unknown_statistics
from bnstudy.rng import stream
from bnstudy.run import RunSpec
from bnstudy.train.engine import Engine, Tensors
from bnstudy.train.record import Record, Stopwatch

PROBE_BATCH = 1024

EXAMPLE = 4
"""Images on which the network is looked at."""

Probes = Mapping[str, ProbeSpec]
ByLayer = Mapping[str, Tensor]


class Probing:
    """The probes of runs in training.

    seconds: a run's time by probe.
    seen: what there is in the network; nothing if there are no probes.
    """

    def __init__(self, spec: RunSpec, engine: Engine, dataset: Dataset, total: int, watch: Stopwatch) -> None:
        self.seconds = dict.fromkeys(spec.probe, 0.0)
        self.steps = {name: frozenset(probe.when.resolve(total)) for name, probe in spec.probe.items()}
        self._spec, self._engine, self._dataset, self._watch = spec, engine, dataset, watch
        example = dataset.train.x[:EXAMPLE] if spec.probe else None
        self._probe_model = copy_for_probes(engine.model, example)
        self.seen = NOTHING if example is None else look(self._probe_model, example)
        unseen = (*self.seen.unseen, *unknown_statistics(self._probe_model))
        self.seen = replace(self.seen, unseen=unseen)

    def due(self, step: int) -> dict[str, ProbeSpec]:
        """The probes that measure when `step` steps are done, by name."""
        return {name: probe for name, probe in self._spec.probe.items() if step in self.steps[name]}

    def needs(self, step: int) -> set[str]:
        """The parts of a snapshot that the due probes declare."""
        return set[str]().union(*(probe.parts for probe in self.due(step).values()))

    def copy_state(self, step: int, params: Tensors) -> dict[str, Any]:
        """The parts of the state that the due probes need, copied, because the next step changes them.

        params: a copy of the engine's.
        """
        needed, engine = self.needs(step), self._engine
        parts: dict[str, Any] = {"observed": self._observe(step), "params": engine.by_name(params)}
        if "start" in needed:
            parts["start"] = engine.by_name(engine.start)
        if "network" in needed:
            parts["network"] = {
                "buffers": {name: b.clone() for name, b in engine.buffers().items()},
                "batch": engine.batch(step),
                "probe_index": engine.probe_index,
                "lr": engine.learning_rate(step),
            }
        return parts

    def measure(self, step: int, parts: Mapping[str, Any], record: Record) -> None:
        """Record what the due probes measure, and keep what they remember.

        Args:
            parts: the result of `copy_state`, and the `grads` and `update` of the next step if a probe needs them.
        """
        memory = self._engine.memory
        for name, probe in self.due(step).items():
            with self._count_for(name):
                own = {"observed": parts["observed"].get(name), "memory": memory.get(name, {})}
                needed = {part: value for part, value in {**parts, **own}.items() if part in probe.parts}
                measured, memory[name] = self._engine.map(lambda of_run, probe=probe: self._use(probe, of_run), needed)
                for metric, by_layer in measured.items():
                    record.add(step, "", metric, by_layer)
        with self._watch("probes"):
            record.flush()

    def measure_now(self, step: int, record: Record) -> None:
        """Record what the due probes measure of the engine as it is, for an engine that is not needed any more."""
        params = [piece.clone() for piece in self._engine.params]
        state = self.copy_state(step, params)
        if self.needs(step) & {"grads", "update"}:
            _, grads = self._engine.step_with_grads(step)
            change = [now - then for now, then in zip(self._engine.params, params, strict=True)]
            state |= {"grads": self._engine.by_name(grads), "update": self._engine.by_name(change)}
        self.measure(step, state, record)

    def _use(
        self, probe: ProbeSpec, parts: Mapping[str, Any]
    ) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """What the probe measures of one run, by metric and layer, and what it remembers."""
        if "network" in parts:
            fixed = self._probe_model, self.seen, self._spec.loss, self._dataset
            size = self._spec.evaluation.batch_size
            parts = {**parts, "network": Network(*fixed, **parts["network"], evaluation_batch=size)}
        snapshot = Snapshot(seen=self.seen, **parts)
        measured = {metric: dict(by_layer) for metric, by_layer in probe.measure(snapshot).items()}
        return measured, dict(probe.remember(snapshot)) if "memory" in parts else {}

    @torch.no_grad()
    def _observe(self, step: int) -> dict[str, ByLayer]:
        """What each probe keeps of each layer. Probes with the same mode share a forward pass."""
        size = self._spec.evaluation.batch_size  # with one, there are no running statistics to replace
        by_mode: dict[Mode, dict[str, ProbeSpec]] = {}
        for name, probe in self.due(step).items():
            if "observed" in probe.parts:
                first = step == 0 and size is None
                mode: Mode = "batch" if first and probe.statistics == "running" else probe.statistics
                by_mode.setdefault(mode, {})[name] = probe
        engine, index = self._engine, self._engine.probe_index
        samples = index.ndim - 1  # the dimension of the samples
        observed: dict[str, ByLayer] = {}
        for mode, together in by_mode.items():
            with self._count_for(*together):
                one = partial(observe, self._probe_model, self.seen, mode, together)
                of_run = engine.by_name(engine.params), engine.buffers()
                count = len(in_parts(index.movedim(samples, 0), size if mode == "running" else None))
                xs = (self._dataset.train.x[part] for part in index.tensor_split(count, samples))
                parts = [engine.map(one, *of_run, x) for x in xs]
                observed |= tree_map(lambda *of_parts: torch.cat(of_parts, samples), *parts)
        return observed

    @contextmanager
    def _count_for(self, *names: str) -> Iterator[None]:
        """Count the time inside for these probes."""
        before = self._watch.seconds["probes"]
        with self._watch("probes"):
            yield
        for name in names:
            self.seconds[name] += (self._watch.seconds["probes"] - before) / len(names)


def draw_probe_index(seed: int, dataset: Dataset) -> Tensor:
    """Draw the training images of a run's probe batch, at most 1024: indices, the same for all arms of a seed."""
    index = torch.randperm(len(dataset.train), generator=stream(seed, "probe"))[:PROBE_BATCH]
    return index.to(dataset.train.x.device)


@torch.no_grad()
def observe(
    model: nn.Module, seen: Seen, mode: Mode, probes: Probes, params: Params, buffers: Params, x: Tensor
) -> dict[str, dict[str, Tensor]]:
    """What each probe keeps of each call of an activation when a `copy_for_probes` is run on x: by probe, by layer."""
    kept: dict[str, dict[str, Tensor]] = {name: {} for name in probes}

    def keep(call: Call, z: Tensor, a: Tensor) -> None:
        z, a = call.arrange(z), call.arrange(a)
        for name, probe in probes.items():
            of_layer = probe.observe(call, z, a)
            if of_layer is not None:
                kept[name][call.name] = of_layer

    with Taps(seen.passes[mode], keep):
        out = run_in_mode(model, mode, params, buffers, x)
    keep(Call(seen.output, "output"), out, out)
    return kept
