"""A sweep as an array job: its stacks are dealt out to the tasks of one submission, on a cluster through Slurm or on
this machine. submitit writes the script, keeps the logs in `<results_dir>/slurm/` and requeues what runs out of time.
"""

from __future__ import annotations

import heapq
import os
import pickle
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

from bnstudy.sweep.forkserver import cores
from bnstudy.sweep.jobs import Job, remember, still_queued
from bnstudy.sweep.plan import Stack
from bnstudy.sweep.settings import Launcher, Settings
from bnstudy.sweep.signals import Interrupted
from bnstudy.validation import ConfigError

REQUEUES = 1000
"""How often a job may run out of time. Each time it goes on from its checkpoint, so that nothing is done in vain."""

OF_SUBMITIT = {"array_parallelism", "setup", "signal_delay_s", "srun_args", "teardown", "use_srun"}
"""Keys of `hydra.launcher.extra` that speak to submitit; the others are options of sbatch."""


# -------------------------------------------------------------------------------------------------- inside a job


@dataclass(frozen=True)
class ArrayTask:
    """What one job does. The stacks stay pickled until the job stands where the command stood, since their specs may
    be classes of the user's own, from files in that directory."""

    directory: str
    paths: tuple[str, ...]
    pickled: bytes

    @classmethod
    def of(cls, settings: Settings, stacks: Sequence[Stack]) -> ArrayTask:
        return cls(os.getcwd(), tuple(sys.path), pickle.dumps((settings, tuple(stacks))))

    def __call__(self) -> None:
        os.chdir(self.directory)
        sys.path.extend(path for path in self.paths if path not in sys.path)
        if os.environ.get("SUBMITIT_EXECUTOR") == "local":
            os.setpgid(0, 0)  # away from the terminal's Ctrl-C: the command hears it, and stops its jobs in good order
        from bnstudy.sweep.signals import Interrupted
        from bnstudy.sweep.worker import work

        settings, stacks = pickle.loads(self.pickled)
        while True:
            try:
                return work(settings, stacks)
            except Interrupted as stopped:
                hand_over(stopped)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit is to start when the job comes back: the same, since the store knows how far it came."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def hand_over(stopped: Interrupted) -> None:
    """The runs in training are saved: let submitit's handler of the signal decide what becomes of the job.

    After SIGUSR2 (out of time, or preempted) it requeues the job and ends the process. SIGTERM it ignores, since by it
    Slurm announces either a preemption, with SIGUSR2 to follow, or the end, with SIGKILL to follow: then this
    returns, and training goes on for as long as it may.
    """
    from submitit.core.job_environment import SignalHandler

    handler = signal.getsignal(stopped.signum)
    if not callable(handler) or not isinstance(getattr(handler, "__self__", None), SignalHandler):
        raise stopped
    handler(stopped.signum, None)
    if os.environ.get("SUBMITIT_EXECUTOR") == "local":
        raise SystemExit(str(stopped))


# ---------------------------------------------------------------------------------------------------- submission


def shares(stacks: Sequence[Stack], jobs: int) -> list[list[Stack]]:
    """Deal the stacks out to at most `jobs` shares of nearly equal work; the longest should come first."""
    dealt: list[list[Stack]] = [[] for _ in range(min(jobs, len(stacks)))]
    loads = [(0, i) for i in range(len(dealt))]
    for stack in stacks:
        load, least = loads[0]
        dealt[least].append(stack)
        heapq.heapreplace(loads, (load + stack.steps * len(stack.runs), least))
    return dealt


def submit(settings: Settings, launcher: Launcher, stacks: Sequence[Stack]) -> list[Job]:
    """Submit the stacks, but for the runs that jobs of an earlier command still have before them.

    Returns those jobs, too. With the executor debug the work is done when this returns.

    Raises:
        ConfigError: Slurm or submitit is missing, or sbatch refuses what `hydra.launcher` asks for.
    """
    check_available(launcher.executor)
    folder = settings.results.absolute() / "slurm"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {run.spec.run_id for stack in stacks for run in stack.runs}
    queued = still_queued(folder, wanted) if launcher.executor == "slurm" else []
    rest = without(stacks, {run_id for job in queued for run_id in job.run_ids})
    return queued + (submit_new(settings, launcher, rest, folder) if rest else [])


def check_available(executor: str) -> None:
    """Raises ConfigError where the executor cannot be used."""
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise not_here(executor, "submitit is not installed; pip install submitit") from None
    for program in ("sbatch", "squeue", "srun") if executor == "slurm" else ():
        if shutil.which(program) is None:
            raise not_here(
                executor,
                f"{program} is not found; start the command on a login node of the cluster, or use "
                "hydra.launcher.executor=auto for this machine",
            )


def not_here(executor: str, why: str) -> ConfigError:
    return ConfigError(f"hydra.launcher.executor={executor} is not allowed here: {why}.")


def without(stacks: Sequence[Stack], run_ids: set[str]) -> list[Stack]:
    """The stacks less some of their runs."""
    rest = [replace(s, runs=tuple(run for run in s.runs if run.spec.run_id not in run_ids)) for s in stacks]
    return [stack for stack in rest if stack.runs]


def submit_new(settings: Settings, launcher: Launcher, stacks: Sequence[Stack], folder: Path) -> list[Job]:
    name = f"bnstudy-{uuid.uuid4().hex[:8]}"
    dealt = shares(stacks, most_jobs(launcher))
    there = for_jobs(settings, launcher)
    now = time.time()
    handles = start(launcher, folder, name, [ArrayTask.of(there, share) for share in dealt])
    if launcher.executor == "debug":
        for handle in handles:  # not handle.result(), which opens a debugger where something fails
            if error := handle.exception():
                raise error
    kept = launcher.executor != "slurm"
    jobs = [
        Job(h.job_id, name, run_ids(share), h.paths.stderr, now, h if kept else None)
        for h, share in zip(handles, dealt, strict=True)
    ]
    if launcher.executor == "slurm":
        remember(folder, name, jobs)
    return jobs


def run_ids(stacks: Sequence[Stack]) -> tuple[str, ...]:
    return tuple(run.spec.run_id for stack in stacks for run in stack.runs)


def most_jobs(launcher: Launcher) -> int:
    """How many jobs there may be; where there is no queue, all of them run at once."""
    if launcher.executor != "local":
        return launcher.jobs
    return min(launcher.jobs, launcher.workers or max(1, cores() // launcher.cpus))


def for_jobs(settings: Settings, launcher: Launcher) -> Settings:
    """The settings as they hold in another process, perhaps on another machine."""
    there = replace(settings, threads=settings.threads or launcher.cpus)
    return replace(there, results_dir=str(settings.results.absolute()), cache_dir=str(settings.cache.absolute()))


def start(launcher: Launcher, folder: Path, name: str, tasks: Sequence[ArrayTask]) -> list[Any]:
    """Submit the tasks as one array. Raises ConfigError where sbatch refuses them."""
    import submitit
    from submitit.core.utils import FailedJobError

    requeues = {"slurm_max_num_timeout": REQUEUES, "local_max_num_timeout": REQUEUES}
    executor = submitit.AutoExecutor(folder, cluster=launcher.executor, **requeues)
    executor.update_parameters(name=name, **parameters(launcher))
    try:
        with detached(), clean_environment(), redirect_stderr(StringIO()), executor.batch():
            return [executor.submit(task) for task in tasks]
    except FailedJobError as error:
        reason = str(error).strip(" .\n").rsplit("\n", 1)[-1].removeprefix("sbatch: error: ")
        raise ConfigError(f"hydra.launcher asks for what this cluster does not give: {reason}.") from None


def parameters(launcher: Launcher) -> dict[str, Any]:
    """What submitit is to ask for."""
    extra = {key.replace("-", "_"): value for key, value in launcher.extra.items()}
    options = {k: v for k, v in extra.items() if k not in OF_SUBMITIT and v is not None and v is not False}
    asked: dict[str, Any] = {
        "timeout_min": launcher.time,
        "cpus_per_task": launcher.cpus,
        "gpus_per_node": launcher.gpus or None,
        "slurm_partition": launcher.partition,
        "slurm_account": launcher.account,
        "slurm_signal_delay_s": min(90, 15 * launcher.time),
        # From version 22.05 on srun does not take over what sbatch was asked for.
        "slurm_srun_args": [f"--cpus-per-task={launcher.cpus}"],
        "slurm_additional_parameters": {"requeue": True, **({"mem": launcher.mem} if launcher.mem else {}), **options},
    }
    return asked | {f"slurm_{key}": value for key, value in extra.items() if key in OF_SUBMITIT}


@contextmanager
def detached() -> Iterator[None]:
    """Children that are started here are not stopped by Ctrl-C or a lost terminal."""
    old = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


@contextmanager
def clean_environment() -> Iterator[None]:
    """Hide the job in which this command may itself run, but not where Slurm's configuration is."""
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf:
            os.environ["SLURM_CONF"] = conf
        yield
