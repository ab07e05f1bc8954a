"""A worker: takes stacks that nobody else trains, one after another, trains them and stores their runs.

Every worker of a sweep, whether in the command's own process, in another one or in a Slurm job, calls `work` with all
stacks of the sweep. Leases decide who trains what. A worker that finds the runs of a dead worker trains them once more,
in two parts; runs that two workers died with have failed.
"""

from __future__ import annotations

import math
import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch

import bnstudy
from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.store.files import write_text
from bnstudy.store.leases import Leases
from bnstudy.store.runs import RunPaths, Store
from bnstudy.sweep.machine import device_name, git_commit, resolve_device, set_up_torch
from bnstudy.sweep.messages import Failure, RunDone, Tell, Waiting, recorded_error
from bnstudy.sweep.plan import Datasets, Stack, program_key, split
from bnstudy.sweep.progress import Beat, plural
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, StopFlag
from bnstudy.train import checkpoint
from bnstudy.train.compiled import Program
from bnstudy.train.loop import Training, start_serial, start_stacked
from bnstudy.train.record import Outcome
from bnstudy.validation import to_dict

WAIT_SECONDS = 0.05
"""Shortest time between two looks at the runs that others train."""

WAIT_FACTOR = 20
"""A worker that waits sleeps for this many times as long as it takes to look, but for 10 seconds at most."""


class NotStored(OSError):  # noqa: N818
    """The disk did not take the results: training in another way would not help."""


@contextmanager
def storing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NotStored(*error.args) from error


def work(
    settings: Settings,
    stacks: Sequence[Stack],
    tell: Tell,
    stop: StopFlag,
    since: float,
    name: str = "worker",
    datasets: Datasets | None = None,
    patience: float = math.inf,
) -> list[Failure]:
    """Train the stacks in this process, sharing them with all other workers on the same store.

    Args:
        since: start of the command, in seconds since the epoch: runs that failed earlier are tried again.
        patience: as in `Worker.work`.

    Raises:
        Interrupted: a signal came; unfinished runs have a checkpoint.
    """
    device = datasets.device if datasets else resolve_device(settings)
    set_up_torch(settings, device)
    datasets, store = datasets or Datasets(settings.cache, device), Store(settings.results)
    with stop.listening(), Leases(store, since=since) as leases:
        worker = Worker(settings, store, datasets, leases, stop, tell, name)
        worker.work(stacks, patience)
        return worker.failures


@dataclass
class Worker:
    """Trains stacks and stores their runs. Of all workers on a store, one has a run at a time.

    name: identifies its beats.
    failures: the runs that failed here.
    """

    settings: Settings
    store: Store
    datasets: Datasets
    leases: Leases
    stop: StopFlag
    tell: Tell
    name: str = "worker"
    failures: list[Failure] = field(default_factory=list)
    _failed: set[str] = field(default_factory=set)
    _lost: set[str] = field(default_factory=set)
    _programs: dict[tuple[str, int], Program] = field(default_factory=dict)

    def work(self, stacks: Sequence[Stack], patience: float = math.inf) -> None:
        """Train what nobody else has, until every run is stored or has failed, here or elsewhere.

        patience: seconds in which no run is stored, here or elsewhere, after which the others keep what they have.

        Raises:
            Interrupted: a signal came; unfinished runs have a checkpoint.
        """
        remaining, whole = list(stacks), True
        idle_since, announced = time.monotonic(), set[tuple[str, int]]()
        while remaining:
            begin, before = time.monotonic(), sum(len(stack.runs) for stack in remaining)
            rests = [self.train(stack, whole) for stack in remaining]
            remaining, whole = [rest for rest in rests if rest.runs], False
            now = time.monotonic()
            if sum(len(stack.runs) for stack in remaining) < before:
                idle_since = now
                continue
            if now - idle_since > patience:
                return
            self._announce(remaining, announced)
            self._sleep(min(10.0, WAIT_FACTOR * (now - begin)))

    def train(self, stack: Stack, whole: bool = False) -> Stack:
        """Train the free runs of a stack. A run that fails does not stop the others.

        whole: leave the stack alone if another worker is at its first run, so that two workers do not divide it.

        Returns: the runs that are neither stored nor failed, because other workers have them.
        """
        self.stop.check()
        self._lost = set()
        first = next((run for run in stack.runs if self._is_open(run, stack)), None)
        if first is None or (whole and self.leases.holders([first.spec.run_id])):
            return stack if first else replace(stack, runs=())
        runs = self._open_runs(stack)
        holders = self.leases.holders([run.spec.run_id for run in runs])
        free = replace(stack, runs=tuple(run for run in runs if run.spec.run_id not in holders))
        for part in self._parts(free):
            held: set[str] = set()
            try:
                held = self._take(part)
                # Another worker may have finished a run before its lease was taken.
                mine = [run for run in part.runs if run.spec.run_id in held and not self._is_done(run, stack)]
                self._train(replace(part, runs=tuple(mine)))
            finally:
                self.leases.release(held)
        return replace(stack, runs=self._open_runs(stack))

    def _open_runs(self, stack: Stack) -> tuple[PlannedRun, ...]:
        return tuple(run for run in stack.runs if self._is_open(run, stack))

    def _is_open(self, run: PlannedRun, stack: Stack) -> bool:
        """Whether a run is neither stored, nor has failed since the command began."""
        failed = run.spec.run_id in self._failed
        return not (failed or self._is_done(run, stack) or recorded_error(self._paths(run).error, self.leases.since))

    def _is_done(self, run: PlannedRun, stack: Stack) -> bool:
        done = self.store.is_finished(run.spec.run_id)
        if done:
            self.tell(RunDone("", run.spec.run_id, stack.steps))
        return done

    def _parts(self, stack: Stack) -> list[Stack]:
        """Separate the runs that a worker died with, in halves, from the others; those of a second death fail."""
        dead = self.leases.dead_holders(stack.run_ids)
        parts = [replace(stack, runs=tuple(run for run in stack.runs if run.spec.run_id not in dead))]
        retried = [run for run in stack.runs if run.spec.run_id in dead and not dead[run.spec.run_id].deaths]
        if retried:
            self.tell(f"{plural(len(retried), 'run')} of a process that died: trying once more, in parts.")
            rows = max(1, min(stack.method.rows, -(-len(retried) // 2)))
            method = replace(stack.method, rows=rows, compiled=stack.method.compiled and rows > 1)
            parts += [replace(stack, runs=tuple(part), method=method) for part in split(retried, rows)]
        for run in stack.runs:
            if (holder := dead.get(run.spec.run_id)) and holder.deaths:
                why = f"process {holder.pid} on {holder.host} died while it trained the run, as had one before"
                self._fail(replace(stack, runs=(run,)), why, pid=holder.pid)
                with suppress(OSError):  # remove the lease of the dead
                    self.leases.release(self.leases.acquire([run.spec.run_id]))
        return [part for part in parts if part.runs]

    def _take(self, stack: Stack) -> set[str]:
        """Take the runs that nobody else has, or none if another worker has just taken the first.

        A run whose folder cannot be written fails alone.
        """
        try:
            held = set(self.leases.acquire(stack.run_ids[:1]))
            held |= set(self.leases.acquire(stack.run_ids[1:])) if held else set()
            for run in stack.runs:
                if run.spec.run_id in held:
                    self.store.begin(run.spec.run_id, to_dict(run.spec))
        except OSError as failure:
            if len(stack.runs) > 1:
                return set[str]().union(*(self._take(replace(stack, runs=(run,))) for run in stack.runs))
            self._fail_with(stack, failure)
            with suppress(OSError):
                self.leases.release(stack.run_ids)
            return set()
        return held

    def _sleep(self, seconds: float) -> None:
        for _ in range(1 + int(seconds / WAIT_SECONDS)):
            self.stop.check()
            time.sleep(WAIT_SECONDS)

    def _announce(self, stacks: Sequence[Stack], announced: set[tuple[str, int]]) -> None:
        """Report who holds the runs that this worker waits for, each holder once."""
        self.tell(Beat(self.name, "", 0, 0, 0, math.nan, math.nan))
        holders = self.leases.holders([run_id for stack in stacks for run_id in stack.run_ids]).values()
        for (host, pid), runs in Counter((holder.host, holder.pid) for holder in holders).items():
            if (host, pid) not in announced:
                announced.add((host, pid))
                self.tell(Waiting(runs, pid, host))

    def _train(self, stack: Stack) -> None:
        """Train the runs together, those from checkpoints with others at the same step."""
        rows = 1 if stack.method.engine == "serial" else stack.method.rows
        by_step: dict[int, list[tuple[PlannedRun, Any]]] = {}
        for run in stack.runs:
            try:
                saved = checkpoint.load(self._paths(run).checkpoint, run.spec.run_id, self.datasets.device)
            except (OSError, MemoryError) as failure:  # it may be readable another time
                self._fail_with(replace(stack, runs=(run,)), failure)
                continue
            by_step.setdefault(saved["step"] if saved else 0, []).append((run, saved))
        for step in sorted(by_step, reverse=True):
            for i in range(0, len(by_step[step]), rows):
                part = by_step[step][i : i + rows]
                together = replace(stack, runs=tuple(run for run, _ in part))
                self._attempt(together, [saved for _, saved in part])

    def _attempt(self, stack: Stack, saved: list[Any]) -> None:
        """Train runs that are at one step; if that fails, try those that remain in another way."""
        try:
            self._train_together(stack, saved)
            return
        except Interrupted:
            raise
        except Exception as failure:  # one failing run must not end the sweep: it is recorded and named
            mine = [run for run in stack.runs if run.spec.run_id not in self._lost]
            rest = replace(stack, runs=tuple(run for run in mine if not self.store.is_finished(run.spec.run_id)))
            other = self._other_way(rest, failure) if rest.runs else None
            if rest.runs and other is None:
                self._fail_with(rest, failure)
        if other is not None:
            self._train(other)

    def _other_way(self, stack: Stack, failure: Exception) -> Stack | None:
        """The next method to try; None if there is none, or if the disk and not the stack is the cause."""
        method = stack.method
        if method.engine == "serial" or isinstance(failure, NotStored):
            return None
        if is_out_of_memory(failure) and len(stack.runs) > 1:
            self.tell(f"{len(stack.runs)} runs do not fit into memory at once: going on in halves.")
            return replace(stack, method=replace(method, rows=-(-len(stack.runs) // 2), compiled=False))
        if method.compiled and self.settings.compile == "auto":
            self.tell(f"{title(stack)} cannot be trained compiled ({one_line(failure)}): going on without.")
            return replace(stack, method=replace(method, compiled=False))
        if self.settings.engine == "stacked" and len(stack.runs) == 1:
            return None
        self.tell(f"{title(stack)} cannot be stacked ({one_line(failure)}): going on one by one.")
        engine = "stacked" if self.settings.engine == "stacked" else "serial"
        compiled = self.settings.compile is True
        return replace(stack, method=replace(method, engine=engine, rows=1, compiled=compiled))

    def _fail_with(self, stack: Stack, failure: Exception) -> None:
        hint = "; engine=auto trains one by one what cannot be stacked" if self.settings.engine == "stacked" else ""
        self._fail(stack, one_line(failure) + hint, traceback.format_exc())

    def _fail(self, stack: Stack, error: str, details: str = "", pid: int | None = None) -> None:
        """Record that the runs failed, here and in their folders, where other workers see it."""
        for run in stack.runs:
            with suppress(OSError):  # a full disk may be the cause
                write_text(self._paths(run).error, f"{details}{error}\n")
            self._failed.add(run.spec.run_id)
            self.failures.append(Failure(run.spec.run_id, error, pid))
            self.tell(self.failures[-1])
        self.tell(f"{title(stack)} failed: {error}")

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

    def _engine(self, stack: Stack, dataset: Dataset) -> Training:
        specs, method, device = [run.spec for run in stack.runs], stack.method, self.datasets.device
        if method.engine == "serial":
            return start_serial(specs[0], dataset, device, method.compiled)
        program = None
        if method.compiled:
            program = self._programs.setdefault(program_key(stack), Program(method.rows))
        return start_stacked(specs, dataset, device, program, method.norms_vary)

    def _store_run(self, engine: Training, stack: Stack) -> Callable[[RunSpec, Outcome], None]:
        def done(spec: RunSpec, outcome: Outcome) -> None:
            summary = self._summary(engine, spec, outcome, stack)
            with storing():
                self.store.finish(spec.run_id, outcome.metrics, outcome.timing, summary)
            self.leases.release([spec.run_id])
            self.tell(RunDone(self.name, spec.run_id, engine.total))

        return done

    def _beat(self, stack: Stack) -> Callable[[Training], None]:
        saved_at = time.monotonic()

        def beat(engine: Training) -> None:
            nonlocal saved_at
            self._tell_beat(engine, stack)
            if self.stop.signum is not None or time.monotonic() - saved_at > self.settings.checkpoint_seconds:
                lost = self.leases.lost() & {spec.run_id for spec in engine.specs}
                self._lost |= lost
                engine.leave(lost)
                for run, spec in enumerate(engine.specs):
                    with storing():
                        checkpoint.save(self.store.run(spec.run_id).checkpoint, spec.run_id, engine.state(run))
                saved_at = time.monotonic()
            self.stop.check()

        return beat

    def _tell_beat(self, engine: Training, stack: Stack) -> None:
        alone = len(engine.specs) == 1
        name = next((run.name for run in stack.runs if alone and run.spec == engine.specs[0]), "")
        loss = float(engine.record.losses[engine.step - 1, 0]) if engine.step and alone else math.nan
        accuracy = engine.record.latest(0, "val", "accuracy", engine.total) if alone else math.nan
        self.tell(Beat(self.name, name, len(engine.specs), engine.step, engine.total, loss, accuracy))

    def _paths(self, run: PlannedRun) -> RunPaths:
        return self.store.run(run.spec.run_id)

    def _summary(self, engine: Training, spec: RunSpec, outcome: Outcome, stack: Stack) -> dict[str, Any]:
        data = engine.dataset
        classes = data.classes if data.is_labelled else None
        sizes = {split: len(getattr(data, split).y) for split in ("train", "val", "test")}
        return {
            "run_id": spec.run_id,
            "status": outcome.status,
            "diverged_step": outcome.diverged_step,
            "diverged_because": outcome.diverged_because,
            "steps": engine.total,
            "final": drop_nonfinite(outcome.final),
            "best": drop_nonfinite(outcome.best),
            "engine": engine.name,
            "stack_size": len(stack.runs),
            "compiled": stack.method.compiled,
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


def is_out_of_memory(failure: Exception) -> bool:
    # A CPU allocation that fails raises a RuntimeError.
    kinds = isinstance(failure, MemoryError | torch.OutOfMemoryError)
    return kinds or "DefaultCPUAllocator" in str(failure) or "not enough memory" in str(failure)


def title(stack: Stack) -> str:
    others = f" and {len(stack.runs) - 1} more" if len(stack.runs) > 1 else ""
    return (stack.runs[0].name or stack.run_ids[0]) + others


def one_line(failure: Exception) -> str:
    """The type and the first line of the message: torch may add many."""
    lines = str(failure).strip().splitlines()
    return f"{type(failure).__name__}: {lines[0]}" if lines else type(failure).__name__


def drop_nonfinite(values: dict[str, float]) -> dict[str, float | None]:
    """Replace numbers that are not finite by None, since JSON has no NaN."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
