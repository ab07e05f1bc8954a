"""Ways to have a plan's stacks done on this machine: in this process, or by several."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bnstudy.store.leases import Leases
from bnstudy.store.runs import Store
from bnstudy.sweep.forkserver import STOPPING, context, held_back, working_directory_left_out
from bnstudy.sweep.machine import prepare, resolve_device
from bnstudy.sweep.plan import Datasets, Stack, split
from bnstudy.sweep.progress import Beat, Progress, plural
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, LastSignal, StopFlag
from bnstudy.sweep.worker import Failure, Left, Worker, see_to_the_rest


def in_process(settings: Settings, stacks: Sequence[Stack], datasets: Datasets, progress: Progress) -> list[Failure]:
    """Train the stacks one after another, then what others had at hand and left unfinished.

    Raises:
        Interrupted: a signal came; what was in training is saved, what was before is stored.
    """
    with worker_here(settings, datasets, progress) as worker:
        for stack in stacks:
            worker.do(stack)
        see_to_the_rest(worker)
        return worker.failures


@contextmanager
def worker_here(settings: Settings, datasets: Datasets, progress: Progress) -> Iterator[Worker]:
    """A worker in this process that tells `progress`."""
    prepare(settings, datasets.device)
    stop, store = StopFlag(), Store(settings.results)
    with stop.listening(), Leases(store) as leases:
        yield Worker(settings, store, datasets, leases, stop, lambda told: show(progress, told))


def show(progress: Progress, told: Any) -> None:
    """Pass on what a worker tells."""
    if isinstance(told, Beat):
        progress.beat(told)
    elif isinstance(told, Left):
        progress.finished(told.source, told.updates)
    else:
        progress.note(told)


# -------------------------------------------------------------------------------------------------- processes


def processes(
    settings: Settings, stacks: Sequence[Stack], workers: int, datasets: Datasets, progress: Progress
) -> list[Failure]:
    """Have worker processes train the stacks, each taking the next when it is done with one.

    A worker that dies loses nothing that is stored: the rest of its stack is tried once more in two parts.

    Raises:
        Interrupted: a signal came; what was in training is saved, what was before is stored.
    """
    stop = StopFlag()
    with stop.listening():
        pool = Pool(settings, deque((stack, True) for stack in stacks), progress, stop)
        try:
            pool.run(min(workers, len(stacks)))
        finally:
            pool.end()
        stop.check()
    with worker_here(settings, datasets, progress) as worker:
        worker.elsewhere = pool.elsewhere
        see_to_the_rest(worker)
        return pool.failures + worker.failures


MOST_UNBORN = 3
"""So many worker processes may die before they ask for something to do."""


@dataclass
class Member:
    """A worker process, our end of the pipe to it, and the stack it was given last.

    dismissed: whether it was told that there is nothing left to do.
    """

    process: BaseProcess
    pipe: Connection
    stack: Stack | None = None
    may_retry: bool = True
    dismissed: bool = False


@dataclass
class Pool:
    """Worker processes and the stacks that wait for one; with each stack whether it may be tried again."""

    settings: Settings
    waiting: deque[tuple[Stack, bool]]
    progress: Progress
    stop: StopFlag
    members: dict[str, Member] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    elsewhere: list[Stack] = field(default_factory=list)
    _started: int = 0
    _unborn: list[str] = field(default_factory=list)

    def run(self, workers: int) -> None:
        for _ in range(workers):
            self._start()
        told = False
        while self.members:
            if self.stop.signum is not None and not told:
                self.signal(self.stop.signum)
                told = True
            ready = wait([member.pipe for member in self.members.values()], timeout=0.2)
            for name, member in list(self.members.items()):
                if member.pipe in ready:
                    self._hear(name, member)
        for stack, _ in self.waiting if self._unborn else ():
            why = f"no process could be started for it: {self._unborn[-1]}"
            self.failures += [Failure(run_id, why) for run_id in stack.run_ids]

    def _start(self) -> None:
        self._started += 1
        name = f"worker {self._started}"
        ours, theirs = context().Pipe()
        process = context().Process(target=member_main, args=(self.settings, name, theirs), daemon=True)
        with held_back(), working_directory_left_out():
            process.start()
        theirs.close()
        self.members[name] = Member(process, ours)

    def _hear(self, name: str, member: Member) -> None:
        """Take one message of a worker's, or note its end."""
        try:
            told = member.pipe.recv()
        except (EOFError, OSError):  # the latter where it died in the middle of a message
            self._ended(name, member)
            return
        if isinstance(told, Ready):
            self.failures += told.failures
            self.elsewhere += told.elsewhere
            self._give(member)
        else:
            show(self.progress, told)

    def _give(self, member: Member) -> None:
        """The next stack, or word that there is none."""
        going_on = self.waiting and self.stop.signum is None
        member.stack, member.may_retry = self._next_for(member) if going_on else (None, True)
        member.dismissed = member.stack is None
        try:
            member.pipe.send(member.stack)
        except OSError:  # it died: its pipe tells
            return

    def _next_for(self, member: Member) -> tuple[Stack, bool]:
        """The first stack that waits; but each worker keeps to what it has compiled, as long as there is some of it."""
        others = {kind_of(m.stack) for m in self.members.values() if m.stack is not None and m is not member}
        chosen = 0
        if self.waiting[0][0].shape.compiled:
            kinds = [kind_of(stack) for stack, _ in self.waiting]
            own = kind_of(member.stack) if member.stack is not None else None
            chosen = next((i for i, kind in enumerate(kinds) if kind == own), -1)
            chosen = next((i for i, kind in enumerate(kinds) if kind not in others), 0) if chosen < 0 else chosen
        found = self.waiting[chosen]
        del self.waiting[chosen]
        return found

    def _ended(self, name: str, member: Member) -> None:
        """A worker is gone: by itself when nothing was left, or dead, perhaps with a stack at hand."""
        del self.members[name]
        member.process.join()
        member.pipe.close()
        self.progress.gone(name)
        if member.dismissed or self.stop.signum is not None:
            return
        why = death(member.process.exitcode)
        if member.stack is None:
            self._unborn.append(why)
        else:
            self._died_with(member.stack, member.may_retry, f"{name.capitalize()} {why}", why)
        if self.waiting and len(self._unborn) <= MOST_UNBORN:
            self._start()

    def _died_with(self, stack: Stack, may_retry: bool, who: str, why: str) -> None:
        """Have what is not stored of the stack tried once more; a second time its runs have failed."""
        store = Store(self.settings.results)
        rest = [run for run in stack.runs if not store.is_finished(run.spec.run_id)]
        if may_retry and rest:
            self.progress.note(f"{who} with {plural(len(rest), 'run')}: trying once more, in parts.")
            rows = max(1, min(stack.shape.rows, -(-len(rest) // 2)))
            smaller = replace(stack.shape, rows=rows, compiled=stack.shape.compiled and rows > 1)
            for part in split(rest, rows):
                self.waiting.appendleft((replace(stack, runs=tuple(part), shape=smaller), False))
        else:
            self.failures += [Failure(run.spec.run_id, f"its process twice {why}") for run in rest]

    def signal(self, signum: int) -> None:
        for member in self.members.values():
            if member.process.pid and member.process.is_alive():
                os.kill(member.process.pid, signum)

    def end(self) -> None:
        """Have the workers that are left save what they train and end."""
        self.signal(signal.SIGTERM)
        for member in self.members.values():
            member.process.join(10)
            member.process.kill()
            member.process.join()


def kind_of(stack: Stack) -> tuple[str, int]:
    """What one compiled program is good for."""
    return stack.runs[0].spec.stack_key, stack.shape.rows


def death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        by = signal.Signals(-exitcode).name
        return f"was ended by {by}" + (" (as happens when memory is short)" if by == "SIGKILL" else "")
    return f"ended with status {exitcode}"


@dataclass(frozen=True)
class Ready:
    """A worker waits for its next stack; what came of the last one."""

    failures: list[Failure] = field(default_factory=list)
    elsewhere: list[Stack] = field(default_factory=list)


def member_main(settings: Settings, name: str, pipe: Connection) -> None:
    """What a worker process does: ask for a stack, train it, until there is none."""
    device = resolve_device(settings)
    prepare(settings, device)
    store, stop = Store(settings.results), LastSignal()

    def tell(told: Any) -> None:
        try:
            pipe.send(told)
        except OSError:
            stop.signum = signal.SIGHUP

    with stop.listening(), Leases(store) as leases, suppress(Interrupted, EOFError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        worker = Worker(settings, store, Datasets(settings.cache, device), leases, stop, tell, name)
        while True:
            tell(Ready(worker.failures, worker.elsewhere))
            worker.failures, worker.elsewhere = [], []
            stack = pipe.recv()
            if stack is None:
                return
            worker.do(stack)
