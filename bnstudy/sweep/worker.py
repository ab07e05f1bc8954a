"""A worker: takes stacks that nobody else trains, one after another, trains them and stores their runs.

Every worker of a sweep, whether in the command's own process, in another one or in a Slurm job, calls `work` with all
stacks of the sweep. Leases decide who trains what. A worker that finds the runs of a dead worker trains them once more,
in two parts; a run has failed if two workers of a command died with it, without a checkpoint in between.
"""

from __future__ import annotations

import math
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa
import torch

from bnstudy.data.dataset import Dataset
from bnstudy.run import RunSpec
from bnstudy.store.files import write_together
from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from bnstudy.sweep.disk import PASSING, Disk, reason
from bnstudy.sweep.fallback import is_out_of_memory, next_method
from bnstudy.sweep.machine import resolve_device, set_up_torch
from bnstudy.sweep.messages import Beat, Failure, RunDone, Send, Waiting, plural, record_error, recorded_error
from bnstudy.sweep.plan import Datasets, Stack, split
from bnstudy.sweep.request import PlannedRun
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, StopFlag
from bnstudy.sweep.stackable import one_line
from bnstudy.sweep.streams import Streams
from bnstudy.sweep.summary import summarize
from bnstudy.sweep.threads import keep_settings
from bnstudy.train import checkpoint
from bnstudy.train.loop import Training, start_serial, start_stacked
from bnstudy.train.record import Outcome
from bnstudy.train.stacked import StackedEngine
from bnstudy.validation import to_dict

Results = tuple[str, pa.Table, pa.Table, dict[str, Any]]
"""run_id, metrics, timing, summary"""

WAIT_SECONDS = 0.05
"""Shortest time between two looks at the runs that others train."""

WAIT_FACTOR = 20
"""A worker that waits sleeps for this many times as long as it takes to look, but for 10 seconds at most."""


def work(
    settings: Settings,
    stacks: Sequence[Stack],
    send: Send,
    stop: StopFlag,
    command: str,
    name: str = "worker",
    datasets: Datasets | None = None,
    patience: float = math.inf,
) -> list[Failure]:
    """Train the stacks in this process, sharing them with all other workers on the same store.

    Args:
        command: id of the command: runs that failed in another one are tried again.
        patience: as in `Worker.work`.

    Raises:
        Interrupted: a signal came; unfinished runs have a checkpoint.
    """
    device = datasets.device if datasets else resolve_device(settings)
    datasets, store = datasets or Datasets(settings.cache, device), Store(settings.results)
    with keep_settings(), stop.listening(), Leases(store, command=command) as leases:
        set_up_torch(settings, device)
        worker = Worker(settings, store, datasets, leases, stop, send, name)
        worker.work(stacks, patience)
        return worker.failures


@dataclass
class Worker:
    """Trains stacks and stores their runs. Of all workers on a store, one has a run at a time.

    name: identifies its beats.
    failures: the runs that failed here.
    _engines: the last stack's, by kind, whose programs the next one can use.
    """

    settings: Settings
    store: Store
    datasets: Datasets
    leases: Leases
    stop: StopFlag
    send: Send
    name: str = "worker"
    failures: list[Failure] = field(default_factory=list)
    _failed: set[str] = field(default_factory=set)
    _is_saving: bool = True
    _lost: set[str] = field(default_factory=set)
    _engines: dict[tuple[str, bool], StackedEngine] = field(default_factory=dict)
    _saved_at: float = 0.0
    _trained_at: float = 0.0

    def __post_init__(self) -> None:
        self._disk = Disk(self.send, self.stop)
        self._streams = Streams(self.settings.logger, self.settings.results, self.send)

    def work(self, stacks: Sequence[Stack], patience: float = math.inf) -> None:
        """Train what nobody else has, until every run is stored or has failed, here or elsewhere.

        patience: seconds without training here, after which the other workers keep what they have.
        """
        remaining, whole = list(stacks), True
        self._trained_at, announced = time.monotonic(), set[tuple[str, int]]()
        while remaining:
            begin, before = time.monotonic(), sum(len(stack.runs) for stack in remaining)
            rests = [self.train(stack, whole) for stack in remaining]
            remaining, whole = [rest for rest in rests if rest.runs], False
            now = time.monotonic()
            if sum(len(stack.runs) for stack in remaining) < before:
                continue
            if now - self._trained_at > patience:
                return
            self._announce(remaining, announced)
            for _ in range(1 + int(min(10.0, WAIT_FACTOR * (now - begin)) / WAIT_SECONDS)):
                self.stop.check()
                time.sleep(WAIT_SECONDS)

    def train(self, stack: Stack, whole: bool = False) -> Stack:
        """Train the free runs of a stack. A run that fails does not stop the others.

        whole: leave the stack alone if another worker is at its first run, so that two workers do not divide it.

        Returns: the runs that are neither stored nor failed, because other workers have them.
        """
        self.stop.check()
        self._lost = set()
        first = next((run for run in stack.runs if self._is_open(run, stack)), None)
        if first is None or (whole and self.leases.holders([first.spec.run_id])):
            return stack if first else stack.of(())
        still_open = self._open_runs(stack)
        holders = self.leases.holders(still_open.run_ids)
        for part in self._parts(still_open.of(run for run in still_open.runs if run.spec.run_id not in holders)):
            held: set[str] = set()
            try:
                held = self._take(part)
                # Another worker may have finished a run before its lease was taken.
                self._train(part.of(r for r in part.runs if r.spec.run_id in held and not self._is_done(r, stack)))
            finally:
                self.leases.release(held)
        return self._open_runs(stack)

    def _open_runs(self, stack: Stack) -> Stack:
        return stack.of(run for run in stack.runs if self._is_open(run, stack))

    def _is_open(self, run: PlannedRun, stack: Stack) -> bool:
        """Whether a run is neither stored, nor has failed in this command."""
        if run.spec.run_id in self._failed or self._is_done(run, stack):
            return False
        return not recorded_error(self.store.run(run.spec.run_id).error, self.leases.me.command)

    def _is_done(self, run: PlannedRun, stack: Stack) -> bool:
        done = self.store.is_finished(run.spec.run_id)
        if done:
            self.send(RunDone("", run.spec.run_id, stack.steps))
        return done

    def _parts(self, stack: Stack) -> list[Stack]:
        """Separate the runs that a worker died with, in halves, from the others; those of a second death fail."""
        dead = self.leases.dead_holders(stack.run_ids)
        parts = [stack.of(run for run in stack.runs if run.spec.run_id not in dead)]
        retried = [run for run in stack.runs if run.spec.run_id in dead and not dead[run.spec.run_id].deaths]
        if retried:
            self.send(f"{plural(len(retried), 'run')} of a process that died: trying once more, in parts.")
            rows = max(1, min(stack.method.rows, -(-len(retried) // 2)))
            method = replace(stack.method, rows=rows)
            parts += [replace(stack, runs=tuple(part), method=method) for part in split(retried, rows)]
        for run in stack.runs:
            if (holder := dead.get(run.spec.run_id)) and holder.deaths:
                why = f"process {holder.pid} on {holder.host} died while it trained the run, as had one before"
                self._fail(stack.of([run]), why, pid=holder.pid)
                with suppress(OSError):  # remove the lease of the dead
                    self.leases.release(self.leases.acquire([run.spec.run_id]))
        return [part for part in parts if part.runs]

    def _take(self, stack: Stack) -> set[str]:
        """Take the runs that nobody else has, or none if another worker has just taken the first.

        A run whose folder cannot be written fails alone.
        """

        def take() -> set[str]:
            held = set(self.leases.acquire(stack.run_ids[:1]))
            held |= set(self.leases.acquire(stack.run_ids[1:])) if held else set()
            specs = [run.spec for run in stack.runs if run.spec.run_id in held]
            for _, error in write_together(lambda spec: self.store.begin(spec.run_id, to_dict(spec)), specs):
                raise error
            return held

        try:
            return self._disk.write(f"The lease of {stack.title}", take)
        except OSError as failure:
            if len(stack.runs) > 1:
                return set[str]().union(*(self._take(stack.of([run])) for run in stack.runs))
            self._fail_with(stack, failure)
            self.leases.release(stack.run_ids)
            return set()

    def _announce(self, stacks: Sequence[Stack], announced: set[tuple[str, int]]) -> None:
        """Report who holds the runs that this worker waits for, each holder once."""
        self.send(Beat(self.name, "", 0, 0, 0, math.nan, math.nan))
        holders = self.leases.holders([run_id for stack in stacks for run_id in stack.run_ids]).values()
        for (host, pid), runs in Counter((holder.host, holder.pid) for holder in holders).items():
            if (host, pid) not in announced:
                announced.add((host, pid))
                self.send(Waiting(runs, pid, host))

    def _train(self, stack: Stack) -> None:
        """Train the runs together, those from checkpoints with others at the same step."""
        if not stack.runs:
            return
        try:
            checksum = self.datasets.get(stack.runs[0].spec.data).checksum
        except Interrupted:
            raise
        except Exception as failure:  # as in `_attempt`
            self._fail_with(stack, failure)
            return
        rows = 1 if stack.method.engine == "serial" else stack.method.rows
        by_step: dict[int, list[tuple[PlannedRun, Any]]] = {}
        for run in stack.runs:
            try:
                path = self.store.run(run.spec.run_id).checkpoint
                saved = checkpoint.load(path, run.spec.run_id, checksum, self.datasets.device)
            except (OSError, MemoryError) as failure:  # it may be readable another time
                self._fail_with(stack.of([run]), failure)
                continue
            by_step.setdefault(saved["step"] if saved else 0, []).append((run, saved))
        for step in sorted(by_step, reverse=True):
            for i in range(0, len(by_step[step]), rows):
                part = by_step[step][i : i + rows]
                self._attempt(stack.of(run for run, _ in part), [saved for _, saved in part])

    def _attempt(self, stack: Stack, saved: list[Any]) -> None:
        """Train runs that are at one step; if that fails, try those that remain by another method."""
        try:
            self._train_together(stack, saved)
            return
        except Interrupted:
            raise
        except Exception as failure:  # one failing run must not end the sweep: it is recorded and named
            mine = [run for run in stack.runs if run.spec.run_id not in self._lost | self._failed]
            rest = stack.of(run for run in mine if not self.store.is_finished(run.spec.run_id))
            of_disk = isinstance(failure, OSError) and failure.errno in PASSING
            other = next_method(rest, failure, self.settings) if rest.runs and not of_disk else None
            if rest.runs and other is None:
                self._fail_with(rest, failure)
            self._engines.clear()
        if other is not None:  # outside the handler, which keeps the tensors of the failed attempt in memory
            retry, message = other
            self.send(message)
            self._train(retry)

    def _fail_with(self, stack: Stack, failure: Exception) -> None:
        is_method = self.settings.engine == "stacked" and not isinstance(failure, OSError)
        hint = "; engine=auto trains one by one what cannot be stacked" if is_method else ""
        self._fail(stack, one_line(failure) + hint, traceback.format_exc())

    def _fail(self, stack: Stack, error: str, details: str = "", pid: int | None = None) -> None:
        """Record that the runs failed, here and in their folders, where other workers see it."""
        for run in stack.runs:
            with suppress(OSError):  # a full disk may be the cause
                record_error(self.store.run(run.spec.run_id).error, self.leases.me.command, error, details)
            self._failed.add(run.spec.run_id)
            self.failures.append(Failure(run.spec.run_id, error, pid))
            self.send(self.failures[-1])
        self.send(f"{stack.title} failed: {error}")

    def _train_together(self, stack: Stack, saved: list[Any]) -> None:
        dataset = self.datasets.get(stack.runs[0].spec.data)
        if stack.threads is not None:
            torch.set_num_threads(stack.threads)
        training = self._start(stack, dataset)
        if any(saved) and (error := loading_error(training, saved)):
            self._engines.clear()
            del training  # its tensors would fill the memory
            self._set_aside(stack, saved, dataset, error)
            self._train(stack)  # each run from the step that it has now
            return
        if training.step:
            name = stack.runs[0].name if len(stack.runs) == 1 else f"{len(stack.runs)} runs"
            self.send(f"{name or stack.run_ids[0]}: going on from step {training.step} of {training.total}.")
        self._send_beat(training, stack)
        self._saved_at = time.monotonic()
        self._streams.begin(stack.runs)
        try:
            training.train(partial(self._store_runs, training, stack), partial(self._beat, stack))
        finally:
            self._streams.stop(but=self._lost)
        self._trained_at = time.monotonic()

    def _set_aside(self, stack: Stack, saved: list[Any], dataset: Dataset, error: str) -> None:
        """Set aside the checkpoints that do not fit; all, if each fits alone."""
        errors = [error]
        if len(stack.runs) > 1:
            device, pairs = self.datasets.device, zip(stack.runs, saved, strict=True)
            errors = [loading_error(start_serial(run.spec, dataset, device), [state]) for run, state in pairs]
        for run, own in zip(stack.runs, errors if any(errors) else [error] * len(errors), strict=True):
            if own:
                path = self.store.run(run.spec.run_id).checkpoint
                checkpoint.set_aside(path, f"it does not fit this version: {own}")

    def _start(self, stack: Stack, dataset: Dataset) -> Training:
        specs, method, device = [run.spec for run in stack.runs], stack.method, self.datasets.device
        kind = specs[0].stack_key, method.norms_vary
        previous = self._engines.get(kind)
        self._engines.clear()
        if method.engine == "serial":
            return start_serial(specs[0], dataset, device)
        training = start_stacked(specs, dataset, device, method.norms_vary, method.compiled, previous)
        if isinstance(training.engine, StackedEngine) and method.compiled:
            self._engines[kind] = training.engine
        return training

    def _store_runs(self, training: Training, stack: Stack, left: Sequence[tuple[RunSpec, Outcome]]) -> None:
        """Store runs, except those that another worker took over meanwhile, which will store them."""
        lost = self.leases.holders([spec.run_id for spec, _ in left])
        self._lost |= lost.keys()
        results = [
            (spec.run_id, outcome.metrics, outcome.timing, summarize(training, spec, outcome, stack))
            for spec, outcome in left
            if spec.run_id not in lost
        ]
        failed = write_together(lambda own: self.store.finish(*own), results)
        self._disk.is_lost &= len(failed) == len(results)  # it takes something again
        waiting = {own[0]: own for own, _ in failed}
        self._end_runs([own for own in results if own[0] not in waiting], training)
        for own in waiting.values():
            self._store_waiting(training, stack, own)

    def _end_runs(self, results: Sequence[Results], training: Training) -> None:
        for run_id, metrics, _, summary in results:
            self._streams.finish(run_id, metrics, summary)
            self.send(RunDone(self.name, run_id, training.total))
        self.leases.release([own[0] for own in results])

    def _store_waiting(self, training: Training, stack: Stack, results: Results) -> None:
        """Store a run that the disk does not take at once."""
        run_id = results[0]
        own = stack.of(run for run in stack.runs if run.spec.run_id == run_id)
        try:
            self._disk.write(f"The results of {own.title}", lambda: self.store.finish(*results))
        except Interrupted:
            if training.step < training.total:
                self._save(training)
            else:  # measured already: measuring again would change what probes accumulate
                self.send("Runs that are not stored make the steps since their last checkpoint again.")
            raise
        except OSError as failure:  # the other runs of the stack go on
            self._fail_with(own, failure)
            self.leases.release([run_id])
        else:
            self._end_runs([results], training)

    def _beat(self, stack: Stack, training: Training) -> None:
        """Report the step, save checkpoints if they are due or a signal came, and stop after a signal."""
        self._send_beat(training, stack)
        self._streams.feed(training)
        if self.stop.signum is not None or time.monotonic() - self._saved_at > self.settings.checkpoint_seconds:
            with suppress(OSError):  # nobody is known to have taken a run over; the next beat asks again
                lost = self.leases.lost() & {spec.run_id for spec in training.specs}
                self._lost |= lost
                training.leave(lost)
            self._save(training)
            self._saved_at = time.monotonic()
        self.stop.check()

    def _save(self, training: Training) -> None:
        """Save each run that is not stored. Runs go on without a checkpoint: the next one may find room again."""
        error: Exception | None = None
        for run, spec in enumerate(training.specs):
            if self.store.is_finished(spec.run_id):
                continue
            state = training.state(run)
            try:
                path, checksum = self.store.run(spec.run_id).checkpoint, training.dataset.checksum
                checkpoint.save(path, spec.run_id, checksum, state)
            except (OSError, RuntimeError) as failure:  # torch.save has a RuntimeError for a full disk
                error = failure
        if error is not None and (self._is_saving or self.stop.signum is not None):
            then = "training goes on" if self.stop.signum is None else "steps since the last one will be made again"
            self.send(f"Checkpoints cannot be written ({reason(error)}): {then}.")
        self._is_saving = error is None

    def _send_beat(self, training: Training, stack: Stack) -> None:
        name, loss, accuracy = "", math.nan, math.nan
        if len(training.specs) == 1:
            name = next(run.name for run in stack.runs if run.spec == training.specs[0])
            loss = float(training.record.losses[training.step - 1, 0]) if training.step else math.nan
            accuracy = training.record.latest(0, "val", "accuracy", training.total)
        self.send(Beat(self.name, name, len(training.specs), training.step, training.total, loss, accuracy))


def loading_error(training: Training, saved: list[Any]) -> str:
    """Load the states; return why they do not fit, in one line. A state may be wrong in many ways."""
    try:
        training.load(saved)
    except Exception as error:
        if isinstance(error, OSError) or is_out_of_memory(error):
            raise
        return one_line(error)
    return ""
