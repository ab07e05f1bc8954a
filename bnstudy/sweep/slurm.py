"""A sweep as an array job of Slurm, whose tasks are workers that share its stacks.

submitit writes the script, keeps the logs in `<results_dir>/slurm/<name>/` and requeues tasks that run out of time.
Jobs execute pickles. So each submission has a new folder, which only the user can enter: no job reads a file that was
in the store before.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import submitit
from submitit.core.job_environment import SignalHandler
from submitit.core.utils import FailedJobError
from submitit.helpers import DelayedSubmission, clean_env

from bnstudy.store.links import refuse_links
from bnstudy.store.runs import Store
from bnstudy.sweep.forkserver import ignore_working_directory
from bnstudy.sweep.jobs import Submission, load_live
from bnstudy.sweep.messages import Waiting
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.progress import say
from bnstudy.sweep.settings import Launcher, Settings
from bnstudy.sweep.signals import Interrupted, LastSignal
from bnstudy.sweep.worker import work
from bnstudy.validation import ConfigError, SpecUnpickler

REQUEUES = 1000
"""How often a job may run out of time. It goes on from its checkpoints each time, so no work is lost."""

PATIENCE_SECONDS = 120.0
"""So long an idle task waits for runs that other tasks hold: twice the time after which a dead one is noticed."""

SUBMITIT_KEYS = {"array_parallelism", "setup", "signal_delay_s", "srun_args", "teardown", "use_srun"}
"""Keys of `hydra.launcher.extra` that submitit reads; the others are options of sbatch."""


@dataclass(frozen=True)
class ArrayTask:
    """The function of one job.

    directory, paths: of the command; `plan` is unpickled there, since specs may be classes from the user's files.
    plan: file with the pickled settings and stacks of the submission.
    command: name of the submission.
    """

    directory: str
    paths: tuple[str, ...]
    plan: Path
    command: str

    def __call__(self) -> None:
        os.chdir(self.directory)
        sys.path.extend(path for path in self.paths if path not in sys.path)
        with self.plan.open("rb") as file:
            settings, stacks = SpecUnpickler(file).load()
        while True:
            try:
                work(settings, stacks, print_message, LastSignal(""), self.command, patience=PATIENCE_SECONDS)
                return
            except Interrupted as stopped:
                hand_over(stopped)

    def checkpoint(self) -> DelayedSubmission:
        """Called by submitit for the requeued job: the same task, since the store holds the progress."""
        return DelayedSubmission(self)


def print_message(message: Any) -> None:
    """Write a worker's messages, but not its beats, to the job's log."""
    if isinstance(message, Waiting | str):
        say(str(message))


def hand_over(stopped: Interrupted) -> None:
    """Let submitit's signal handler decide what happens to the job, now that its runs are saved.

    After SIGUSR2 (out of time, or preempted) it requeues the job and ends the process. It ignores SIGTERM, by which
    Slurm announces either a preemption, followed by SIGUSR2, or the end, followed by SIGKILL: then this function
    returns and training goes on as long as possible.
    """
    handler = signal.getsignal(stopped.signum)
    if not callable(handler) or not isinstance(getattr(handler, "__self__", None), SignalHandler):
        raise stopped
    handler(stopped.signum, None)


def submit(settings: Settings, launcher: Launcher, stacks: Sequence[Stack]) -> list[Submission]:
    """Submit the stacks, except for runs that jobs of earlier commands still train; return those submissions, too.

    Raises:
        ConfigError: Slurm is missing, or sbatch refuses the options in `hydra.launcher`.
    """
    for program in ("sbatch", "squeue", "srun"):
        if shutil.which(program) is None:
            raise ConfigError(
                f"hydra.launcher.executor=slurm is not allowed here: {program} is not found; start the command on a "
                "login node of the cluster, or use hydra.launcher.executor=auto for this machine."
            )
    folder = settings.results.absolute() / "slurm"
    live = load_live(Store(settings.results), {run_id for stack in stacks for run_id in stack.run_ids})
    queued = {run_id for submission in live for run_id in submission.run_ids}
    rest = [stack.of(run for run in stack.runs if run.spec.run_id not in queued) for stack in stacks]
    rest = [stack for stack in rest if stack.runs]
    return [*live, submit_new(settings, launcher, rest, folder)] if rest else live


def submit_new(settings: Settings, launcher: Launcher, stacks: Sequence[Stack], folder: Path) -> Submission:
    name = f"bnstudy-{uuid.uuid4().hex[:8]}"
    own = folder / name
    refuse_links(settings.results.absolute(), [folder])
    folder.mkdir(parents=True, exist_ok=True)
    own.mkdir(mode=0o700)
    plan = own / "plan.pkl"
    there = replace(  # for other processes, on other machines
        settings,
        threads=settings.threads or launcher.cpus,
        results_dir=str(settings.results.absolute()),
        cache_dir=str(settings.cache.absolute()),
    )
    plan.write_bytes(pickle.dumps((there, tuple(stacks))))
    count = min(launcher.jobs, len(stacks))
    tasks = [ArrayTask(os.getcwd(), tuple(sys.path), plan, name)] * count
    try:
        job_ids = start_jobs(launcher, own, name, tasks)
    except ConfigError:
        shutil.rmtree(own)
        raise
    run_ids = tuple(chain.from_iterable(stack.run_ids for stack in stacks))
    submission = Submission(folder, name, job_ids, run_ids)
    submission.save()
    return submission


def start_jobs(launcher: Launcher, folder: Path, name: str, tasks: Sequence[ArrayTask]) -> tuple[str, ...]:
    """Submit the tasks as one array; return the job ids. Raises ConfigError if sbatch refuses them."""
    executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
    executor.update_parameters(name=name, **parameters(launcher))
    try:
        with clean_environment(), ignore_working_directory(), redirect_stderr(StringIO()), executor.batch():
            jobs = [executor.submit(task) for task in tasks]
    except FailedJobError as error:
        reason = str(error).strip(" .\n").rsplit("\n", 1)[-1].removeprefix("sbatch: error: ")
        raise ConfigError(f"hydra.launcher has options that this cluster does not allow: {reason}.") from None
    return tuple(job.job_id for job in jobs)


def parameters(launcher: Launcher) -> dict[str, Any]:
    """submitit's parameters."""
    extra = {key.replace("-", "_"): value for key, value in launcher.extra.items()}
    options = {k: v for k, v in extra.items() if k not in SUBMITIT_KEYS and v is not None and v is not False}
    chosen: dict[str, Any] = {
        "timeout_min": launcher.time,
        "cpus_per_task": launcher.cpus,
        "gpus_per_node": launcher.gpus or None,
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "slurm_signal_delay_s": min(90, 15 * launcher.time),
        # From version 22.05 on srun does not inherit the option of sbatch.
        "slurm_srun_args": [f"--cpus-per-task={launcher.cpus}"],
        "slurm_additional_parameters": {"requeue": True, **({"mem": launcher.mem} if launcher.mem else {}), **options},
    }
    return chosen | {f"slurm_{key}": value for key, value in extra.items() if key in SUBMITIT_KEYS}


@contextmanager
def clean_environment() -> Iterator[None]:
    """Hide the job in which this command may itself run, but keep the location of Slurm's configuration."""
    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf:
            os.environ["SLURM_CONF"] = conf
        yield
