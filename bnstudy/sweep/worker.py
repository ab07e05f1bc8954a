"""A worker: trains one stack after another in this process and stores the runs."""

from __future__ import annotations

import math
import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import bnstudy
from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.store.files import write_text
from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from bnstudy.sweep.machine import device_name, git_commit, prepare, resolve_device
from bnstudy.sweep.plan import Datasets, Stack
from bnstudy.sweep.progress import Beat, plural, say
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, LastSignal, StopFlag
from bnstudy.train import checkpoint
from bnstudy.train.compiled import Program
from bnstudy.train.loop import Engine
from bnstudy.train.serial import SerialRun
from bnstudy.train.stacked import StackedRun
from bnstudy.train.state import Outcome
from bnstudy.validation import to_dict

WAIT_SECONDS = 1.0
"""Between two looks at what other commands are training."""


@dataclass(frozen=True)
class Failure:
    """A run that could not be trained."""

    run_id: str
    error: str


class NotStored(OSError):  # noqa: N818
    """The disk did not take what was trained: to train it in another way would be of no help."""


@contextmanager
def storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotStored(*error.args) from error


Tell = Callable[[Any], None]
"""What is told while training: a `Beat`, `Left` or a text."""


@dataclass(frozen=True)
class Left:
    """A run has left the stack that `source` trains, stored; `updates` as in `Progress.finished`."""

    source: str
    run_id: str
    updates: int


@dataclass
class Worker:
    """Trains stacks and stores their runs. Of several workers on one store each run has one at a time.

    name: by which its beats are told from those of others.
    failures: the runs that failed here.
    elsewhere: those runs of its stacks that another living worker had at hand when this one came to them.
    """

    settings: Settings
    store: Store
    datasets: Datasets
    leases: Leases
    stop: StopFlag
    tell: Tell
    name: str = "worker"
    failures: list[Failure] = field(default_factory=list)
    elsewhere: list[Stack] = field(default_factory=list)
    _programs: dict[tuple[str, int], Program] = field(default_factory=dict)

    def do(self, stack: Stack) -> None:
        """Train what of the stack is not finished, and nobody else has at hand.

        A run that fails does not stop the others.

        Raises:
            Interrupted: a signal came; what was in training is saved.
        """
        self.stop.check()
        held: set[str] = set()
        try:
            held = self._take(stack)
            # Looked for again, now that nobody else can be at it.
            mine = [run for run in stack.runs if run.spec.run_id in held and not self._is_finished(run, stack)]
            self._train(replace(stack, runs=tuple(mine)))
        finally:
            self.leases.release(held)

    def _take(self, stack: Stack) -> set[str]:
        """Take the runs that nobody else has. One whose folder cannot be written fails, and no other with it."""
        try:
            held = set(self.leases.acquire(stack.run_ids))
            for run in stack.runs:
                if run.spec.run_id in held:
                    self.store.begin(run.spec.run_id, to_dict(run.spec))
        except OSError as failure:
            if len(stack.runs) > 1:
                return set[str]().union(*(self._take(replace(stack, runs=(run,))) for run in stack.runs))
            self._failed(stack, failure)
            with suppress(OSError):
                self.leases.release(stack.run_ids)
            return set()
        self._leave(stack, {*stack.run_ids} - held)
        return held

    def _leave(self, stack: Stack, run_ids: Collection[str]) -> None:
        """Note that somebody else has these runs of the stack at hand."""
        others = tuple(run for run in stack.runs if run.spec.run_id in run_ids)
        self.elsewhere += [replace(stack, runs=others)] if others else []

    def _is_finished(self, run: PlannedRun, stack: Stack) -> bool:
        there = self.store.is_finished(run.spec.run_id)
        if there:
            self.tell(Left(self.name, run.spec.run_id, stack.steps))
        return there

    def _train(self, stack: Stack) -> None:
        """Train the runs together, those from checkpoints with others at the same step."""
        rows = 1 if stack.shape.engine == "serial" else stack.shape.rows
        by_step: dict[int, list[tuple[PlannedRun, Any]]] = {}
        for run in stack.runs:
            try:
                saved = checkpoint.load(self._paths(run).checkpoint, run.spec.run_id, self.datasets.device)
            except (OSError, MemoryError) as failure:  # it may be readable another time
                self._failed(replace(stack, runs=(run,)), failure)
                continue
            by_step.setdefault(saved["step"] if saved else 0, []).append((run, saved))
        for step in sorted(by_step, reverse=True):
            for i in range(0, len(by_step[step]), rows):
                part = by_step[step][i : i + rows]
                together = replace(stack, runs=tuple(run for run, _ in part))
                self._attempt(together, [saved for _, saved in part])

    def _attempt(self, stack: Stack, saved: list[Any]) -> None:
        """Train runs at one step, and in smaller parts what cannot be trained like that."""
        try:
            self._train_together(stack, saved)
            return
        except Interrupted:
            raise
        except Exception as failure:  # one failing run must not take the sweep with it: it is kept and named
            others = {run_id for elsewhere in self.elsewhere for run_id in elsewhere.run_ids}
            mine = [r for r in stack.runs if r.spec.run_id not in others]
            rest = replace(stack, runs=tuple(r for r in mine if not self.store.is_finished(r.spec.run_id)))
            parts = self._smaller(rest, failure) if rest.runs else []
            if rest.runs and not parts:
                self._failed(rest, failure)
        for part in parts:
            self._train(part)

    def _smaller(self, stack: Stack, failure: Exception) -> list[Stack]:
        """What to try instead; nothing where there is nothing else to try, or a disk is to blame and not the stack."""
        if stack.shape.engine == "serial" or isinstance(failure, NotStored):
            return []
        shape = stack.shape
        if is_out_of_memory(failure) and len(stack.runs) > 1:
            self.tell(f"{len(stack.runs)} runs do not fit into memory at once: going on in halves.")
            return [replace(stack, shape=replace(shape, rows=-(-len(stack.runs) // 2), compiled=False))]
        if shape.compiled and self.settings.compile == "auto":
            self.tell(f"{named(stack)} cannot be trained compiled ({in_a_line(failure)}): going on without.")
            return [replace(stack, shape=replace(shape, compiled=False))]
        if self.settings.engine == "stacked" and len(stack.runs) == 1:
            return []
        self.tell(f"{named(stack)} cannot be stacked ({in_a_line(failure)}): going on one by one.")
        engine = "stacked" if self.settings.engine == "stacked" else "serial"
        compiled = self.settings.compile is True
        return [replace(stack, shape=replace(shape, engine=engine, rows=1, compiled=compiled))]

    def _failed(self, stack: Stack, failure: Exception) -> None:
        hint = "; engine=auto trains one by one what cannot be stacked" if self.settings.engine == "stacked" else ""
        error = in_a_line(failure) + hint
        for run in stack.runs:
            with suppress(OSError):  # a full disk may be why it failed
                write_text(self._paths(run).error, traceback.format_exc())
            self.failures.append(Failure(run.spec.run_id, error))
        self.tell(f"{named(stack)} failed: {error}")

    def _train_together(self, stack: Stack, saved: list[Any]) -> None:
        dataset = self.datasets.get(stack.runs[0].spec.data)
        engine = self._engine(stack, dataset)
        if any(saved):
            try:
                engine.load(saved)
            except (KeyError, RuntimeError, TypeError, ValueError) as error:
                for run in stack.runs:
                    path = self._paths(run).checkpoint
                    checkpoint.set_aside(path, f"it does not fit this version: {error}")
                engine = self._engine(stack, dataset)
        if engine.step:
            name = stack.runs[0].name if len(stack.runs) == 1 else f"{len(stack.runs)} runs"
            self.tell(f"{name or stack.run_ids[0]}: going on from step {engine.step} of {engine.total}.")
        self._tell_beat(engine, stack)
        engine.train(self._store_run(engine, stack), self._beat(stack))

    def _engine(self, stack: Stack, dataset: Dataset) -> Engine:
        specs, shape, device = [run.spec for run in stack.runs], stack.shape, self.datasets.device
        if shape.engine == "serial":
            return SerialRun(specs[0], dataset, device, shape.compiled)
        program = None
        if shape.compiled:
            program = self._programs.setdefault((specs[0].stack_key, shape.rows), Program(shape.rows))
        return StackedRun(specs, dataset, device, program, shape.free)

    def _store_run(self, engine: Engine, stack: Stack) -> Callable[[RunSpec, Outcome], None]:
        def done(spec: RunSpec, outcome: Outcome) -> None:
            summary = self._summary(engine, spec, outcome, stack)
            with storing():
                self.store.finish(spec.run_id, outcome.metrics, outcome.timing, summary)
            self.leases.release([spec.run_id])
            self.tell(Left(self.name, spec.run_id, engine.total))

        return done

    def _beat(self, stack: Stack) -> Callable[[Engine], None]:
        saved_at = time.monotonic()

        def beat(engine: Engine) -> None:
            nonlocal saved_at
            self._tell_beat(engine, stack)
            if self.stop.signum is not None or time.monotonic() - saved_at > self.settings.checkpoint_seconds:
                lost = self.leases.lost() & {spec.run_id for spec in engine.specs}
                self._leave(stack, lost)
                engine.leave(lost)
                for run, spec in enumerate(engine.specs):
                    with storing():
                        checkpoint.save(self.store.run(spec.run_id).checkpoint, spec.run_id, engine.state(run))
                saved_at = time.monotonic()
            self.stop.check()

        return beat

    def _tell_beat(self, engine: Engine, stack: Stack) -> None:
        alone = len(engine.specs) == 1
        name = next((run.name for run in stack.runs if alone and run.spec == engine.specs[0]), "")
        loss = float(engine.record.losses[engine.step - 1, 0]) if engine.step and alone else math.nan
        accuracy = engine.record.latest(0, "val", "accuracy", engine.total) if alone else math.nan
        self.tell(Beat(self.name, name, len(engine.specs), engine.step, engine.total, loss, accuracy))

    def _paths(self, run: PlannedRun) -> Any:
        return self.store.run(run.spec.run_id)

    def _summary(self, engine: Engine, spec: RunSpec, outcome: Outcome, stack: Stack) -> dict[str, Any]:
        data = engine.dataset
        classes = data.classes if data.is_labelled else None
        sizes = {split: len(getattr(data, split).y) for split in ("train", "val", "test")}
        return {
            "run_id": spec.run_id,
            "status": outcome.status,
            "diverged_step": outcome.diverged_step,
            "diverged_because": outcome.diverged_because,
            "steps": engine.total,
            "final": finite(outcome.final),
            "best": finite(outcome.best),
            "engine": engine.name,
            "stack_size": len(stack.runs),
            "compiled": stack.shape.compiled,
            "device": device_name(engine.device),
            "threads": torch.get_num_threads(),
            "seconds": outcome.seconds,
            "probe_seconds": outcome.probe_seconds,
            "versions": {
                "bnstudy": bnstudy.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
            },
            "git_commit": git_commit(),
            "dataset": {"name": data.name, "checksum": data.checksum, "classes": classes, **sizes},
        }


def see_to_the_rest(worker: Worker, patience: float = math.inf) -> None:
    """Wait for the runs that others had at hand, and train those that they let go of without an end.

    patience: seconds after which what others still have is left to them.
    """
    said: set[str] = set()
    end = time.monotonic() + patience
    while worker.elsewhere and time.monotonic() < end:
        waiting, worker.elsewhere = worker.elsewhere, []
        holders = worker.leases.holders([run_id for stack in waiting for run_id in stack.run_ids])
        by_place = Counter(f"process {holder.pid} on {holder.host}" for holder in holders.values())
        for place in by_place.keys() - said:
            worker.tell(f"Waiting for {plural(by_place[place], 'run')} that {place} has at hand.")
        said |= by_place.keys()
        for stack in waiting:
            free = tuple(run for run in stack.runs if run.spec.run_id not in holders)
            held = tuple(run for run in stack.runs if run.spec.run_id in holders)
            worker.elsewhere += [replace(stack, runs=held)] if held else []
            if free:
                worker.do(replace(stack, runs=free))
        if worker.elsewhere:
            worker.stop.check()
            time.sleep(WAIT_SECONDS)


def work(settings: Settings, stacks: Sequence[Stack]) -> None:
    """Train the stacks in this process, as a job of its own; what another worker has at hand is left to it.

    Raises:
        Interrupted: a signal came; what was in training is saved.
    """
    device = resolve_device(settings)
    prepare(settings, device)
    store, stop = Store(settings.results), LastSignal("")
    with stop.listening(), Leases(store) as leases:
        worker = Worker(settings, store, Datasets(settings.cache, device), leases, stop, say_text)
        for stack in stacks:
            worker.do(stack)
        # Perhaps this job itself had them, on a node that died: long enough to tell that from one at work.
        see_to_the_rest(worker, 2 * leases.patience)


def say_text(told: Any) -> None:
    """For a log: texts only."""
    if isinstance(told, str):
        say(told)


def is_out_of_memory(failure: Exception) -> bool:
    # A CPU allocation that fails is a RuntimeError of torch's.
    kinds = isinstance(failure, MemoryError | torch.OutOfMemoryError)
    return kinds or "DefaultCPUAllocator" in str(failure) or "not enough memory" in str(failure)


def named(stack: Stack) -> str:
    others = f" and {len(stack.runs) - 1} more" if len(stack.runs) > 1 else ""
    return (stack.runs[0].name or stack.run_ids[0]) + others


def in_a_line(failure: Exception) -> str:
    """What failed, without the further lines that torch may add."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: what is not a finite number is null."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
