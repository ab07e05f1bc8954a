"""The serial engine: one run, plain autograd. The reference that every other engine is tested against."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.data import BatchStream, Dataset
from bnstudy.probes import Snapshot
from bnstudy.spec import ProbeSpec, RunSpec
from bnstudy.train.record import Record
from bnstudy.train.state import (
    CHANCE_MARGIN,
    Outcome,
    Stopwatch,
    build_model,
    evaluate,
    flatten_,
    layer_weights,
    observe,
    probe_batch,
    views,
)


class SerialRun:
    """One run in training.

    `step` is the number of updates done. A state "at step t" has been measured at every scheduled update before t
    and not yet at t, so a checkpoint may be taken between any two steps.
    """

    beat_seconds = 0.5

    def __init__(self, spec: RunSpec, dataset: Dataset, device: torch.device, compiled: bool = False) -> None:
        """Raises ConfigError where spec and data do not fit."""
        self.spec, self.dataset, self.device = spec, dataset, device
        self.batches = BatchStream(dataset, spec.data.augment, spec.batch_size, spec.seed)
        self.total = spec.total_steps(len(dataset.train.y))
        self.model = build_model(spec, dataset).to(device).train()
        self.params = flatten_(self.model)
        self.slots = {name: torch.zeros_like(self.params) for name in spec.optim.slots()}
        self.record = Record(self.total, device)
        self.watch = Stopwatch(device)
        self.step = 0
        self.bad: tuple[int, str] | None = None
        self._parameters = list(self.model.parameters())
        self._layers = layer_weights(self.model)
        self._probe_x = probe_batch(spec, dataset)
        self._evaluations = frozenset(spec.evaluation.when.updates(self.total))
        self._probes = {name: frozenset(probe.when.updates(self.total)) for name, probe in spec.probe.items()}
        self._due = sorted(self._evaluations.union(*self._probes.values()))
        self._loss = self._compiled_loss() if compiled else self._plain_loss

    # ------------------------------------------------------------------------------------------------ the step

    def _plain_loss(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.model(x), y)

    def _compiled_loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        # Dynamo keeps a few compilations of one function and then falls back to eager without a word.
        torch.compiler.reset()
        return torch.compile(self._plain_loss)

    def _update(self) -> tuple[Tensor, Tensor]:
        """Change the state by one update; returns the loss and the flat gradient that it came from."""
        x, y = self.batches(self.step)
        if self.spec.precision == "bf16":
            with torch.autocast(self.device.type, torch.bfloat16):
                loss = self._loss(x, y)
        else:
            loss = self._loss(x, y)
        grads = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, self._parameters)])
        self.spec.optim.update_(self.params, grads, self.slots, self._lr(), self.step + 1)
        return loss.detach(), grads

    def _lr(self) -> float:
        return self.spec.lr * self.spec.schedule.factor(self.step, self.total)

    def _advance(self) -> None:
        loss, _ = self._update()
        self.record.losses[self.step] = loss
        self.step += 1

    # ------------------------------------------------------------------------------------------------ the run

    def train(self, beat: Callable[[SerialRun], None] = lambda _: None) -> Outcome:
        """Train to the end, or to where it diverges. `beat` is called twice a second or so, between two steps."""
        due = iter([update for update in self._due if update >= self.step])
        tick = next(due)
        next_beat = time.perf_counter() + self.beat_seconds
        begin = self.watch.now()
        while self.bad is None:
            if self.step == tick:
                self._clock(begin)
                self._measure()
                if tick == self.total or self.bad is not None:
                    break
                tick = next(due)
                begin = self.watch.now()
            else:
                self._advance()
            if time.perf_counter() > next_beat:
                self._clock(begin)
                beat(self)
                begin = self.watch.now()
                next_beat = time.perf_counter() + self.beat_seconds
        return self._outcome()

    def _clock(self, begin: float) -> None:
        self.watch.seconds["training"] += self.watch.now() - begin

    def _measure(self) -> None:
        """Evaluate and probe as scheduled for this step and, unless it is the last, make the next update."""
        step = self.step
        self.record.timing.append((step, self.watch.seconds["training"]))
        if step in self._evaluations:
            with self.watch("evaluation"):
                self._evaluate()
        self._probe({name: self.spec.probe[name] for name, updates in self._probes.items() if step in updates})
        with self.watch("probes"):
            self.record.flush()
        self.bad = self.record.first_bad_step(self.step)

    def _evaluate(self) -> None:
        pictures = None if self.step == self.total else self.spec.evaluation.pictures
        for split in ("val", "test"):
            loss, accuracy = evaluate(self.model, getattr(self.dataset, split), pictures)
            self.record.add(self.step, split, "loss", {"": loss})
            self.record.add(self.step, split, "accuracy", {"": accuracy})
        self.record.add(self.step, "", "lr", {"": torch.tensor(self._lr(), device=self.device)})

    def _probe(self, probes: dict[str, ProbeSpec]) -> None:
        step = self.step
        with self.watch("probes"):
            tapping = {name: probe for name, probe in probes.items() if probe.needs_activations}
            observed = observe(self.model, tapping, self._probe_x) if tapping else {}
        with self.watch("training"):
            base = self._watched_update(any(probe.needs_update for probe in probes.values()))
        with self.watch("probes"):
            for name, probe in probes.items():
                snapshot = Snapshot(**base, layers=self._layers, observed=observed.get(name, {}))
                for metric, by_layer in probe.measure(snapshot).items():
                    self.record.add(step, "", metric, by_layer)

    def _watched_update(self, wanted: bool) -> dict[str, dict[str, Tensor]]:
        """Make the next update, keeping what it was made from. After the last step it is made only for the probes
        that want it, and undone."""
        before = self.params.clone()
        seen = {"params": self._named(before)}
        if self.step < self.total:
            loss, grads = self._update()
            change = self.params - before
            self.record.losses[self.step] = loss
            self.step += 1
        elif wanted:
            with self._undone():
                _, grads = self._update()
                change = self.params - before
        else:
            return seen
        return {**seen, "grads": self._named(grads), "update": self._named(change)}

    @contextmanager
    def _undone(self) -> Iterator[None]:
        kept = [t.clone() for t in self._tensors()]
        yield
        for tensor, value in zip(self._tensors(), kept, strict=True):
            tensor.copy_(value)

    def _tensors(self) -> list[Tensor]:
        return [self.params, *self.slots.values(), *self.model.buffers()]

    def _named(self, flat: Tensor) -> dict[str, Tensor]:
        names = [name for name, _ in self.model.named_parameters()]
        return dict(zip(names, views(flat, self._parameters), strict=True))

    # ------------------------------------------------------------------------------------------------ the end

    def _outcome(self) -> Outcome:
        until = self.total if self.bad is None else self.bad[0]
        record = self.record
        accuracies = record.series("val", "accuracy", until)
        if self.bad is None and accuracies[-1][1] < 1 / self.dataset.classes + CHANCE_MARGIN:
            self.bad = self.total, "final validation accuracy below chance + 5 points"
        best_step, best = max(accuracies, key=lambda row: row[1]) if accuracies else (0, math.nan)
        tests = dict(record.series("test", "accuracy", until))
        return Outcome(
            status="finished" if self.bad is None else "diverged",
            diverged_step=None if self.bad is None else self.bad[0],
            diverged_because=None if self.bad is None else self.bad[1],
            metrics=record.metrics(until, self.batches.steps_per_epoch),
            timing=record.timings(until),
            final={
                "train_loss": float(record.losses[max(0, until - self.batches.steps_per_epoch) : until + 1].mean()),
                **{f"{s}_{m}": record.latest(s, m, until) for s in ("val", "test") for m in ("loss", "accuracy")},
            },
            best={"val_accuracy": best, "step": best_step, "test_accuracy": tests.get(best_step, math.nan)},
            seconds={**self.watch.seconds, "total": sum(self.watch.seconds.values())},
        )

    # ------------------------------------------------------------------------------------------------ resume

    def state(self) -> dict[str, Any]:
        """All that the rest of the run depends on, as tensors and plain data."""
        return {
            "step": self.step,
            "params": self.params,
            "slots": self.slots,
            "buffers": dict(self.model.named_buffers()),
            "record": self.record.state(),
            "seconds": self.watch.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state made by `state`.

        Raises:
            KeyError, RuntimeError: it does not fit this run; nothing can be said of the run's state then.
        """
        self.step = state["step"]
        self.params.copy_(state["params"])
        for name, slot in self.slots.items():
            slot.copy_(state["slots"][name])
        for name, buffer in self.model.named_buffers():
            buffer.copy_(state["buffers"][name])
        self.record.load(state["record"])
        self.watch.seconds.update(state["seconds"])
