"""Submissions to Slurm: what they train, in which states their jobs are, and waiting for their runs.

Jobs store what they train, so nothing is lost if the command ends. `<results_dir>/slurm/<name>.json` lists the jobs and
runs of a submission, whose own files are in the folder `<name>` beside it.

States are read from squeue: sacct, which submitit uses, needs an accounting database that not every cluster has.
"""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from bnstudy.store.files import write_json
from bnstudy.store.runs import Store
from bnstudy.sweep.messages import last_line, recorded_error
from bnstudy.sweep.signals import StopFlag
from bnstudy.validation import ConfigError

log = logging.getLogger(__name__)

_JOB_ID = re.compile(r"\d+(_\d+)?")

LOOK_SECONDS = 2.0
"""Between two looks at the store."""

SQUEUE_SECONDS = 10.0
"""Between two calls of squeue."""

SETTLE_SECONDS = 5.0
"""After the end of a job, its files may take this long to appear on a shared file system."""

MAX_LOOKS = 500
"""So many runs are looked for at a time, in turns: a file server may be slow."""

ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"}
ENDED |= {"REVOKED", "TIMEOUT"}
"""Slurm's final job states."""

GONE = "GONE"
"""The state of a job that Slurm has forgotten, as it does some minutes after the job's end."""


@dataclass(frozen=True)
class Submission:
    """An array job whose tasks train these runs together.

    name: in the queue; also the id of the command that its workers belong to.
    job_ids: as Slurm writes them: 12_3 is the fourth task of array 12.
    """

    folder: Path
    name: str
    job_ids: tuple[str, ...]
    run_ids: tuple[str, ...]

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.json"

    def log(self, job_id: str) -> Path:
        return self.folder / self.name / f"{job_id}_0_log.err"

    def save(self) -> None:
        write_json(self.file, {"jobs": self.job_ids, "run_ids": self.run_ids})

    @classmethod
    def load(cls, path: Path) -> Submission | None:
        """None if the file is damaged."""
        try:
            if not path.is_file():
                return None
            entries = json.loads(path.read_text(encoding="utf-8"))
            jobs = entries["jobs"]  # earlier versions wrote the runs of each job
            run_ids = entries["run_ids"] if "run_ids" in entries else chain(*jobs.values())
            found = cls(path.parent, path.stem, tuple(jobs), tuple(run_ids))
            intact = all(map(_JOB_ID.fullmatch, found.job_ids)) and all(isinstance(run, str) for run in found.run_ids)
        except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
            return None
        return found if intact else None

    def forget(self) -> None:
        """Delete its files, except the script and logs."""
        self.file.unlink(missing_ok=True)
        own = self.folder / self.name
        if not own.is_symlink():
            (own / "plan.pkl").unlink(missing_ok=True)

    def error(self, store: Store, run_id: str) -> str:
        """The error that one of its workers recorded for a run; empty if there is none."""
        return recorded_error(store.run(run_id).error, self.name)

    def states(self, known: dict[str, str]) -> dict[str, str]:
        """The state of each of its jobs."""
        # Slurm's number alone is not enough: after its state is wiped it counts from 1 again.
        return {job_id: known.get(f"{job_id} {self.name}", GONE) for job_id in self.job_ids}

    def is_over(self, known: dict[str, str]) -> bool:
        return {*self.states(known).values()} <= {*ENDED, GONE}


def load_live(store: Store, wanted: Collection[str]) -> list[Submission]:
    """The earlier submissions with pending or running jobs that train some of the wanted runs, restricted to those.

    A run that failed in a submission is left out: its tasks do not train it again. Deletes the files of submissions
    that are over.
    """
    found = []
    files = sorted((store.results_dir / "slurm").glob("*.json"))
    known = job_states() if files else {}
    for file in files:
        submission = Submission.load(file)
        if submission is None:
            log.warning("%s is damaged and was left out: delete it when its jobs have ended.", file)
        elif submission.is_over(known):
            submission.forget()
        else:
            pending = [run for run in submission.run_ids if run in wanted and not submission.error(store, run)]
            found.append(replace(submission, run_ids=tuple(pending)))
    return [submission for submission in found if submission.run_ids]


def job_states() -> dict[str, str]:
    """The states of the user's jobs by "id name", including those that ended some minutes ago.

    Raises:
        ConfigError: Slurm does not answer.
    """
    columns = "--format=%i %j|%T"
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", columns]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise ConfigError(f"hydra.launcher.executor=slurm: squeue does not answer ({reason}).") from None
    return dict(line.split("|")[:2] for line in output.splitlines())


OnProgress = Callable[[list[str], str], None]


def wait_for(store: Store, submissions: Sequence[Submission], on_progress: OnProgress) -> dict[str, str]:
    """Wait until the runs are stored or the jobs have ended.

    Args:
        on_progress: receives the ids of the runs that were stored since, and a summary of the jobs' states, about
            every two seconds.

    Returns:
        The error, by run_id, of each run that is not stored.

    Raises:
        Interrupted: a signal came; the jobs go on.
    """
    names = ",".join(sorted({submission.name for submission in submissions}))
    watcher = Watcher(store, submissions, on_progress, deque(chain(*(s.run_ids for s in submissions))))
    stop = StopFlag(
        "The jobs go on in Slurm without this command; the same command picks up what is there and waits for the rest. "
        f"scancel --name={names} stops them."
    )
    with stop.listening():
        watcher.wait(stop)
    missing = set(watcher.missing)
    return {run: watcher.error(s, run) for s in submissions for run in s.run_ids if run in missing}


@dataclass
class Watcher:
    """Looks for the runs of submissions until they are stored or the jobs have ended."""

    store: Store
    submissions: Sequence[Submission]
    on_progress: OnProgress
    missing: deque[str]
    states: dict[str, str] = field(default_factory=dict)
    updated: float = -SQUEUE_SECONDS

    def wait(self, stop: StopFlag) -> None:
        end = None
        while self.missing:
            stop.check()
            self.update_states()
            waited_for = [s for s in self.submissions if not {*self.missing}.isdisjoint(s.run_ids)]
            over = bool(self.states) and all(s.is_over(self.states) for s in waited_for)
            self.look(len(self.missing) if over else MAX_LOOKS)
            if over and end is None:
                end = time.monotonic() + SETTLE_SECONDS
            if end is not None and (self.all_explained() or time.monotonic() > end):
                return
            if self.missing:
                time.sleep(LOOK_SECONDS)

    def update_states(self) -> None:
        if time.monotonic() - self.updated < SQUEUE_SECONDS:
            return
        self.updated = time.monotonic()
        try:
            known = job_states()
        except ConfigError as error:  # until it answers, only the store is watched
            log.debug("%s", error)
            return
        over = {job: state for job, state in self.states.items() if state in ENDED}
        jobs = {f"{job} {s.name}": state for s in self.submissions for job, state in s.states(known).items()}
        self.states = jobs | over

    def look(self, count: int) -> None:
        """Look for some of the missing runs; the others come first next time."""
        new: list[str] = []
        for _ in range(min(count, len(self.missing))):
            run_id = self.missing.popleft()
            (new if self.store.is_finished(run_id) else self.missing).append(run_id)
        counts = Counter(state.lower().replace("_", " ") for state in self.states.values())
        self.on_progress(new, ", ".join(f"{n} {state}" for state, n in counts.most_common()))

    def all_explained(self) -> bool:
        """Whether each missing run has an error on record."""
        missing = {*self.missing}
        return all(s.error(self.store, run) for s in self.submissions for run in missing.intersection(s.run_ids))

    def error(self, submission: Submission, run_id: str) -> str:
        """The error that the run's worker recorded, or else the end of a job, one that did not complete if any."""
        if error := submission.error(self.store, run_id):
            return error
        states = submission.states(self.states)
        job_id = min(states, key=lambda job: ({GONE: 1, "COMPLETED": 2}.get(states[job], 0), job))
        ended = "is no longer known to Slurm" if states[job_id] == GONE else f"ended as {states[job_id]} without it"
        log = submission.log(job_id)
        return f"job {job_id} {ended}; {log}: {last_line(log) or 'empty'}"
