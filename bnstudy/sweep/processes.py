"""Train a plan's stacks in worker processes on this machine."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from bnstudy.store.runs import Store
from bnstudy.sweep.forkserver import STOPPING, context, hold_signals, ignore_working_directory, without_main
from bnstudy.sweep.messages import Beat, Failure, LoggerFailed, Waiting
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.progress import Progress
from bnstudy.sweep.settings import Settings
from bnstudy.sweep.signals import Interrupted, LastSignal, StopFlag
from bnstudy.sweep.worker import work
from bnstudy.validation import SpecUnpickler

MAX_FAILED_STARTS = 3
"""So many worker processes may die before they train anything."""

END_SECONDS = 10.0
"""Time that workers have to save their runs before they are killed."""


def train_in_processes(
    settings: Settings, stacks: Sequence[Stack], workers: int, progress: Progress, command: str
) -> list[Failure]:
    """Train the stacks in worker processes.

    Raises:
        Interrupted: a signal came; finished runs are stored, unfinished ones saved.
    """
    stop = StopFlag()
    with stop.listening():
        crew = Crew(settings, stacks, min(workers, len(stacks)), progress, stop, command)
        try:
            crew.run()
        finally:
            crew.end()
        stop.check()
    return crew.all_failures()


@dataclass
class Member:
    """A worker process and our end of the pipe from it.

    reported: whether it trained anything, or reported why it could not.
    finished: whether it found nothing left to train.
    """

    process: BaseProcess
    pipe: Connection
    reported: bool = False
    finished: bool = False


@dataclass
class Crew:
    """Worker processes: starts them, shows what they report, and replaces those that die."""

    settings: Settings
    stacks: Sequence[Stack]
    workers: int
    progress: Progress
    stop: StopFlag
    command: str
    members: dict[str, Member] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    _pickled: bytes = b""
    _started: int = 0
    _failed_starts: int = 0
    _ending: bool = False
    _logger_failed: bool = False
    _deaths: dict[int, str] = field(default_factory=dict)
    _known_pids: set[int | None] = field(default_factory=set)

    def run(self) -> None:
        """Return when all workers have ended."""
        self._pickled = pickle.dumps((self.settings, self.stacks))
        for _ in range(self.workers):
            self._start()
        passed_on = False
        while self.members:
            if self.stop.signum is not None and not passed_on:
                self._signal(self.stop.signum)
                passed_on = True
            self._receive_ready()

    def all_failures(self) -> list[Failure]:
        """The failures that workers reported, with the causes of their deaths, and the runs that no worker took up."""
        found = {}
        for failure in self.failures:
            why = self._deaths.get(failure.pid) if failure.pid else None
            found[failure.run_id] = replace(failure, error=f"its process twice {why}") if why else failure
        if self._failed_starts > MAX_FAILED_STARTS:
            store = Store(self.settings.results)
            why = f"no process could be started for it: {[*self._deaths.values()][-1]}"
            run_ids = [run_id for stack in self.stacks for run_id in stack.run_ids if not store.is_finished(run_id)]
            found = {run_id: Failure(run_id, why) for run_id in run_ids} | found
        return list(found.values())

    def end(self) -> None:
        """Have the remaining workers save their runs and end. A worker lives as long as its pipe is open."""
        self._ending = True
        self._signal(signal.SIGTERM)
        last = time.monotonic() + END_SECONDS
        while self.members and time.monotonic() < last:
            self._receive_ready()
        self._signal(signal.SIGKILL)
        while self.members:
            self._receive_ready()

    def _start(self) -> None:
        self._started += 1
        name = f"worker {self._started}"
        ours, theirs = context().Pipe(duplex=False)
        arguments = (self._pickled, self.command, name, theirs)
        process = context().Process(target=run_worker, args=arguments, daemon=True)
        try:
            with hold_signals(), ignore_working_directory(), without_main():
                process.start()
        except (OSError, EOFError) as error:  # the fork server has just died; the next start makes another
            ours.close()
            self._replace(0, f"could not be started ({type(error).__name__})", name)
            return
        finally:
            theirs.close()
        self.members[name] = Member(process, ours)
        self._known_pids.add(process.pid)

    def _receive_ready(self) -> None:
        """Wait a moment for messages, and take one of each worker that has sent any."""
        ready = wait([member.pipe for member in self.members.values()], timeout=0.2)
        for name, member in list(self.members.items()):
            if member.pipe in ready:
                self._receive(name, member)

    def _receive(self, name: str, member: Member) -> None:
        """Take one message of a worker, or note its end."""
        try:
            message = member.pipe.recv()
        except (EOFError, OSError):  # the latter if it died in the middle of a message
            self._ended(name, member)
            return
        member.reported |= isinstance(message, Failure) or (isinstance(message, Beat) and message.runs > 0)
        if message is None:
            member.finished = True
        elif isinstance(message, Failure):
            self.failures.append(message)
        elif isinstance(message, LoggerFailed) and self._logger_failed:
            pass  # said by another worker
        elif not isinstance(message, Waiting):
            self._logger_failed |= isinstance(message, LoggerFailed)
            self.progress.show(message)
        elif message.pid not in self._known_pids:
            self._known_pids.add(message.pid)
            self.progress.show(message)

    def _ended(self, name: str, member: Member) -> None:
        """Replace a worker that died; the others, or its replacement, find its leases."""
        del self.members[name]
        member.process.join()
        member.pipe.close()
        self.progress.gone(name)
        if not member.finished:
            self._replace(member.process.pid or 0, describe_death(member.process.exitcode), name, member.reported)

    def _replace(self, pid: int, why: str, name: str, reported: bool = False) -> None:
        """Start another worker, unless too many died before they trained anything."""
        if self._ending or self.stop.signum is not None:
            return
        self._deaths[pid] = why
        self._failed_starts += not reported
        if self._failed_starts <= MAX_FAILED_STARTS:
            self.progress.note(f"{name.capitalize()} {why}: another one goes on with its runs.")
            self._start()

    def _signal(self, signum: int) -> None:
        # Not by `Process`, which takes a worker for dead as soon as the fork server is, its parent.
        for member in self.members.values():
            if member.process.pid:
                with suppress(ProcessLookupError):
                    os.kill(member.process.pid, signum)


def describe_death(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        by = signal.Signals(-exitcode).name
        return f"was ended by {by}" + (" (as happens when memory is short)" if by == "SIGKILL" else "")
    return f"ended with status {exitcode}"


def run_worker(pickled: bytes, command: str, name: str, pipe: Connection) -> None:
    """The main function of a worker process; its last message is None.

    pickled: the settings and all stacks, in which classes may be the user's.
    """
    stop = LastSignal()

    def send(message: Any) -> None:
        try:
            pipe.send(message)
        except OSError:  # the command is gone
            stop.signum = signal.SIGHUP

    with stop.listening():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        try:
            settings, stacks = SpecUnpickler(io.BytesIO(pickled)).load()
            work(settings, stacks, send, stop, command, name)
        except Interrupted as stopped:
            sys.exit(stopped.exit_status)
        send(None)
