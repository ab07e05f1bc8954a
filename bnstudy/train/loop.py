"""What the engines share: the course of training, what is measured when, and what a run came to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.data.dataset import Dataset
from bnstudy.probes.base import ProbeSpec, Snapshot
from bnstudy.probes.network import Mode, Network, still
from bnstudy.run import RunSpec
from bnstudy.train.record import Record
from bnstudy.train.state import CHANCE_MARGIN, Outcome, Stopwatch, layer_weights

Done = Callable[[RunSpec, Outcome], None]
Tensors = list[Tensor]

Probed = tuple[Mapping[str, Mapping[str, Tensor]], dict[str, Tensor]]
"""What was measured of each run, by metric and layer, and what the probe notes."""


class Engine:
    """R runs in training, in step with one another; R is 1 for the serial engine.

    `specs` are the runs still in training, `step` is the number of updates done. A state "at step t" has been
    measured at every scheduled update before t and not yet at t, so a checkpoint may be taken between any two steps.

    An engine says how an update is made (`_update`), how the networks are evaluated and probed, and how runs leave;
    its parameters are `params`, pieces that the optimizer treats alike, with `slots` to go with each; a piece that is
    not trained has none.

    start: the parameters at update 0, if a probe needs them.
    memory: what probes have noted of the runs, by probe.
    probe_seconds: what each probe has taken of a run's time.
    """

    beat_seconds = 0.5
    name = ""

    model: nn.Module
    params: Tensors
    start: Tensors
    slots: list[dict[str, Tensor]]

    def __init__(self, specs: Sequence[RunSpec], dataset: Dataset, device: torch.device) -> None:
        """Raises ConfigError where specs and data do not fit."""
        self.specs, self.dataset, self.device = list(specs), dataset, device
        first = specs[0]
        self.total = first.total_steps(len(dataset.train))
        self.steps_per_epoch = len(dataset.train) // first.batch_size
        self.record = Record(self.total, len(specs), device)
        self.watch = Stopwatch(device, len(specs))
        self.step = 0
        self.start = []
        self.memory: dict[str, dict[str, Tensor]] = {}
        self.probe_seconds = dict.fromkeys(first.probe, 0.0)
        self._evaluations = frozenset(first.evaluation.when.resolve(self.total))
        self._probes = {name: frozenset(probe.when.resolve(self.total)) for name, probe in first.probe.items()}
        self._due = sorted(self._evaluations.union(*self._probes.values()))

    # ------------------------------------------------------------------------------- what an engine has to say

    def _update(self, whole: bool = True) -> tuple[Tensor, Tensors]:
        """Change the state by one update; returns the losses [R] and the gradients that it came from, in pieces.

        whole: whether those of the pieces that are not trained are wanted as well.
        """
        raise NotImplementedError

    def _advance(self) -> None:
        """Make the next update and record its loss."""
        self.record.losses[self.step] = self._update(whole=False)[0]
        self.step += 1

    def _evaluated(self, split: str, images: int | None) -> Mapping[str, Tensor]:
        """Mean loss and, where there are labels, accuracy (share) of each run on the first `images` of a split:
        [R] each."""
        raise NotImplementedError

    def _observed(self, probes: Mapping[str, ProbeSpec], mode: Mode) -> Mapping[str, Mapping[str, Tensor]]:
        """What each probe keeps of each layer when the networks see their probe batch: by probe, by layer."""
        raise NotImplementedError

    def _inputs_of_network(self) -> dict[str, Any]:
        """What a `Network` needs of each run: its present buffers, next batch, probe batch and learning rate."""
        raise NotImplementedError

    def _probed(self, probe: ProbeSpec, seen: Mapping[str, Any]) -> Probed:
        """What a probe makes of `seen`, the tensors of its snapshot, for each run."""
        raise NotImplementedError

    def _named(self, pieces: Tensors) -> dict[str, Tensor]:
        """Parameters, or tensors like them, by name."""
        raise NotImplementedError

    def _buffers(self) -> Mapping[str, Tensor]:
        raise NotImplementedError

    def _lr(self) -> Tensor:
        """Learning rate of each run for the next update: [R]."""
        raise NotImplementedError

    def _keep(self, runs: Sequence[int]) -> None:
        """Go on with these runs only, at least one."""
        raise NotImplementedError

    def state(self, run: int = 0) -> dict[str, Any]:
        """All that the rest of a run depends on, as tensors and plain data."""
        raise NotImplementedError

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Go on from the runs' states, all at one step.

        Raises:
            KeyError, RuntimeError: one does not fit its run; nothing can be said of the runs' state then.
        """
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------- the course

    def train(self, done: Done, beat: Callable[[Engine], None] = lambda _: None) -> None:
        """Train every run to the end, or to where it diverges.

        done: called with what a run came to as soon as it leaves.
        beat: called twice a second or so, between two steps.
        """
        due = iter([update for update in self._due if update >= self.step])
        tick = next(due)
        with self.watch("starting"):
            self._warm_up()
        next_beat = time.perf_counter() + self.beat_seconds
        begin = self.watch.now()
        while self.specs:
            if self.step == tick:
                self.watch.add("training", begin)
                self._measure(done)
                if tick == self.total:
                    break
                tick = next(due)
                begin = self.watch.now()
            else:
                self._advance()
            if time.perf_counter() > next_beat and self.specs:
                self.watch.add("training", begin)
                beat(self)
                begin = self.watch.now()
                next_beat = time.perf_counter() + self.beat_seconds

    def _warm_up(self) -> None:
        """Make the next update and undo it: what torch loads, and compiles, with the first one is no part of training,
        where it would be charged to the arm that happens to be the first."""
        if self.specs and self.step < self.total:
            with self._undone():
                self._advance()
                self.step -= 1

    def _measure(self, done: Done) -> None:
        """Evaluate and probe as scheduled for this step and, unless it is the last, make the next update. Runs that
        have diverged leave; after the last step all do."""
        step = self.step
        self.record.timing.append((step, self.watch.seconds["training"]))
        if step in self._evaluations:
            with self.watch("evaluation"):
                self._evaluate()
        self._probe({name: self.specs[0].probe[name] for name, updates in self._probes.items() if step in updates})
        with self.watch("probes"):
            self.record.flush()
        self._part(self.record.first_bad_steps(self.step), done, step == self.total)

    def _part(self, bad: Mapping[int, tuple[int, str]], done: Done, ended: bool) -> None:
        """Let the runs that have diverged leave, or all where training has `ended`."""
        staying = [] if ended else [run for run in range(len(self.specs)) if run not in bad]
        for run in range(len(self.specs)):
            if run not in staying:
                done(self.specs[run], self._outcome(run, bad.get(run)))
        self._go_on_with(staying)

    def leave(self, run_ids: Collection[str]) -> None:
        """Give these runs up, as someone else trains them."""
        staying = [run for run, spec in enumerate(self.specs) if spec.run_id not in run_ids]
        self._go_on_with(staying)

    def _go_on_with(self, staying: Sequence[int]) -> None:
        if staying and len(staying) < len(self.specs):
            self._keep(staying)
            self.record.keep(staying)
        self.specs = [self.specs[run] for run in staying]
        self.watch.shared_by = max(1, len(staying))

    def _evaluate(self) -> None:
        images = None if self.step == self.total else self.specs[0].evaluation.images
        for split in ("val", "test"):
            for metric, values in self._evaluated(split, images).items():
                self.record.add(self.step, split, metric, {"": values})
        self.record.add(self.step, "", "lr", {"": self._lr()})

    def _probe(self, probes: Mapping[str, ProbeSpec]) -> None:
        step = self.step
        self._still.train()  # it has to be made outside of vmap
        observed = self._all_observed(probes)
        with self.watch("training"):
            seen = self._watched_update(probes)
        for name, probe in probes.items():
            with self._costs(name):
                own = {"observed": observed.get(name, {}), "memory": self.memory.get(name, {})}
                measured, self.memory[name] = self._probed(probe, {**seen, **own})
                for metric, by_layer in measured.items():
                    self.record.add(step, "", metric, by_layer)

    def _all_observed(self, probes: Mapping[str, ProbeSpec]) -> dict[str, Mapping[str, Tensor]]:
        """What each probe keeps of each layer; those that want the same mode are shown the same pass."""
        by_mode: dict[Mode, dict[str, ProbeSpec]] = {}
        for name, probe in probes.items():
            if probe.needs_activations:
                mode: Mode = "batch" if self.step == 0 and probe.statistics == "running" else probe.statistics
                by_mode.setdefault(mode, {})[name] = probe
        seen: dict[str, Mapping[str, Tensor]] = {}
        for mode, together in by_mode.items():
            with self._costs(*together):
                seen |= self._observed(together, mode)
        return seen

    @contextmanager
    def _costs(self, *names: str) -> Iterator[None]:
        """What is done inside is done for these probes."""
        before = self.watch.seconds["probes"]
        with self.watch("probes"):
            yield
        for name in names:
            self.probe_seconds[name] += (self.watch.seconds["probes"] - before) / len(names)

    def _watched_update(self, probes: Mapping[str, ProbeSpec]) -> dict[str, Any]:
        """Make the next update, keeping what it was made from. After the last step it is made only for the probes
        that want it, and undone."""
        before = [piece.clone() for piece in self.params]
        seen: dict[str, Any] = {"params": self._named(before)}
        if any(probe.needs_start for probe in probes.values()):
            seen["start"] = self._named(self.start)
        if any(probe.needs_network for probe in probes.values()):
            seen["inputs"] = self._inputs_of_network()
        if self.step < self.total:
            losses, grads = self._update()
            change = [after - was for after, was in zip(self.params, before, strict=True)]
            self.record.losses[self.step] = losses
            self.step += 1
        elif any(probe.needs_update for probe in probes.values()):
            with self._undone():
                _, grads = self._update()
                change = [after - was for after, was in zip(self.params, before, strict=True)]
        else:
            return seen
        return {**seen, "grads": self._named(grads), "update": self._named(change)}

    def _use(self, probe: ProbeSpec, seen: Mapping[str, Any]) -> Probed:
        """Have a probe measure one run, and note what it will want to know."""
        of_run = {key: value for key, value in seen.items() if key != "inputs"}
        if probe.needs_network:
            of_run["network"] = Network(self._still, self.specs[0].loss, self.dataset, **seen["inputs"])
        snapshot = Snapshot(**of_run, layers=self._layers)
        measured = {metric: dict(by_layer) for metric, by_layer in probe.measure(snapshot).items()}
        return measured, dict(probe.remember(snapshot)) if probe.remembers else {}

    @cached_property
    def _still(self) -> nn.Module:
        return still(self.model)

    @cached_property
    def _layers(self) -> dict[str, str]:
        return layer_weights(self.model)

    @contextmanager
    def _undone(self) -> Iterator[None]:
        tensors = [*self.params, *(t for slots in self.slots for t in slots.values()), *self._buffers().values()]
        kept = [t.clone() for t in tensors]
        yield
        for tensor, value in zip(tensors, kept, strict=True):
            tensor.copy_(value)

    # ------------------------------------------------------------------------------------------------ the end

    def _outcome(self, run: int, bad: tuple[int, str] | None) -> Outcome:
        until = self.total if bad is None else bad[0]
        record = self.record
        accuracies = record.series(run, "val", "accuracy", until)
        judged = accuracies and self.dataset.is_learnable
        if bad is None and judged and accuracies[-1][1] < 1 / self.dataset.classes + CHANCE_MARGIN:
            bad = self.total, "final validation accuracy below chance + 5 points"
        best_step, best = max(accuracies, key=lambda row: row[1]) if accuracies else (until, math.nan)
        tests = dict(record.series(run, "test", "accuracy", until))
        # Contiguous, since the mean of a column is summed in another order.
        last_epoch = record.losses[max(0, until - self.steps_per_epoch) : until + 1, run].contiguous()
        return Outcome(
            status="finished" if bad is None else "diverged",
            diverged_step=None if bad is None else bad[0],
            diverged_because=None if bad is None else bad[1],
            metrics=record.metrics(run, until, self.steps_per_epoch),
            timing=record.timings(until),
            final={
                "train_loss": float(last_epoch.mean()),
                **{f"{s}_{m}": record.latest(run, s, m, until) for s in ("val", "test") for m in ("loss", "accuracy")},
            },
            best={"val_accuracy": best, "step": best_step, "test_accuracy": tests.get(best_step, math.nan)},
            seconds={**self.watch.seconds, "total": sum(self.watch.seconds.values())},
            probe_seconds=dict(self.probe_seconds),
        )

    # ------------------------------------------------------------------------------------------------ resume

    def _state(
        self,
        run: int,
        params: Tensor,
        slots: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        memory: Mapping[str, Mapping[str, Tensor]],
    ) -> dict[str, Any]:
        """A run's state in the form that all engines share: `params` flat [P], `slots` likewise but only for those that
        are trained, the buffers by name."""
        return {
            "step": self.step,
            "params": params,
            "slots": dict(slots),
            "buffers": dict(buffers),
            "memory": {probe: dict(noted) for probe, noted in memory.items()},
            "record": self.record.state(run),
            "seconds": dict(self.watch.seconds),
            "probe_seconds": dict(self.probe_seconds),
        }

    def _load(self, states: Sequence[Mapping[str, Any]]) -> None:
        """The part of `load` that all engines share."""
        self.step = states[0]["step"]
        self.record.load([state["record"] for state in states])
        self.watch.seconds.update(states[0]["seconds"])
        self.probe_seconds.update(states[0]["probe_seconds"])
