"""Submitted jobs: which runs they do, how they stand, and waiting for them.

Jobs put what they train into the store, and it is there that a command looks for it: nothing is lost when the command
is gone. For each submission to Slurm `<results_dir>/slurm/<name>.json` says which job does which runs.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bnstudy.store.files import write_json
from bnstudy.store.runs import Store
from bnstudy.validation import ConfigError

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""Between two looks at the store."""

ASK_SECONDS = 10.0
"""Between two questions to Slurm."""

SETTLE_SECONDS = 5.0
"""How long after its end what a job wrote may take to appear on a shared file system."""

LOOKS = 500
"""At most so many runs are looked for at a time, in turns: a file server is slow to answer."""

ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT"}
"""Slurm's names for the states that a job does not leave."""

GONE = "GONE"
"""The state of a job that is not known any more: Slurm forgets a job some minutes after its end."""


@dataclass(frozen=True)
class Job:
    """A submitted job, and those of its runs that the command waits for.

    id: as Slurm writes it, 12_3 for the fourth task of array 12; for the executor local a process id.
    name: what the submission is called in the queue.
    submitted: seconds since the epoch.
    handle: submitit's object, for a job that is a child of this process.
    """

    id: str
    name: str
    run_ids: tuple[str, ...]
    log: Path
    submitted: float
    handle: Any = None


class Left(Exception):  # noqa: N818
    """A signal came while jobs were waited for."""

    def __init__(self, signum: int, sentence: str) -> None:
        super().__init__(sentence)
        self.signum, self.exit_status = signum, 128 + signum


# ------------------------------------------------------------------------------- what was submitted before


def remember(folder: Path, name: str, jobs: Sequence[Job]) -> None:
    """Note which job does which runs."""
    write_json(folder / f"{name}.json", {"submitted": jobs[0].submitted, "jobs": {j.id: j.run_ids for j in jobs}})


def still_queued(folder: Path, wanted: Collection[str]) -> list[Job]:
    """The jobs, pending or running, of earlier commands that do some of the wanted runs, with those of their runs.

    The notes on submissions that are over are deleted.
    """
    queued = []
    notes = sorted(folder.glob("*.json"))
    states = slurm_states() if notes else {}
    for note in notes:
        live = [job for job in recall(note) if states.get(key(job), GONE) not in {*ENDED, GONE}]
        if not live:
            note.unlink(missing_ok=True)
        queued += [replace(job, run_ids=tuple(r for r in job.run_ids if r in wanted)) for job in live]
    return [job for job in queued if job.run_ids]


def recall(note: Path) -> list[Job]:
    said = json.loads(note.read_text(encoding="utf-8"))
    return [
        Job(i, note.stem, tuple(runs), note.parent / f"{i}_0_log.err", said["submitted"])
        for i, runs in said["jobs"].items()
    ]


# ------------------------------------------------------------------------------------------- how they stand


def key(job: Job) -> str:
    """Slurm's number alone would not do: after its state is wiped it counts from 1 again."""
    return f"{job.id} {job.name}"


def slurm_states() -> dict[str, str]:
    """The states of the user's jobs by id and name, those that ended some minutes ago included.

    Raises:
        ConfigError: Slurm does not answer.
    """
    columns = "--format=%i %j|%T"
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", columns]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise ConfigError(f"hydra.launcher.executor=slurm: squeue does not answer ({reason}).") from None
    return {line.split("|")[0]: line.split("|")[1] for line in said.splitlines()}


def states_of(jobs: Sequence[Job]) -> dict[str, str] | None:
    """The state of each job by its key; None while Slurm does not answer."""
    if any(job.handle is not None for job in jobs):
        return {key(job): "COMPLETED" if job.handle.done() else "RUNNING" for job in jobs}
    try:
        known = slurm_states()
    except ConfigError as error:
        log.debug("%s", error)
        return None
    return {key(job): known.get(key(job), GONE) for job in jobs}


def described(states: Mapping[str, str]) -> str:
    """3 running, 29 pending."""
    return ", ".join(f"{n} {state.lower().replace('_', ' ')}" for state, n in Counter(states.values()).most_common())


# ------------------------------------------------------------------------------------------------- waiting


OnProgress = Callable[[list[str], str], None]


def watch(store: Store, jobs: Sequence[Job], on_progress: OnProgress) -> dict[str, str]:
    """Wait until the jobs' runs are in the store, or the jobs at their end.

    `on_progress` is given the ids of the runs that came in since, and how the jobs stand, every two seconds or so.

    Returns:
        Why not, by run_id, for each run that is not in the store.

    Raises:
        Left: a signal came. Jobs of Slurm's go on; those that are children of this process were stopped, and saved
            what they were training.
    """
    watcher = Watcher(store, jobs, on_progress, deque(run_id for job in jobs for run_id in job.run_ids))
    with leaving(jobs):
        watcher.wait()
        await_children(jobs, 10)
    open_runs = set(watcher.open_runs)
    return {run: why_not(store, run, job, watcher.states) for job in jobs for run in job.run_ids if run in open_runs}


@dataclass
class Watcher:
    """What is known of jobs that are waited for."""

    store: Store
    jobs: Sequence[Job]
    on_progress: OnProgress
    open_runs: deque[str]
    states: dict[str, str] = field(default_factory=dict)
    asked: float = -ASK_SECONDS

    def wait(self) -> None:
        while self.open_runs:
            self.ask()
            if self.over():
                self.look(len(self.open_runs))
                self.settle()
                return
            self.look(LOOKS)
            if self.open_runs:
                time.sleep(LOOK_SECONDS)

    def ask(self) -> None:
        patience = LOOK_SECONDS if any(job.handle is not None for job in self.jobs) else ASK_SECONDS
        if time.monotonic() - self.asked >= patience:
            over = {job: state for job, state in self.states.items() if state in ENDED}
            self.states = (states_of(self.jobs) or self.states) | over
            self.asked = time.monotonic()

    def over(self) -> bool:
        """Whether all jobs with runs to wait for have ended."""
        still = set(self.open_runs)
        waited = [job for job in self.jobs if not still.isdisjoint(job.run_ids)]
        return all(self.states.get(key(job)) in {*ENDED, GONE} for job in waited)

    def look(self, most: int) -> None:
        """Look for some of the open runs; the others are looked for first next time."""
        new: list[str] = []
        for _ in range(min(most, len(self.open_runs))):
            run_id = self.open_runs.popleft()
            (new if self.store.is_finished(run_id) else self.open_runs).append(run_id)
        self.on_progress(new, described(self.states))

    def settle(self) -> None:
        end = time.monotonic() + SETTLE_SECONDS
        while self.open_runs and not self.explained() and time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            self.look(len(self.open_runs))

    def explained(self) -> bool:
        """Whether each open run has left word of its failure."""
        return all(reported(self.store, run, job) for job in self.jobs for run in {*job.run_ids} & {*self.open_runs})


def why_not(store: Store, run_id: str, job: Job, states: Mapping[str, str]) -> str:
    """The error that the run reported, or how its job ended."""
    error = reported(store, run_id, job)
    if error:
        return error
    state = states.get(key(job), GONE)
    ended = "is no longer known to Slurm" if state == GONE else f"ended as {state} without it"
    return f"job {job.id} {ended}; {job.log}: {last_line(job.log) or 'empty'}"


def reported(store: Store, run_id: str, job: Job) -> str:
    """The last line of the traceback that the job left for the run, "" if there is none; older ones do not count."""
    path = store.run(run_id).error
    try:
        return last_line(path) if path.stat().st_mtime >= job.submitted else ""
    except OSError:
        return ""


def last_line(path: Path) -> str:
    """The last line that says something; srun only counts the dead."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("srun: ")), "")


@contextmanager
def leaving(jobs: Sequence[Job]) -> Iterator[None]:
    """Turn the signals to stop into Left, once what is ours to stop is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(signum: int, frame: Any) -> None:  # noqa: ARG001
        raise Left(signum, farewell(jobs))

    old = {s: signal.signal(s, leave) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except Left:
        for s, handler in old.items():
            signal.signal(s, handler)
        stop(jobs)
        raise
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def farewell(jobs: Sequence[Job]) -> str:
    if any(job.handle is not None for job in jobs):
        return "Stopped; the runs in training are saved, and the same command goes on where this one stopped."
    names = ",".join(sorted({job.name for job in jobs}))
    return (
        "The jobs go on in Slurm without this command; the same command picks up what is there and waits for the rest. "
        f"scancel --name={names} stops them."
    )


def stop(jobs: Sequence[Job]) -> None:
    """Have the jobs that are children of this process save what they train and end."""
    for _ in range(3):  # a job that is only just starting may miss the first signal
        live = [job for job in jobs if job.handle is not None and not job.handle.done()]
        for job in live:
            os.kill(int(job.id), signal.SIGTERM)
        await_children(live, 10)


def await_children(jobs: Sequence[Job], seconds: float) -> None:
    """Wait for the end of the jobs that are children of this process, but not for longer than this."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not all(job.handle is None or job.handle.done() for job in jobs):
        time.sleep(0.1)
